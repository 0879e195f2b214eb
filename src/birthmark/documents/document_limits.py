"""Limits of a document: depth, size, keys and values."""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

_MAX_PATH = 200
_size = msgspec.json.Encoder().encode


class Problem(StrEnum):
    """Violated limit."""

    NOT_AN_OBJECT = "is not a JSON object"
    TOO_DEEP = "has too many levels"
    TOO_LARGE = "is too large"
    KEY = "is a name that is not allowed"
    NULL_IN_ARRAY = "is null inside of an array"
    NUMBER = "is a number out of range"
    TEXT = "is a string that is too long"


class DocumentProblem(Exception):  # noqa: N818 - base of each cloud's error
    """An invalid document; `path` is the position, as `a.b.c`."""

    def __init__(self, problem: Problem, path: str | None = None) -> None:
        super().__init__()
        self.problem = problem
        self._path = path

    @property
    def path(self) -> str:
        return self._path or ""

    def __str__(self) -> str:
        return f"{self.path} {self.problem.value}" if self.path else self.problem.value

    def prepend_step(self, step: str) -> None:
        """Prepend a path step, so that validation builds a path only for an error."""
        inner = self._path
        joined = step if inner is None else f"{step}{inner}" if inner.startswith("[") else f"{step}.{inner}"
        self._path = joined[:_MAX_PATH]


class Shape(msgspec.Struct, frozen=True):
    """Limits of a cloud. Levels count objects and arrays; the outermost object is the first."""

    max_levels: int
    max_bytes: int
    forbidden: str = ""
    """Characters that are not allowed in names."""
    forbidden_first: str = ""
    max_name_bytes: int = 1024
    max_text_bytes: int | None = None
    integers: tuple[int, int] | None = None


def check(document: object, shape: Shape, *, path: str = "") -> dict[str, Any]:
    """Return `document`, which is an object of that shape. Raise `DocumentProblem`.

    `check_size` limits the resulting section. A patch that removes values may be larger, but a useful patch is at most
    twice as large. That check takes a hundredth of the time of a check of each value.
    """
    if not isinstance(document, dict):
        raise DocumentProblem(Problem.NOT_AN_OBJECT, path)
    try:
        if len(_size(document)) > 2 * shape.max_bytes:
            raise DocumentProblem(Problem.TOO_LARGE, path)
    except RecursionError as error:
        raise DocumentProblem(Problem.TOO_DEEP, path) from error
    try:
        _walk(document, shape, 1, in_array=False)
    except DocumentProblem as problem:
        problem.prepend_step(path) if path else None
        raise
    return document


def check_size(document: Mapping[str, Any], shape: Shape, *, path: str = "") -> None:
    """Raise `DocumentProblem` for a section that is larger than its shape allows, as compact JSON in UTF-8."""
    if len(_size(document)) > shape.max_bytes:
        raise DocumentProblem(Problem.TOO_LARGE, path)


def _walk(value: object, shape: Shape, level: int, *, in_array: bool) -> None:
    if isinstance(value, dict):
        if level > shape.max_levels:
            raise DocumentProblem(Problem.TOO_DEEP)
        for name, inner in value.items():
            try:
                _check_name(name, shape)
                _walk(inner, shape, level + 1, in_array=in_array)
            except DocumentProblem as problem:
                problem.prepend_step(name[:_MAX_PATH])
                raise
    elif isinstance(value, list):
        if level > shape.max_levels:
            raise DocumentProblem(Problem.TOO_DEEP)
        for number, inner in enumerate(value):
            try:
                _walk(inner, shape, level + 1, in_array=True)
            except DocumentProblem as problem:
                problem.prepend_step(f"[{number}]")
                raise
    else:
        _check_leaf(value, shape, in_array=in_array)


def _check_leaf(value: object, shape: Shape, *, in_array: bool) -> None:
    if value is None and in_array:
        raise DocumentProblem(Problem.NULL_IN_ARRAY)
    if isinstance(value, str) and shape.max_text_bytes is not None and len(value.encode()) > shape.max_text_bytes:
        raise DocumentProblem(Problem.TEXT)
    if shape.integers is not None and isinstance(value, int) and not isinstance(value, bool):
        low, high = shape.integers
        if not low <= value <= high:
            raise DocumentProblem(Problem.NUMBER)


def _check_name(name: str, shape: Shape) -> None:
    if (
        not name
        or name[0] in shape.forbidden_first
        or not _letters_not_in_names(shape.forbidden).isdisjoint(name)
        or len(name.encode(errors="replace")) > shape.max_name_bytes
    ):
        raise DocumentProblem(Problem.KEY)


@lru_cache
def _letters_not_in_names(forbidden: str) -> frozenset[str]:
    return frozenset({*forbidden, *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))})


__all__ = ["DocumentProblem", "Problem", "Shape", "check", "check_size"]
