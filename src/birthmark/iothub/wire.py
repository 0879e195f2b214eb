"""IoT Hub's bytes and values: CONNECT user names, topics with their property bags, registry JSON. Both roles.

Device ids and host names in user names and topics are not percent-encoded; property bags are. Nothing here is decoded
with a plus sign meaning a space.
"""

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import (
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceId,
    Message,
    parse_device_id,
    thumbprint_text,
)
from birthmark.text import read_json

NEVER = "0001-01-01T00:00:00Z"
_HEX = frozenset("0123456789ABCDEF")
_THUMBPRINT_DIGITS = {40, 64}
_MAX_PROPERTIES = 64

# Wire name in a property bag -> the name a reader of telemetry sees.
SYSTEM_PROPERTIES = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.on": "iothub-outputname",
    "$.exp": "absolute-expiry-time",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
}


class UserNameError(InvalidRequestError):
    """Not an IoT Hub user name."""

    code = "iothub.username_invalid"
    cause = "The MQTT user name {username} is not HOST/DEVICE/?api-version=…"
    fix = (
        "Let the Azure SDK make it; by hand it is HOST/DEVICE/?api-version=2021-04-12. The devices of the hub: "
        "`birthmark hub devices`"
    )
    username: str


class BodyInvalidError(InvalidRequestError):
    """A request body that is not what the interface takes."""

    code = "iothub.body_invalid"
    message = "The request body is not valid: {detail}"
    cause = "The request body is not valid: {detail}."
    fix = "Compare with a device as the registry shows it: `birthmark hub devices --json`"
    detail: str


