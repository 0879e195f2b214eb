"""Syntax tree of a statement; each node has its position."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias


class Version(StrEnum):
    """Versions of AWS IoT SQL (`awsIotSqlVersion`)."""

    V2015_10_08 = "2015-10-08"
    V2016_03_23 = "2016-03-23"


@dataclass(frozen=True, slots=True)
class SqlLiteral:
    """A literal: number, string, true, false, null or undefined."""

    value: Any


@dataclass(frozen=True, slots=True)
class Star:
    """The complete payload; in a nested query, the element."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of SET, written with @."""

    name: str


@dataclass(frozen=True, slots=True)
class PathExpression:
    """A member path, from the message or another expression (`of`)."""

    names: tuple[str, ...]
    of: "Expression | None" = None


@dataclass(frozen=True, slots=True)
class ArrayOf:
    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    pairs: tuple[tuple[str, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function call by lower-case name."""

    name: str
    arguments: tuple["Expression", ...]
    where: int


@dataclass(frozen=True, slots=True)
class CastExpression:
    value: "Expression"
    kind: str
    """Target type as the parser spells it: `string`, `int`, `double`, `decimal` or `boolean`."""


@dataclass(frozen=True, slots=True)
class ComparisonExpression:
    sign: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class InExpression:
    """IN: whether an array contains a value."""

    value: "Expression"
    array: "Expression"


@dataclass(frozen=True, slots=True)
class Exists:
    """EXISTS: whether a nested query returns any result."""

    query: "SqlQuery"


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of equal precedence, left-associative: a long sum does not nest deeply."""

    first: "Expression"
    rest: tuple[tuple[str, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class SelectAll:
    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Disjunction:
    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class NotExpression:
    value: "Expression"


@dataclass(frozen=True, slots=True)
class Negative:
    value: "Expression"


@dataclass(frozen=True, slots=True)
class CaseExpression:
    value: "Expression"
    whens: tuple[tuple["Expression", "Expression"], ...]
    otherwise: "Expression | None"


@dataclass(frozen=True, slots=True)
class SelectItem:
    """A selected item; `name` is nested if it has several parts, and None in SELECT VALUE."""

    value: "Expression"
    name: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ObjectSpread:
    """`*` or `a.*`: the members of an object under their own names."""

    value: "Expression"


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """A nested SELECT over an array or object of the message."""

    is_value: bool
    items: tuple["SelectItem | ObjectSpread", ...]
    source: "Expression"
    where: "Expression | None"
    terms: int
    """Number of terms: the cost per element."""


Expression: TypeAlias = (
    SqlLiteral
    | Star
    | Variable
    | PathExpression
    | ArrayOf
    | ObjectOf
    | FunctionCall
    | CastExpression
    | ComparisonExpression
    | InExpression
    | Exists
    | Chain
    | SelectAll
    | Disjunction
    | NotExpression
    | Negative
    | CaseExpression
    | SqlQuery
)


@dataclass(frozen=True, slots=True)
class Select:
    """A complete statement."""

    variables: tuple[tuple[str, Expression], ...]
    is_value: bool
    items: tuple[SelectItem | ObjectSpread, ...]
    filter: str | None
    where: Expression | None
