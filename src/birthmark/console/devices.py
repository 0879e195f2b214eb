"""The operator interface of one device, whole."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol, TypeAlias

import msgspec

from birthmark.auth.rights import Right
from birthmark.console.routing import Asked, Endpoint, Rows
from birthmark.console.states import Order, State
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
    """A device with the places that have it, as roles name them, and its states, the worst first.

    `after` is how a search goes on behind it. `ends` is the end of its last certificate of this server's CAs.
    """

    name: str
    places: Sequence[str]
    after: str
    states: Sequence[State] = ()
    last_seen: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class FoundPage:
    """Devices, and behind what the page that follows begins, if there is one. It may follow a page of none."""

    items: Sequence[Found]
    next: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which devices: one of whose words begins so, at a place, in a state."""

    begin: str = ""
    at: str = ""
    state: State | None = None
    ending: timedelta = timedelta(days=30)
    """How soon it is that a certificate ends soon."""
    order: Order = Order.NAME


Sees: TypeAlias = Callable[[str], bool]
"""Whether somebody may look at a place."""


class Find(Protocol):
    """Finds devices, a page of those that follow another, each once. Raise `PageInvalidError`."""

    def find(self, wanted: Wanted, after: str, limit: int, *, sees: Sees) -> Awaitable[FoundPage]: ...

    def count(self, wanted: Wanted, *, sees: Sees) -> "Awaitable[Counted | None]":
        """Return how many there are; None where each had to be looked at."""
        ...


class FindQuery(msgspec.Struct, forbid_unknown_fields=True):
    """With what a word of a device begins, at which place it is, and in which state; how soon `ending` is."""

    begin: Annotated[str, msgspec.Meta(max_length=256)] = ""
    at: Annotated[str, msgspec.Meta(max_length=256)] = ""
    state: State | None = None
    ending_s: Annotated[int, msgspec.Meta(ge=1, le=10**10)] = 30 * 86_400
    order: Order = Order.NAME
    after: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100

    @property
    def wanted(self) -> Wanted:
        """Which devices, and in which order."""
        return Wanted(self.begin, self.at, self.state, timedelta(seconds=self.ending_s), self.order)


@dataclass(frozen=True, slots=True)
class Counted:
    """How many devices a list has, or of how many there are more."""

    count: int
    is_more: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """How many devices a place has; its fields are the stable JSON form, None where nothing counts them."""

    at: str
    on_record: int | None = None
    connected: int | None = None
    disabled: int | None = None
    unassigned: int | None = None


class Count(Protocol):
    """Counts devices at the places that somebody may look at."""

    def __call__(self, *, sees: Sees) -> Awaitable[Sequence[Counts]]: ...


class TellWhole(Protocol):
    """Tells one device, as far as somebody may look."""

    def __call__(self, name: str, *, sees: Sees) -> Awaitable[Sequence[Part]]: ...


def place_of_part(place: str) -> str:
    """Return the place by which a role is given for what stands at this one of a device's."""
    kind, _, name = place.partition(" ")
    if kind in {"hub", "dps"} and name:
        return f"{kind}/{name}"
    return "aws" if kind == "aws" else SERVER


def _row(found: Found) -> Mapping[str, Any]:
    """Return a device as lists have it; `at` is the first of its places."""
    return {
        "name": found.name,
        "at": found.places[0] if found.places else "",
        "state": found.states[0] if found.states else "",
        "states": list(found.states),
        "last_seen": found.last_seen and found.last_seen.isoformat(),
        "ends": found.ends and found.ends.isoformat(),
        "places": list(found.places),
    }


def device_endpoints(whole: TellWhole, find: Find, count: Count) -> Sequence[Endpoint]:
    """Return the routes of `birthmark device find` and `show`."""

    async def search(asked: Asked) -> Rows:
        query: FindQuery = asked.query
        rights = asked.caller.rights
        page = await find.find(
            query.wanted, query.after, query.limit, sees=lambda place: rights.allow(Right.READ, place)
        )
        return Rows([_row(one) for one in page.items], page.next)

    async def number(asked: Asked) -> Rows:
        query: FindQuery = asked.query
        rights = asked.caller.rights
        count = await find.count(query.wanted, sees=lambda place: rights.allow(Right.READ, place))
        told = {"count": None, "is_more": True} if count is None else asdict(count)
        return Rows([{"at": query.at, **told}])

    async def tell(asked: Asked) -> Any:
        rights = asked.caller.rights
        return [asdict(one) for one in await whole(asked["name"], sees=lambda place: rights.allow(Right.READ, place))]

    async def counts(asked: Asked) -> Rows:
        rights = asked.caller.rights
        return Rows([asdict(one) for one in await count(sees=lambda place: rights.allow(Right.READ, place))])

    one = "One device, as far as one may look at its places."
    counted = "How many devices a search finds, or of how many there are more; null where each has to be looked at."
    summary = "Devices that one may look at, by the beginning of any word of their names, their place and state."
    return [
        Endpoint("GET", "/devices", Right.READ, summary, search, query=FindQuery, rows_at="{at}"),
        Endpoint("GET", "/figures/found", Right.READ, counted, number, query=FindQuery, rows_at="{at}"),
        Endpoint("GET", "/figures/devices", Right.READ, "How many devices, by place.", counts, rows_at="{at}"),
        Endpoint("GET", "/devices/{name:path}", Right.READ, one, tell, rows_at="{at}"),
    ]
