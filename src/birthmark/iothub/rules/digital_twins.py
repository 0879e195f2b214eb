"""Digital twins: the IoT Plug and Play view of a twin, and JSON Patch to desired properties.

Source: "Understand IoT Plug and Play digital twins", "Manage IoT Plug and Play digital twins", RFC 6902. A component is
an object marked `"__t": "c"`; a value that a device acknowledges is `{"value", "ac", "av", "ad"}` (IoT Plug and Play
conventions).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import Twin
from birthmark.iothub.wire import registry_time

MAX_OPERATIONS = 100
MAX_LEVELS = 5
_MARK = "__t"
_COMPONENT = {_MARK: "c"}
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]{0,62}[A-Za-z0-9])?")
_ACKNOWLEDGED = {"ac": "ackCode", "av": "ackVersion", "ad": "ackDescription"}
_OF_PROPERTY = 2
_METADATA = "$metadata"


class DigitalTwinPatchError(InvalidRequestError):
    """The digital twin patch is not valid."""

    code = "iothub.digital_twin_patch"
    message = "The patch is not valid: {detail}"
    cause = "The digital twin of {device_id} was not changed: {detail}."
    fix = (
        'Send a patch that adds, replaces or removes a property or component, such as [{{"op": "add", "path": '
        '"/fan/speed", "value": 3}}]. Include an empty $metadata in each component. Show the current twin: '
        "`birthmark hub twin {device_id}`"
    )
    detail: str
    device_id: str


def digital_twin(twin: Twin) -> dict[str, Any]:
    """Return the digital twin."""
    desired, reported = twin.desired, twin.reported
    shown = _shown((desired.values, desired.stamps), (reported.values, reported.stamps), is_root=True)
    metadata = shown.pop(_METADATA)
    model = {"$model": twin.model_id} if twin.model_id else {}
    return {"$dtId": twin.device_id, **shown, _METADATA: {**model, **metadata}}


_Values = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Values and their timestamps."""


