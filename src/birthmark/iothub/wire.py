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
    SCOPE,
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceId,
    Identity,
    Mail,
    Message,
    Module,
    Twin,
    name_of,
    parse_name,
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
_MAX_MODEL_ID = 256
_MAX_RID = 256
_MAX_STATUS = 2**31
_MAX_PARENTS, _MAX_SCOPE = 1, 256
MAX_BULK = 100
"""Of one bulk operation ("IoT Hub quotas and throttling")."""
IMPORT_MODES = frozenset(
    {"create", "update", "updateIfMatchETag", "delete", "deleteIfMatchETag", "updateTwin", "updateTwinIfMatchETag"}
)
_MODE_OF = {mode.lower(): mode for mode in IMPORT_MODES}
"""Letter case does not count: Node's SDK says `Update` and `DeleteIfMatchETag`."""
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


MODULE = "iothub-connection-module-id"
"""The property by which the hub says which module sent a message."""


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
    model_id: str = ""

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)


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
    device_id, module_id = parse_name("/".join(parts[1:]))
    model_id = unquote(fields.get("model-id", ""))
    if len(model_id) > _MAX_MODEL_ID or not all(" " < one <= "~" for one in model_id):
        raise UserNameError(username=username[:200])
    return HubUser(parts[0].lower(), device_id, module_id, unquote(fields.get("DeviceClientType", "")), model_id)


def render_username(host: str, name: str, agent: str) -> str:
    """Return the CONNECT user name of a device, or of a module by its name; nothing of both is percent-encoded."""
    return f"{host}/{name}/?api-version=2021-04-12&DeviceClientType={quote(agent, safe='')}"


def own_topics(name: str) -> str:
    """Return what the topics of a device, or of a module by its name, begin with."""
    device_id, slash, module_id = name.partition("/")
    return f"devices/{device_id}/modules/{module_id}/" if slash else f"devices/{device_id}/"


def telemetry_topic(name: str) -> str:
    """Return what the telemetry topic of a device, or of a module by its name, begins with."""
    return f"{own_topics(name)}messages/events/"


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


def twin_json(twin: Twin, identity: Identity, *, is_connected: bool, last_activity: str = NEVER) -> dict[str, Any]:
    """Return the twin of a device or a module as the service sees it."""
    known = _identity_json(identity, is_connected=is_connected, last_activity=last_activity, with_keys=False)
    is_module = isinstance(identity, Module)
    shown = {
        "deviceId": identity.device_id,
        "moduleId": identity.module_id if isinstance(identity, Module) else None,
        "etag": twin.etag,
        "deviceEtag": identity.etag,
        "status": "enabled" if identity.is_enabled else "disabled",
        "statusUpdateTime": NEVER,
        "connectionState": known["connectionState"],
        "lastActivityTime": last_activity,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": identity.authentication.type.value,
        "x509Thumbprint": known["authentication"]["x509Thumbprint"],
        "modelId": twin.model_id,
        "version": twin.version,
        "tags": twin.tags,
        "properties": {"desired": _shown(twin.desired), "reported": _shown(twin.reported)},
        "capabilities": {"iotEdge": isinstance(identity, Device) and identity.is_iot_edge},
        "deviceScope": identity.scope if isinstance(identity, Device) else None,
        "parentScopes": list(identity.parent_scopes) if isinstance(identity, Device) else [],
    }
    return {name: value for name, value in shown.items() if is_module or name != "moduleId"}


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
    """Return names and values of `a=1&b=2` decoded; a name alone has the value None. Raise `PropertyBagError`.

    A slash in a value is encoded: one at the end is the topic's, as Node's SDK ends those of a module's outputs.
    """
    if not (text := text.removesuffix("/")):
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


def message_of(name: str, bag: dict[str, str | None], payload: bytes, enqueued_micros: int) -> Message:
    """Return the message of a device, or of a module by its name, with system and application properties apart.

    What only a hub may set is dropped. A module's message is its device's, and says of which module it is.
    """
    device_id, slash, module_id = name.partition("/")
    system = {SYSTEM_PROPERTIES[key]: value for key, value in bag.items() if key in SYSTEM_PROPERTIES}
    if slash:
        system[MODULE] = module_id
    custom = {key: value for key, value in bag.items() if not key.startswith("$.")}
    return Message(device_id, enqueued_micros, payload, system, custom)