class PropertyBagError(InvalidRequestError):
    """Too many properties."""

    code = "iothub.property_bag_invalid"
    cause = "The properties in the topic cannot be read: {detail}."
    fix = (
        "Percent-encode property names and values; there may be at most 64. Without properties: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST"`'
    )
    detail: str


@dataclass(frozen=True, slots=True)
class HubUser:
    """A CONNECT user name taken apart."""

    host: str
    device_id: DeviceId
    module_id: str | None
    agent: str


def is_hub_username(username: str) -> bool:
    """Say whether the user name has IoT Hub's shape; DPS and AWS have others."""
    head, mark, _ = username.partition("/?")
    return (
        bool(head)
        and head.count("/") in {1, 2}
        and "/registrations/" not in username
        and (bool(mark) or "?" not in username)
    )


def parse_username(username: str) -> HubUser:
    """Return host, device and module. Raise `UserNameError` or `DeviceIdInvalidError`."""
    head, _, query = username.partition("/?")
    parts = head.rstrip("/").split("/")
    if len(parts) not in {2, 3} or not parts[0]:
        raise UserNameError(username=username[:200])
    fields = dict(part.partition("=")[::2] for part in query.split("&"))
    module = parts[2] if len(parts) == 3 else None  # noqa: PLR2004 - host, device, module
    return HubUser(parts[0].lower(), parse_device_id(parts[1]), module, unquote(fields.get("DeviceClientType", "")))


def render_username(host: str, device_id: str, agent: str) -> str:
    """Return the CONNECT user name of a device; host and device id are not percent-encoded."""
    return f"{host}/{device_id}/?api-version=2021-04-12&DeviceClientType={quote(agent, safe='')}"


def telemetry_topic(device_id: str) -> str:
    """Return what a device's telemetry topic begins with."""
    return f"devices/{device_id}/messages/events/"


@dataclass(frozen=True, slots=True)
class TelemetryTopic:
    """A device's own telemetry; `bag` is the text of its properties."""

    bag: str


@dataclass(frozen=True, slots=True)
class TwinRequest:
    """GET of the twin, or PATCH of what is reported; `rid` as it was sent, None where it is missing or misplaced."""

    rid: str | None


@dataclass(frozen=True, slots=True)
class MethodAnswer:
    """The answer to a direct method."""


Topic = TelemetryTopic | TwinRequest | MethodAnswer
_TWIN, _METHODS = "$iothub/twin/", "$iothub/methods/"
_TWIN_REQUESTS = ("$iothub/twin/GET/?", "$iothub/twin/PATCH/properties/reported/?")


def parse_topic(topic: str, device_id: str) -> Topic | None:
    """Return what a device publishes to, or None for a topic that no hub has, or that is another device's."""
    head = telemetry_topic(device_id)
    if topic.startswith(head):
        return TelemetryTopic(topic[len(head) :])
    if topic == head[:-1]:
        return TelemetryTopic("")
    if topic.startswith(_TWIN):
        start, mark, query = topic.partition("?")
        rids = [part[5:] for part in query.split("&") if part.startswith("$rid=")]
        return TwinRequest(rids[0] if rids and start + mark in _TWIN_REQUESTS else None)
    return MethodAnswer() if topic.startswith(_METHODS) else None


def twin_response_topic(status: int, rid: str) -> str:
    """Return where a twin request is answered."""
    return f"$iothub/twin/res/{status}/?$rid={rid}"


def parse_property_bag(text: str) -> dict[str, str | None]:
    """Return names and values of `a=1&b=2` decoded; a name alone has the value None. Raise `PropertyBagError`."""
    if not text:
        return {}
    pairs = text.split("&")
    if len(pairs) > _MAX_PROPERTIES:
        raise PropertyBagError(detail=f"more than {_MAX_PROPERTIES}")
    bag: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name:
            bag[unquote(name)] = unquote(value) if equals else None
    return bag


def render_property_bag(bag: dict[str, str | None]) -> str:
    """Return the text that `parse_property_bag` reads back."""
    return "&".join(
        quote(name, safe="") if value is None else f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in bag.items()
    )


def message_of(device_id: str, bag: dict[str, str | None], payload: bytes, enqueued_micros: int) -> Message:
    """Return the message with system and application properties apart; what only a hub may set is dropped."""
    if not bag:
        return Message(device_id, enqueued_micros, payload, {}, {})
    system = {SYSTEM_PROPERTIES[name]: value for name, value in bag.items() if name in SYSTEM_PROPERTIES}
    custom = {name: value for name, value in bag.items() if not name.startswith("$.")}
    return Message(device_id, enqueued_micros, payload, system, custom)


def device_json(
    device: Device, *, is_connected: bool, last_activity: str = NEVER, with_keys: bool = True
) -> dict[str, Any]:
    """Return the registry's Device object."""
    authentication = device.authentication
    if not with_keys:
        authentication = replace(authentication, primary_key=None, secondary_key=None)
    return {
        "deviceId": device.device_id,
        "generationId": device.generation_id,
        "etag": device.etag,
        "connectionState": "Connected" if is_connected else "Disconnected",
        "status": "enabled" if device.is_enabled else "disabled",
        "statusReason": device.status_reason,
        "connectionStateUpdatedTime": NEVER,
        "statusUpdatedTime": NEVER,
        "lastActivityTime": last_activity,
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {
                "primaryKey": _b64(authentication.primary_key),
                "secondaryKey": _b64(authentication.secondary_key),
            },
            "x509Thumbprint": {
                "primaryThumbprint": thumbprint_text(authentication.primary_thumbprint),
                "secondaryThumbprint": thumbprint_text(authentication.secondary_thumbprint),
            },
            "type": authentication.type.value,
        },
        "capabilities": {"iotEdge": device.is_iot_edge},
    }


class _SymmetricKey(msgspec.Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class _Thumbprints(msgspec.Struct, rename="camel"):
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


class _Authentication(msgspec.Struct, rename="camel"):
    type: str | None = None
    symmetric_key: _SymmetricKey | None = None
    x509_thumbprint: _Thumbprints | None = None


class _Capabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool = False


class DeviceBody(msgspec.Struct, rename="camel"):
    """A Device as clients PUT it; unknown members are ignored."""

    device_id: str | None = None
    status: str = "enabled"
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: _Capabilities | None = None


def parse_device_body(body: bytes) -> tuple[DeviceBody, DeviceAuthentication]:
    """Return the body and the authentication it asks for (keys it leaves out are None). Raise `BodyInvalidError`."""
    parsed = read_json(body, DeviceBody, BodyInvalidError)
    if parsed.status not in {"enabled", "disabled"}:
        raise BodyInvalidError(detail="status must be enabled or disabled")
    wanted = parsed.authentication or _Authentication()
    if wanted.type == "selfSigned":
        prints = wanted.x509_thumbprint or _Thumbprints()
        return parsed, DeviceAuthentication(
            AuthenticationType.SELF_SIGNED,
            _thumbprint(prints.primary_thumbprint),
            _thumbprint(prints.secondary_thumbprint),
        )
    if wanted.type not in {None, "sas"}:
        raise BodyInvalidError(detail=f"authentication.type {wanted.type!r} is not served")
    keys = wanted.symmetric_key or _SymmetricKey()
    return parsed, DeviceAuthentication(
        AuthenticationType.SAS, primary_key=_key(keys.primary_key), secondary_key=_key(keys.secondary_key)
    )


def registry_time(moment: datetime) -> str:
    """Return a time as the registry writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def _thumbprint(text: str | None) -> bytes | None:
    if not text:
        return None
    clean = text.replace(":", "").upper()
    if len(clean) not in _THUMBPRINT_DIGITS or not _HEX.issuperset(clean):
        raise BodyInvalidError(detail="a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits")
    return bytes.fromhex(clean)


def _key(text: str | None) -> bytes | None:
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BodyInvalidError(detail="a symmetric key must be base64") from error


def _b64(key: bytes | None) -> str | None:
    return None if key is None else base64.b64encode(key).decode()
