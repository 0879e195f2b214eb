"""Detection of unknown fields in a request body, by comparison with its type.

A field that is accepted but ignored misleads its author; the error names it instead.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from msgspec import inspect


def find_unread_member(value: object, kind: Any, told: frozenset[str] = frozenset()) -> str | None:
    """Return the path of the first nonempty member of `value` that `kind` does not define.

    `told` are members that a service returns, and receives again from clients that send back what they read.
    """
    return next((path for path in _unread(value, _type_of(kind), "") if path not in told), None)


def says_something(value: object) -> bool:
    """Return whether a value is significant: not null, false or empty."""
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
