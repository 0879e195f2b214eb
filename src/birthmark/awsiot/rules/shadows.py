"""Shadows: what may be reported and desired of a thing, and what an update makes of it (developer guide, "Device
Shadow service").

Nulls remove, objects are merged, arrays are replaced whole and hold no null. A version counts the updates of a shadow
from 1; it goes on when a shadow is deleted and made again within two days.
"""

from typing import Any

import msgspec

from birthmark.awsiot.model import Shadow
from birthmark.awsiot.wire.shadows import MAX_LEVELS, ShadowInvalidError, ShadowRequest, state_size, too_deep
from birthmark.documents import DocumentProblem, DocumentSection, Problem, Shape, check, merged
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError

MAX_BYTES = 8 * 1024
REMEMBERED_S = 48 * 3600
"""How long the version of a deleted shadow is remembered."""
MAX_SHADOWS, MAX_REMEMBERED = 100, 1000
"""Of one thing: how many there are at a time, and how many with those that were deleted and are remembered."""
MAX_UNREGISTERED = 2000
"""How many one device makes of things that are not registered, while the server runs."""
_SECTIONS = ("desired", "reported")
_SHAPE = Shape(max_levels=MAX_LEVELS, max_bytes=MAX_BYTES, forbidden_first="$")
_MICROS = 1_000_000


class ShadowMissingError(NotFoundError):
    """The shadow does not exist."""

    code = "awsiot.shadow_missing"
    message = "No shadow exists with name: '{shadow}'"
    cause = "The thing {thing} has no shadow of that name; the first update creates it."
    fix = "Create it with an update: `birthmark aws shadow {thing}{options} --desired '{{\"on\": true}}'`"
    options: str
    shadow: str
    thing: str


class ShadowVersionError(ConflictError):
    """The shadow has changed since it was read."""

    code = "awsiot.shadow_version"
    message = "Version conflict"
    cause = "The shadow {shadow} is at version {version}; the update requires {wanted}."
    fix = (
        "Read it again and repeat the update, or omit the version. Show the shadow: `birthmark aws shadow "
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
        "The thing {thing} has {count} shadows and {deleted} shadows deleted within the last two days; the maximum is "
        "{limit}. Other things are not affected."
    )
    fix = "Delete unused shadows. List them: `aws iot-data list-named-shadows-for-thing --thing-name {thing}`"
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
    """Raise `TooManyShadowsError` where a thing of so many shadows may not have another."""
    if count >= MAX_SHADOWS or count + deleted >= MAX_REMEMBERED:
        raise TooManyShadowsError(count=count, deleted=deleted, thing=shadow.thing)


class ShadowTooLargeError(InvalidRequestError):
    """The shadow's state would exceed the maximum size."""

    code = "awsiot.shadow_too_large"
    message = "The payload exceeds the maximum size allowed"
    cause = (
        "The shadow {shadow} would have {size} bytes; its state is limited to 8192 bytes, as compact JSON without "
        "metadata."
    )
    fix = (
        "Store large data outside the shadow and keep its address in the shadow; null removes a property. Show the "
        "shadow: `birthmark aws shadow {thing}{options}`"
    )
    options: str
    shadow: str
    size: int
    thing: str


class Update(msgspec.Struct, frozen=True):
    """An update that can be made: a patch of each section that is named, None for one that is removed."""

    patch: dict[str, dict[str, Any] | None]
    version: int | None = None


def parse_update(request: ShadowRequest, shadow: Shadow) -> Update:
    """Return the update of a shadow that is asked for. Raise `ShadowInvalidError` or `ShadowTooLargeError`."""
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


def _checked(place: str, part: object, shadow: Shadow) -> dict[str, Any]:
    try:
        return check(part, _SHAPE, place=place)
    except DocumentProblem as problem:
        match problem.problem:
            case Problem.NOT_AN_OBJECT:
                raise ShadowInvalidError(detail=f"{place.title()} node must be an object") from problem
            case Problem.TOO_DEEP:
                raise too_deep() from problem
            case Problem.TOO_LARGE:
                raise ShadowTooLargeError(size=state_size({place: part}), **_named(shadow)) from problem
            case _:
                raise ShadowInvalidError(detail=f"State contains an invalid node: '{problem.path}'") from problem


def updated(shadow: Shadow, update: Update, size: int, at: int) -> Shadow:
    """Return the shadow as an update of `size` bytes leaves it. Raise `ShadowVersionError`, `ShadowTooLargeError`."""
    if update.version is not None and update.version != shadow.version:
        raise ShadowVersionError(version=shadow.version, wanted=update.version, **_named(shadow))
    if size > MAX_BYTES:  # else it is none of what it asks for; what is sent with white space may be
        _check_size(shadow, update.patch)
    made = msgspec.structs.replace(
        shadow,
        desired=_merged(shadow.desired, update.patch, "desired", at),
        reported=_merged(shadow.reported, update.patch, "reported", at),
        version=shadow.version + 1,
        at=at,
        is_deleted=False,
    )
    _check_size(made, {name: one.values for name, one in made.sections.items() if one.values})
    return made


def _merged(section: DocumentSection, patch: dict[str, dict[str, Any] | None], name: str, at: int) -> DocumentSection:
    if name not in patch:
        return section
    part = patch[name]
    return DocumentSection() if part is None else merged(section, part, at)


def _check_size(shadow: Shadow, state: dict[str, Any]) -> None:
    if (size := state_size(state)) > MAX_BYTES:
        raise ShadowTooLargeError(size=size, **_named(shadow))


def existing(shadow: Shadow) -> Shadow:
    """Return a shadow that is there. Raise `ShadowMissingError`."""
    if not shadow.version or shadow.is_deleted:
        raise ShadowMissingError(**_named(shadow))
    return shadow


def deleted(shadow: Shadow, at: int) -> Shadow:
    """Return what is remembered of a shadow that is there. Raise `ShadowMissingError`."""
    known = existing(shadow)
    return Shadow(known.thing, known.name, version=known.version, at=at, is_deleted=True)


def remembered(shadow: Shadow, now: int) -> Shadow:
    """Return a shadow as it was read: of one that was deleted long ago nothing is known."""
    if shadow.is_deleted and shadow.at + REMEMBERED_S * _MICROS <= now:
        return Shadow(shadow.thing, shadow.name)
    return shadow


def _named(shadow: Shadow) -> dict[str, str]:
    """Return the facts that name a shadow."""
    options = f" --shadow-name {shadow.name}" if shadow.name else ""
    return {"shadow": shadow.label, "thing": shadow.thing, "options": options}
