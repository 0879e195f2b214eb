"""One section of a document: its values, and when each was set.

Merging goes by RFC 7396: null removes, an object is merged, everything else replaces, an array as a whole. The stamps
stand in a tree of the same shape: `[at, version]` for a value, `[at, version, {name: …}]` for an object. `at` is in
microseconds since 1970.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

Stamps = dict[str, Any]
_UNDATED: list[Any] = [0, 0, {}]  # of a document without stamps


class DocumentSection(msgspec.Struct, frozen=True, array_like=True):
    """Values with their stamps; `version` grows with every change. Nothing in it is ever changed in place."""

    values: dict[str, Any] = {}
    stamps: Stamps = {}
    version: int = 1
    at: int = 0


def merged(section: DocumentSection, patch: Mapping[str, Any], at: int) -> DocumentSection:
    """Return the section with a patch merged in, one version on."""
    version = section.version + 1
    values, stamps = _merged(section.values, section.stamps, patch, at, version)
    return DocumentSection(values, stamps, version, at)


def replaced(section: DocumentSection, values: Mapping[str, Any], at: int) -> DocumentSection:
    """Return the section with nothing but these values, one version on."""
    version = section.version + 1
    made, stamps = _merged({}, {}, values, at, version)
    return DocumentSection(made, stamps, version, at)


def _merged(
    values: Mapping[str, Any], stamps: Mapping[str, Any], patch: Mapping[str, Any], at: int, version: int
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
                at,
                version,
            )
            made[name], dated[name] = inner, [at, version, inner_stamps]
        else:
            made[name], dated[name] = new, [at, version]
    return made, dated


def submitted(stamps: Mapping[str, Any], patch: Mapping[str, Any]) -> Stamps:
    """Return the stamps of what a patch named; what it removed has none."""
    found: Stamps = {}
    for name, new in patch.items():
        stamp = stamps.get(name)
        if stamp is None:
            continue
        if isinstance(new, dict) and len(stamp) > 2:  # noqa: PLR2004 - that of an object
            found[name] = [stamp[0], stamp[1], submitted(stamp[2], new)]
        else:
            found[name] = stamp
    return found


def delta(desired: DocumentSection, reported: DocumentSection) -> tuple[dict[str, Any], Stamps]:
    """Return what is desired and not so reported, with the stamps of the desire; what is only reported is no part."""
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


def _same(one: object, other: object) -> bool:
    """JSON's own equality: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return one == other
