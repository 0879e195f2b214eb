"""Which operation a request is, by method and raw path, and what its members say.

ARNs and topics stand percent-encoded in one segment, so routing looks at the path before it is decoded. Where a literal
and a name fit, the literal wins (`/thing-groups/addThingToThingGroup`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from birthmark.awsiot.http.table import OPERATIONS, Member, Operation
from birthmark.awsiot.model import OperationNotServedError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.store.paging import Page, marker_of, page_size, parse_marker
from birthmark.text import whole_number

_TOPIC_PATH = "/topics/"
_FLAGS = {"true": True, "True": True, "false": False, "False": False}


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request, its members by the names of the service model, and who asks."""

    operation: Operation
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    actor: str

    def get(self, name: str) -> str | None:
        """Return a member of path, query or headers, or None. Raise `BodyInvalidError` when it may not be so."""
        member = self.operation.by_name.get(name)
        if member is None:
            return None
        value = self._given(member)
        if not value and member.required:
            raise BodyInvalidError(detail=f"{name} is missing")
        if value is not None and member.enum and value not in member.enum:
            raise BodyInvalidError(detail=f"{name} is {value[:60]!r}, and none of {', '.join(member.enum)}")
        return value

    def _given(self, member: Member) -> str | None:
        match member.place:
            case "uri":
                return self.names.get(member.wire)
            case "header":
                return self.headers.get(member.wire.lower())
            case _:
                return self.query.get(member.wire)

    def __getitem__(self, name: str) -> str:
        return self.get(name) or ""

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean of the query. Raise `BodyInvalidError`."""
        text = self.get(name)
        if text is None:
            return default
        if text not in _FLAGS:
            raise BodyInvalidError(detail=f"{name} is neither true nor false")
        return _FLAGS[text]

    def number(self, name: str) -> int | None:
        """Return a whole number of the query. Raise `BodyInvalidError`."""
        if (text := self.get(name)) is None:
            return None
        if (value := whole_number(text)) is None:
            raise BodyInvalidError(detail=f"{name} is not a number")
        return value

    @property
    def size(self) -> int:
        """The page size asked for, under either of its names."""
        return page_size(self.query.get("pageSize") or self.query.get("maxResults"))

    @property
    def after(self) -> str:
        """Where the page begins, under either name of the marker."""
        return parse_marker(self.query.get("marker") or self.query.get("nextToken"))

    @property
    def is_ascending(self) -> bool:
        return self.flag("ascendingOrder")


Handler = Callable[[Call], Awaitable[Any]]


class Router:
    """Finds operations, and who serves them."""

    def __init__(self, handlers: Mapping[str, Handler], table: Sequence[Operation] = OPERATIONS) -> None:
        self._handlers = handlers
        self._by_shape: dict[tuple[str, int], list[Operation]] = {}
        for operation in table:
            self._by_shape.setdefault((operation.method, len(operation.segments)), []).append(operation)
        for same in self._by_shape.values():  # literals before names, and what is served before what is not
            same.sort(key=lambda one: ([segment.startswith("{") for segment in one.segments], one.name not in handlers))

    def find(self, method: str, raw_path: str) -> tuple[Operation, Handler, Mapping[str, str]]:
        """Return the operation, who serves it, and the names in the path. Raise `OperationNotServedError`."""
        if raw_path.startswith(_TOPIC_PATH):
            segments = ["topics", unquote(raw_path[len(_TOPIC_PATH) :])]
        else:
            segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
        for operation in self._by_shape.get((method, len(segments)), ()):
            names = _match(operation.segments, segments)
            if names is not None:
                if (handler := self._handlers.get(operation.name)) is None:
                    raise OperationNotServedError(operation=operation.name, method=method, path=raw_path[:200])
                return operation, handler, names
        raise OperationNotServedError(operation="That", method=method, path=raw_path[:200])


def paged(entries: str, items: Sequence[Any], page: Page[Any], *, more: str = "nextMarker") -> dict[str, Any]:
    """Return a page of a list; the token is there only when there is more."""
    answer: dict[str, Any] = {entries: list(items)}
    if page.last is not None:
        answer[more] = marker_of(page.last)
    return answer


def _match(template: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    names: dict[str, str] = {}
    for wanted, given in zip(template, segments, strict=True):
        if wanted.startswith("{"):
            if not given:
                return None
            names[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return names
