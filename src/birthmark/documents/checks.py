"""What may stand in a document: how deep, how large, which keys and values."""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

_size = msgspec.json.Encoder().encode


class Problem(StrEnum):
    """What is wrong."""

    NOT_AN_OBJECT = "is not a JSON object"
    TOO_DEEP = "has too many levels"
    TOO_LARGE = "is too large"
    KEY = "is a name that is not allowed"
    NULL_IN_ARRAY = "is null inside of an array"
    NUMBER = "is a number that is out of range"
    TEXT = "is a text that is too long"


class DocumentProblem(Exception):  # noqa: N818 - each cloud makes its own error of it
    """A document that is not allowed; `path` says where, as `a.b.c`."""

    def __init__(self, problem: Problem, path: str) -> None:
        super().__init__(f"{path} {problem.value}" if path else problem.value)
        self.problem = problem
        self.path = path


class Shape(msgspec.Struct, frozen=True):
    """What a cloud allows. Levels are those of objects and arrays, the outermost object being the first."""

    max_levels: int
    max_bytes: int
    forbidden: str = ""
    """Characters that no name has."""
    forbidden_first: str = ""
    max_name_bytes: int = 1024
    max_text_bytes: int | None = None
    integers: tuple[int, int] | None = None


def check(document: object, shape: Shape, *, place: str = "") -> dict[str, Any]:
    """Return `document`, which is an object of that shape. Raise `DocumentProblem`.

    What counts in the end is what a section becomes, `check_size`. A patch that removes may be larger than that, but
    none of use is more than twice as large, which is known in a hundredth of the time of a look at each value.
    """
    if not isinstance(document, dict):
        raise DocumentProblem(Problem.NOT_AN_OBJECT, place)
    try:
        if len(_size(document)) > 2 * shape.max_bytes:
            raise DocumentProblem(Problem.TOO_LARGE, place)
    except RecursionError as error:
        raise DocumentProblem(Problem.TOO_DEEP, place) from error
    _walk(document, shape, place, 1, in_array=False)
    return document


def check_size(document: Mapping[str, Any], shape: Shape, *, place: str = "") -> None:
    """Raise `DocumentProblem` for a section that is larger than its shape allows, as compact JSON in UTF-8."""
    if len(_size(document)) > shape.max_bytes:
        raise DocumentProblem(Problem.TOO_LARGE, place)


def _walk(value: object, shape: Shape, place: str, level: int, *, in_array: bool) -> None:
    if isinstance(value, dict):
        if level > shape.max_levels:
            raise DocumentProblem(Problem.TOO_DEEP, _short(place))
        for name, inner in value.items():
            where = f"{place}.{name}" if place else name
            _check_name(name, shape, where)
            _walk(inner, shape, where, level + 1, in_array=in_array)
    elif isinstance(value, list):
        if level > shape.max_levels:
            raise DocumentProblem(Problem.TOO_DEEP, _short(place))
        for number, inner in enumerate(value):
            _walk(inner, shape, f"{place}[{number}]", level + 1, in_array=True)
    else:
        _check_leaf(value, shape, _short(place), in_array=in_array)


def _check_leaf(value: object, shape: Shape, place: str, *, in_array: bool) -> None:
    if value is None and in_array:
        raise DocumentProblem(Problem.NULL_IN_ARRAY, place)
    if isinstance(value, str) and shape.max_text_bytes is not None and len(value.encode()) > shape.max_text_bytes:
        raise DocumentProblem(Problem.TEXT, place)
    if shape.integers is not None and isinstance(value, int) and not isinstance(value, bool):
        low, high = shape.integers
        if not low <= value <= high:
            raise DocumentProblem(Problem.NUMBER, place)


def _check_name(name: str, shape: Shape, where: str) -> None:
    if (
        not name
        or name[0] in shape.forbidden_first
        or not _letters_not_in_names(shape.forbidden).isdisjoint(name)
        or len(name.encode(errors="replace")) > shape.max_name_bytes
    ):
        raise DocumentProblem(Problem.KEY, _short(where))


@lru_cache
def _letters_not_in_names(forbidden: str) -> frozenset[str]:
    return frozenset({*forbidden, *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))})


def _short(place: str) -> str:
    return place[:200]


__all__ = ["DocumentProblem", "Problem", "Shape", "check", "check_size"]
