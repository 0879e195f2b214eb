"""Finding devices: by the terms that a plan names, each asked its condition, and no more of them than one may read.

What is found is what there is: a twin whose last changes have no terms yet is looked at besides.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from math import inf
from typing import Any, Protocol

import msgspec

from birthmark.clock import Clock
from birthmark.documents.queries import MAX_VALUES, Condition, FieldPath, paths_in
from birthmark.documents.query_evaluator import fits
from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.iothub import store, twin_search, wire
from birthmark.iothub.model import Device, DeviceId, Hub, Identity, Twin
from birthmark.iothub.ports import UNSEEN, DevicePresence, SeenAt
from birthmark.iothub.rules.queries import (
    AllTwins,
    AnyOf,
    CheapestPlan,
    ConnectedTwins,
    DisabledTwins,
    Edge,
    Leaf,
    NamedWithin,
    Plan,
    TwinsByName,
    TwinsByRange,
    TwinsByTerm,
    plan,
)
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.net.fair_scheduler import asker_turn, give_way
from birthmark.store import Database
from birthmark.store.database import Row

MAX_READ = 50_000
"""So many twins one page of a query looks at."""
MAX_S = 2.0
"""When so many seconds are over, a page of a query begins no other read."""
EACH = 200
"""So many are read at once."""
_MOST_COUNTED, _FEW, _FIRST = 10_000, 100, 100
_MOST_LEAVES = 50
_MOST_WAITING = 1000
_SECTION = 2
_WAITING = "cloudToDeviceMessageCount"
_PRESENCE = frozenset({"connectionState", "lastActivityTime"})
EXTRAS = _PRESENCE | {_WAITING}
"""What of a twin stands in no row of its own."""


class QueryTooBroadError(InvalidRequestError):
    """The query would read too many twins."""

    code = "iothub.query_too_broad"
    for_a_person = "the right condition depends on the purpose of the query"
    message = "The query would read more than {limit} twins: {detail}"
    fix = (
        "Add a more selective condition such as tags.site = 'north', or use one value instead of a range. To read all "
        "devices page by page: `birthmark hub query 'SELECT * FROM devices'`"
    )
    limit: int
    detail: str


class IndexBehindError(UnavailableError):
    """The twin index is not up to date."""

    code = "iothub.index_behind"
    for_a_person = "the index is completed automatically"
    message = "The twin index is being built: {waiting} twins are waiting"
    fix = (
        "Retry in a few minutes, or query devices by ID, which needs no index: `birthmark hub query 'SELECT * FROM "
        "devices'`"
    )
    waiting: int


class TwinMatch:
    """A device or a module that a search met, with its twin."""

    __slots__ = ("_identity", "_row", "seen", "waiting")

    def __init__(self, row: Row, identity: Identity) -> None:
        self._row = row
        self._identity = identity
        self.seen: SeenAt = UNSEEN
        self.waiting = 0

    @property
    def key(self) -> str:
        """Its name: those that follow have greater ones."""
        return self._identity.name

    @property
    def size(self) -> int:
        """How many bytes are kept of its twin."""
        return len(self._row["twin_body"] or b"")

    def document(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the twin as the service sees it; its sections with what dates them where it is whole."""
        identity, row = self._identity, self._row
        seen: dict[str, Any] = {"is_connected": self.seen.is_connected, "last_activity": _time_of(self.seen.at)}
        twin = Twin(identity.hub, DeviceId(self.key))
        if row["twin_body"] is None:
            document = wire.twin_json(twin, identity, **seen)
        elif is_whole:
            twin = store.twin_of({"hub": identity.hub, "device_id": self.key, **twin_search.twin_columns(row)})
            document = wire.twin_json(twin, identity, **seen)
        else:
            found = twin_search.values_of(row["twin_body"])
            twin = msgspec.structs.replace(twin, version=row["twin_version"], model_id=found.model_id)
            properties = {"desired": found.desired.values, "reported": found.reported.values}
            document = {**wire.twin_json(twin, identity, **seen), "tags": found.tags, "properties": properties}
        why = identity.status_reason if isinstance(identity, Device) else None
        reason = {} if why is None else {"statusReason": why}
        return {**document, **reason, _WAITING: self.waiting}


class Candidate(Protocol):
    """What may fit a query, by a key in the order of which there are others."""

    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int:
        """How many bytes are kept of its twin."""
        ...

    def document(self, *, is_whole: bool) -> dict[str, Any]:
        """Return what conditions are asked of, and rows are made of; whole with what dates its values."""
        ...


