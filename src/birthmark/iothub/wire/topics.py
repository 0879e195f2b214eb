"""Topics that devices and modules use (facts of the SDKs, IoT Hub documentation "MQTT")."""

from dataclasses import dataclass

from birthmark.iothub.model import C2dMessage
from birthmark.iothub.wire.d2c_property_bags import render_property_bag
from birthmark.untrusted_json_and_text import whole_number

_MAX_RID = 256
_MAX_STATUS = 2**31


def own_topics(name: str) -> str:
    """Return the topic prefix of a device or module."""
    device_id, slash, module_id = name.partition("/")
    return f"devices/{device_id}/modules/{module_id}/" if slash else f"devices/{device_id}/"


def telemetry_topic(name: str) -> str:
    """Return the telemetry topic prefix of a device or module."""
    return f"{own_topics(name)}messages/events/"


@dataclass(frozen=True, slots=True)
class TelemetryTopic:
    """Topic of a device's own telemetry; `bag` is its encoded property bag."""

    bag: str


@dataclass(frozen=True, slots=True)
class TwinGet:
    """Twin read by a device; `rid` as it was sent."""

    rid: str


@dataclass(frozen=True, slots=True)
class TwinReport:
    """Reported properties update; `version` is the expected one, if the device sends it."""

    rid: str
    version: int | None


@dataclass(frozen=True, slots=True)
class MethodAnswer:
    """Response to the direct method call `rid`."""

    status: int
    rid: str


@dataclass(frozen=True, slots=True)
class CredentialAsk:
    """Request of a device for a certificate that replaces its own; `rid` as it was sent."""

    rid: str


Topic = TelemetryTopic | TwinGet | TwinReport | MethodAnswer | CredentialAsk
CREDENTIALS = "$iothub/credentials/res/#"
ISSUE = "$iothub/credentials/POST/issueCertificate/"
TWIN_RESPONSES = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"
METHODS = "$iothub/methods/POST/#"
_GET, _REPORT, _ANSWER = "$iothub/twin/GET/", "$iothub/twin/PATCH/properties/reported/", "$iothub/methods/res/"


def devicebound(device_id: str) -> str:
    """Return the topic filter of messages to a device."""
    return f"devices/{device_id}/messages/devicebound/#"


def parse_topic(topic: str, device_id: str) -> Topic | None:
    """Parse a publish topic; None for an unknown topic or another device's."""
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
    if start == ISSUE:
        return CredentialAsk(rid)
    text = start.removeprefix(_ANSWER).rstrip("/")
    number = whole_number(text.removeprefix("-")) if start.startswith(_ANSWER) else None
    if number is None or number >= _MAX_STATUS:
        return None
    return MethodAnswer(-number if text.startswith("-") else number, rid)


def twin_response_topic(status: int, rid: str, version: int | None = None) -> str:
    """Return the response topic of a twin request."""
    return f"$iothub/twin/res/{status}/?$rid={rid}" + ("" if version is None else f"&$version={version}")


def credential_response_topic(status: int, rid: str) -> str:
    """Return the response topic of a certificate request."""
    return f"$iothub/credentials/res/{status}/?$rid={rid}"


def desired_topic(version: int) -> str:
    """Return the topic of desired property updates."""
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}"


def method_topic(name: str, rid: str) -> str:
    """Return the topic of a direct method call."""
    return f"$iothub/methods/POST/{name}/?$rid={rid}"


_DESIRED_START, _METHOD_START = "$iothub/twin/PATCH/properties/desired/?$version=", "$iothub/methods/POST/"


@dataclass(frozen=True, slots=True)
class DesiredChange:
    """Topic of a change of desired properties."""

    version: int


@dataclass(frozen=True, slots=True)
class MethodRequest:
    """Topic of a direct method call."""

    method: str
    rid: str


def parse_delivered(topic: str) -> DesiredChange | MethodRequest | None:
    """Parse the topic of a hub's message to a device, as `desired_topic` and `method_topic` make it."""
    if topic.startswith(_DESIRED_START):
        return DesiredChange(int(topic[len(_DESIRED_START) :]))
    if topic.startswith(_METHOD_START):
        method, _, rid = topic[len(_METHOD_START) :].rpartition("/?$rid=")
        return MethodRequest(method, rid)
    return None


def devicebound_topic(device_id: str, message_id: str, feedback: str, mail: C2dMessage) -> str:
    """Return the topic of a cloud-to-device message, with its properties."""
    system: dict[str, str | None] = {"$.to": f"/devices/{device_id}/messages/deviceBound", "$.mid": message_id}
    if feedback not in {"", "none"}:
        system["iothub-ack"] = feedback
    bag = render_property_bag({**system, **mail.system, **mail.properties})
    return f"devices/{device_id}/messages/devicebound/{bag}"
