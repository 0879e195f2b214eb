"""Queries of a hub's twins: by the index, page by page, and by no more reading than a query may do.

A page goes on behind the device that the last one ended with. Its marker names that device, what was asked, and how
many more are wanted: it goes back with the same query, and with another it is refused.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Annotated, Any, Protocol

import msgspec

from birthmark.clock import Clock
from birthmark.documents.answers import MAX_GROUPS, Summing, TooManyGroupsProblem, fits, row_of
from birthmark.documents.queries import MAX_VALUES, Condition, Path, Query, paths_in, paths_of
from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.iothub import searching, store, wire
from birthmark.iothub.model import Device, Hub, Twin
from birthmark.iothub.ports import UNSEEN, Presence, SeenAt
from birthmark.iothub.rules.queries import (
    MODULES,
    AnyOf,
    Connected,
    Edge,
    Either,
    Everything,
    Leaf,
    Named,
    NamedWithin,
    Off,
    Plan,
    With,
    Within,
    plan,
    read_query,
)
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.iothub.service.registry import Registry
from birthmark.store import Database
from birthmark.store.database import Row
from birthmark.text import decode_json, whole_number

MAX_READ = 50_000
"""So many twins one page of a query looks at."""
MAX_S = 2.0
"""When so many seconds are over, a page of a query begins no other read."""
DEFAULT_PAGE, MAX_PAGE = 100, 1000
MAX_PAGE_BYTES = 1024 * 1024
"""When its twins take more, as they are kept, a page ends with fewer of them."""
_TURN_BYTES = 64 * 1024
_MOST_COUNTED, _FEW = 10_000, 100
_MOST_LEAVES = 50
_FIRST, _EACH = 100, 200
_MOST_WAITING = 1000
_SECTION = 2
_NO_MARKER = "the marker is none that a page ended with"
_WAITING = "cloudToDeviceMessageCount"
_PRESENCE = frozenset({"connectionState", "lastActivityTime"})
_EXTRAS = _PRESENCE | {_WAITING}


class QueryTooBroadError(InvalidRequestError):
    """A query that would read more than one may."""

    code = "iothub.query_too_broad"
    for_a_person = "only who asks knows what the query is for"
    message = "The query would look at more than {limit} twins: {detail}"
    fix = (
        "Ask beside it for something that fewer have, such as tags.site = 'north', or for one value instead of a "
        "range; all devices, page by page: `birthmark hub query 'SELECT * FROM devices'`"
    )
    limit: int
    detail: str


class IndexBehindError(UnavailableError):
    """A query that no index answers yet."""

    code = "iothub.index_behind"
    for_a_person = "what waits is indexed by itself, in time"
    message = "The index of twins is being built: {waiting} twins wait for it"
    fix = (
        "Ask again in some minutes, or for devices by their id, which need no index: "
        "`birthmark hub query 'SELECT * FROM devices'`"
    )
    waiting: int


class QueryMarkerError(InvalidRequestError):
    """A page that is none of this query."""

    code = "iothub.query_marker_invalid"
    message = "The query cannot be continued: {detail}"
    fix = (
        "The header x-ms-continuation goes back as it came, with the query it came for; from the beginning: "
        "`birthmark hub query 'SELECT * FROM devices'`"
    )
    detail: str


class _Marker(msgspec.Struct, array_like=True):
    """Where a page ended: behind a device, or behind so many rows that were made of many."""

    asked: str
    after: str
    left: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many rows more there may be."""


_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Answer:
    """A page of a query: whole twins, or rows as the query selects them, and the marker of the next."""

    rows: Sequence[dict[str, Any]]
    is_of_twins: bool
    marker: str | None


class ModuleTwins(Protocol):
    """What answers a query `FROM devices.modules`."""

    async def answer(self, hub: Hub, query: Query, marker: str | None, size: int) -> Answer:
        """Return a page. Raise `QueryTooBroadError` or `QueryMarkerError`."""
        ...


class NoModules:
    """While no hub has modules."""

    async def answer(self, _hub: Hub, query: Query, _marker: str | None, _size: int) -> Answer:
        """Return that there are none."""
        return Answer(Summing(query).rows() if query.is_summed else (), not query.items, None)


