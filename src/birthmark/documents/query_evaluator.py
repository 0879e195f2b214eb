"""Evaluation of queries over documents: filtering, projection and aggregation.

A comparison with an absent value is neither true nor false, also under NOT. A document matches if the complete
condition is true. Values of different types are not equal and have no order; objects and arrays cannot be compared.
"""

import struct
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

import msgspec

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
    Operand,
    Operator,
    PathPart,
    QueryKind,
    SelectedField,
    Sum,
    TypeCheck,
    Value,
)


def ordered(value: float) -> int:
    """Return an integer with the same sort order as the number."""
    (bits,) = struct.unpack(">q", struct.pack(">d", value + 0.0))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFF_FFFF_FFFF_FFFF) - 1


MAX_GROUPS, MAX_GROUP_BYTES = 10_000, 16 * 1024 * 1024
_key_of = msgspec.json.Encoder(order="sorted").encode


class TooManyGroupsProblem(Exception):  # noqa: N818 - base of each service's error
    """The documents fall into more groups than the limit."""


class _Undefined:
    """Marker of an absent value."""


UNDEFINED: Final = _Undefined()
Document = Mapping[str, Any]


def fits(condition: Condition | None, document: Document) -> bool:
    """Return whether a document matches a condition."""
    return condition is None or _holds(condition, document) is True


def value_at(path: FieldPath, document: Document) -> Any:
    """Return the value at a path, `UNDEFINED` if absent."""
    found: Any = document
    for step in path.steps:
        if not isinstance(found, Mapping) or step not in found:
            return UNDEFINED
        found = found[step]
    return found


def row_of(query: DocumentQuery, document: Document) -> dict[str, Any]:
    """Return the row of a document for a query that has items but no aggregates."""
    found = ((item.name, value_at(item.path, document)) for item in query.items if item.path is not None)
    return {name: value for name, value in found if value is not UNDEFINED}


