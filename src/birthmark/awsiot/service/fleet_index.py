"""Fleet index: terms that are maintained with the registry, and searches with bounded reads.

Each generation of terms has its own index name. New commits write their terms to it. Existing data is indexed in the
background; until that is complete, searches are unavailable.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.awsiot.model import Shadow, Thing, ThingGroup
from birthmark.awsiot.rules import index_terms as rules
from birthmark.awsiot.rules.index_terms import Term
from birthmark.awsiot.service.account_settings import AccountSettings
from birthmark.awsiot.store import index_queries, registry, shadows
from birthmark.awsiot.store import index_queries as store
from birthmark.awsiot.wire.index_query import (
    AllTerms,
    AnyTerm,
    FieldEquals,
    FieldRange,
    Leaf,
    MatchAll,
    NoTerm,
    Query,
    SearchIndex,
    count_terms,
    number_of,
)
from birthmark.clock_and_entropy import Clock
from birthmark.documents.query_evaluator import ordered
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.store import Changes, Database
from birthmark.store.pagination import EACH, Page
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters

log = logging.getLogger(__name__)
SETTING = "indexing"
MAX_READ = 50_000
"""Maximum number of subjects that one page of a search, or of statistics, scans."""
MAX_S = 2.0
"""Time limit of a search page in seconds; after it, no further read starts."""
_MOST_COUNTED = 10_000
_FEW = 100
_ASKED_AT_ONCE = 2_000
"""Maximum number of term checks in one statement over all scanned subjects, to run in milliseconds."""
_AGAIN_S = 5.0
_FORGOTTEN = 100  # earlier generations, each already dropped by the next one
_OFF = "OFF"
NAME_FIELD: Mapping[SearchIndex, str] = {SearchIndex.THINGS: "thingName", SearchIndex.GROUPS: "thingGroupName"}
_CONFIGURED: Mapping[SearchIndex, str] = {SearchIndex.THINGS: "things", SearchIndex.GROUPS: "groups"}


class IndexNotReadyError(ConflictError):
    """The fleet index is disabled or not complete yet."""

    code = "awsiot.index_not_ready"
    message = "The index {index} is not ready: {detail}"
    fix = (
        "Enable the index: `aws iot update-indexing-configuration --thing-indexing-configuration "
        "thingIndexingMode=REGISTRY_AND_SHADOW,thingConnectivityIndexingMode=STATUS "
        "--thing-group-indexing-configuration thingGroupIndexingMode=ON`. The server builds the index within minutes."
    )
    detail: str
    index: str


class UnknownIndexError(NotFoundError):
    """The index does not exist or is disabled."""

    code = "awsiot.unknown_index"
    message = "Index {index} not found"
    fix = "Use AWS_Things or AWS_ThingGroups, and enable the index first. List indices: `aws iot list-indices`"
    index: str


class SearchTooBroadError(InvalidRequestError):
    """The search would read too many entries."""

    code = "awsiot.search_too_broad"
    for_a_person = "the right condition depends on the purpose of the search"
    message = "The search would read more than {limit} entries of {index}"
    fix = (
        "Add a more selective condition such as attributes.site:7. To read all things page by page: `aws iot "
        "list-things`"
    )
    index: str
    limit: int


@dataclass(frozen=True, slots=True)
class FleetIndexing:
    """Index configuration. `generation` names its set of terms; it is ready once all terms are written."""

    things: Mapping[str, Any]
    groups: Mapping[str, Any]
    generation: int
    is_ready: bool
    revision: int

    @property
    def is_on(self) -> bool:
        return self.has(SearchIndex.THINGS) or self.has(SearchIndex.GROUPS)

    def has(self, index: SearchIndex) -> bool:
        """Return whether an index is enabled."""
        if index is SearchIndex.GROUPS:
            return bool(self.groups.get("thingGroupIndexingMode", _OFF) != _OFF)
        return bool(self.things.get("thingIndexingMode", _OFF) != _OFF)

    def has_shadow(self, name: str) -> bool:
        """Return whether shadows of this name are indexed; the classic one has no name."""
        if self.things.get("thingIndexingMode") != "REGISTRY_AND_SHADOW":
            return False
        named = (self.things.get("filter") or {}).get("namedShadowNames") or ()
        return not name or (self.things.get("namedShadowIndexingMode") == "ON" and name in named)

    @property
    def has_presence(self) -> bool:
        """Whether connectivity is indexed."""
        return self.has(SearchIndex.THINGS) and self.things.get("thingConnectivityIndexingMode", _OFF) != _OFF

    def place(self, index: SearchIndex) -> str:
        """Return the name of an index's terms."""
        return f"{index.value}/{self.generation}"


