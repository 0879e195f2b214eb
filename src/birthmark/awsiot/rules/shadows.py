"""Shadows: desired and reported state, and updates (developer guide, "Device Shadow service").

Nulls delete keys, objects are merged, arrays are replaced completely and contain no null. A version counts the updates
of a shadow from 1. It continues if a deleted shadow is recreated within two days.
"""

from typing import Any

import msgspec

from birthmark.awsiot.model import Shadow
from birthmark.awsiot.wire.shadows import MAX_LEVELS, ShadowInvalidError, ShadowRequest, state_size, too_deep
from birthmark.documents import DocumentProblem, DocumentSection, Problem, Shape, check, merged
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError

MAX_BYTES = 8 * 1024
REMEMBERED_S = 48 * 3600
"""Retention of the version of a deleted shadow, in seconds."""
MAX_SHADOWS, MAX_REMEMBERED = 100, 1000
"""Maximum number of shadows per thing: existing ones, and those including remembered deleted ones."""
MAX_UNREGISTERED = 2000
"""Maximum number of shadows that one device creates for unregistered things while the server runs."""
_SECTIONS = ("desired", "reported")
_SHAPE = Shape(max_levels=MAX_LEVELS, max_bytes=MAX_BYTES, forbidden_first="$")
_MICROS = 1_000_000


class ShadowMissingError(NotFoundError):
    """The shadow does not exist."""

    code = "awsiot.shadow_missing"
    message = "No shadow exists with name: '{shadow}'"
    cause = "The thing {thing} has no shadow with that name; the first update creates the shadow."
    fix = "Create the shadow with an update: `birthmark aws shadow {thing}{options} --desired '{{\"on\": true}}'`"
    options: str
    shadow: str
    thing: str


class ShadowVersionError(ConflictError):
    """The shadow has changed since it was read."""

    code = "awsiot.shadow_version"
    message = "Version conflict"
    cause = "The shadow {shadow} is at version {version}; the update requires version {wanted}."
    fix = (
        "Read the shadow again and repeat the update, or omit the version. Show the shadow: `birthmark aws shadow "
        "{thing}{options}`"
    )
    options: str
    shadow: str
    thing: str
    version: int
    wanted: int


class TooManyShadowsError(PolicyError):
    """The thing has the maximum number of shadows."""

    code = "awsiot.too_many_shadows"
    message = "The thing has too many shadows"
    cause = (
        "The thing {thing} has {count} shadows, plus {deleted} shadows that were deleted within the last two days; "
        "the maximum is {limit}. Other things are not affected."
    )
    fix = (
        "Delete unused shadows. List the thing's shadows: `aws iot-data list-named-shadows-for-thing --thing-name "
        "{thing}`"
    )
    count: int
    deleted: int
    limit: int = MAX_SHADOWS
    thing: str


class ShadowShareUsedError(PolicyError):
    """The device has created the maximum number of shadows of unregistered things."""

    code = "awsiot.shadow_share_used"
    message = "Too many shadows of unregistered things"
    cause = (
        "{principal} has created {limit} shadows of unregistered things since the server started, and the thing "
        "{thing} is not registered. Registered things and other devices are not affected."
    )
    fix = "Register the thing: `aws iot create-thing --thing-name {thing}`"
    limit: int = MAX_UNREGISTERED
    principal: str
    thing: str


def check_room(shadow: Shadow, count: int, deleted: int) -> None:
    """Raise `TooManyShadowsError` if a thing with these counts cannot have another shadow."""
    if count >= MAX_SHADOWS or count + deleted >= MAX_REMEMBERED:
        raise TooManyShadowsError(count=count, deleted=deleted, thing=shadow.thing)


class ShadowTooLargeError(InvalidRequestError):
    """The shadow's state would exceed the maximum size."""

    code = "awsiot.shadow_too_large"
    message = "The payload exceeds the maximum size allowed"
    cause = (
        "The state of the shadow {shadow} would have {size} bytes; the limit is 8192 bytes of compact JSON without "
        "metadata."
    )
    fix = (
        "Store large data outside the shadow, and keep only the address of the data in the shadow. To remove a "
        "property, set it to null. Show the shadow: `birthmark aws shadow {thing}{options}`"
    )
    options: str
    shadow: str
    size: int
    thing: str


