"""What a body carries that nobody reads: found by comparing it with the type that it is read as.

A member that is taken and dropped is a promise that nobody keeps; who wrote it is told its name instead.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from msgspec import inspect


def unread(value: object, kind: Any, told: frozenset[str] = frozenset()) -> str | None:
    """Return the path of the first member of `value` that says something and that `kind` has no place for.

    `told` are members that a service tells, and gets back from clients that send what they read.
    """
    return next((path for path in _unread(value, _type_of(kind), "") if path not in told), None)


def says_something(value: object) -> bool:
    """Say whether a value asks for anything: null, false, and what is empty do not."""
    return value is not None and value is not False and value not in ("", [], {})


@lru_cache
def _type_of(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _unread(value: object, kind: inspect.Type, place: str) -> Iterator[str]:
    match kind:
        case inspect.UnionType(types=types):
            for one in types:
                yield from _unread(value, one, place)
        case inspect.ListType(item_type=item) if isinstance(value, list):
            for each in value:
                yield from _unread(each, item, place)
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {field.encode_name: field.type for field in fields}
            for name, inner in value.items():
                path = f"{place}{name}"
                if name in known:
                    yield from _unread(inner, known[name], f"{path}.")
                elif says_something(inner):
                    yield path
        case _:
            return
