"""Queries as values: what is selected, of what, and under which condition."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

Primitive: TypeAlias = str | float | bool | None


class Operator(StrEnum):
    """How two values are compared."""

    SAME = "="
    OTHER = "!="
    BELOW = "<"
    ABOVE = ">"
    UP_TO = "<="
    FROM = ">="


class Kind(StrEnum):
    """What is asked of the value at a path, or of whether there is one."""

    DEFINED = "is_defined"
    TEXT = "is_string"
    NUMBER = "is_number"
    BOOL = "is_bool"
    NULL = "is_null"
    OBJECT = "is_object"
    ARRAY = "is_array"
    PRIMITIVE = "is_primitive"


class Part(StrEnum):
    """Where one text stands in another."""

    BEGINS = "starts_with"
    ENDS = "ends_with"
    INSIDE = "contains"


class Sum(StrEnum):
    """What is made of many values."""

    COUNT = "count"
    AVERAGE = "avg"
    TOTAL = "sum"
    LEAST = "min"
    MOST = "max"


@dataclass(frozen=True, slots=True)
class Path:
    """Names from the document down."""

    steps: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.steps)


@dataclass(frozen=True, slots=True)
class Value:
    """A value that the text says."""

    value: Primitive


Operand: TypeAlias = Path | Value


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values compared."""

    left: Operand
    operator: Operator
    right: Operand


@dataclass(frozen=True, slots=True)
class InSet:
    """A value that is one of some; what `NIN` says is the opposite of it."""

    one: Operand
    values: tuple[Primitive, ...]


@dataclass(frozen=True, slots=True)
class Is:
    """A test of a path."""

    kind: Kind
    path: Path


@dataclass(frozen=True, slots=True)
class Contains:
    """One text with another in it."""

    part: Part
    one: Operand
    text: Operand


@dataclass(frozen=True, slots=True)
class Not:
    """What the other is not."""

    one: "Condition"


@dataclass(frozen=True, slots=True)
class And:
    """All of these."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of these."""

    parts: tuple["Condition", ...]


Condition: TypeAlias = Compare | InSet | Is | Contains | Not | And | Or | Operand
"""A path alone holds where the value there is true."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a row shows: a value, or what is made of many, under a name."""

    name: str
    path: Path | None
    sum: Sum | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A query; without items it selects whole documents."""

    collection: str
    where: Condition | None = None
    items: tuple[Item, ...] = ()
    group_by: tuple[Path, ...] = ()
    top: int | None = None

    @property
    def is_summed(self) -> bool:
        """Whether many documents become one row."""
        return bool(self.group_by) or any(item.sum is not None for item in self.items)


def paths_of(query: Query) -> Iterator[Path]:
    """Yield each path that a query reads."""
    if query.where is not None:
        yield from paths_in(query.where)
    yield from (item.path for item in query.items if item.path is not None)
    yield from query.group_by


def paths_in(condition: Condition) -> Iterator[Path]:
    """Yield each path that a condition reads."""
    match condition:
        case Path():
            yield condition
        case And(parts=parts) | Or(parts=parts):
            for part in parts:
                yield from paths_in(part)
        case Not(one=one) | InSet(one=one):
            yield from paths_in(one)
        case Is(path=path):
            yield path
        case Compare(left=left, right=right) | Contains(one=left, text=right):
            yield from (one for one in (left, right) if isinstance(one, Path))
        case Value():
            return


def with_paths(query: Query, change: Callable[[Path], Path]) -> Query:
    """Return a query with each of its paths changed; a row that shows one under its own name takes the new one's."""
    return replace(
        query,
        where=None if query.where is None else _with_paths(query.where, change),
        items=tuple(_item_with(item, change) for item in query.items),
        group_by=tuple(change(path) for path in query.group_by),
    )


def _item_with(item: Item, change: Callable[[Path], Path]) -> Item:
    if item.path is None:
        return item
    path = change(item.path)
    return replace(item, path=path, name=path.steps[-1] if item.name == item.path.steps[-1] else item.name)


def _with_paths(condition: Condition, change: Callable[[Path], Path]) -> Condition:  # noqa: PLR0911 - one for each form
    def operand(one: Operand) -> Operand:
        return change(one) if isinstance(one, Path) else one

    match condition:
        case And(parts=parts) | Or(parts=parts):
            return replace(condition, parts=tuple(_with_paths(part, change) for part in parts))
        case Not(one=one):
            return Not(_with_paths(one, change))
        case Compare(left=left, right=right):
            return replace(condition, left=operand(left), right=operand(right))
        case Contains(one=one, text=text):
            return replace(condition, one=operand(one), text=operand(text))
        case InSet(one=one):
            return replace(condition, one=operand(one))
        case Is(path=path):
            return replace(condition, path=change(path))
        case _:
            return operand(condition)
