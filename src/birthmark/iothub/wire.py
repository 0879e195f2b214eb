"""IoT Hub's bytes and values: CONNECT user names, topics with their property bags, registry JSON. Both roles.

Device ids and host names in user names and topics are not percent-encoded; property bags are. Nothing here is decoded
with a plus sign meaning a space.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from birthmark.documents import Section
from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import (
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceId,
    Mail,
    Message,
    Twin,
    parse_device_id,
    thumbprint_text,
)
from birthmark.members import says_something, unread
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_der
from birthmark.pki.csr import CertificateRequest, parse_csr_text
from birthmark.text import read_json, whole_number

NEVER = "0001-01-01T00:00:00Z"
_HEX = frozenset("0123456789ABCDEF")
_THUMBPRINT_DIGITS = {40, 64}
_MAX_PROPERTIES = 64
_MAX_RID = 256
_MAX_STATUS = 2**31
_to_json = msgspec.json.Encoder().encode

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
        "`birthmark hub device ls`"
    )
    username: str


class BodyInvalidError(InvalidRequestError):
    """A request body that is not what the interface takes."""

    code = "iothub.body_invalid"
    message = "The request body is not valid: {detail}"
    cause = "The request body is not valid: {detail}."
    fix = "Compare with a device as the registry shows it: `birthmark hub device ls --json`"
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
class TwinGet:
    """A device asks for its twin; `rid` as it was sent."""

    rid: str


@dataclass(frozen=True, slots=True)
class TwinReport:
    """A device reports; `version` is that of its reported properties that it means, if it says so."""

    rid: str
    version: int | None


@dataclass(frozen=True, slots=True)
class MethodAnswer:
    """The answer to the direct method that was called as `rid`."""

    status: int
    rid: str


@dataclass(frozen=True, slots=True)
class CredentialAsk:
    """A device asks for a certificate in the place of its own; `rid` as it was sent."""

    rid: str


Topic = TelemetryTopic | TwinGet | TwinReport | MethodAnswer | CredentialAsk
CREDENTIALS = "$iothub/credentials/res/#"
_ISSUE = "$iothub/credentials/POST/issueCertificate/"
TWIN_RESPONSES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"
_GET, _REPORT, _ANSWER = "$iothub/twin/GET/", "$iothub/twin/PATCH/properties/reported/", "$iothub/methods/res/"


def devicebound(device_id: str) -> str:
    """Return the filter of messages to a device."""
    return f"devices/{device_id}/messages/devicebound/#"


def parse_topic(topic: str, device_id: str) -> Topic | None:
    """Return what a device publishes to, or None for a topic that no hub has, or that is another device's."""
    head = telemetry_topic(device_id)
    if topic.startswith(head):
        return TelemetryTopic(topic[len(head) :])
    if topic == head[:-1]:
        return TelemetryTopic("")
    return _parse_own(topic) if topic.startswith("$iothub/") else None


def _parse_own(topic: str) -> Topic | None:
    start, _, query = topic.partition("?")
    asked = dict(pair.partition("=")[::2] for pair in query.split("&"))
    rid = asked.get("$rid", "")
    if not 0 < len(rid) <= _MAX_RID:
        return None
    if start == _GET:
        return TwinGet(rid)
    if start == _REPORT:
        version = whole_number(asked["$version"]) if "$version" in asked else None
        return TwinReport(rid, version) if version is not None or "$version" not in asked else None
    if start == _ISSUE:
        return CredentialAsk(rid)
    text = start.removeprefix(_ANSWER).rstrip("/")
    number = whole_number(text.removeprefix("-")) if start.startswith(_ANSWER) else None
    if number is None or number >= _MAX_STATUS:
        return None
    return MethodAnswer(-number if text.startswith("-") else number, rid)


def twin_response_topic(status: int, rid: str, version: int | None = None) -> str:
    """Return where a twin request is answered."""
    return f"$iothub/twin/res/{status}/?$rid={rid}" + ("" if version is None else f"&$version={version}")


def credential_response_topic(status: int, rid: str) -> str:
    """Return where a device hears of the certificate that it asked for."""
    return f"$iothub/credentials/res/{status}/?$rid={rid}"


def desired_topic(version: int) -> str:
    """Return where a device hears what is desired of it."""
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}"


def method_topic(name: str, rid: str) -> str:
    """Return where a device is called."""
    return f"$iothub/methods/POST/{name}/?$rid={rid}"


def devicebound_topic(device_id: str, message_id: str, feedback: str, mail: Mail) -> str:
    """Return where a device gets a message, with its properties."""
    system: dict[str, str | None] = {"$.to": f"/devices/{device_id}/messages/deviceBound", "$.mid": message_id}
    if feedback not in {"", "none"}:
        system["iothub-ack"] = feedback
    bag = render_property_bag({**system, **mail.system, **mail.properties})
    return f"devices/{device_id}/messages/devicebound/{bag}"


