"""Queries of enrollments and registrations: permitted members, and the IDs that can match.

A condition applies to a record as the service returns it, so that a query reveals nothing that the caller may not see.
Keys, for example, are not visible. A condition on an omitted member applies to its default value.
"""

from collections.abc import Mapping
from typing import Any

from birthmark.documents.queries import (
    Alternative,
    Comparison,
    Condition,
    Conjunction,
    Contains,
    FieldPath,
    InSet,
    Negation,
    Operand,
    Operator,
    QueryProblem,
    Value,
    parse_query,
    paths_in,
    with_paths,
)
from birthmark.errors import InvalidRequestError

_RECORD = (
    *("deviceId", "attestation", "capabilities", "iotHubHostName", "initialTwin", "etag", "provisioningStatus"),
    *("reprovisionPolicy", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "allocationPolicy", "iotHubs"),
    *("optionalDeviceInformation", "registrationState"),
)
_STATE = (
    *("registrationId", "deviceId", "assignedHub", "status", "substatus", "etag"),
    *("createdDateTimeUtc", "lastUpdatedDateTimeUtc"),
)
NAMES: Mapping[str, tuple[str, ...]] = {
    "enrollments": ("registrationId", *_RECORD),
    "enrollmentGroups": (
        "enrollmentGroupId",
        *(name for name in _RECORD if name not in {"deviceId", "registrationState"}),
    ),
    "registrations": _STATE,
}
"""Collections, and the top-level members of their records."""
_COLLECTIONS: Mapping[str, str] = {"deviceregistrations": "registrations"}
"""Other names of collections: the SDK for Java uses it."""
ID: Mapping[str, str] = {kind: names[0] for kind, names in NAMES.items()}
_DEFAULTS: Mapping[str, Any] = {
    "capabilities": {"iotEdge": False},
    "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    "allocationPolicy": "hashed",
}


class QueryInvalidError(InvalidRequestError):
    """The query cannot be parsed."""

    code = "dps.query_invalid"
    message = "The query {query} is not valid: {detail}"
    fix = (
        "Use a query such as SELECT * FROM {kind} WHERE provisioningStatus = 'disabled'. List enrollments: `birthmark "
        "device ls`"
    )
    detail: str
    kind: str
    query: str


class QueryNotServedError(InvalidRequestError):
    """The query selects something other than complete records."""

    code = "dps.query_not_served"
    message = "The query is not supported: {query}"
    cause = "The query {query} does not select complete {kind}: {detail}."
    fix = "Use SELECT * FROM {kind}, with or without a WHERE clause. List enrollments: `birthmark device ls`"
    detail: str
    kind: str
    query: str


def read_query(text: str, kind: str) -> Condition | None:
    """Parse a query, and return its condition; None for all. Raise `QueryInvalidError` or `QueryNotServedError`."""
    told: dict[str, str] = {"query": text[:200], "kind": kind}
    if text.rstrip().removesuffix(";").lower().split() in ([], ["select", "*"]):
        return None
    try:
        query = parse_query(text)
    except QueryProblem as problem:
        raise QueryInvalidError(detail=str(problem), **told) from problem
    if _COLLECTIONS.get(query.collection, query.collection) != kind.lower():
        raise QueryNotServedError(detail=f"it is of {query.collection[:40]}", **told)
    if query.items or query.group_by or query.top is not None:
        raise QueryNotServedError(detail="it selects a part, or not all of them", **told)
    if query.where is None:
        return None
    known = {name.lower(): name for name in NAMES[kind]}
    for path in paths_in(query.where):
        if path.steps[0].lower() not in known:
            detail = f"{path.steps[0][:80]} is not a field; the fields are {', '.join(NAMES[kind])}"
            raise QueryInvalidError(detail=detail, **told)
    named = with_paths(query, lambda path: FieldPath((known[path.steps[0].lower()], *path.steps[1:])))
    return None if named.where is None else _folded(named.where, ID[kind])


def ids_of(condition: Condition | None, name: str) -> frozenset[str] | None:
    """Return the IDs, in member `name`, that can match a condition; None for any."""
    match condition:
        case Comparison(left=FieldPath(steps=(one,)), operator=Operator.SAME, right=Value(value=str() as value)) if (
            one == name
        ):
            return frozenset([value])
        case InSet(one=FieldPath(steps=(one,)), values=values) if one == name:
            return frozenset(value for value in values if isinstance(value, str))
        case Conjunction(parts=parts):
            known = [found for part in parts if (found := ids_of(part, name)) is not None]
            return frozenset.intersection(*known) if known else None
        case Alternative(parts=parts):
            each = [ids_of(part, name) for part in parts]
            known = [found for found in each if found is not None]
            return frozenset.union(*known) if len(known) == len(each) else None
        case _:
            return None


def query_view(view: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return a record in the form that conditions apply to."""
    return view if kind == "registrations" else {**_DEFAULTS, **view}


def _folded(condition: Condition, name: str) -> Condition:  # noqa: PLR0911 - one per form
    """Return a condition with IDs in lower case, as they are stored: IDs are case-insensitive."""

    def is_id(operand: Operand) -> bool:
        return isinstance(operand, FieldPath) and operand.steps == (name,)

    match condition:
        case Conjunction(parts=parts):
            return Conjunction(tuple(_folded(part, name) for part in parts))
        case Alternative(parts=parts):
            return Alternative(tuple(_folded(part, name) for part in parts))
        case Negation(one=one):
            return Negation(_folded(one, name))
        case Comparison(left=left, operator=operator, right=Value(value=str() as value)) if is_id(left):
            return Comparison(left, operator, Value(value.lower()))
        case Contains(part=part, one=one, text=Value(value=str() as value)) if is_id(one):
            return Contains(part, one, Value(value.lower()))
        case InSet(one=one, values=values) if is_id(one):
            return InSet(one, tuple(value.lower() if isinstance(value, str) else value for value in values))
        case _:
            return condition
