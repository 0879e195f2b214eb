"""Messages as HTTP headers and bodies: system properties by name, application properties with a prefix."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from birthmark.broker.rules.device_queue import QueuedMessage
from birthmark.errors import BirthmarkError
from birthmark.iothub.http.authorization_and_errors import time_of
from birthmark.iothub.model import C2dMessage, SenderAuthentication, TelemetryMessage
from birthmark.iothub.rules.publish_refusals import BatchInvalidError
from birthmark.iothub.wire import PropertyBagError, message_of
from birthmark.untrusted_json_and_text import read_json

BATCH = "application/vnd.microsoft.iothub.json"
MAX_BATCH = 500
_APP = "iothub-app-"
_MAX_PROPERTIES = 64
_MAIL: Mapping[str, str] = {  # header -> property bag name
    "iothub-correlationid": "$.cid",
    "iothub-userid": "$.uid",
    "iothub-contenttype": "$.ct",
    "iothub-contentencoding": "$.ce",
}
_TELEMETRY: Mapping[str, str] = {
    **_MAIL,
    "iothub-messageid": "$.mid",
    "iothub-expiry": "$.exp",
    "iothub-interface-id": "$.ifid",
    "dt-subject": "$.sub",
}
_TOKEN = "!#$%&'*+-.^_`|~"  # noqa: S105 - special characters allowed in a header name
_VISIBLE = "".join(map(chr, range(0x20, 0x7F)))


class _BatchItem(msgspec.Struct, rename="camel"):
    body: str
    base64_encoded: bool = True
    properties: dict[str, str | None] = {}


def c2d_message_of(headers: Mapping[str, str], body: bytes) -> C2dMessage:
    """Return a cloud-to-device message from a request."""
    system = {name: headers[header] for header, name in _MAIL.items() if header in headers}
    return C2dMessage(body, system, {k[len(_APP) :]: value for k, value in headers.items() if k.startswith(_APP)})


def headers_of(device_id: str, message: QueuedMessage, mail: C2dMessage) -> dict[str, str]:
    """Return the HTTP headers of a message to a device; the ETag is its lock token."""
    found = {
        "ETag": f'"{message.lock}"',
        "iothub-messageid": message.id,
        "iothub-to": f"/devices/{device_id}/messages/deviceBound",
        "iothub-sequencenumber": str(message.seq),
        "iothub-enqueuedtime": time_of(message.enqueued_at),
        "iothub-expiry": time_of(message.expires_at),
        "iothub-deliverycount": str(message.deliveries - 1),
        "iothub-ack": message.feedback or "none",
    }
    found |= {header: mail.system[name] for header, name in _MAIL.items() if name in mail.system}
    found |= {_APP + quote(name, safe=_TOKEN): value for name, value in mail.properties.items()}
    return {name: quote(value, safe=_VISIBLE) for name, value in found.items()}


def telemetry_of(
    device_id: str,
    headers: Mapping[str, str],
    body: bytes,
    timestamp: int,
    authentication: SenderAuthentication = SenderAuthentication(),  # noqa: B008 (a constant)
) -> list[TelemetryMessage]:
    """Return a device's telemetry: one message, or a batch. Raise `BatchInvalidError` or `PropertyBagError`."""

    def refused(detail: str) -> BirthmarkError:
        return BatchInvalidError(device_id=device_id, detail=detail)

    if headers.get("content-type", "").partition(";")[0].strip().lower() != BATCH:
        return [message_of(device_id, _bag_of(headers.items()), body, timestamp, authentication)]
    items = read_json(body, list[_BatchItem], refused)
    if not 0 < len(items) <= MAX_BATCH:
        raise refused(f"it has {len(items)} messages, and may have 1 to {MAX_BATCH}")
    return [_message_of(device_id, item, timestamp, authentication) for item in items]


def _message_of(
    device_id: str, item: _BatchItem, timestamp: int, authentication: SenderAuthentication
) -> TelemetryMessage:
    try:
        body = base64.b64decode(item.body, validate=True) if item.base64_encoded else item.body.encode()
    except (ValueError, binascii.Error) as error:
        raise BatchInvalidError(device_id=device_id, detail="a body is neither base64 nor marked as text") from error
    properties = (
        (name.lower() if name.lower() in _TELEMETRY else name, text) for name, text in item.properties.items()
    )
    return message_of(device_id, _bag_of(properties), body, timestamp, authentication)


def _bag_of(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    bag = {
        _TELEMETRY.get(name) or name[len(_APP) :]: text
        for name, text in pairs
        if name in _TELEMETRY or name.startswith(_APP)
    }
    if len(bag) > _MAX_PROPERTIES:
        raise PropertyBagError(detail=f"more than {_MAX_PROPERTIES}")
    return bag
