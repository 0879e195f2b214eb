"""Index terms of a twin: every value of its tags and properties, by path.

A term is a path and a value as text with a type prefix. So a range of texts is a range of values of one type. Booleans,
numbers and texts (by code point) keep their order. Objects and arrays have a term for their existence; array contents
are not indexed. Long paths and texts are truncated, so a search must check its candidates.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from birthmark.documents.query_evaluator import ordered

MAX_TERMS = 1000
"""Maximum index terms per twin; a twin with more is a candidate of every search."""
MAX_VALUE, MAX_PATH = 128, 128
BOOL, NUMBER, TEXT, OBJECT, ARRAY = "b", "n", "s", "o", "a"
PLACES: Mapping[tuple[str, ...], str] = {
    ("tags",): "t",
    ("properties", "desired"): "d",
    ("properties", "reported"): "r",
    ("configurations",): "c",
}
"""Term prefix by section of a twin."""
MODEL = "m"
"""Path of a twin's model id, if it has one."""
_OFFSET = 1 << 63

Term = tuple[str, str]


def of_twin(
    tags: Mapping[str, Any],
    desired: Mapping[str, Any],
    reported: Mapping[str, Any],
    model_id: str = "",
    configurations: Mapping[str, Any] | None = None,
) -> Sequence[Term] | None:
    """Return the index terms of a twin; None if there are too many."""
    found: dict[Term, None] = {(MODEL, encode(model_id)): None} if model_id else {}
    for place, values in (("c", configurations or {}), ("t", tags), ("d", desired), ("r", reported)):
        for term in _leaves(place, values):
            found[term] = None
            if len(found) > MAX_TERMS:
                return None
    return tuple(found)


def path_key(steps: Sequence[str]) -> str | None:
    """Return the index path of a property path; None if it is not indexed."""
    for head, place in PLACES.items():
        below = steps[len(head) :]
        if tuple(steps[: len(head)]) == head and below and not any(_is_odd(step) for step in below):
            return _cut_path(".".join((place, *below)))
    return None


def encode(value: str | float | bool) -> str:  # noqa: FBT001 - in the same style
    """Return the index text of a value."""
    if isinstance(value, bool):
        return f"{BOOL}{int(value)}"
    if isinstance(value, str):
        return TEXT + cut(value)
    return f"{NUMBER}{ordered(float(value)) + _OFFSET:016x}"


def cut(text: str) -> str:
    """Return the indexed part of a text; it ends at a NUL, which not every database engine stores."""
    return text[:MAX_VALUE].partition("\0")[0]


def _is_odd(step: str) -> bool:
    """Return whether no indexed value can have this name."""
    return not step or step.startswith("$") or "." in step or "\0" in step


def _cut_path(path: str) -> str:
    if len(path) <= MAX_PATH:
        return path
    return f"{path[: MAX_PATH - 33]}~{hashlib.sha256(path.encode()).hexdigest()[:32]}"


def _leaves(path: str, values: Mapping[str, Any]) -> Iterator[Term]:
    for name, value in values.items():
        below = f"{path}.{name}"
        if isinstance(value, dict):
            yield _cut_path(below), OBJECT
            yield from _leaves(below, value)
        elif isinstance(value, list):
            yield _cut_path(below), ARRAY
        elif value is not None:
            yield _cut_path(below), encode(value)
