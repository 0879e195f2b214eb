"""Identity conflicts across workers: one identity connects from two addresses to two workers.

Each worker sees only one address. It therefore writes the names with several ended connections, and one worker
evaluates the rows of all.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from birthmark.alerts import store
from birthmark.alerts.model import ConnectionTakeovers
from birthmark.net.identity_conflicts import RETURNS, WITHIN_S, count_returns
from birthmark.store import Changes, Database, to_micros

_WITHIN = timedelta(seconds=WITHIN_S)
_KEPT = 6 * _WITHIN
Name = tuple[str, str]
"""Kind and name of an identity."""


@dataclass(frozen=True, slots=True)
class IdentityConflicts:
    """Conflict rows of all workers; times are from the database's clock."""

    database: Database = field(repr=False)

    async def note(self, kind: str, ended: Mapping[str, Sequence[tuple[float, str]]], now: datetime) -> None:
        """Write this worker's `Contested.news`."""
        if not ended:
            return
        changes = Changes()
        for name, each in sorted(ended.items()):
            ends = tuple(f"{to_micros(now - timedelta(seconds=ago_s))} {address}" for ago_s, address in each)
            row = store.ENDS.row(ConnectionTakeovers(kind, name, self.database.worker, now, ends))
            changes.run(store.PUT_ENDS, **row)
        await self.database.commit(changes)

    async def recent(self, now: datetime) -> Sequence[ConnectionTakeovers]:
        """Return the recent rows of all workers; delete rows that are too old."""
        await self.database.commit(Changes().run(store.FORGET_ENDS, before=to_micros(now - _KEPT)))
        since = to_micros(now - _WITHIN)
        return [store.ENDS.of(row) for row in await self.database.all(store.ENDS_SINCE, since=since)]


def find_alternating_names(
    takeovers: Iterable[ConnectionTakeovers], now: datetime, said: Mapping[Name, int]
) -> Mapping[Name, Sequence[tuple[int, str]]]:
    """Return names that alternate between addresses, with their ended connections in order, after those in `said`.

    Conflicts that one worker saw alone are excluded; that worker has already reported them.
    """
    since = to_micros(now - _WITHIN)
    names: defaultdict[Name, list[ConnectionTakeovers]] = defaultdict(list)
    for one in takeovers:
        names[one.kind, one.name].append(one)
    merged = {
        name: sorted(end for one in of for end in one.each() if end[0] > max(since, said.get(name, 0)))
        for name, of in names.items()
        if sum(1 for one in of if one.ends) > 1
    }
    return {name: ends for name, ends in merged.items() if count_returns([where for _, where in ends]) >= RETURNS}
