"""Device search: read the candidates of a plan, evaluate the condition, with bounded reads.

Results are current: twins whose last changes are not yet indexed are checked as well.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from math import inf
from typing import Any, Protocol

import msgspec

from birthmark.clock_and_entropy import Clock
from birthmark.documents.queries import MAX_VALUES, Condition, FieldPath, paths_in
from birthmark.documents.query_evaluator import fits
from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.iothub import store, twin_index_store, wire
from birthmark.iothub.model import Device, DeviceId, Hub, Identity, Twin
from birthmark.iothub.ports import UNSEEN, DevicePresence, SeenAt
from birthmark.iothub.rules.twin_query_plans import (
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
from birthmark.net.fair_scheduler import wait_for_caller_turn, yield_turn
from birthmark.store import Database
from birthmark.store.database import Row
from birthmark.store.table_statements import list_parameters

MAX_READ = 50_000
"""Maximum number of twins read per page."""
MAX_S = 2.0
"""Time in seconds after which a page starts no further read."""
EACH = 200
"""Number of twins per read; fewer if they are large."""
_READ_BYTES = 1024 * 1024
_MOST_COUNTED, _FEW, _FIRST = 10_000, 100, 100
_FIRST_MODULES, _LEAST = 25, 10
_MOST_LEAVES = 50
_MOST_WAITING = 1000
_SECTION = 2
_WAITING = "cloudToDeviceMessageCount"
_PRESENCE = frozenset({"connectionState", "lastActivityTime"})
EXTRAS = _PRESENCE | {_WAITING}
"""Fields of a twin document that are not in its database row."""


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
    for_a_person = "the server completes the index automatically"
    message = "The twin index is still being built: {waiting} twins are not indexed yet"
    fix = (
        "Retry in a few minutes, or query devices by ID, which requires no index. To read all devices page by page: "
        "`birthmark hub query 'SELECT * FROM devices'`"
    )
    waiting: int


class TwinMatch:
    """A device or module found by a search, with its twin."""

    __slots__ = ("_identity", "_row", "seen", "waiting")

    def __init__(self, row: Row, identity: Identity) -> None:
        self._row = row
        self._identity = identity
        self.seen: SeenAt = UNSEEN
        self.waiting = 0

    @property
    def key(self) -> str:
        """Sort key: that of later candidates is greater."""
        return self._identity.name

    @property
    def identity(self) -> Identity:
        """The device or module, without its keys."""
        return self._identity

    @property
    def size(self) -> int:
        """Stored size of the twin in bytes."""
        return len(self._row["twin_body"] or b"")

    def twin(self) -> Twin:
        """Return the twin."""
        identity, row = self._identity, self._row
        if row["twin_body"] is None:
            return Twin(identity.hub, DeviceId(self.key))
        return store.twin_of({"hub": identity.hub, "device_id": self.key, **twin_index_store.twin_columns(row)})

    def document(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the twin as the service sees it; with metadata of its sections if `is_whole`."""
        identity, row = self._identity, self._row
        seen: dict[str, Any] = {"is_connected": self.seen.is_connected, "last_activity": _time_of(self.seen.at)}
        twin = Twin(identity.hub, DeviceId(self.key))
        if row["twin_body"] is None:
            document = wire.twin_json(twin, identity, **seen)
        elif is_whole:
            document = wire.twin_json(self.twin(), identity, **seen)
        else:
            found = twin_index_store.values_of(row["twin_body"])
            twin = msgspec.structs.replace(
                twin,
                version=row["twin_version"],
                model_id=found.model_id,
                configurations=found.configurations,
            )
            properties = {"desired": found.desired.values, "reported": found.reported.values}
            document = {**wire.twin_json(twin, identity, **seen), "tags": found.tags, "properties": properties}
        why = identity.status_reason if isinstance(identity, Device) else None
        reason = {} if why is None else {"statusReason": why}
        return {**document, **reason, _WAITING: self.waiting}


