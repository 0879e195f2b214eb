"""What a statement says, as values: no node holds more than it says, and all of them know where they stand."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias


class Version(StrEnum):
    """Versions of the language (`awsIotSqlVersion`)."""

    V2015_10_08 = "2015-10-08"
    V2016_03_23 = "2016-03-23"


@dataclass(frozen=True, slots=True)
class SqlLiteral:
    """A number, a string, true, false, null, undefined."""

    value: Any


@dataclass(frozen=True, slots=True)
class Star:
    """The whole payload; within a nested query the element."""


@dataclass(frozen=True, slots=True)
class Variable:
    """What SET gave a name, written with its @."""

    name: str


@dataclass(frozen=True, slots=True)
class PathExpression:
    """Members of members, beginning at the message or at another expression (`of`)."""

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
    """A function by its name in small letters."""

    name: str
    arguments: tuple["Expression", ...]
    where: int


@dataclass(frozen=True, slots=True)
class CastExpression:
    value: "Expression"
    kind: str
    """`string`, `int`, `double`, `decimal` or `boolean`: the spellings are the parser's."""


@dataclass(frozen=True, slots=True)
class ComparisonExpression:
    sign: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class InExpression:
    """Whether an array has a value among its elements."""

    value: "Expression"
    array: "Expression"


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a nested query returns anything."""

    query: "SqlQuery"


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of one rank, from the left: a long sum is no deep tree."""

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
    """One thing selected; `name` is nested where it has several parts, and None in SELECT VALUE."""

    value: "Expression"
    name: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ObjectSpread:
    """`*` or `a.*`: the members of an object, each under its own name."""

    value: "Expression"


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """A SELECT in parentheses over an array or object of the message."""

    is_value: bool
    items: tuple["SelectItem | ObjectSpread", ...]
    source: "Expression"
    where: "Expression | None"
    terms: int
    """How many terms it has: what one element costs."""


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
    """A whole statement."""

    variables: tuple[tuple[str, Expression], ...]
    is_value: bool
    items: tuple[SelectItem | ObjectSpread, ...]
    filter: str | None
    where: Expression | None
