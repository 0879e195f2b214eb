"""Index terms of things and groups: fields and values of the registry, shadows, and connectivity."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from birthmark.awsiot.model import Shadow, Thing, ThingGroup
from birthmark.awsiot.wire.index_query import ANY_OF, MAX_VALUE

MAX_OF_SHADOW = 500
"""Maximum number of indexed values per shadow, in document order."""
Term = tuple[str, str]
CONNECTED = "connectivity.connected"
REGISTRY, GROUPS, CONNECTIVITY = "registry", "groups", "connectivity"


def source_of_shadow(name: str) -> str:
    """Return the index source of a shadow's terms."""
    return f"shadow/{name}"


def of_thing(thing: Thing) -> Sequence[Term]:
    """Return the terms of a thing's registry data."""
    named = [("thingName", str(thing.name)), ("thingId", thing.thing_id)]
    if thing.type_name is not None:
        named.append(("thingTypeName", thing.type_name))
    named += [(f"attributes.{name}", value) for name, value in thing.attributes.items()]
    return (*_with_any(named, REGISTRY), ("registry.version", str(thing.version)))


def of_group(group: ThingGroup) -> Sequence[Term]:
    """Return the index terms of a thing group."""
    named = [("thingGroupName", group.name), ("thingGroupId", group.group_id)]
    if group.parent is not None:
        named.append(("parentGroupNames", group.parent))
    if description := group.properties.get("thingGroupDescription"):
        named.append(("thingGroupDescription", description))
    attributes = (group.properties.get("attributePayload") or {}).get("attributes") or {}
    named += [(f"attributes.{name}", value) for name, value in attributes.items()]
    return _with_any(named, REGISTRY)


def of_membership(group: str) -> Sequence[Term]:
    """Return the terms of a group membership."""
    return _with_any([("thingGroupNames", group)], GROUPS)


def of_shadow(shadow: Shadow) -> Sequence[Term]:
    """Return the terms of a shadow; none for a deleted one."""
    if shadow.is_deleted:
        return ()
    place = f"shadow.name.{shadow.name}." if shadow.name else "shadow."
    found: dict[Term, None] = {(f"{place}version", str(shadow.version)): None}
    sections = shadow.sections
    has_delta = _differs(sections["desired"].values, sections["reported"].values)
    found[f"{place}hasDelta", "true" if has_delta else "false"] = None
    for name, section in sections.items():
        for term in _leaves(f"{place}{name}", section.values):
            if len(found) >= MAX_OF_SHADOW:
                break
            found[term] = None
    return tuple(found)


def of_presence(*, connected: bool, at_ms: int, reason: str | None) -> Sequence[Term]:
    """Return the terms of a thing's connectivity."""
    told = [(CONNECTED, "true" if connected else "false"), ("connectivity.timestamp", str(at_ms))]
    return told if reason is None else [*told, ("connectivity.disconnectReason", reason)]


def _with_any(named: Sequence[Term], source: str) -> Sequence[Term]:
    cut = [(field, value[:MAX_VALUE]) for field, value in named]
    return tuple(dict.fromkeys([*cut, *((ANY_OF[source], value) for _, value in cut)]))


def _leaves(index_name: str, value: Any) -> Iterator[Term]:
    match value:
        case Mapping():
            for name, inner in value.items():
                yield from _leaves(f"{index_name}.{name}"[:MAX_VALUE], inner)
        case list():
            for inner in value:
                yield from _leaves(index_name, inner)
        case bool():
            yield index_name, "true" if value else "false"
        case str() | int() | float():
            yield index_name, str(value)[:MAX_VALUE].replace("\0", "")
        case _:
            return


def _differs(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> bool:
    for name, wanted in desired.items():
        has = reported.get(name)
        if isinstance(wanted, Mapping) and isinstance(has, Mapping):
            if _differs(wanted, has):
                return True
        elif wanted != has:
            return True
    return False
