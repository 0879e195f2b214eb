"""JSON of twins, for the service and for devices."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from birthmark.documents import DocumentSection
from birthmark.iothub.model import Device, Identity, Module, Twin
from birthmark.iothub.wire.registry import identity_json
from birthmark.iothub.wire.times_and_body_validation import (
    NEVER,
    BodyInvalidError,
    TwinProperties,
    registry_time,
    to_json,
)
from birthmark.unknown_field_detection import find_unread_member, says_something
from birthmark.untrusted_json_and_text import read_json


def twin_for_device(twin: Twin) -> bytes:
    """Return the twin as the device sees it: without tags and metadata."""
    desired, reported = twin.desired, twin.reported
    return to_json(
        {
            "desired": {**desired.values, "$version": desired.version},
            "reported": {**reported.values, "$version": reported.version},
        }
    )


def desired_patch(before: Twin, after: Twin, patch: object, *, replaces: bool) -> bytes | None:
    """Return the desired properties update for a device; None if nothing changed."""
    if before.desired.version == after.desired.version:
        return None
    values = (
        {name: value for name, value in patch.items() if not name.startswith("$")} if isinstance(patch, dict) else {}
    )
    if replaces:
        values = {name: None for name in before.desired.values if name not in after.desired.values} | values
    return to_json({**values, "$version": after.desired.version})


def twin_json(twin: Twin, identity: Identity, *, is_connected: bool, last_activity: str = NEVER) -> dict[str, Any]:
    """Return a device or module twin as the service sees it."""
    known = identity_json(identity, is_connected=is_connected, last_activity=last_activity, with_keys=False)
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
        "properties": {"desired": section_json(twin.desired), "reported": section_json(twin.reported)},
        "capabilities": {"iotEdge": isinstance(identity, Device) and identity.is_iot_edge},
        "deviceScope": identity.scope if isinstance(identity, Device) else None,
        "parentScopes": list(identity.parent_scopes) if isinstance(identity, Device) else [],
    }
    if twin.configurations:
        shown["configurations"] = {name: {"status": one.status} for name, one in twin.configurations.items()}
    return {name: value for name, value in shown.items() if is_module or name != "moduleId"}


def section_json(section: DocumentSection) -> dict[str, Any]:
    """Return desired or reported properties in the service's format."""
    metadata = _metadata(section.at, section.version, section.stamps)
    return {**section.values, "$metadata": metadata, "$version": section.version}


def _metadata(timestamp: int, version: int, stamps: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(timestamp / 1_000_000, UTC)
    shown: dict[str, Any] = {"$lastUpdated": registry_time(moment) if timestamp else NEVER}
    if timestamp:
        shown["$lastUpdatedVersion"] = version
    for name, stamp in stamps.items():
        shown[name] = _metadata(stamp[0], stamp[1], stamp[2] if len(stamp) > 2 else {})  # noqa: PLR2004 - an object's
    return shown


def twin_change(before: Twin, after: Twin, *, replaces: bool) -> dict[str, Any]:
    """Return the content of a twin change event: new values, null for removed ones; a replaced twin in full."""
    if replaces:
        sections = {"desired": section_json(after.desired), "reported": section_json(after.reported)}
        return {"version": after.version, "tags": after.tags, "properties": sections}
    told: dict[str, Any] = {"version": after.version}
    if tags := _other(before.tags, after.tags):
        told["tags"] = tags
    sections = {}
    for name in ("desired", "reported"):
        was, now = getattr(before, name), getattr(after, name)
        if was.version != now.version:
            own = _set(was.values, now.values, now.stamps, now.version)
            stamps = {one: stamp for one, stamp in now.stamps.items() if one in own}
            metadata = _metadata(now.at, now.version, stamps)
            sections[name] = {**own, "$metadata": metadata, "$version": now.version}
    return told | ({"properties": sections} if sections else {})


def _set(was: Any, now: dict[str, Any], stamps: dict[str, Any], version: int) -> dict[str, Any]:
    """Return the values set by a version, and null for removed ones."""
    was = was if isinstance(was, dict) else {}
    made: dict[str, Any] = {name: None for name in was if name not in now}
    for name, value in now.items():
        stamp = stamps.get(name)
        if stamp is None or stamp[1] != version:
            continue
        inner = isinstance(value, dict) and len(stamp) > 2  # noqa: PLR2004 - an object's
        made[name] = _set(was.get(name), value, stamp[2], version) if inner else value
    return made


def _other(was: Any, now: dict[str, Any]) -> dict[str, Any]:
    """Return changed values, and null for removed ones."""
    was = was if isinstance(was, dict) else {}
    made: dict[str, Any] = {name: None for name in was if name not in now}
    for name, value in now.items():
        if name not in was or was[name] != value:
            made[name] = _other(was.get(name), value) if isinstance(value, dict) else value
    return made


def parse_twin_body(body: bytes) -> dict[str, Any]:
    """Return a twin, or a patch of one, as sent. Raise `BodyInvalidError`."""
    return read_json(body, dict[str, Any], BodyInvalidError)


class _TwinBody(msgspec.Struct, rename="camel"):
    """A twin in a service request, which may repeat what the service returned."""

    device_id: Any = None
    module_id: Any = None
    tags: Any = None
    properties: TwinProperties | None = None
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
        *("cloudToDeviceMessageCount", "configurations"),
    }
)


def check_twin_members(body: dict[str, Any], shown: dict[str, Any]) -> None:
    """Raise `BodyInvalidError` for a member that a twin update cannot change; `shown` is the current twin.

    An unchanged value that is sent back is accepted.
    """
    member = find_unread_member(body, _TwinBody, _TOLD_OF_TWIN)
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
    """Return a value without the service's metadata and without nulls, which a client may omit."""
    if not isinstance(value, dict):
        return value
    return {name: _bare(inner) for name, inner in value.items() if not name.startswith("$") and inner is not None}
