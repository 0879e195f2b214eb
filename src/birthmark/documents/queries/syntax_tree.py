"""Queries as values: selected fields, collection and condition."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

Primitive: TypeAlias = str | float | bool | None


class Operator(StrEnum):
    """Comparison operator."""

    SAME = "="
    OTHER = "!="
    BELOW = "<"
    ABOVE = ">"
    UP_TO = "<="
    FROM = ">="


class QueryKind(StrEnum):
    """Type check of the value at a path, or check for its presence."""

    DEFINED = "is_defined"
    TEXT = "is_string"
    NUMBER = "is_number"
    BOOL = "is_bool"
    NULL = "is_null"
    OBJECT = "is_object"
    ARRAY = "is_array"
    PRIMITIVE = "is_primitive"


class PathPart(StrEnum):
    """Position of one text in another."""

    BEGINS = "starts_with"
    ENDS = "ends_with"
    INSIDE = "contains"


class Sum(StrEnum):
    """Aggregate over several values."""

    COUNT = "count"
    AVERAGE = "avg"
    TOTAL = "sum"
    LEAST = "min"
    MOST = "max"


@dataclass(frozen=True, slots=True)
class FieldPath:
    """Path of names from the document's root."""

    steps: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.steps)


@dataclass(frozen=True, slots=True)
class Value:
    """A literal value."""

    value: Primitive


Operand: TypeAlias = FieldPath | Value


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of two values."""

    left: Operand
    operator: Operator
    right: Operand


@dataclass(frozen=True, slots=True)
class InSet:
    """Membership of a value in a list; `NIN` is its negation."""

    one: Operand
    values: tuple[Primitive, ...]


@dataclass(frozen=True, slots=True)
class TypeCheck:
    """Type check of a path."""

    kind: QueryKind
    path: FieldPath


@dataclass(frozen=True, slots=True)
class Contains:
    """Condition that a text contains another."""

    part: PathPart
    one: Operand
    text: Operand


@dataclass(frozen=True, slots=True)
class Negation:
    """Negation of a condition."""

    one: "Condition"


@dataclass(frozen=True, slots=True)
class Conjunction:
    """Conjunction of conditions."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Disjunction of conditions."""

    parts: tuple["Condition", ...]


Condition: TypeAlias = Comparison | InSet | TypeCheck | Contains | Negation | Conjunction | Alternative | Operand
"""Condition of a query; a path alone holds if its value is true."""


@dataclass(frozen=True, slots=True)
class SelectedField:
    """A field of a row: a value or an aggregate, with its name."""

    name: str
    path: FieldPath | None
    sum: Sum | None = None


@dataclass(frozen=True, slots=True)
class DocumentQuery:
    """A query; without items it selects complete documents."""

    collection: str
    where: Condition | None = None
    items: tuple[SelectedField, ...] = ()
    group_by: tuple[FieldPath, ...] = ()
    top: int | None = None

    @property
    def is_summed(self) -> bool:
        """Whether a row aggregates several documents."""
        return bool(self.group_by) or any(item.sum is not None for item in self.items)


def paths_of(query: DocumentQuery) -> Iterator[FieldPath]:
    """Yield each path that a query reads."""
    if query.where is not None:
        yield from paths_in(query.where)
    yield from (item.path for item in query.items if item.path is not None)
    yield from query.group_by


def paths_in(condition: Condition) -> Iterator[FieldPath]:
    """Yield each path that a condition reads."""
    match condition:
        case FieldPath():
            yield condition
        case Conjunction(parts=parts) | Alternative(parts=parts):
            for part in parts:
                yield from paths_in(part)
        case Negation(one=one) | InSet(one=one):
            yield from paths_in(one)
        case TypeCheck(path=path):
            yield path
        case Comparison(left=left, right=right) | Contains(one=left, text=right):
            yield from (one for one in (left, right) if isinstance(one, FieldPath))
        case Value():
            return


def with_paths(query: DocumentQuery, change: Callable[[FieldPath], FieldPath]) -> DocumentQuery:
    """Return a query with each path changed; a field named after its path gets the new path's name."""
    return replace(
        query,
        where=None if query.where is None else _with_paths(query.where, change),
        items=tuple(_item_with(item, change) for item in query.items),
        group_by=tuple(change(path) for path in query.group_by),
    )


def _item_with(item: SelectedField, change: Callable[[FieldPath], FieldPath]) -> SelectedField:
    if item.path is None:
        return item
    path = change(item.path)
    return replace(item, path=path, name=path.steps[-1] if item.name == item.path.steps[-1] else item.name)


def _with_paths(condition: Condition, change: Callable[[FieldPath], FieldPath]) -> Condition:  # noqa: PLR0911 - one for each form
    def operand(operand: Operand) -> Operand:
        return change(operand) if isinstance(operand, FieldPath) else operand

    match condition:
        case Conjunction(parts=parts) | Alternative(parts=parts):
            return replace(condition, parts=tuple(_with_paths(part, change) for part in parts))
        case Negation(one=one):
            return Negation(_with_paths(one, change))
        case Comparison(left=left, right=right):
            return replace(condition, left=operand(left), right=operand(right))
        case Contains(one=one, text=text):
            return replace(condition, one=operand(one), text=operand(text))
        case InSet(one=one):
            return replace(condition, one=operand(one))
        case TypeCheck(path=path):
            return replace(condition, path=change(path))
        case _:
            return operand(condition)