class TwinSource(Protocol):
    """What is selected from."""

    def fitting(
        self, hub: Hub, where: Condition | None, after: str, wanted: int, presence: DevicePresence
    ) -> AsyncIterator[Candidate]:
        """Yield what fits, in the order of the keys: `wanted` and one more, where there are as many.

        Raise `QueryTooBroadError` or `IndexBehindError`.
        """
        ...

    async def ask(self, hub: Hub, found: Sequence[Any], extras: frozenset[str], presence: DevicePresence) -> None:
        """Learn of what was found what does not stand in the database's rows, as far as it is wanted."""
        ...


class FullScanSource:
    """What is gone through from its beginning, a page of `page` after the other, as far as one may read."""

    def __init__(self, page: Callable[[Hub, str, int], Awaitable[Sequence[Candidate]]], clock: Clock) -> None:
        self._page = page
        self._clock = clock

    async def fitting(
        self, hub: Hub, where: Condition | None, after: str, wanted: int, presence: DevicePresence
    ) -> AsyncIterator[Candidate]:
        """See `TwinSource`."""
        paths = [] if where is None else list(paths_in(where))
        extras, is_whole = extras_of(paths), are_whole(paths)
        count, read, began = 0, 0, self._clock.monotonic()
        while count <= wanted:
            if read >= MAX_READ or self._clock.monotonic() - began > MAX_S:
                raise QueryTooBroadError(limit=read, detail="they have no index")
            some = await self._page(hub, after, EACH)
            await self.ask(hub, some, extras, presence)
            for one in some:
                if where is None or fits(where, one.document(is_whole=is_whole)):
                    count += 1
                    yield one
                await give_way()
            if len(some) < EACH:
                return
            read, after = read + len(some), some[-1].key

    async def ask(self, hub: Hub, found: Sequence[Any], extras: frozenset[str], presence: DevicePresence) -> None:
        """Learn who is connected, where that is wanted: a page has all the rest."""
        if extras & _PRESENCE and found:
            seen = await presence.seen(hub.name, [one.key for one in found])
            for one, at in zip(found, seen, strict=True):
                one.seen = at


def modules_of(database: Database) -> Callable[[Hub, str, int], Awaitable[Sequence[TwinMatch]]]:
    """Return what reads the modules of hubs, by their devices, page by page."""

    async def page(hub: Hub, after: str, limit: int) -> Sequence[TwinMatch]:
        device_id, _, module_id = after.partition("/")
        asked: dict[str, Any] = {"hub": hub.name, "device_id": device_id, "module_id": module_id, "limit": limit}
        rows = await database.all(twin_search.MODULES_PAGE, **asked)
        return [TwinMatch(row, store.module_of(twin_search.module_row_of(row))) for row in rows]

    return page


