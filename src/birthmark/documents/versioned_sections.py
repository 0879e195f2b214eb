"""A section of a document: its values, and the time and version of each.

Merging follows RFC 7396: null removes, an object is merged, and any other value, including a complete array, replaces.
The stamps form a tree of the same shape: `[at, version]` for a value, `[at, version, {name: …}]` for an object. `at` is
in microseconds since 1970.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

Stamps = dict[str, Any]
_UNDATED: list[Any] = [0, 0, {}]  # without timestamps


class DocumentSection(msgspec.Struct, frozen=True, array_like=True):
    """Values with their stamps; `version` increases with every change. Instances are immutable."""

    values: dict[str, Any] = {}
    stamps: Stamps = {}
    version: int = 1
    at: int = 0


def merged(section: DocumentSection, patch: Mapping[str, Any], timestamp: int) -> DocumentSection:
    """Return the section with a patch merged, with the next version."""
    version = section.version + 1
    values, stamps = _merged(section.values, section.stamps, patch, timestamp, version)
    return DocumentSection(values, stamps, version, timestamp)


def replaced(section: DocumentSection, values: Mapping[str, Any], timestamp: int) -> DocumentSection:
    """Return the section with exactly these values, with the next version."""
    version = section.version + 1
    made, stamps = _merged({}, {}, values, timestamp, version)
    return DocumentSection(made, stamps, version, timestamp)


def _merged(
    values: Mapping[str, Any], stamps: Mapping[str, Any], patch: Mapping[str, Any], timestamp: int, version: int
) -> tuple[dict[str, Any], Stamps]:
    made, dated = dict(values), dict(stamps)
    for name, new in patch.items():
        if new is None:
            made.pop(name, None)
            dated.pop(name, None)
        elif isinstance(new, dict):
            old = made.get(name)
            is_object = isinstance(old, dict)
            inner, inner_stamps = _merged(
                old if isinstance(old, dict) else {},
                dated.get(name, _UNDATED)[2] if is_object else {},
                new,
                timestamp,
                version,
            )
            made[name], dated[name] = inner, [timestamp, version, inner_stamps]
        else:
            made[name], dated[name] = new, [timestamp, version]
    return made, dated


def submitted(stamps: Mapping[str, Any], patch: Mapping[str, Any]) -> Stamps:
    """Return the stamps of the values in a patch; removed values have none."""
    found: Stamps = {}
    for name, new in patch.items():
        stamp = stamps.get(name)
        if stamp is None:
            continue
        if isinstance(new, dict) and len(stamp) > 2:  # noqa: PLR2004 - an object's
            found[name] = [stamp[0], stamp[1], submitted(stamp[2], new)]
        else:
            found[name] = stamp
    return found


def delta(desired: DocumentSection, reported: DocumentSection) -> tuple[dict[str, Any], Stamps]:
    """Return desired values that are not reported, with their stamps; values that are only reported are excluded."""
    return _delta(desired.values, desired.stamps, reported.values)


def _delta(
    wanted: Mapping[str, Any], stamps: Mapping[str, Any], there: Mapping[str, Any]
) -> tuple[dict[str, Any], Stamps]:
    values: dict[str, Any] = {}
    dated: Stamps = {}
    for name, value in wanted.items():
        present = there.get(name)
        if isinstance(value, dict) and isinstance(present, dict):
            inner, inner_stamps = _delta(value, stamps[name][2], present)
            if inner:
                values[name], dated[name] = inner, [*stamps[name][:2], inner_stamps]
        elif name not in there or not _same(value, present):
            values[name], dated[name] = value, stamps[name]
    return values, dated


def _same(value: object, other: object) -> bool:
    """Return whether two values are equal in JSON: true is not 1."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_same, value, other))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_same(value[name], other[name]) for name in value)
    return value == other
