"""What a condition says beyond what AWS IoT SQL has: where in a message or twin to look."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Place(Enum):
    """Where a reference looks."""

    APPLICATION = "application property"
    SYSTEM = "system property"
    BODY = "body"
    TWIN = "twin"


@dataclass(frozen=True, slots=True)
class Reference:
    """A property, or a way into the body or the twin: names, and numbers of elements."""

    place: Place
    path: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    value: object


@dataclass(frozen=True, slots=True)
class ArrayOf:
    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Binary:
    """Operators of one rank, from the left."""

    first: "Expression"
    rest: tuple[tuple[str, "Expression"], ...]


@dataclass(frozen=True, slots=True)
class Compare:
    sign: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Logic:
    """AND, which one false decides, or OR, which one true does."""

    decides: bool
    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Not:
    value: "Expression"


Expression: TypeAlias = Reference | Literal | ArrayOf | Call | Binary | Compare | Logic | Not