class GroupedRows:
    """Aggregated rows, one per group."""

    def __init__(self, query: DocumentQuery) -> None:
        self._query = query
        self._paths = tuple(dict.fromkeys(query.group_by))
        self._groups: dict[Hashable, list[_Sum | _GroupState]] = {}
        self._bytes = 0
        if not query.group_by:
            self._groups[()] = [_kept(item) for item in query.items]

    def add(self, document: Document) -> None:
        """Add a document to its group. Raise `TooManyGroupsProblem`."""
        key = tuple(_hashable(value_at(path, document)) for path in self._paths)
        if (group := self._groups.get(key)) is None:
            self._bytes += sum(len(part[1]) for part in key if isinstance(part, tuple))
            if len(self._groups) >= MAX_GROUPS or self._bytes > MAX_GROUP_BYTES:
                raise TooManyGroupsProblem
            group = self._groups[key] = [_kept(item) for item in self._query.items]
        for one in group:
            one.add(document)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows so far, in order of the first document of each group."""
        return [
            {one.item.name: value for one in group if (value := one.value()) is not UNDEFINED}
            for group in self._groups.values()
        ]


class _GroupState:
    """A value that all documents of a group share."""

    def __init__(self, item: SelectedField) -> None:
        self.item = item
        self._value: Any = None
        self._is_known = False

    def add(self, document: Document) -> None:
        if not self._is_known and self.item.path is not None:
            self._value, self._is_known = value_at(self.item.path, document), True

    def value(self) -> Any:
        return self._value


class _Sum:
    """Aggregate over the values of a group."""

    def __init__(self, item: SelectedField) -> None:
        self.item = item
        self._count = 0
        self._numbers = 0
        self._total: float = 0
        self._ends: dict[type, tuple[Any, Any]] = {}

    def add(self, document: Document) -> None:
        value: Any = None if self.item.path is None else value_at(self.item.path, document)
        if value is UNDEFINED:
            return
        self._count += 1
        kind: type | None = float if _is_number(value) else str if isinstance(value, str) else None
        if kind is None:
            return
        if kind is float:
            self._numbers += 1
            self._total += float(value)
        least, most = self._ends.get(kind, (value, value))
        self._ends[kind] = min(least, value), max(most, value)

    def value(self) -> Any:
        match self.item.sum:
            case Sum.COUNT:
                return self._count
            case Sum.TOTAL:
                return self._total
            case Sum.AVERAGE:
                return self._total / self._numbers if self._numbers else UNDEFINED
            case _:
                ends = self._ends.get(float) or self._ends.get(str)
                return UNDEFINED if ends is None else ends[0 if self.item.sum is Sum.LEAST else 1]


def _kept(item: SelectedField) -> _Sum | _GroupState:
    return _GroupState(item) if item.sum is None else _Sum(item)


def _hashable(value: Any) -> Hashable:
    """Return a hashable key that equal values share; true and 1 differ."""
    if isinstance(value, _Undefined):
        return UNDEFINED
    if _is_number(value):
        return float(value)
    kind: str = type(value).__name__
    return kind, bytes(_key_of(value))


def _holds(condition: Condition, document: Document) -> bool | None:  # noqa: PLR0911 - one per form
    match condition:
        case Conjunction(parts=parts):
            return _both(parts, document, decided=False)
        case Alternative(parts=parts):
            return _both(parts, document, decided=True)
        case Negation(one=one):
            found = _holds(one, document)
            return None if found is None else not found
        case Comparison(left=left, operator=operator, right=right):
            return _compare(_value(left, document), operator, _value(right, document))
        case InSet(one=operand, values=values):
            value = _value(operand, document)
            if _kind(value) is None:
                return None
            return any(_compare(value, Operator.SAME, other) for other in values)
        case TypeCheck(kind=kind, path=path):
            return _KINDS[kind](value_at(path, document))
        case Contains(part=part, one=operand, text=other):
            whole, text = _value(operand, document), _value(other, document)
            if not isinstance(whole, str) or not isinstance(text, str):
                return None
            return _PARTS[part](whole, text)
        case _:
            value = _value(condition, document)
            return value if isinstance(value, bool) else None


def _both(parts: tuple[Condition, ...], document: Document, *, decided: bool) -> bool | None:
    """Return the result of AND or OR: one part may decide it; otherwise it is unknown if one part is."""
    is_unknown = False
    for part in parts:
        found = _holds(part, document)
        if found is decided:
            return decided
        is_unknown = is_unknown or found is None
    return None if is_unknown else not decided


def _value(operand: Operand, document: Document) -> Any:
    return operand.value if isinstance(operand, Value) else value_at(operand, document)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str | None:
    """Return the type of a primitive value; None for values that cannot be compared."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    return "number" if _is_number(value) else None


def _compare(left: Any, operator: Operator, right: Any) -> bool | None:
    kinds = _kind(left), _kind(right)
    if None in kinds:
        return None
    is_alike = kinds[0] == kinds[1]
    if operator in {Operator.SAME, Operator.OTHER}:
        return (is_alike and left == right) is (operator is Operator.SAME)
    if not is_alike or left is None:
        return None
    return _ORDERS[operator](left, right)


_ORDERS: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.BELOW: lambda left, right: bool(left < right),
    Operator.ABOVE: lambda left, right: bool(left > right),
    Operator.UP_TO: lambda left, right: bool(left <= right),
    Operator.FROM: lambda left, right: bool(left >= right),
}
_KINDS: Mapping[QueryKind, Callable[[Any], bool]] = {
    QueryKind.DEFINED: lambda value: value is not UNDEFINED,
    QueryKind.TEXT: lambda value: isinstance(value, str),
    QueryKind.NUMBER: _is_number,
    QueryKind.BOOL: lambda value: isinstance(value, bool),
    QueryKind.NULL: lambda value: value is None,
    QueryKind.OBJECT: lambda value: isinstance(value, Mapping),
    QueryKind.ARRAY: lambda value: isinstance(value, list),
    QueryKind.PRIMITIVE: lambda value: _kind(value) is not None,
}
_PARTS: Mapping[PathPart, Callable[[str, str], bool]] = {
    PathPart.BEGINS: lambda whole, text: whole.startswith(text),
    PathPart.ENDS: lambda whole, text: whole.endswith(text),
    PathPart.INSIDE: lambda whole, text: text in whole,
}