def twin_for_device(twin: Twin) -> bytes:
    """Return the twin as its device sees it: without tags and metadata."""
    desired, reported = twin.desired, twin.reported
    return _to_json(
        {
            "desired": {**desired.values, "$version": desired.version},
            "reported": {**reported.values, "$version": reported.version},
        }
    )


def desired_patch(before: Twin, after: Twin, patch: object, *, replaces: bool) -> bytes | None:
    """Return what a device hears of a change of what is desired; None where nothing of it changed."""
    if before.desired.version == after.desired.version:
        return None
    values = (
        {name: value for name, value in patch.items() if not name.startswith("$")} if isinstance(patch, dict) else {}
    )
    if replaces:
        values = {name: None for name in before.desired.values if name not in after.desired.values} | values
    return _to_json({**values, "$version": after.desired.version})


def twin_json(twin: Twin, device: Device, *, is_connected: bool, last_activity: str = NEVER) -> dict[str, Any]:
    """Return the twin as the service sees it."""
    known = device_json(device, is_connected=is_connected, last_activity=last_activity, with_keys=False)
    return {
        "deviceId": twin.device_id,
        "etag": twin.etag,
        "deviceEtag": device.etag,
        "status": known["status"],
        "statusUpdateTime": known["statusUpdatedTime"],
        "connectionState": known["connectionState"],
        "lastActivityTime": last_activity,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": device.authentication.type.value,
        "x509Thumbprint": known["authentication"]["x509Thumbprint"],
        "modelId": "",
        "version": twin.version,
        "tags": twin.tags,
        "properties": {"desired": _shown(twin.desired), "reported": _shown(twin.reported)},
        "capabilities": known["capabilities"],
    }


def _shown(section: Section) -> dict[str, Any]:
    metadata = _metadata(section.at, section.version, section.stamps)
    return {**section.values, "$metadata": metadata, "$version": section.version}


