"""The operator interface of one device, whole."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Protocol, TypeAlias

import msgspec

from birthmark.auth.rights import Right
from birthmark.console.routing import Asked, Endpoint, Rows
from birthmark.people.model import SERVER


@dataclass(frozen=True, slots=True)
class Part:
    """What one place has of a device; its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A device that is on record at a place, as roles name it. `after` is how a search goes on behind it."""

    name: str
    at: str
    after: str


Sees: TypeAlias = Callable[[str], bool]
"""Whether somebody may look at a place."""


class Find(Protocol):
    """Finds devices by the beginning of any of their words, a page of those that follow another."""

    def __call__(self, begin: str, after: str, limit: int, *, sees: Sees) -> Awaitable[Sequence[Found]]: ...


class FindQuery(msgspec.Struct, forbid_unknown_fields=True):
    """With what a word of a device begins."""

    begin: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    after: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class TellWhole(Protocol):
    """Tells one device, as far as somebody may look."""

    def __call__(self, name: str, *, sees: Sees) -> Awaitable[Sequence[Part]]: ...


def place_of_part(place: str) -> str:
    """Return the place by which a role is given for what stands at this one of a device's."""
    kind, _, name = place.partition(" ")
    if kind in {"hub", "dps"} and name:
        return f"{kind}/{name}"
    return "aws" if kind == "aws" else SERVER


def device_endpoints(whole: TellWhole, find: Find) -> Sequence[Endpoint]:
    """Return the routes of `birthmark device find` and `show`."""

    async def search(asked: Asked) -> Rows:
        query: FindQuery = asked.query
        rights = asked.caller.rights
        page = await find(query.begin, query.after, query.limit + 1, sees=lambda place: rights.allow(Right.READ, place))
        rows = [{"name": one.name, "at": one.at} for one in page[: query.limit]]
        return Rows(rows, page[query.limit - 1].after if len(page) > query.limit else None)

    async def tell(asked: Asked) -> Any:
        rights = asked.caller.rights
        return [asdict(one) for one in await whole(asked["name"], sees=lambda place: rights.allow(Right.READ, place))]

    one = "One device, as far as one may look at its places."
    summary = "Devices that one may look at, by the beginning of any word of their names."
    return [
        Endpoint("GET", "/devices", Right.READ, summary, search, query=FindQuery, rows_at="{at}"),
        Endpoint("GET", "/devices/{name:path}", Right.READ, one, tell, rows_at="{at}"),
    ]