class Candidate(Protocol):
    """A candidate match of a query. Candidates sort by key."""

    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int:
        """Stored size of the twin in bytes."""
        ...

    def document(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the document that conditions and rows read; with metadata if `is_whole`."""
        ...


class TwinSource(Protocol):
    """Source of a query."""

    def find_matches(
        self,
        hub: Hub,
        condition: Condition | None,
        after: str,
        wanted: int,
        presence: DevicePresence,
        *,
        is_bounded: bool = True,
    ) -> AsyncIterator[Candidate]:
        """Yield matches in key order: up to `wanted` and one more.

        Only background work is not bounded in its reads. Raise `QueryTooBroadError` or `IndexBehindError`.
        """
        ...

    async def load_extras(
        self, hub: Hub, matches: Sequence[Any], extras: frozenset[str], presence: DevicePresence
    ) -> None:
        """Add requested fields that are not in the database rows to the matches."""
        ...


class FullScanSource:
    """Source that is scanned from its start in pages of `page`, within the read limit."""

    def __init__(self, page: Callable[[Hub, str, int], Awaitable[Sequence[Candidate]]], clock: Clock) -> None:
        self._page = page
        self._clock = clock

    async def find_matches(
        self,
        hub: Hub,
        condition: Condition | None,
        after: str,
        wanted: int,
        presence: DevicePresence,
        *,
        is_bounded: bool = True,
    ) -> AsyncIterator[Candidate]:
        """Yield matches; implements `TwinSource`."""
        paths = [] if condition is None else list(paths_in(condition))
        extras, is_whole = extras_of(paths), are_whole(paths)
        count, read, chunk, began = 0, 0, min(_FIRST_MODULES, EACH), self._clock.monotonic()
        while count <= wanted:
            if is_bounded and (read >= MAX_READ or self._clock.monotonic() - began > MAX_S):
                raise QueryTooBroadError(limit=read, detail="they have no index")
            some = await self._page(hub, after, chunk)
            await self.load_extras(hub, some, extras, presence)
            for one in some:
                if condition is None or fits(condition, one.document(is_whole=is_whole)):
                    count += 1
                    yield one
                await yield_turn()
            if len(some) < chunk:
                return
            read, after, chunk = read + len(some), some[-1].key, _next_chunk(chunk, some)

    async def load_extras(
        self, hub: Hub, matches: Sequence[Any], extras: frozenset[str], presence: DevicePresence
    ) -> None:
        """Add the connection state to the matches if it is requested; a page has all other fields."""
        if extras & _PRESENCE and matches:
            seen = await presence.seen(hub.name, [one.key for one in matches])
            for one, at in zip(matches, seen, strict=True):
                one.seen = at


def modules_of(database: Database) -> Callable[[Hub, str, int], Awaitable[Sequence[TwinMatch]]]:
    """Return a reader of a hub's modules, by device, page by page."""

    async def page(hub: Hub, after: str, limit: int) -> Sequence[TwinMatch]:
        device_id, _, module_id = after.partition("/")
        asked: dict[str, Any] = {"hub": hub.name, "device_id": device_id, "module_id": module_id, "limit": limit}
        rows = await database.all(twin_index_store.MODULES_PAGE, **asked)
        return [TwinMatch(row, store.module_of(twin_index_store.module_row_of(row))) for row in rows]

    return page


class TwinSearch:
    """Search for devices of hubs by conditions on their twins."""

    def __init__(self, database: Database, clock: Clock, c2d: CloudToDevice) -> None:
        self._database = database
        self._clock = clock
        self._c2d = c2d

    async def find_matches(
        self,
        hub: Hub,
        condition: Condition | None,
        after: str,
        wanted: int,
        presence: DevicePresence,
        *,
        is_bounded: bool = True,
    ) -> AsyncIterator[TwinMatch]:
        """Yield matches in id order: up to `wanted` and one more."""
        leaves = await self.leaves(hub, plan(condition), presence)
        states = await self._states(leaves)
        paths = [] if condition is None else list(paths_in(condition))
        extras, is_whole = extras_of(paths), are_whole(paths)
        count, read, chunk = 0, 0, min(max(wanted + 1, _FIRST), EACH)
        began = self._clock.monotonic()
        while count <= wanted:
            if is_bounded:
                chunk = min(chunk, MAX_READ - read)
                if chunk <= 0 or self._clock.monotonic() - began > MAX_S:
                    raise await self._refused(read)
            some, last = _next_named(leaves, after, chunk)
            await wait_for_caller_turn()  # compiling a statement of many terms takes milliseconds
            rows = await self._database.all(twin_index_store.next_of(hub.name, some, states, after, chunk))
            found = _matches(rows)
            await self.load_extras(hub, found, extras, presence)
            for one in found:
                if condition is None or fits(condition, one.document(is_whole=is_whole)):
                    count += 1
                    yield one
                await yield_turn()
            if last is None and len(rows) < chunk:
                return
            read, after = read + chunk, last or rows[-1]["subject"]
            chunk = _next_chunk(chunk, found)

    async def scan(
        self, hub: Hub, plan: Plan, presence: DevicePresence, size: int = EACH
    ) -> AsyncIterator[Sequence[TwinMatch]]:
        """Yield all candidates of a plan in batches of at most `size`, without a read limit.

        For background work, which rests between the batches.
        """
        leaves = await self.leaves(hub, plan, presence)
        states, after = await self._states(leaves), ""
        while True:
            some, last = _next_named(leaves, after, size)
            rows = await self._database.all(twin_index_store.next_of(hub.name, some, states, after, size))
            yield _matches(rows)
            if last is None and len(rows) < size:
                return
            after = last or rows[-1]["subject"]

    async def named(self, hub: Hub, device_ids: Sequence[str]) -> Sequence[TwinMatch]:
        """Return the devices with these ids that exist; at most `MAX_LIST_VALUES` ids."""
        return _matches(
            await self._database.all(twin_index_store.DEVICES_NAMED, hub=hub.name, **list_parameters(device_ids))
        )

    async def _states(self, leaves: Sequence[Leaf]) -> Sequence[int]:
        """Return the twins to read in addition to the index matches, as their terms are outdated.

        If very many changed within the last moment, their latest changes are skipped, so results are at most that
        moment old.
        """
        if all(isinstance(leaf, AllTwins | TwinsByName | NamedWithin | DisabledTwins | Edge) for leaf in leaves):
            return ()
        states = [store.BEYOND_INDEX, store.NEVER_INDEXED]
        return states if await self._waiting(store.CHANGED) > _MOST_WAITING else [store.CHANGED, *states]

    async def _waiting(self, state: int) -> int:
        row = await self._database.one(twin_index_store.WAITING, state=state, limit=MAX_READ)
        return 0 if row is None else int(row["count"])

    async def _refused(self, read: int) -> BirthmarkError:
        """Return the error of an incomplete query: it is too broad, or the index is behind."""
        waiting = await self._waiting(store.NEVER_INDEXED)
        if waiting > _MOST_WAITING:
            return IndexBehindError(waiting=waiting)
        return QueryTooBroadError(limit=read, detail="no index finds fewer")

    async def load_extras(
        self, hub: Hub, matches: Sequence[TwinMatch], extras: frozenset[str], presence: DevicePresence
    ) -> None:
        """Add requested fields that are not in the database rows to the matches."""
        if not matches:
            return
        names = [one.key for one in matches]
        if extras & _PRESENCE:
            for one, seen in zip(matches, await presence.seen(hub.name, names), strict=True):
                one.seen = seen
        if _WAITING in extras:
            counts = await self._c2d.counts(hub.name, names)
            for one in matches:
                one.waiting = counts.get(one.key, 0)

    async def leaves(self, hub: Hub, plan: Plan, presence: DevicePresence) -> Sequence[Leaf]:
        """Return the index terms to scan for a plan."""
        cost, leaves = await self._cheapest(hub, plan, presence)
        if cost <= _MOST_COUNTED:
            return leaves
        single = [one for leaf in leaves for one in _split_leaf(leaf)]
        is_in_order = len(single) <= _MOST_LEAVES and not any(isinstance(leaf, TwinsByRange) for leaf in single)
        return single if is_in_order else (AllTwins(),)  # too many to sort for each page

    async def _cheapest(  # noqa: PLR0911 - one per form
        self, hub: Hub, plan: Plan, presence: DevicePresence
    ) -> tuple[float, Sequence[Leaf]]:
        match plan:
            case AllTwins():
                return inf, (plan,)
            case TwinsByName(names=names):
                return len(names), (plan,)
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
                    return inf, (AllTwins(),)  # that many names require their own search
                return sum(cost for cost, _ in each), together
            case CheapestPlan(parts=parts):
                best: tuple[float, Sequence[Leaf]] = (inf, (AllTwins(),))
                for part in parts:
                    best = min(best, await self._cheapest(hub, part, presence), key=lambda one: one[0])
                    if best[0] <= _FEW:
                        break
                return best
            case leaf:
                row = await self._database.one(twin_index_store.counting(hub.name, leaf, _MOST_COUNTED + 1))
                return (0 if row is None else int(row["count"])), (leaf,)


def _matches(rows: Sequence[Row]) -> list[TwinMatch]:
    """Return the devices of rows; a row without `hub` is of a deleted one."""
    return [
        TwinMatch(row, store.device_of(twin_index_store.device_row_of(row))) for row in rows if row["hub"] is not None
    ]


def _next_chunk(chunk: int, found: Sequence[Candidate]) -> int:
    """Return the number of twins of the next read: more, unless the last ones were large."""
    mean = sum(one.size for one in found) // max(len(found), 1)
    return min(max(min(4 * chunk, _READ_BYTES // max(mean, 1)), _LEAST), EACH)


def _time_of(timestamp: datetime | None) -> str:
    return wire.NEVER if timestamp is None else wire.registry_time(timestamp)


def _next_named(leaves: Sequence[Leaf], after: str, size: int) -> tuple[Sequence[Leaf], str | None]:
    """Return the leaves of the next named devices, and the last of these names if more follow."""
    if not leaves or not all(isinstance(leaf, TwinsByName) for leaf in leaves):
        return leaves, None
    names = sorted({name for leaf in leaves if isinstance(leaf, TwinsByName) for name in leaf.names if name > after})
    return (TwinsByName(tuple(names[:size])),), names[size - 1] if len(names) > size else None


def _split_leaf(leaf: Leaf) -> Sequence[Leaf]:
    """Return a leaf split into leaves that yield devices in id order."""
    return [TwinsByTerm(leaf.path, (value,)) for value in leaf.values] if isinstance(leaf, TwinsByTerm) else [leaf]


def extras_of(paths: Sequence[FieldPath]) -> frozenset[str]:
    """Return the requested fields that are not in the database rows."""
    return EXTRAS & {path.steps[0] for path in paths}


def are_whole(paths: Sequence[FieldPath]) -> bool:
    """Return whether a query requests metadata or a complete section, not only values."""
    return any(
        path.steps[0] == "properties" and (len(path.steps) <= _SECTION or path.steps[_SECTION].startswith("$"))
        for path in paths
    )
