"""Twin query plans: validation of a query, and the index terms that find its candidates.

A plan names candidates that include all matches; each candidate is then checked against the complete condition and its
current state. So a plan may be wider than the condition, but never narrower. The caller, which can count, selects the
cheaper of two plans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from birthmark.documents.queries import (
    Alternative,
    Comparison,
    Condition,
    Conjunction,
    Contains,
    DocumentQuery,
    FieldPath,
    InSet,
    Negation,
    Operator,
    PathPart,
    Primitive,
    QueryKind,
    QueryProblem,
    TypeCheck,
    Value,
    parse_query,
    paths_of,
    with_paths,
)
from birthmark.errors import InvalidRequestError
from birthmark.iothub.rules.index_terms import BOOL, MODEL, NUMBER, TEXT, encode, path_key

DEVICES, MODULES, JOBS = "devices", "devices.modules", "devices.jobs"
COLLECTIONS = (DEVICES, MODULES, JOBS)
_NAMES = (
    *("deviceId", "moduleId", "etag", "deviceEtag", "status", "statusReason", "statusUpdateTime", "connectionState"),
    *("lastActivityTime", "cloudToDeviceMessageCount", "authenticationType", "x509Thumbprint", "modelId", "version"),
    *("tags", "properties", "capabilities", "deviceScope", "parentScopes", "configurations"),
)
_JOB_NAMES = (
    *("deviceId", "moduleId", "jobId", "jobType", "status", "startTimeUtc", "endTimeUtc", "createdDateTimeUtc"),
    *("lastUpdatedDateTimeUtc", "outcome", "error"),
)
_KNOWN: Mapping[str, str] = {name.lower(): name for name in _NAMES}
_KNOWN_OF_JOBS: Mapping[str, str] = {name.lower(): name for name in _JOB_NAMES}
_JOB_PREFIX = tuple(JOBS.split("."))
_KINDS: Mapping[QueryKind, str] = {
    QueryKind.BOOL: BOOL,
    QueryKind.NUMBER: NUMBER,
    QueryKind.TEXT: TEXT,
    QueryKind.OBJECT: "o",
    QueryKind.ARRAY: "a",
}
_LAST, _HALVES = 0x10FFFF, (0xD800, 0xDFFF)


class HubQueryInvalidError(InvalidRequestError):
    """The query cannot be parsed."""

    code = "iothub.query_invalid"
    message = "The query is not valid: {detail}"
    fix = (
        "Use a query such as SELECT * FROM devices WHERE tags.site = 'north' AND properties.reported.load > 4. To "
        "run a valid query: `birthmark hub query 'SELECT * FROM devices'`"
    )
    detail: str


class CollectionNotServedError(InvalidRequestError):
    """The collection of the query is not supported."""

    code = "iothub.collection_not_served"
    message = "Queries FROM {collection} are not supported"
    fix = "Query devices, devices.modules or devices.jobs: `birthmark hub query 'SELECT * FROM devices'`"
    collection: str


@dataclass(frozen=True, slots=True)
class AllTwins:
    """Plan: all twins, by name."""


@dataclass(frozen=True, slots=True)
class TwinsByName:
    """Plan: twins with one of these names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValueSpan:
    """A range of texts, including the upper bound if `with_high`; None is an open bound."""

    low: str
    high: str | None
    with_high: bool = True


@dataclass(frozen=True, slots=True)
class NamedWithin:
    """Plan: twins whose name is in a range."""

    span: ValueSpan


@dataclass(frozen=True, slots=True)
class TwinsByTerm:
    """Plan: twins with a term of this path and any of these values."""

    path: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TwinsByRange:
    """Plan: twins with a term of this path and a value in a range."""

    path: str
    span: ValueSpan


@dataclass(frozen=True, slots=True)
class DisabledTwins:
    """Plan: disabled devices."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Plan: IoT Edge devices."""


@dataclass(frozen=True, slots=True)
class ConnectedTwins:
    """Plan: connected devices, named by the presence directory."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Plan: union of plans."""

    parts: tuple["Plan", ...]


@dataclass(frozen=True, slots=True)
class CheapestPlan:
    """Plan: the cheapest of equivalent plans."""

    parts: tuple["Plan", ...]


Leaf: TypeAlias = AllTwins | TwinsByName | NamedWithin | TwinsByTerm | TwinsByRange | DisabledTwins | Edge
Plan: TypeAlias = Leaf | ConnectedTwins | AnyOf | CheapestPlan
_ALL = AllTwins()


