"""Twin updates: reported properties of a device, and tags and desired properties of the service.

Source: "Understand and use device twins in IoT Hub". Null removes a property, objects are merged, arrays are replaced
completely and contain no null. Sizes are those of compact JSON without metadata.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.documents import DocumentProblem, DocumentSection, Shape, check, merged, replaced
from birthmark.documents.document_limits import check_size
from birthmark.errors import ConflictError, InvalidRequestError
from birthmark.iothub.model import Twin

_NAMES = ". $"
_INTEGERS = (-4503599627370496, 4503599627370495)
PROPERTIES = Shape(
    max_levels=10,
    max_bytes=32 * 1024,
    forbidden=_NAMES,
    max_name_bytes=1024,
    max_text_bytes=4096,
    integers=_INTEGERS,
)
MAX_PATCH_BYTES = 4 * PROPERTIES.max_bytes
"""Maximum size of a device's patch, with white space and escapes; a larger one is not parsed."""
TAGS = msgspec.structs.replace(PROPERTIES, max_bytes=8 * 1024)
_DESIRED = ["properties", "desired"]
_OWN = frozenset({"$version", "$metadata"})  # read-only members that a twin shows with the values


class TwinInvalidError(InvalidRequestError):
    """The twin or twin patch is not valid."""

    code = "iothub.twin_invalid"
    message = "The twin is not valid: {detail}"
    cause = "The twin of {device_id} was not changed: {detail}."
    fix = (
        "Use names without dots, dollar signs or spaces. The limits are 10 levels, 32 KiB of desired or reported "
        "properties, and 8 KiB of tags. Show the current twin: `birthmark hub twin {device_id}`"
    )
    detail: str
    device_id: str


class TwinVersionError(ConflictError):
    """The twin has changed since it was read."""

    code = "iothub.twin_version"
    cause = "The twin of {device_id} is at version {version}, but the change requires {wanted}."
    fix = (
        "Read the twin again and repeat the change, or send If-Match: *. Show the current twin: `birthmark hub twin "
        "{device_id}`"
    )
    device_id: str
    version: str
    wanted: str


def report(twin: Twin, patch: object, timestamp: int, *, version: int | None = None) -> Twin:
    """Return the twin with a device's reported patch; `version` is the expected one, if the device sends it."""
    if version is not None and version != twin.reported.version:
        raise TwinVersionError(device_id=twin.device_id, version=str(twin.reported.version), wanted=str(version))
    section = _changed(twin, "reported", patch, twin.reported, timestamp)
    return msgspec.structs.replace(twin, reported=section, version=twin.version + 1)


def desire(twin: Twin, body: Mapping[str, Any], timestamp: int) -> Twin:
    """Return the twin with a service patch of tags, desired properties, or both."""
    desired, tags = _parts(twin, body)
    section = twin.desired
    if desired is not None:
        section = _changed(twin, "desired", desired, twin.desired, timestamp)
    kept = twin.tags if tags is None else _with_tags(twin, tags)
    return msgspec.structs.replace(twin, desired=section, tags=kept, version=twin.version + 1)


def replace(twin: Twin, body: Mapping[str, Any], timestamp: int) -> Twin:
    """Return the twin with tags and desired properties replaced."""
    desired, tags = _parts(twin, body)
    kept = _fitting(twin, "tags", {} if tags is None else tags, TAGS)
    section = replaced(
        twin.desired, _fitting(twin, "desired", {} if desired is None else desired, PROPERTIES), timestamp
    )
    for place, values, shape in (("desired", section.values, PROPERTIES), ("tags", kept, TAGS)):
        _sized(twin, place, values, shape)
    tags_kept = replaced(DocumentSection(), kept, timestamp).values
    return msgspec.structs.replace(twin, desired=section, tags=tags_kept, version=twin.version + 1)


def apply_configuration(twin: Twin, content: Mapping[str, Any], timestamp: int) -> Twin:
    """Return the twin with a configuration's content applied, `properties.desired` or paths below it.

    `properties.desired` replaces all desired properties; a path below it replaces only its value ("Deploy modules",
    deployment manifest). Raise `TwinInvalidError`.
    """
    values: dict[str, Any] = dict(twin.desired.values)
    for path in sorted(content):  # parents before children
        parts = path.split(".")
        if parts[: len(_DESIRED)] != _DESIRED or len(parts) > len(_DESIRED) + PROPERTIES.max_levels:
            raise TwinInvalidError(device_id=twin.device_id, detail=f"{path[:100]!r} is not below properties.desired")
        below = parts[len(_DESIRED) :]
        values = _with(values, below, content[path]) if below else _fitting(twin, "desired", content[path], PROPERTIES)
    section = replaced(twin.desired, _fitting(twin, "desired", values, PROPERTIES), timestamp)
    _sized(twin, "desired", section.values, PROPERTIES)
    return msgspec.structs.replace(twin, desired=section, version=twin.version + 1)


def _with(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = values.get(first)
    return {**values, first: _with(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def modelled(twin: Twin, model_id: str) -> Twin:
    """Return the twin with the model id that its device announced."""
    return msgspec.structs.replace(twin, model_id=model_id, version=twin.version + 1)


def begun(twin: Twin, body: Mapping[str, Any], timestamp: int) -> Twin:
    """Return a device's initial twin from its enrollment. Raise `TwinInvalidError`."""
    return msgspec.structs.replace(replace(twin, body, timestamp), version=twin.version)


def _parts(twin: Twin, body: Mapping[str, Any]) -> tuple[object, object]:
    properties = body.get("properties")
    if not isinstance(properties, Mapping | None):
        raise TwinInvalidError(device_id=twin.device_id, detail="properties is not a JSON object")
    return (properties or {}).get("desired"), body.get("tags")


def _changed(twin: Twin, path: str, patch: object, section: DocumentSection, timestamp: int) -> DocumentSection:
    made = merged(section, _fitting(twin, path, patch, PROPERTIES), timestamp)
    _sized(twin, path, made.values, PROPERTIES)
    return made


def _with_tags(twin: Twin, patch: object) -> dict[str, Any]:
    made = merged(DocumentSection(twin.tags), _fitting(twin, "tags", patch, TAGS), 0).values
    _sized(twin, "tags", made, TAGS)
    return made


def check_desired(twin: Twin, values: Mapping[str, Any]) -> None:
    """Check desired properties as a whole. Raise `TwinInvalidError`."""
    _sized(twin, "desired", _fitting(twin, "desired", dict(values), PROPERTIES), PROPERTIES)


def _fitting(twin: Twin, path: str, patch: object, shape: Shape) -> dict[str, Any]:
    if isinstance(patch, dict):
        patch = {name: value for name, value in patch.items() if name not in _OWN}
    try:
        return check(patch, shape, path=path)
    except DocumentProblem as problem:
        raise TwinInvalidError(device_id=twin.device_id, detail=str(problem)) from problem


def _sized(twin: Twin, path: str, values: Mapping[str, Any], shape: Shape) -> None:
    try:
        check_size(values, shape, path=path)
    except DocumentProblem as problem:
        raise TwinInvalidError(device_id=twin.device_id, detail=str(problem)) from problem