class TwinSearch:
    """Devices of hubs by conditions on their twins."""

    def __init__(self, database: Database, clock: Clock, c2d: CloudToDevice) -> None:
        self._database = database
        self._clock = clock
        self._c2d = c2d

    async def fitting(
        self, hub: Hub, where: Condition | None, after: str, wanted: int, presence: DevicePresence
    ) -> AsyncIterator[TwinMatch]:
        """Yield what fits, in the order of the ids: `wanted` and one more, where there are as many."""
        leaves = await self.leaves(hub, plan(where), presence)
        states = await self._states(leaves)
        paths = [] if where is None else list(paths_in(where))
        extras, is_whole = extras_of(paths), are_whole(paths)
        count, read, chunk = 0, 0, min(max(wanted + 1, _FIRST), EACH)
        began = self._clock.monotonic()
        while count <= wanted:
            chunk = min(chunk, MAX_READ - read)
            if chunk <= 0 or self._clock.monotonic() - began > MAX_S:
                raise await self._refused(read)
            some, last = _next_named(leaves, after, chunk)
            await asker_turn()  # a statement of many terms takes milliseconds to be made
            rows = await self._database.all(twin_search.next_of(hub.name, some, states, after, chunk))
            found = [
                TwinMatch(row, store.device_of(twin_search.device_row_of(row)))
                for row in rows
                if row["hub"] is not None
            ]
            await self.ask(hub, found, extras, presence)
            for one in found:
                if where is None or fits(where, one.document(is_whole=is_whole)):
                    count += 1
                    yield one
                await give_way()
            if last is None and len(rows) < chunk:
                return
            read, after = read + chunk, last or rows[-1]["subject"]
            chunk = min(4 * chunk, EACH)

    async def _states(self, leaves: Sequence[Leaf]) -> Sequence[int]:
        """Return which twins are looked at besides those that their terms name, for these say too little of them.

        Where very many have changed within the last moment, their last changes are not looked for: they are found as
        they were, at most that moment late.
        """
        if all(isinstance(leaf, AllTwins | TwinsByName | NamedWithin | DisabledTwins | Edge) for leaf in leaves):
            return ()
        states = [store.BEYOND_INDEX, store.NEVER_INDEXED]
        return states if await self._waiting(store.CHANGED) > _MOST_WAITING else [store.CHANGED, *states]

    async def _waiting(self, state: int) -> int:
        row = await self._database.one(twin_search.WAITING, state=state, limit=MAX_READ)
        return 0 if row is None else int(row["count"])

    async def _refused(self, read: int) -> BirthmarkError:
        """Return why a query ends before its answer: it is too broad, or the index has not seen all yet."""
        waiting = await self._waiting(store.NEVER_INDEXED)
        if waiting > _MOST_WAITING:
            return IndexBehindError(waiting=waiting)
        return QueryTooBroadError(limit=read, detail="no index finds fewer")

    async def ask(self, hub: Hub, found: Sequence[TwinMatch], extras: frozenset[str], presence: DevicePresence) -> None:
        """Learn of what was found what does not stand in the database's rows, as far as it is wanted."""
        if not found:
            return
        names = [one.key for one in found]
        if extras & _PRESENCE:
            for one, seen in zip(found, await presence.seen(hub.name, names), strict=True):
                one.seen = seen
        if _WAITING in extras:
            counts = await self._c2d.counts(hub.name, names)
            for one in found:
                one.waiting = counts.get(one.key, 0)

    async def leaves(self, hub: Hub, wanted: Plan, presence: DevicePresence) -> Sequence[Leaf]:
        """Return by which terms to go through devices."""
        cost, leaves = await self._cheapest(hub, wanted, presence)
        if cost <= _MOST_COUNTED:
            return leaves
        single = [one for leaf in leaves for one in _singly(leaf)]
        is_in_order = len(single) <= _MOST_LEAVES and not any(isinstance(leaf, TwinsByRange) for leaf in single)
        return single if is_in_order else (AllTwins(),)  # too many to be sorted for each page

    async def _cheapest(  # noqa: PLR0911 - one for each form
        self, hub: Hub, wanted: Plan, presence: DevicePresence
    ) -> tuple[float, Sequence[Leaf]]:
        match wanted:
            case AllTwins():
                return inf, (wanted,)
            case TwinsByName(names=names):
                return len(names), (wanted,)
            case ConnectedTwins():
                connected = await presence.connected_ids(hub.name, _MOST_COUNTED)
                return (inf, (AllTwins(),)) if connected is None else (len(connected), (TwinsByName(tuple(connected)),))
            case AnyOf(parts=parts):
                each = [await self._cheapest(hub, part, presence) for part in parts]
                if any(cost == inf for cost, _ in each):
                    return inf, (AllTwins(),)
                together = [leaf for _, leaves in each for leaf in leaves]
                named = sum(len(leaf.names) for leaf in together if isinstance(leaf, TwinsByName))
                if named > MAX_VALUES and not all(isinstance(leaf, TwinsByName) for leaf in together):
                    return inf, (AllTwins(),)  # so many names are looked for by themselves alone
                return sum(cost for cost, _ in each), together
            case CheapestPlan(parts=parts):
                best: tuple[float, Sequence[Leaf]] = (inf, (AllTwins(),))
                for part in parts:
                    best = min(best, await self._cheapest(hub, part, presence), key=lambda one: one[0])
                    if best[0] <= _FEW:
                        break
                return best
            case leaf:
                row = await self._database.one(twin_search.counting(hub.name, leaf, _MOST_COUNTED + 1))
                return (0 if row is None else int(row["count"])), (leaf,)


def _time_of(at: datetime | None) -> str:
    return wire.NEVER if at is None else wire.registry_time(at)


def _next_named(leaves: Sequence[Leaf], after: str, size: int) -> tuple[Sequence[Leaf], str | None]:
    """Return what finds the next of devices that are named, and the last of these names, if more follow it."""
    if not leaves or not all(isinstance(leaf, TwinsByName) for leaf in leaves):
        return leaves, None
    names = sorted({name for leaf in leaves if isinstance(leaf, TwinsByName) for name in leaf.names if name > after})
    return (TwinsByName(tuple(names[:size])),), names[size - 1] if len(names) > size else None


def _singly(leaf: Leaf) -> Sequence[Leaf]:
    """Return a leaf as those that find devices in the order of their ids."""
    return [TwinsByTerm(leaf.path, (value,)) for value in leaf.values] if isinstance(leaf, TwinsByTerm) else [leaf]


def extras_of(paths: Sequence[FieldPath]) -> frozenset[str]:
    """Return what has to be asked for besides the rows."""
    return EXTRAS & {path.steps[0] for path in paths}


def are_whole(paths: Sequence[FieldPath]) -> bool:
    """Say whether more of the sections is wanted than their values: what dates them, or all of one."""
    return any(
        path.steps[0] == "properties" and (len(path.steps) <= _SECTION or path.steps[_SECTION].startswith("$"))
        for path in paths
    )