def read_query(text: str, begin: int = 0) -> DocumentQuery:
    """Parse a hub query; errors count positions from `begin`, where the client's part of the text begins.

    Raise `HubQueryInvalidError` or `CollectionNotServedError`.
    """
    try:
        query = parse_query(text)
    except QueryProblem as problem:
        position = max(problem.position - begin, 1)
        raise HubQueryInvalidError(detail=f"at position {position} {problem.detail}") from problem
    if query.collection not in COLLECTIONS:
        raise CollectionNotServedError(collection=query.collection[:40])
    if query.collection == JOBS:
        query = with_paths(query, _without_prefix)
    names, known = (_JOB_NAMES, _KNOWN_OF_JOBS) if query.collection == JOBS else (_NAMES, _KNOWN)
    for path in paths_of(query):
        if path.steps[0].lower() not in known:
            subject = "a device in a job" if query.collection == JOBS else "a twin"
            raise HubQueryInvalidError(
                detail=f"{path.steps[0][:80]} is not a field of {subject}; texts are in quotes, as 'north'; the fields "
                f"are {', '.join(names)}"
            )
    return with_paths(query, lambda path: _normalize_path(path, known))


def _without_prefix(path: FieldPath) -> FieldPath:
    """Return a path without the name of the collection `devices.jobs` before it."""
    has_prefix = tuple(one.lower() for one in path.steps[:2]) == _JOB_PREFIX and len(path.steps) > len(_JOB_PREFIX)
    return FieldPath(path.steps[len(_JOB_PREFIX) :]) if has_prefix else path


def _normalize_path(path: FieldPath, known: Mapping[str, str]) -> FieldPath:
    """Return a path with the names of fields in canonical letter case; Azure accepts any."""
    return FieldPath((known[path.steps[0].lower()], *path.steps[1:]))


def values_of(condition: Condition | None) -> Mapping[str, str]:
    """Return the texts that a condition requires of fields, by their name."""
    match condition:
        case Conjunction(parts=parts):
            return {name: value for part in parts for name, value in values_of(part).items()}
        case Comparison(left=FieldPath(steps=(name,)), operator=Operator.SAME, right=Value(value=str() as value)):
            return {name: value}
        case _:
            return {}


def plan(condition: Condition | None) -> Plan:  # noqa: PLR0911 - one per form
    """Return the plan that finds the candidates of a condition."""
    match condition:
        case None:
            return _ALL
        case Conjunction(parts=parts):
            return CheapestPlan(tuple(_narrowed([plan(part) for part in parts])))
        case Alternative(parts=parts):
            return AnyOf(tuple(plan(part) for part in parts))
        case Negation(one=one):
            return _where_not(one)
        case Comparison(left=FieldPath() as path, operator=operator, right=Value(value=value)):
            return _compared(path, operator, value)
        case InSet(one=FieldPath() as path, values=values):
            return _joined([_compared(path, Operator.SAME, value) for value in values])
        case TypeCheck(kind=kind, path=path):
            return _tested(path, kind)
        case Contains(part=part, one=FieldPath() as path, text=Value(value=str() as text)):
            return _with_text(path, text if part is PathPart.BEGINS else "")
        case FieldPath():
            return _compared(condition, Operator.SAME, value=True)
        case _:
            return _ALL


def _joined(parts: Sequence[Plan]) -> Plan:
    """Return the union of plans, with values of the same path merged."""
    if all(isinstance(part, TwinsByTerm) for part in parts):
        each = [part for part in parts if isinstance(part, TwinsByTerm)]
        return TwinsByTerm(each[0].path, tuple(dict.fromkeys(value for part in each for value in part.values)))
    if all(isinstance(part, TwinsByName) for part in parts):
        return TwinsByName(
            tuple(sorted({name for part in parts if isinstance(part, TwinsByName) for name in part.names}))
        )
    return AnyOf(tuple(parts))


def _narrowed(parts: Sequence[Plan]) -> Sequence[Plan]:
    """Return the intersection of plans, with ranges of the same path merged into one selective range."""
    found: dict[object, Plan] = {}
    for number, part in enumerate(parts):
        if isinstance(part, TwinsByRange):
            known = found.get(part.path)
            found[part.path] = (
                TwinsByRange(part.path, _both(known.span, part.span)) if isinstance(known, TwinsByRange) else part
            )
        elif isinstance(part, NamedWithin):
            named = found.get(NamedWithin)
            found[NamedWithin] = NamedWithin(_both(named.span, part.span)) if isinstance(named, NamedWithin) else part
        else:
            found[number] = part
    return tuple(found.values())


