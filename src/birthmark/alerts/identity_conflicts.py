"""One identity from two places that are connected to two workers: each of them sees one address alone.

So each writes which names had several connections ended there, and one worker looks at all of them together.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from birthmark.alerts import store
from birthmark.alerts.model import ConnectionTakeovers
from birthmark.net.identity_conflicts import RETURNS, WITHIN_S, returns
from birthmark.store import Changes, Database, to_micros

_WITHIN = timedelta(seconds=WITHIN_S)
_KEPT = 6 * _WITHIN
Name = tuple[str, str]
"""Of which kind, and the name."""


@dataclass(frozen=True, slots=True)
class IdentityConflicts:
    """The rows of all workers. Moments are those of the database's clock."""

    database: Database = field(repr=False)

    async def note(self, kind: str, ended: Mapping[str, Sequence[tuple[float, str]]], now: datetime) -> None:
        """Write what `Contested.news` says of this worker."""
        if not ended:
            return
        changes = Changes()
        for name, each in sorted(ended.items()):
            ends = tuple(f"{to_micros(now - timedelta(seconds=ago_s))} {address}" for ago_s, address in each)
            row = store.ENDS.row(ConnectionTakeovers(kind, name, self.database.worker, now, ends))
            changes.run(store.PUT_ENDS, **row)
        await self.database.commit(changes)

    async def recent(self, now: datetime) -> Sequence[ConnectionTakeovers]:
        """Return what all workers wrote within the time that counts; forget what is older than anybody asks for."""
        await self.database.commit(Changes().run(store.FORGET_ENDS, before=to_micros(now - _KEPT)))
        since = to_micros(now - _WITHIN)
        return [store.ENDS.of(row) for row in await self.database.all(store.ENDS_SINCE, since=since)]


def in_two_places(
    found: Iterable[ConnectionTakeovers], now: datetime, said: Mapping[Name, int]
) -> Mapping[Name, Sequence[tuple[int, str]]]:
    """Return the names that go back and forth between addresses, with their ends in order, those after what was `said`.

    What one worker saw alone, it has said itself.
    """
    since = to_micros(now - _WITHIN)
    names: defaultdict[Name, list[ConnectionTakeovers]] = defaultdict(list)
    for one in found:
        names[one.kind, one.name].append(one)
    merged = {
        name: sorted(end for one in of for end in one.each() if end[0] > max(since, said.get(name, 0)))
        for name, of in names.items()
        if sum(1 for one in of if one.ends) > 1
    }
    return {name: ends for name, ends in merged.items() if returns([where for _, where in ends]) >= RETURNS}