def device_json(
    device: Device, *, is_connected: bool, last_activity: str = NEVER, with_keys: bool = True
) -> dict[str, Any]:
    """Return the registry's Device object."""
    known = _identity_json(device, is_connected=is_connected, last_activity=last_activity, with_keys=with_keys)
    return known | {
        "status": "enabled" if device.is_enabled else "disabled",
        "statusReason": device.status_reason,
        "statusUpdatedTime": NEVER,
        "capabilities": {"iotEdge": device.is_iot_edge},
        "deviceScope": device.scope,
        "parentScopes": list(device.parent_scopes),
    }


def module_json(
    module: Module, *, is_connected: bool, last_activity: str = NEVER, with_keys: bool = True
) -> dict[str, Any]:
    """Return the registry's Module object."""
    known = _identity_json(module, is_connected=is_connected, last_activity=last_activity, with_keys=with_keys)
    return known | {"moduleId": module.module_id, "managedBy": module.managed_by}


def _identity_json(identity: Identity, *, is_connected: bool, last_activity: str, with_keys: bool) -> dict[str, Any]:
    """Return what devices and modules have in common."""
    authentication = identity.authentication
    if not with_keys:
        authentication = replace(authentication, primary_key=None, secondary_key=None)
    return {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": "Connected" if is_connected else "Disconnected",
        "connectionStateUpdatedTime": last_activity,
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


class Capabilities(msgspec.Struct, rename="camel"):
    """What else a device is."""

    iot_edge: bool = False


class _TwinProperties(msgspec.Struct):
    desired: Any = None
    reported: Any = None


class BulkItem(msgspec.Struct, rename="camel"):
    """One device or module of a bulk operation (REST reference, "Bulk Registry - Update Registry")."""

    id: str
    import_mode: str = "create"
    module_id: str | None = None
    etag: str | None = msgspec.field(default=None, name="eTag")
    etag_of_device: str | None = msgspec.field(default=None, name="etag")
    """The same, as Node's SDK says it, which sends the devices as it read them."""
    twin_etag: str | None = msgspec.field(default=None, name="twinETag")
    status: str = "enabled"
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: Capabilities | None = None
    device_scope: str | None = None
    parent_scopes: list[str] | None = None
    tags: dict[str, Any] | None = None
    properties: _TwinProperties | None = None

    @property
    def twin(self) -> dict[str, Any]:
        """The part of it that a change of its twin takes."""
        desired = None if self.properties is None else self.properties.desired
        wanted: dict[str, Any] = {} if desired is None else {"properties": {"desired": desired}}
        return wanted if self.tags is None else wanted | {"tags": self.tags}

    def proof(self) -> DeviceAuthentication:
        """Return how it is to prove itself. Raise `BodyInvalidError`."""
        return _authentication_of(self.authentication)

    def body(self) -> "DeviceBody":
        """Return the device that is to be. Raise `BodyInvalidError`."""
        state = (self.id, self.status, self.status_reason, self.authentication, self.capabilities)
        return checked(DeviceBody(*state, self.device_scope, self.parent_scopes))


def parse_bulk(body: bytes) -> Sequence[BulkItem]:
    """Return what is to be done with several devices and modules, each of them once. Raise `BodyInvalidError`."""
    items = read_json(body, list[BulkItem], BodyInvalidError)
    _check_members(body, list[BulkItem], _TOLD_OF_DEVICE)
    if not 0 < len(items) <= MAX_BULK:
        raise BodyInvalidError(detail=f"there are {len(items)} devices, and may be 1 to {MAX_BULK}")
    for item in items:
        if (mode := _MODE_OF.get(item.import_mode.lower())) is None:
            raise BodyInvalidError(detail=f"importMode must be one of {', '.join(sorted(IMPORT_MODES))}")
        item.import_mode = mode
        item.etag = item.etag or item.etag_of_device
        if item.properties is not None and says_something(item.properties.reported):
            raise BodyInvalidError(detail="properties.reported is the device's to say, leave it out")
    return items


class DeviceBody(msgspec.Struct, rename="camel"):
    """A Device as clients PUT it."""

    device_id: str | None = None
    status: str = "enabled"
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: Capabilities | None = None
    device_scope: str | None = None
    parent_scopes: list[str] | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """The scopes of the gateways above it: of one that is none itself, `device_scope` is its only parent's."""
        is_edge = bool(self.capabilities and self.capabilities.iot_edge)
        of_scope = (self.device_scope,) if self.device_scope and not is_edge else ()
        return tuple(self.parent_scopes or of_scope)


class ModuleBody(msgspec.Struct, rename="camel"):
    """A Module as clients PUT it."""

    module_id: str | None = None
    device_id: str | None = None
    managed_by: str | None = None
    authentication: _Authentication | None = None


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


class ConfigurationContent(msgspec.Struct, rename="camel"):
    """What a device and its modules are to be given, by paths of their twins."""

    device_content: dict[str, Any] | None = None
    modules_content: dict[str, dict[str, Any]] | None = None


def parse_content(body: bytes) -> ConfigurationContent:
    """Return the content of a configuration. Raise `BodyInvalidError`."""
    content = read_json(body, ConfigurationContent, BodyInvalidError)
    _check_members(body, ConfigurationContent)
    return content


class MethodCall(msgspec.Struct, rename="camel"):
    """A call as the service sends it."""

    method_name: str
    payload: Any = None
    response_timeout_in_seconds: int = 30
    connect_timeout_in_seconds: int = 0


class _SaidCall(msgspec.Struct, rename="camel"):
    """The same with seconds in either form: the command line of Azure says them in quotes."""

    method_name: str
    payload: Any = None
    response_timeout_in_seconds: int | str = 30
    connect_timeout_in_seconds: int | str = 0


def parse_method_call(body: bytes) -> MethodCall:
    """Return the call. Raise `BodyInvalidError`."""
    said = read_json(body, _SaidCall, BodyInvalidError)
    _check_members(body, MethodCall)
    waits = (said.response_timeout_in_seconds, said.connect_timeout_in_seconds)
    return MethodCall(said.method_name, said.payload, *map(_seconds, waits))


def _seconds(said: int | str) -> int:
    if isinstance(said, int):
        return said
    if not re.fullmatch("[0-9]{1,9}", said):
        raise BodyInvalidError(detail=f"{said[:64]!r} is no number of seconds")
    return int(said)


def _check_members(body: bytes, kind: Any, told: frozenset[str] = frozenset()) -> None:
    if (member := unread(read_json(body, object, BodyInvalidError), kind, told)) is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")


def parse_twin_body(body: bytes) -> dict[str, Any]:
    """Return a twin, or a patch of one, as it was sent. Raise `BodyInvalidError`."""
    return read_json(body, dict[str, Any], BodyInvalidError)


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
    device_scope: Any = None
    parent_scopes: Any = None


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
    _check_members(body, DeviceBody, _TOLD_OF_DEVICE)
    return checked(parsed), _authentication_of(parsed.authentication)


def checked(body: DeviceBody) -> DeviceBody:
    """Return a device whose status and scopes are some. Raise `BodyInvalidError`."""
    if body.status not in {"enabled", "disabled"}:
        raise BodyInvalidError(detail="status must be enabled or disabled")
    parents = body.parents
    if len(parents) > _MAX_PARENTS or any(not one.startswith(SCOPE) or len(one) > _MAX_SCOPE for one in parents):
        raise BodyInvalidError(detail=f"a device is below one gateway at most, whose scope begins {SCOPE}")
    if (
        body.device_scope
        and body.parent_scopes
        and body.parents != (body.device_scope,)
        and not (body.capabilities and body.capabilities.iot_edge)
    ):
        raise BodyInvalidError(detail="deviceScope and parentScopes name different gateways")
    return body


def parse_module_body(body: bytes) -> tuple[ModuleBody, DeviceAuthentication]:
    """Return a module and the authentication it asks for, as `parse_device_body` does. Raise `BodyInvalidError`."""
    parsed = read_json(body, ModuleBody, BodyInvalidError)
    _check_members(body, ModuleBody, _TOLD_OF_DEVICE)
    return parsed, _authentication_of(parsed.authentication)


def _authentication_of(asked: _Authentication | None) -> DeviceAuthentication:
    wanted = asked or _Authentication()
    beside: dict[str, tuple[_SymmetricKey | _Thumbprints | None, ...]] = {
        "selfSigned": (wanted.symmetric_key,),
        "certificateAuthority": (wanted.symmetric_key, wanted.x509_thumbprint),
    }
    for one in beside.get(wanted.type or "", (wanted.x509_thumbprint,)):
        if one is not None and one != type(one)():
            detail = f"authentication of type {wanted.type or 'sas'} with {type(one).__name__.lstrip('_')}"
            raise BodyInvalidError(detail=f"{detail}: a device has one kind")
    if wanted.type == "selfSigned":
        prints = wanted.x509_thumbprint or _Thumbprints()
        return DeviceAuthentication(
            AuthenticationType.SELF_SIGNED,
            _thumbprint(prints.primary_thumbprint),
            _thumbprint(prints.secondary_thumbprint),
        )
    if wanted.type == "certificateAuthority":
        return DeviceAuthentication(AuthenticationType.AUTHORITY)
    if wanted.type not in {None, "sas"}:
        raise BodyInvalidError(detail=f"authentication.type {wanted.type!r} is not served")
    keys = wanted.symmetric_key or _SymmetricKey()
    return DeviceAuthentication(
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
