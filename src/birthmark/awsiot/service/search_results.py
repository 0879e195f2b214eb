"""Search results with their details, in a few reads for many."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from birthmark.awsiot.model import Shadow, Thing, ThingGroup
from birthmark.awsiot.service.fleet_index import FleetIndex
from birthmark.awsiot.store import index_queries, registry, shadows
from birthmark.awsiot.wire.index_query import SearchIndex
from birthmark.store import Database
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters

_PRESENCE = ("connectivity.connected", "connectivity.timestamp", "connectivity.disconnectReason")


@dataclass(frozen=True, slots=True)
class FoundThing:
    """A thing with its groups, and its indexed shadows and connectivity."""

    thing: Thing
    groups: Sequence[str]
    shadows: Sequence[Shadow] = ()
    presence: Mapping[str, str] = field(default_factory=dict)


_EACH = 16


class SearchResults:
    """Loads the details of names; deleted ones are omitted."""

    def __init__(self, database: Database, index: FleetIndex) -> None:
        self._database = database
        self._index = index

    async def things(self, names: Sequence[str]) -> AsyncIterator[FoundThing]:
        """Yield things in the order of their names, read in small batches: shadows may have many kilobytes each."""
        for first in range(0, len(names), _EACH):
            for one in await self._some(names[first : first + _EACH]):
                yield one

    async def _some(self, names: Sequence[str]) -> Sequence[FoundThing]:
        known, some = await self._index.indexing(), list_parameters(names)
        rows = {row["name"]: row for row in await self._database.all(registry.THINGS_WITH_NAMES, **some)}
        groups, of_shadows = defaultdict[str, list[str]](list), defaultdict[str, list[Shadow]](list)
        presence = defaultdict[str, dict[str, str]](dict)
        for row in await self._database.all(registry.MEMBERSHIPS_OF, **some):
            groups[row["thing"]].append(row["thing_group"])
        if known.has_shadow(""):
            for shadow in map(shadows.shadow_of, await self._database.all(shadows.OF_THINGS, **some)):
                if known.has_shadow(shadow.name):
                    of_shadows[shadow.thing].append(shadow)
        if known.has_presence:
            for name in _PRESENCE:
                told = await self._database.all(
                    index_queries.SOME_OF, place=known.place(SearchIndex.THINGS), field=name, **some
                )
                for row in told:
                    presence[row["subject"]][name.removeprefix("connectivity.")] = row["value"]
        return [
            FoundThing(registry.THINGS.of(rows[name]), sorted(groups[name]), of_shadows[name], presence[name])
            for name in names
            if name in rows
        ]

    async def groups(self, names: Sequence[str]) -> Sequence[ThingGroup]:
        """Return groups in the order of their names."""
        found: list[ThingGroup] = []
        for first in range(0, len(names), MAX_LIST_VALUES):
            some = names[first : first + MAX_LIST_VALUES]
            rows = {
                row["name"]: row for row in await self._database.all(registry.GROUPS_NAMED, **list_parameters(some))
            }
            found += [registry.GROUPS.of(rows[name]) for name in some if name in rows]
        return found