def _metadata(at: int, version: int, stamps: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(at / 1_000_000, UTC)
    shown: dict[str, Any] = {"$lastUpdated": registry_time(moment) if at else NEVER}
    if at:
        shown["$lastUpdatedVersion"] = version
    for name, stamp in stamps.items():
        shown[name] = _metadata(stamp[0], stamp[1], stamp[2] if len(stamp) > 2 else {})  # noqa: PLR2004 - an object's
    return shown


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
        "connectionStateUpdatedTime": last_activity,
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
    """A Device as clients PUT it."""

    device_id: str | None = None
    status: str = "enabled"
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: _Capabilities | None = None


_TOLD_OF_DEVICE = frozenset(
    {
        *("generationId", "etag", "connectionState", "connectionStateUpdatedTime", "statusUpdatedTime"),
        *("lastActivityTime", "cloudToDeviceMessageCount"),
    }
)
"""What the registry tells, and gets back from clients that send what they read."""


class CredentialBody(msgspec.Struct):
    """What a device says that asks for a certificate: its own id, a request, and whose earlier request it replaces."""

    id: str
    csr: str
    replace: str | None = None


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """The same, read."""

    device_id: str
    csr: CertificateRequest
    replaces: str | None = None
    """The id of an earlier request that is still under way, or `*` for whichever."""


def parse_credential_request(body: bytes) -> CredentialRequest:
    """Return what a device asks for, possession of its key proven. Raise `BodyInvalidError` or `CsrRefusedError`."""
    asked = read_json(body, CredentialBody, BodyInvalidError)
    return CredentialRequest(asked.id, parse_csr_text(asked.csr), asked.replace)


def accepted_json(correlation_id: str, expires_at: datetime) -> bytes:
    """Return what is said of a request that is under way."""
    return _to_json({"correlationId": correlation_id, "operationExpires": operation_time(expires_at)})


def issued_json(correlation_id: str, chain: Sequence[str]) -> bytes:
    """Return a certificate and those above it, in base64 of DER, the root last."""
    return _to_json({"correlationId": correlation_id, "certificates": list(chain)})


def credential_error_json(number: int, message: str, tracking_id: str, now: datetime, info: Mapping[str, str]) -> bytes:
    """Return why a device gets no certificate, as the SDKs read it."""
    told = {"errorCode": number, "message": message, "trackingId": tracking_id, "timestampUtc": registry_time(now)}
    return _to_json({**told, "info": {"correlationId": tracking_id, **info}})


_CREDENTIAL_ANSWER = re.compile(r"\$iothub/credentials/res/([1-5][0-9]{2})/\?\$rid=([^&]{1,256})(?:&.*)?")


class _IssuedAnswer(msgspec.Struct):
    certificates: list[str] = []


class CredentialError(msgspec.Struct, rename="camel"):
    """Why a hub issues no certificate."""

    error_code: int = 0
    message: str = ""
    tracking_id: str = ""


def issue_topic(rid: str) -> str:
    """Return where a device asks for a certificate."""
    return f"{_ISSUE}?$rid={rid}"


def credential_request_json(device_id: str, csr: bytes) -> bytes:
    """Return what a device says that asks for a certificate, whatever became of an earlier request of its own."""
    return _to_json({"id": device_id, "csr": base64.b64encode(csr).decode(), "replace": "*"})


def parse_credential_topic(topic: str) -> tuple[int, str] | None:
    """Return status and rid of an answer; None for any other topic."""
    found = _CREDENTIAL_ANSWER.fullmatch(topic)
    return None if found is None else (int(found[1]), found[2])


def parse_issued(body: bytes) -> tuple[Certificate, ...]:
    """Return the certificates of an answer, the leaf first. Raise `BodyInvalidError`."""
    try:
        texts = read_json(body, _IssuedAnswer, BodyInvalidError).certificates
        return tuple(parse_der(base64.b64decode(one, validate=True)) for one in texts)
    except (ValueError, CertificateInvalidError) as error:
        raise BodyInvalidError(detail="certificates has what is none") from error


def parse_credential_error(body: bytes) -> CredentialError:
    """Return what an error body says; nothing when it is none."""
    try:
        return read_json(body, CredentialError, BodyInvalidError)
    except BodyInvalidError:
        return CredentialError()


class MethodCall(msgspec.Struct, rename="camel"):
    """A call as the service sends it."""

    method_name: str
    payload: Any = None
    response_timeout_in_seconds: int = 30
    connect_timeout_in_seconds: int = 0


def parse_method_call(body: bytes) -> MethodCall:
    """Return the call. Raise `BodyInvalidError`."""
    call = read_json(body, MethodCall, BodyInvalidError)
    _check_members(body, MethodCall)
    return call


def _check_members(body: bytes, kind: Any, told: frozenset[str] = frozenset()) -> None:
    if (member := unread(read_json(body, object, BodyInvalidError), kind, told)) is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")


def parse_twin_body(body: bytes) -> dict[str, Any]:
    """Return a twin, or a patch of one, as it was sent. Raise `BodyInvalidError`."""
    return read_json(body, dict[str, Any], BodyInvalidError)


class _TwinProperties(msgspec.Struct):
    desired: Any = None
    reported: Any = None


class _TwinBody(msgspec.Struct, rename="camel"):
    """A twin as the service reads it, and may send it back."""

    device_id: Any = None
    module_id: Any = None
    tags: Any = None
    properties: _TwinProperties | None = None
    status: Any = None
    status_reason: Any = None
    authentication_type: Any = None
    x509_thumbprint: Any = None
    capabilities: Any = None
    model_id: Any = None


_SET = frozenset({"tags", "properties"})
_TOLD_OF_TWIN = frozenset(
    {
        *("etag", "version", "deviceEtag", "statusUpdateTime", "connectionState", "lastActivityTime"),
        "cloudToDeviceMessageCount",
    }
)


def check_twin_members(body: dict[str, Any], shown: dict[str, Any]) -> None:
    """Raise `BodyInvalidError` for a member that a change of a twin does not change; `shown` is the twin as it is.

    What is sent back as it was read asks for nothing.
    """
    member = unread(body, _TwinBody, _TOLD_OF_TWIN)
    fixed = [field for field in msgspec.structs.fields(_TwinBody) if field.encode_name not in _SET]
    for field in fixed:
        wanted = body.get(field.encode_name)
        if says_something(wanted) and _bare(wanted) != _bare(shown.get(field.encode_name)):
            member = member or field.encode_name
    reported = (body.get("properties") or {}).get("reported")
    if says_something(reported) and _bare(reported) != _bare(shown["properties"]["reported"]):
        member = member or "properties.reported"
    if member is not None:
        raise BodyInvalidError(detail=f"{member} is nothing that a change of a twin can set, leave it out")


def _bare(value: Any) -> Any:
    """Return a value without what the service adds, or a client leaves out."""
    if not isinstance(value, dict):
        return value
    return {name: _bare(inner) for name, inner in value.items() if not name.startswith("$") and inner is not None}


def parse_device_body(body: bytes) -> tuple[DeviceBody, DeviceAuthentication]:
    """Return the body and the authentication it asks for (keys it leaves out are None). Raise `BodyInvalidError`."""
    parsed = read_json(body, DeviceBody, BodyInvalidError)
    if parsed.status not in {"enabled", "disabled"}:
        raise BodyInvalidError(detail="status must be enabled or disabled")
    _check_members(body, DeviceBody, _TOLD_OF_DEVICE)
    wanted = parsed.authentication or _Authentication()
    beside = wanted.symmetric_key if wanted.type == "selfSigned" else wanted.x509_thumbprint
    if beside is not None and beside != type(beside)():
        detail = f"authentication of type {wanted.type or 'sas'} with {type(beside).__name__.lstrip('_')}"
        raise BodyInvalidError(detail=f"{detail}: a device has one kind")
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


def operation_time(moment: datetime) -> str:
    """Return a time as a hub says when a request is over: SDKs read three digits of a second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


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