def _shown(desired: _Values, reported: _Values, *, is_root: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name in dict.fromkeys((*reported[0], *desired[0])):
        wanted, told = desired[0].get(name), reported[0].get(name)
        if is_root and (_is_component(wanted) or _is_component(told)):
            shown[name] = _shown(_inside(desired, name), _inside(reported, name))
        elif name != _MARK:
            about: dict[str, Any] = {}
            if name in desired[0]:
                about |= {"desiredValue": wanted, "desiredVersion": desired[1].get(name, [0, 1])[1]}
            if name in reported[0]:
                value, acknowledged = _split_reported(told)
                shown[name] = value
                about |= acknowledged
                at_s = reported[1].get(name, [0])[0] / 1_000_000
                about["lastUpdateTime"] = registry_time(datetime.fromtimestamp(at_s, UTC))
            metadata[name] = about
    return {**shown, _METADATA: metadata}


def _is_component(value: object) -> bool:
    return isinstance(value, Mapping) and value.get(_MARK) == "c"


def _inside(section: _Values, name: str) -> _Values:
    values, stamp = section[0].get(name), section[1].get(name, [0, 1])
    return (values if isinstance(values, Mapping) else {}), (stamp[2] if len(stamp) > _OF_PROPERTY else {})


def _split_reported(value: Any) -> tuple[Any, dict[str, Any]]:
    """Return the reported value and its acknowledgment."""
    if not (isinstance(value, Mapping) and "value" in value and ("ac" in value or "av" in value)):
        return value, {}
    return value["value"], {shown: value[name] for name, shown in _ACKNOWLEDGED.items() if name in value}


def desired_by(twin: Twin, patch: object) -> dict[str, Any]:
    """Return the desired properties patch (RFC 7396) equivalent to a JSON Patch of the digital twin.

    Raise `DigitalTwinPatchError`.
    """
    if not (isinstance(patch, list) and 0 < len(patch) <= MAX_OPERATIONS):
        raise _refused(twin, f"it is not a list of 1 to {MAX_OPERATIONS} operations")
    made: dict[str, Any] = dict(twin.desired.values)
    for number, operation in enumerate(patch):
        made = _applied(twin, made, operation, f"operation {number}")
    return merge_patch(twin.desired.values, made)


def _refused(twin: Twin, detail: str) -> DigitalTwinPatchError:
    return DigitalTwinPatchError(device_id=twin.device_id, detail=detail)


def _applied(twin: Twin, values: Mapping[str, Any], operation: object, where: str) -> dict[str, Any]:
    if not isinstance(operation, dict):
        raise _refused(twin, f"{where} is not an object")
    op, path = operation.get("op"), operation.get("path")
    if op not in ("add", "replace", "remove"):  # list or object, too
        raise _refused(twin, f"{where} has the op {str(op)[:40]!r}; it must be add, replace or remove")
    if unknown := operation.keys() - {"op", "path", "value"}:
        raise _refused(twin, f"{where} has the unknown member {min(unknown)[:40]!r}")
    if (op == "remove") == ("value" in operation):
        raise _refused(twin, f"{where} {'has a value' if op == 'remove' else 'has no value'}")
    names = path.split("/")[1:] if isinstance(path, str) and path.startswith("/") else []
    if len(names) not in {1, _OF_PROPERTY} or not all(_NAME.fullmatch(name) for name in names):
        raise _refused(twin, f"the path of {where} must be /property, /component or /component/property")
    if op == "remove":
        return _removed(values, names)
    return _set(twin, values, names, operation["value"], where)


def _removed(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    first, *rest = names
    inner = values.get(first)
    if rest and isinstance(inner, Mapping):
        left = {name: value for name, value in inner.items() if name != rest[0]}
        if left.keys() - {_MARK} or rest[0] not in inner:
            return {**values, first: left}
        rest = []
    return dict(values) if rest else {name: value for name, value in values.items() if name != first}


def _set(twin: Twin, values: Mapping[str, Any], names: Sequence[str], value: Any, path: str) -> dict[str, Any]:
    first, *rest = names
    kept, told = values.get(first), twin.reported.values.get(first)
    if rest:
        if any(one is not None and not _is_component(one) for one in (kept, told)):
            raise _refused(twin, f"{path}: {first!r} exists in the device twin and is not a component")
        _check(twin, value, path)
        return {**values, first: {**_COMPONENT, **(kept or {}), rest[0]: value}}
    if isinstance(value, dict) and _METADATA in value:
        if value[_METADATA] != {}:
            raise _refused(twin, f"{path}: the $metadata of a component is an empty object")
        below = {name: one for name, one in value.items() if name != _METADATA}
        for one in below.items():
            _check(twin, dict([one]), path)
        return {**values, first: {**_COMPONENT, **below}}
    if _is_component(kept) or _is_component(told):
        raise _refused(twin, f"{path}: {first!r} is a component, which requires an empty $metadata")
    _check(twin, value, path)
    return {**values, first: value}


def _check(twin: Twin, value: Any, path: str, level: int = 0) -> None:
    """Raise `DigitalTwinPatchError` for an invalid property value."""
    if isinstance(value, list):
        raise _refused(twin, f"{path} contains an array, which is not a valid property value")
    if value is None:
        raise _refused(twin, f"{path} is null: use the operation remove")
    if isinstance(value, dict):
        if level > MAX_LEVELS:
            raise _refused(twin, f"{path} has more than {MAX_LEVELS} levels")
        for name, one in value.items():
            if _NAME.fullmatch(name) is None:
                raise _refused(
                    twin, f"{path} has the name {name[:70]!r}: a name must have up to 64 letters, digits and _"
                )
            _check(twin, one, path, level + 1)


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) that turns `before` into `after`."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        known = before.get(name)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            if inner := merge_patch(known, value):
                patch[name] = inner
        elif value != known or type(value) is not type(known) or name not in before:
            patch[name] = value
    return patch