class _Found:
    """A device that a search met, with its twin."""

    __slots__ = ("_row", "device", "seen", "waiting")

    def __init__(self, row: Row) -> None:
        self._row = row
        self.device: Device = store.device_of(searching.device_row_of(row))
        self.seen: SeenAt = UNSEEN
        self.waiting = 0

    @property
    def size(self) -> int:
        """How many bytes are kept of its twin."""
        return len(self._row["twin_body"] or b"")

    def document(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the twin as the service sees it; its sections with what dates them where it is whole."""
        device, row = self.device, self._row
        seen: dict[str, Any] = {"is_connected": self.seen.is_connected, "last_activity": _time_of(self.seen.at)}
        twin = Twin(device.hub, device.device_id)
        if row["twin_body"] is None:
            document = wire.twin_json(twin, device, **seen)
        elif is_whole:
            twin = store.twin_of({"hub": device.hub, "device_id": device.device_id, **searching.twin_columns(row)})
            document = wire.twin_json(twin, device, **seen)
        else:
            tags, desired, reported = searching.values_of(row["twin_body"])
            twin = msgspec.structs.replace(twin, version=row["twin_version"])
            properties = {"desired": desired.values, "reported": reported.values}
            document = {**wire.twin_json(twin, device, **seen), "tags": tags, "properties": properties}
        reason = {} if device.status_reason is None else {"statusReason": device.status_reason}
        return {**document, **reason, _WAITING: self.waiting}


class Queries:
    """Queries of all hubs."""

    def __init__(self, database: Database, clock: Clock, registry: Registry, c2d: CloudToDevice) -> None:
        self._database = database
        self._clock = clock
        self._registry = registry
        self._c2d = c2d
        self.modules: ModuleTwins = NoModules()

    async def answer(self, hub: Hub, text: str, marker: str | None, size: int, presence: Presence) -> Answer:
        """Return a page of a query.

        Raise `HubQueryInvalidError`, `QueryTooBroadError`, `IndexBehindError` or `QueryMarkerError`.
        """
        query = read_query(text)
        if query.collection == MODULES:
            return await self.modules.answer(hub, query, marker, size)
        asked = hashlib.sha256(f"{hub.name}\0{text}".encode()).hexdigest()[:16]
        known = _Marker(asked, "", query.top) if not marker else _read_marker(marker, asked)
        size = size if known.left is None else min(size, known.left)
        if query.is_summed:
            return await self._summed(hub, query, known, size, presence)
        found, is_last = await self._page(hub, query, known.after, size, presence)
        left = None if known.left is None else known.left - len(found)
        following = None
        if not is_last and left != 0:
            following = _text_of(msgspec.structs.replace(known, after=found[-1].device.device_id, left=left))
        return Answer(await self._rows(hub, query, found, presence), not query.items, following)

    async def _page(
        self, hub: Hub, query: Query, after: str, size: int, presence: Presence
    ) -> tuple[Sequence[_Found], bool]:
        """Return a page of what fits, of so many devices or of fewer that are large, and whether it is the last."""
        found: list[_Found] = []
        kept = 0
        async for one in self._fitting(hub, query.where, after, size, presence):
            if len(found) == size or (found and kept > MAX_PAGE_BYTES):
                return found, False
            found.append(one)
            kept += one.size
        return found, True

    async def _rows(
        self, hub: Hub, query: Query, found: Sequence[_Found], presence: Presence
    ) -> Sequence[dict[str, Any]]:
        paths = [item.path for item in query.items if item.path is not None]
        await self._ask(hub, found, _EXTRAS if not query.items else _extras_of(paths), presence)
        is_whole = not query.items or _are_whole(paths)
        rows = []
        turns = _Turns()
        for one in found:
            document = one.document(is_whole=is_whole)
            rows.append(row_of(query, document) if query.items else document)
            await turns.took(one.size)
        return rows

    async def _summed(self, hub: Hub, query: Query, known: _Marker, size: int, presence: Presence) -> Answer:
        """Return rows that are made of many, beginning behind as many as the marker says."""
        if query.where is None and not query.group_by and all(item.path is None for item in query.items):
            total, _ = await self._registry.count(hub)
            return Answer([{item.name: total for item in query.items}], False, None)  # noqa: FBT003 - of no twins
        summing, paths = Summing(query), list(paths_of(query))
        extras, is_whole = _extras_of(paths), _are_whole(paths)
        some: list[_Found] = []

        async def add() -> None:
            await self._ask(hub, some, extras, presence)
            for one in some:
                summing.add(one.document(is_whole=is_whole))
            some.clear()

        try:
            async for one in self._fitting(hub, query.where, "", MAX_READ, presence):
                some.append(one)
                if len(some) == _EACH:
                    await add()
            await add()
        except TooManyGroupsProblem as problem:
            raise QueryTooBroadError(limit=MAX_GROUPS, detail="it makes more groups than that") from problem
        rows, first = summing.rows(), whole_number(known.after or "0")
        if first is None:
            raise QueryMarkerError(detail=_NO_MARKER)
        left = None if known.left is None else known.left - size
        is_more = len(rows) > first + size and left != 0
        following = msgspec.structs.replace(known, after=str(first + size), left=left)
        return Answer(rows[first : first + size], False, _text_of(following) if is_more else None)  # noqa: FBT003 - as above

    async def _fitting(
        self, hub: Hub, where: Condition | None, after: str, wanted: int, presence: Presence
    ) -> AsyncIterator[_Found]:
        """Yield what fits, in the order of the ids: `wanted` and one more, where there are as many."""
        leaves = await self.leaves(hub, plan(where), presence)
        states = await self._states(leaves)
        paths = [] if where is None else list(paths_in(where))
        extras, is_whole = _extras_of(paths), _are_whole(paths)
        count, read, chunk = 0, 0, min(max(wanted + 1, _FIRST), _EACH)
        turns, began = _Turns(), self._clock.monotonic()
        while count <= wanted:
            chunk = min(chunk, MAX_READ - read)
            if chunk <= 0 or self._clock.monotonic() - began > MAX_S:
                raise await self._refused(read)
            some, last = _next_named(leaves, after, chunk)
            rows = await self._database.all(searching.next_of(hub.name, some, states, after, chunk))
            found = [_Found(row) for row in rows if row["hub"] is not None]
            await self._ask(hub, found, extras, presence)
            for one in found:
                if where is None or fits(where, one.document(is_whole=is_whole)):
                    count += 1
                    yield one
                await turns.took(one.size)
            if last is None and len(rows) < chunk:
                return
            read, after = read + chunk, last or rows[-1]["subject"]
            chunk = min(4 * chunk, _EACH)

    async def _states(self, leaves: Sequence[Leaf]) -> Sequence[int]:
        """Return which twins are looked at besides those that their terms name, for these say too little of them.

        Where very many have changed within the last moment, their last changes are not looked for: they are found as
        they were, at most that moment late.
        """
        if all(isinstance(leaf, Everything | Named | NamedWithin | Off | Edge) for leaf in leaves):
            return ()
        states = [store.BEYOND_INDEX, store.NEVER_INDEXED]
        return states if await self._waiting(store.CHANGED) > _MOST_WAITING else [store.CHANGED, *states]

    async def _waiting(self, state: int) -> int:
        row = await self._database.one(searching.WAITING, state=state, limit=MAX_READ)
        return 0 if row is None else int(row["count"])

    async def _refused(self, read: int) -> BirthmarkError:
        """Return why a query ends before its answer: it is too broad, or the index has not seen all yet."""
        waiting = await self._waiting(store.NEVER_INDEXED)
        if waiting > _MOST_WAITING:
            return IndexBehindError(waiting=waiting)
        return QueryTooBroadError(limit=read, detail="no index finds fewer")

    async def _ask(self, hub: Hub, found: Sequence[_Found], extras: frozenset[str], presence: Presence) -> None:
        """Learn of what was found what does not stand in the database's rows, as far as it is wanted."""
        if not found:
            return
        names = [one.device.device_id for one in found]
        if extras & _PRESENCE:
            for one, seen in zip(found, await presence.seen(hub.name, names), strict=True):
                one.seen = seen
        if _WAITING in extras:
            counts = await self._c2d.counts(hub.name, names)
            for one in found:
                one.waiting = counts.get(one.device.device_id, 0)

    async def leaves(self, hub: Hub, wanted: Plan, presence: Presence) -> Sequence[Leaf]:
        """Return by which terms to go through devices."""
        cost, leaves = await self._cheapest(hub, wanted, presence)
        if cost <= _MOST_COUNTED:
            return leaves
        single = [one for leaf in leaves for one in _singly(leaf)]
        is_in_order = len(single) <= _MOST_LEAVES and not any(isinstance(leaf, Within) for leaf in single)
        return single if is_in_order else (Everything(),)  # too many to be sorted for each page

    async def _cheapest(  # noqa: PLR0911 - one for each form
        self, hub: Hub, wanted: Plan, presence: Presence
    ) -> tuple[float, Sequence[Leaf]]:
        match wanted:
            case Everything():
                return inf, (wanted,)
            case Named(names=names):
                return len(names), (wanted,)
            case Connected():
                connected = await presence.connected(hub.name, _MOST_COUNTED)
                return (inf, (Everything(),)) if connected is None else (len(connected), (Named(tuple(connected)),))
            case AnyOf(parts=parts):
                each = [await self._cheapest(hub, part, presence) for part in parts]
                if any(cost == inf for cost, _ in each):
                    return inf, (Everything(),)
                together = [leaf for _, leaves in each for leaf in leaves]
                named = sum(len(leaf.names) for leaf in together if isinstance(leaf, Named))
                if named > MAX_VALUES and not all(isinstance(leaf, Named) for leaf in together):
                    return inf, (Everything(),)  # so many names are looked for by themselves alone
                return sum(cost for cost, _ in each), together
            case Either(parts=parts):
                best: tuple[float, Sequence[Leaf]] = (inf, (Everything(),))
                for part in parts:
                    best = min(best, await self._cheapest(hub, part, presence), key=lambda one: one[0])
                    if best[0] <= _FEW:
                        break
                return best
            case leaf:
                row = await self._database.one(searching.counting(hub.name, leaf, _MOST_COUNTED + 1))
                return (0 if row is None else int(row["count"])), (leaf,)


class _Turns:
    """Lets others have their turn, after so many bytes that were read."""

    def __init__(self) -> None:
        self._since = 0

    async def took(self, size: int) -> None:
        """Count what was read."""
        self._since += size
        if self._since > _TURN_BYTES:
            self._since = 0
            await asyncio.sleep(0)


def _time_of(at: datetime | None) -> str:
    return wire.NEVER if at is None else wire.registry_time(at)


def _next_named(leaves: Sequence[Leaf], after: str, size: int) -> tuple[Sequence[Leaf], str | None]:
    """Return what finds the next of devices that are named, and the last of these names, if more follow it."""
    if not leaves or not all(isinstance(leaf, Named) for leaf in leaves):
        return leaves, None
    names = sorted({name for leaf in leaves if isinstance(leaf, Named) for name in leaf.names if name > after})
    return (Named(tuple(names[:size])),), names[size - 1] if len(names) > size else None


def _singly(leaf: Leaf) -> Sequence[Leaf]:
    """Return a leaf as those that find devices in the order of their ids."""
    return [With(leaf.path, (value,)) for value in leaf.values] if isinstance(leaf, With) else [leaf]


def _extras_of(paths: Sequence[Path]) -> frozenset[str]:
    """Return what has to be asked for besides the rows."""
    return _EXTRAS & {path.steps[0] for path in paths}


def _are_whole(paths: Sequence[Path]) -> bool:
    """Say whether more of the sections is wanted than their values: what dates them, or all of one."""
    return any(
        path.steps[0] == "properties" and (len(path.steps) <= _SECTION or path.steps[_SECTION].startswith("$"))
        for path in paths
    )


def _text_of(marker: _Marker) -> str:
    return base64.urlsafe_b64encode(_encode(marker)).decode()


def _read_marker(text: str, asked: str) -> _Marker:
    try:
        marker = decode_json(base64.urlsafe_b64decode(text.encode()), _Marker)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise QueryMarkerError(detail=_NO_MARKER) from error
    if marker.asked != asked:
        raise QueryMarkerError(detail="the marker is one of another query")
    return marker
