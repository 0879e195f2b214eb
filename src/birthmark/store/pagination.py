"""Pages of lists; a marker is the last key of the previous page, opaque to clients."""

import base64
import binascii
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from birthmark.errors import InvalidRequestError
from birthmark.store.compiled_statements import Statement
from birthmark.store.database import DatabaseReader, Row
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters
from birthmark.untrusted_json_and_text import whole_number

T = TypeVar("T")
EACH = 500
"""Rows per query when a complete list is read."""
DEFAULT_SIZE, MAX_SIZE = 25, 250


class PageInvalidError(InvalidRequestError):
    """The page size or marker is not valid."""

    code = "store.page_invalid"
    message = "The list cannot be continued: {detail}"
    cause = "The list cannot be continued: {detail}."
    fix = (
        "Use 1 to 250 entries per page, and return markers and tokens unchanged. To show the call's syntax: `{command}`"
    )
    detail: str
    command: str = "birthmark --help"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of entries, and the key for the next page if there is one."""

    items: Sequence[T]
    last: str | None


def page_size(text: str | None) -> int:
    """Return the requested page size. Raise `PageInvalidError`."""
    if text is None:
        return DEFAULT_SIZE
    size = whole_number(text)
    if size is None or not 1 <= size <= MAX_SIZE:
        raise PageInvalidError(detail=f"the page size {text[:20]!r}")
    return size


def marker_of(key: str) -> str:
    """Return the marker of a key."""
    return base64.b64encode(key.encode()).decode()


def parse_marker(text: str | None) -> str:
    """Return the key of a continuation marker; empty if there is none. Raise `PageInvalidError`."""
    if not text:
        return ""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise PageInvalidError(detail="the marker was not issued by this server") from error


def page_of(items: Sequence[T], size: int, keys: Sequence[str]) -> Page[T]:
    """Return a page of `size` from a query of one row more; `keys` belong to `items`."""
    return Page(items[:size], keys[size - 1] if len(items) > size else None)


async def every(reader: DatabaseReader, page: Statement, key: str, *, after: Any = "", **params: Any) -> list[Row]:
    """Return all rows, read page by page (`keyed.page`); for decisions that need the complete list."""
    found: list[Row] = []
    while rows := await reader.all(page, after=after, limit=EACH, **params):
        found += rows
        if len(rows) < EACH:
            break
        after = rows[-1][key]
    return found


async def each_among(
    reader: DatabaseReader, statement: Statement, values: Iterable[Any], **params: Any
) -> AsyncIterator[Row]:
    """Yield the rows of a statement with `keyed.among` for any number of values."""
    some = list(values)
    for first in range(0, len(some), MAX_LIST_VALUES):
        for row in await reader.all(statement, **list_parameters(some[first : first + MAX_LIST_VALUES]), **params):
            yield row