def _both(value_span: ValueSpan, other: ValueSpan) -> ValueSpan:
    """Return the intersection of two ranges."""
    ends = [(span.high, span.with_high) for span in (value_span, other) if span.high is not None]
    high, with_high = min(ends) if ends else (None, True)
    return ValueSpan(max(value_span.low, other.low), high, with_high)


def _where_not(condition: Condition) -> Plan:
    """Return the plan of a negated condition: a negated comparison still requires a value."""
    match condition:
        case (
            Comparison(left=FieldPath() as path)
            | InSet(one=FieldPath() as path)
            | Contains(one=FieldPath() as path)
            | (FieldPath() as path)
        ):
            if path.steps == ("status",) and condition == Comparison(path, Operator.SAME, Value("enabled")):
                return DisabledTwins()
            return _tested(path, QueryKind.DEFINED)
        case Negation(one=one):
            return plan(one)
        case _:
            return _ALL


def _compared(path: FieldPath, operator: Operator, value: Primitive) -> Plan:
    key = path_key(path.steps)
    if key is None:
        return _of_device(path, operator, value)
    if value is None:
        return _ALL
    if operator is Operator.SAME:
        return TwinsByTerm(key, (encode(value),))
    if operator is Operator.OTHER:
        return _tested(path, QueryKind.DEFINED)
    low, high = _ends(encode(value)[0])
    edge = encode(value)
    if operator in {Operator.ABOVE, Operator.FROM}:
        return TwinsByRange(key, ValueSpan(edge, high, with_high=False))
    return TwinsByRange(key, ValueSpan(low, edge))  # long texts are cut, so lower values may share the term


_OFF = ((Operator.SAME, "disabled"), (Operator.OTHER, "enabled"))


def _of_device(path: FieldPath, operator: Operator, value: Primitive) -> Plan:
    match path.steps, value:
        case ("deviceId",), str():
            return _of_name(operator, value)
        case ("modelId",), str() if operator is Operator.SAME and value:  # without one it is empty
            return TwinsByTerm(MODEL, (encode(value),))
        case ("status",), str() if (operator, value) in _OFF:
            return DisabledTwins()
        case ("connectionState",), "Connected" if operator is Operator.SAME:
            return ConnectedTwins()
        case ("capabilities", "iotEdge"), True if operator is Operator.SAME:
            return Edge()
        case _:
            return _ALL


def _of_name(operator: Operator, value: str) -> Plan:
    match operator:
        case Operator.SAME:
            return TwinsByName((value,))
        case Operator.OTHER:
            return _ALL
        case Operator.ABOVE | Operator.FROM:
            return NamedWithin(ValueSpan(value, None))
        case _:
            return NamedWithin(ValueSpan("", value))


def _tested(path: FieldPath, kind: QueryKind) -> Plan:
    if (key := path_key(path.steps)) is None or kind is QueryKind.NULL:
        return _ALL
    if (first := _KINDS.get(kind)) is None:
        return TwinsByRange(key, ValueSpan("", None))
    low, high = _ends(first)
    return TwinsByRange(key, ValueSpan(low, high, with_high=False))


def _with_text(path: FieldPath, beginning: str) -> Plan:
    if (key := path_key(path.steps)) is not None:
        low = encode(beginning)
        return TwinsByRange(key, ValueSpan(low, _beyond(low), with_high=False))
    if path.steps == ("deviceId",) and beginning:
        return NamedWithin(ValueSpan(beginning, _beyond(beginning), with_high=False))
    if path.steps == ("modelId",) and beginning:
        low = encode(beginning)
        return TwinsByRange(MODEL, ValueSpan(low, _beyond(low), with_high=False))
    return _ALL


def _ends(first: str) -> tuple[str, str]:
    """Return the range of terms of one type: its start and its exclusive end."""
    return first, chr(ord(first) + 1)


def _beyond(beginning: str) -> str | None:
    """Return the smallest text above all texts with this prefix; None if there is none."""
    while beginning:
        last = ord(beginning[-1]) + 1
        if last == _HALVES[0]:  # surrogates are not characters
            last = _HALVES[1] + 1
        if last <= _LAST:
            return beginning[:-1] + chr(last)
        beginning = beginning[:-1]
    return None