class FleetIndex:
    """Fleet index with configuration, updates, background build, and searches."""

    def __init__(self, database: Database, settings: AccountSettings, clock: Clock) -> None:
        self._clock = clock
        self._database = database
        self._settings = settings
        self._building: asyncio.Task[None] | None = None
        self._is_asked = False  # a build is due, or a rebuild if one is running
        self.notes_presence = False
        """Whether connectivity is indexed, as last read."""
        self._latest: dict[str, tuple[int, str | None]] = {}  # of clients whose presence change is being written

    # ---- indexed data

    async def indexing(self) -> FleetIndexing:
        """Return the index configuration."""
        known = await self._settings.get(SETTING)
        value = known.value
        found = FleetIndexing(
            value.get("things") or {},
            value.get("groups") or {},
            value.get("generation", 0),
            value.get("ready", 0) >= value.get("generation", 0),
            known.revision,
        )
        self.notes_presence = found.has_presence
        return found

    async def refresh(self) -> None:
        """Reload the index configuration for callers that cannot wait for it."""
        await self.indexing()

    async def configure(
        self, things: Mapping[str, Any] | None, groups: Mapping[str, Any] | None, *, actor: str
    ) -> None:
        """Configure the index and start the build; None leaves a part unchanged."""

        def decide(values: Mapping[str, Any]) -> Mapping[str, Any]:
            made = {**values, "generation": values.get("generation", 0) + 1}
            return made | {name: given for name, given in (("things", things), ("groups", groups)) if given is not None}

        await self._settings.change(SETTING, decide, "awsiot.indexing_configure", actor=actor)
        await self.load()

    async def load(self) -> None:
        """Resume an incomplete build."""
        if (await self.indexing()).is_ready:
            return
        self._is_asked = True
        if self._building is None or self._building.done():
            self._building = asyncio.create_task(self._build())

    async def wait_until_built(self) -> None:
        """Wait until no build is running."""
        if self._building is not None:
            await asyncio.wait([self._building])

    async def stop(self) -> None:
        """Stop the background tasks."""
        if self._building is not None:
            self._building.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._building

    # ---- index writes by commits

    async def condition(self) -> tuple[FleetIndexing, Changes]:
        """Return the index configuration, and the write guard that requires it to be unchanged."""
        known = await self.indexing()
        return known, Changes().run(registry.IS_SO, expect=1, key_name=SETTING, key_revision=known.revision)

    async def of_thing(self, thing: Thing) -> Changes:
        """Return the index writes for a new or changed thing."""
        known, changes = await self.condition()
        if known.has(SearchIndex.THINGS):
            _replace(changes, known.place(SearchIndex.THINGS), thing.name, rules.REGISTRY, rules.of_thing(thing))
        return changes

    async def without_thing(self, name: str) -> Changes:
        """Return the index writes for a deleted thing; its shadows stay."""
        known, changes = await self.condition()
        if known.has(SearchIndex.THINGS):
            for source in (rules.REGISTRY, rules.GROUPS):
                changes.run(store.DROP_SOURCE, place=known.place(SearchIndex.THINGS), subject=name, source=source)
        return changes

    async def of_membership(self, thing: str, into: Sequence[str], out_of: Sequence[str]) -> Changes:
        """Return the index writes for a thing's changed group memberships."""
        known, changes = await self.condition()
        if known.has(SearchIndex.THINGS):
            place = known.place(SearchIndex.THINGS)
            for group in out_of:
                for field, value in rules.of_membership(group):
                    changes.run(store.DROP_ONE, place=place, field=field, value=value, subject=thing)
            for group in into:
                _add(changes, place, thing, rules.GROUPS, rules.of_membership(group))
        return changes

    async def of_group(self, group: ThingGroup) -> Changes:
        """Return the index writes for a new or changed group."""
        known, changes = await self.condition()
        if known.has(SearchIndex.GROUPS):
            _replace(changes, known.place(SearchIndex.GROUPS), group.name, rules.REGISTRY, rules.of_group(group))
        return changes

    async def without_group(self, name: str) -> Changes:
        """Return the index writes for a deleted group."""
        known, changes = await self.condition()
        if known.has(SearchIndex.GROUPS):
            changes.run(store.DROP, place=known.place(SearchIndex.GROUPS), subject=name)
        if known.has(SearchIndex.THINGS):
            for field, value in rules.of_membership(name):
                changes.run(store.DROP_VALUE, place=known.place(SearchIndex.THINGS), field=field, value=value)
        return changes

    async def of_shadow(self, shadow: Shadow) -> Changes:
        """Return the index writes for a changed shadow."""
        known, changes = await self.condition()
        if known.has_shadow(shadow.name):
            source = rules.source_of_shadow(shadow.name)
            _replace(changes, known.place(SearchIndex.THINGS), shadow.thing, source, rules.of_shadow(shadow))
        return changes

    async def note_presence(self, client: str, *, at_ms: int, reason: str | None) -> None:
        """Index a client's connect or its disconnect reason, if enabled; the latest event wins."""
        is_noting = client in self._latest
        self._latest[client] = at_ms, reason
        if is_noting:
            return
        try:
            while (told := self._latest[client]) is not None:
                await self._write_presence(client, *told)
                if self._latest[client] == told:
                    return
        finally:
            del self._latest[client]

    async def mark_all_disconnected(self) -> None:
        """Mark all clients as disconnected, after the only worker restarted."""
        known, changes = await self.condition()
        if not known.has_presence:
            return
        place, field = known.place(SearchIndex.THINGS), rules.CONNECTED
        changes.run(store.REPLACE_VALUE, key_place=place, key_field=field, key_value="true", value="false")
        await self._database.commit(changes)

    async def _write_presence(self, client: str, at_ms: int, reason: str | None) -> None:
        known, changes = await self.condition()
        if not known.has_presence or await self._database.one(registry.GET_THING, name=client) is None:
            return
        found = rules.of_presence(connected=reason is None, at_ms=at_ms, reason=reason)
        _replace(changes, known.place(SearchIndex.THINGS), client, rules.CONNECTIVITY, found)
        with contextlib.suppress(ChangedMeanwhileError):
            await self._database.commit(changes)

    # ---- searching

    async def ready(self, index: SearchIndex) -> str:
        """Return the name of an index's terms. Raise `IndexNotReadyError`."""
        known = await self.indexing()
        if not known.has(index):
            raise IndexNotReadyError(index=index.value, detail="it is switched off")
        if not known.is_ready:
            raise IndexNotReadyError(index=index.value, detail="it is being built")
        return known.place(index)

    async def search(self, index: SearchIndex, query: Query, after: str, size: int) -> Page[str]:
        """Return the matching names of a query, in order.

        Raise `SearchTooBroadError`, `IndexNotReadyError`.
        """
        at = await self.ready(index)
        plan, is_whole = await self._plan(at, query)
        following = index_queries.next_of(index_queries.Walk(at, NAME_FIELD[index], plan, query))
        found: list[str] = []
        read, chunk, most = 0, size + 1 if is_whole else max(size + 1, 100), _ASKED_AT_ONCE // count_terms(query) + 1
        began = self._clock.monotonic()
        while len(found) <= size:
            chunk = min(chunk, most, MAX_READ - read)
            if chunk <= 0 or self._clock.monotonic() - began > MAX_S:
                raise SearchTooBroadError(index=index.value, limit=read)
            rows = await self._database.all(following, after=after, limit=chunk)
            found += [str(row["subject"]) for row in rows if row["fits"]]
            if len(rows) < chunk:
                break
            read, after = read + chunk, rows[-1]["subject"]
            # Read as many rows as likely contain the rest, so that a sparse match among thousands takes few reads.
            chunk = min(4 * chunk, 10 + (size + 1 - len(found)) * read * 5 // (4 * max(len(found), 1)))
        return Page(found[:size], found[size - 1] if len(found) > size else None)

    async def search_all(self, index: SearchIndex, query: Query) -> list[str]:
        """Return all matching names of a query. Raise `SearchTooBroadError` for too many."""
        page = await self.search(index, query, "", MAX_READ - 1)
        if page.last is not None:
            raise SearchTooBroadError(index=index.value, limit=MAX_READ)
        return list(page.items)

    async def values(self, index: SearchIndex, query: Query, field: str) -> list[str]:
        """Return the values of a field in all results of a query. Raise `SearchTooBroadError`."""
        at, names = await self.ready(index), await self.search_all(index, query)
        found: list[str] = []
        for first in range(0, len(names), MAX_LIST_VALUES):
            some = list_parameters(names[first : first + MAX_LIST_VALUES])
            rows = await self._database.all(store.VALUES_OF, place=at, field=field, **some)
            found += [row["value"] for row in rows]
        return found

    async def _plan(self, index_name: str, query: Query) -> tuple[Sequence[Leaf], bool]:
        """Return the terms to scan, and whether they match the query exactly."""
        cost, plan = await self._cheapest(index_name, query)
        if cost > _MOST_COUNTED and not all(isinstance(leaf, FieldEquals) and not leaf.begins for leaf in plan):
            return (MatchAll(),), isinstance(query, MatchAll)
        return plan, isinstance(query, FieldEquals | FieldRange | MatchAll)

    async def _cheapest(self, index_name: str, query: Query) -> tuple[float, Sequence[Leaf]]:
        match query:
            case FieldEquals() | FieldRange():
                row = await self._database.one(index_queries.count_statement(index_name, query, _MOST_COUNTED + 1))
                return (0 if row is None else row["count"]), (query,)
            case AllTerms(parts=parts):
                best: tuple[float, Sequence[Leaf]] = float("inf"), (MatchAll(),)
                for part in parts:
                    best = min(best, await self._cheapest(index_name, part), key=lambda one: one[0])
                    if best[0] <= _FEW:
                        break
                return best
            case AnyTerm(parts=parts):
                each = [await self._cheapest(index_name, part) for part in parts]
                return sum(cost for cost, _ in each), [leaf for _, plan in each for leaf in plan]
            case MatchAll() | NoTerm():
                return float("inf"), (MatchAll(),)

    # ---- building

    async def _build(self) -> None:
        while self._is_asked:
            self._is_asked = False
            try:
                await self._build_all()
            except ChangedMeanwhileError:
                self._is_asked = True
            except BirthmarkError:
                self._is_asked = True
                log.exception("awsiot.index_not_built")
                await asyncio.sleep(_AGAIN_S)

    async def _build_all(self) -> None:
        """Write the terms of all subjects and delete those of earlier generations."""
        known = await self.indexing()
        if known.has(SearchIndex.THINGS):
            await self._build_things(known)
        if known.has(SearchIndex.GROUPS):
            after = ""
            while rows := await self._database.all(registry.LIST_GROUPS, after=after, prefix="", limit=EACH):
                for group in map(registry.GROUPS.of, rows):
                    changes = Changes().run(
                        registry.GROUP_IS_AT, expect=1, key_name=group.name, key_version=group.version
                    )
                    _replace(
                        changes, known.place(SearchIndex.GROUPS), group.name, rules.REGISTRY, rules.of_group(group)
                    )
                    await self._written(changes)
                after = rows[-1]["name"]
        await self._settings.change(
            SETTING,
            lambda value: {**value, "ready": max(known.generation, value.get("ready", 0))},
            "awsiot.indexing_configure",
            actor="server",
        )
        if (now := await self.indexing()).generation == known.generation:
            await self._forget_others(now)

    async def _build_things(self, indexing: FleetIndexing) -> None:
        place, after = indexing.place(SearchIndex.THINGS), ""
        while rows := await self._database.all(registry.LIST_THINGS, after=after, limit=EACH):
            things = [registry.THINGS.of(row) for row in rows]
            for first in range(0, len(things), MAX_LIST_VALUES):
                await self._build_some(place, things[first : first + MAX_LIST_VALUES])
            after = things[-1].name
        if not indexing.has_shadow(""):
            return
        last = "", ""
        while rows := await self._database.all(shadows.ALL, thing=last[0], name=last[1], limit=EACH):
            await asyncio.gather(*(self._build_shadow(indexing, row) for row in rows))
            last = rows[-1]["thing"], rows[-1]["name"]

    async def _build_some(self, index_name: str, things: Sequence[Thing]) -> None:
        """Write the terms of several things concurrently; those changed in the meantime wrote their own."""
        rows = await self._database.all(registry.MEMBERSHIPS_OF, **list_parameters([thing.name for thing in things]))
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for row in rows:
            groups[row["thing"]].append(row["thing_group"])
        each = [self._of_one(index_name, thing, groups[thing.name]) for thing in things]
        together = Changes()
        for changes in each:
            together.merge(changes)
        try:
            await self._database.commit(together)
        except ChangedMeanwhileError:
            if len(things) > 1:
                for thing in things:
                    await self._build_some(index_name, [thing])
            else:
                await self._build_again(index_name, things[0].name)

    async def _build_again(self, index_name: str, name: str) -> None:
        """Write the terms of a thing that changed during the build; a deleted one has none."""
        if (row := await self._database.one(registry.GET_THING, name=name)) is not None:
            await self._build_some(index_name, [registry.THINGS.of(row)])

    def _of_one(self, index_name: str, thing: Thing, groups: Sequence[str]) -> Changes:
        changes = Changes().run(registry.THING_IS_AT, expect=1, key_name=thing.name, key_version=thing.version)
        _replace(changes, index_name, thing.name, rules.REGISTRY, rules.of_thing(thing))
        for group in groups:
            changes.run(registry.MEMBER_IS_THERE, expect=1, key_thing_group=group, key_thing=thing.name)
            _add(changes, index_name, thing.name, rules.GROUPS, rules.of_membership(group))
        return changes

    async def _build_shadow(self, indexing: FleetIndexing, row: Any) -> None:
        shadow = shadows.shadow_of(row)
        if not indexing.has_shadow(shadow.name):
            return
        seen: dict[str, Any] = {f"key_{name}": row[name] for name in ("thing", "name", "revision")}
        changes = Changes().run(shadows.IS_AT, expect=1, **seen)
        source = rules.source_of_shadow(shadow.name)
        _replace(changes, indexing.place(SearchIndex.THINGS), shadow.thing, source, rules.of_shadow(shadow))
        await self._written(changes)

    async def _written(self, changes: Changes) -> None:
        with contextlib.suppress(ChangedMeanwhileError):
            await self._database.commit(changes)

    async def _forget_others(self, indexing: FleetIndexing) -> None:
        """Delete obsolete terms in batches."""
        earlier = range(max(0, indexing.generation - _FORGOTTEN), indexing.generation)
        for at in (f"{place.value}/{generation}" for generation in earlier for place in SearchIndex):
            while rows := await self._database.all(store.SUBJECTS_AT, place=at, limit=MAX_LIST_VALUES):
                some = list_parameters([row["subject"] for row in rows])
                await self._database.commit(Changes().run(store.DROP_SOME, place=at, **some))


def _replace(changes: Changes, index_name: str, subject: str, source: str, terms: Sequence[Term]) -> None:
    changes.run(store.DROP_SOURCE, place=index_name, subject=subject, source=source)
    _add(changes, index_name, subject, source, terms)


def _add(changes: Changes, index_name: str, subject: str, source: str, terms: Sequence[Term]) -> None:
    for field, value in terms:
        number = number_of(value)
        changes.run(
            store.ADD,
            place=index_name,
            field=field,
            value=value,
            subject=subject,
            source=source,
            number=None if number is None else ordered(number),
        )