class Update(msgspec.Struct, frozen=True):
    """A valid update: a patch for each named section, None for a deleted one."""

    patch: dict[str, dict[str, Any] | None]
    version: int | None = None


def parse_update(request: ShadowRequest, shadow: Shadow) -> Update:
    """Return the requested update of a shadow. Raise `ShadowInvalidError` or `ShadowTooLargeError`."""
    document = request.document
    if "state" not in document:
        raise ShadowInvalidError(detail="Missing required node: state")
    version = document.get("version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 0):
        raise ShadowInvalidError(detail="Invalid version")
    state = document["state"]
    if not isinstance(state, dict):
        raise ShadowInvalidError(detail="State node must be an object")
    for name in state:
        if name not in _SECTIONS:
            raise ShadowInvalidError(detail=f"State contains an invalid node: '{name[:100]}'")
    return Update(
        {name: None if part is None else _checked(name, part, shadow) for name, part in state.items()}, version
    )


def _checked(path: str, part: object, shadow: Shadow) -> dict[str, Any]:
    try:
        return check(part, _SHAPE, path=path)
    except DocumentProblem as problem:
        match problem.problem:
            case Problem.NOT_AN_OBJECT:
                raise ShadowInvalidError(detail=f"{path.title()} node must be an object") from problem
            case Problem.TOO_DEEP:
                raise too_deep() from problem
            case Problem.TOO_LARGE:
                raise ShadowTooLargeError(size=state_size({path: part}), **_named(shadow)) from problem
            case _:
                raise ShadowInvalidError(detail=f"State contains an invalid node: '{problem.path}'") from problem


def apply_update(shadow: Shadow, update: Update, size: int, timestamp: int) -> Shadow:
    """Return the shadow after an update of `size` bytes.

    Raise `ShadowVersionError`, `ShadowTooLargeError`.
    """
    if update.version is not None and update.version != shadow.version:
        raise ShadowVersionError(version=shadow.version, wanted=update.version, **_named(shadow))
    if size > MAX_BYTES:  # otherwise no limit check; the raw message may contain white space
        _check_size(shadow, update.patch)
    made = msgspec.structs.replace(
        shadow,
        desired=_merged(shadow.desired, update.patch, "desired", timestamp),
        reported=_merged(shadow.reported, update.patch, "reported", timestamp),
        version=shadow.version + 1,
        at=timestamp,
        is_deleted=False,
    )
    _check_size(made, {name: one.values for name, one in made.sections.items() if one.values})
    return made


def _merged(
    section: DocumentSection, patch: dict[str, dict[str, Any] | None], name: str, timestamp: int
) -> DocumentSection:
    if name not in patch:
        return section
    part = patch[name]
    return DocumentSection() if part is None else merged(section, part, timestamp)


def _check_size(shadow: Shadow, state: dict[str, Any]) -> None:
    if (size := state_size(state)) > MAX_BYTES:
        raise ShadowTooLargeError(size=size, **_named(shadow))


def get_existing(shadow: Shadow) -> Shadow:
    """Return the shadow if it exists. Raise `ShadowMissingError`."""
    if not shadow.version or shadow.is_deleted:
        raise ShadowMissingError(**_named(shadow))
    return shadow


def deleted(shadow: Shadow, timestamp: int) -> Shadow:
    """Return the deletion marker of an existing shadow. Raise `ShadowMissingError`."""
    known = get_existing(shadow)
    return Shadow(known.thing, known.name, version=known.version, at=timestamp, is_deleted=True)


def drop_expired_version(shadow: Shadow, now: int) -> Shadow:
    """Return a shadow as stored; one that was deleted long ago has no remembered version."""
    if shadow.is_deleted and shadow.at + REMEMBERED_S * _MICROS <= now:
        return Shadow(shadow.thing, shadow.name)
    return shadow


def _named(shadow: Shadow) -> dict[str, str]:
    """Return the error facts that identify a shadow."""
    options = f" --shadow-name {shadow.name}" if shadow.name else ""
    return {"shadow": shadow.label, "thing": shadow.thing, "options": options}
