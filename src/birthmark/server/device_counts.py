"""How many devices there are at each place of this server, and how many of them are connected, to whichever worker.

Read from figures and from what is in memory: no device is looked at, however many there are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from birthmark.awsiot.store import registry
from birthmark.ca import store as ca_store
from birthmark.console.devices import Counts, Sees
from birthmark.iothub import store as hub_store
from birthmark.iothub.model import space_of
from birthmark.server.rooms import Rooms
from birthmark.store.figures import SUMS

_OFF = hub_store.state_of(is_enabled=False)


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """Counts devices."""

    rooms: Rooms = field(repr=False)

    async def read(self, *, sees: Sees) -> Sequence[Counts]:
        """Return how many there are at the places that somebody sees; what nothing counts is None."""
        rooms = self.rooms
        connected = await rooms.broker.connected()
        things, devices = await self._figures(registry.FIGURE), await self._figures(hub_store.DEVICES)
        on_record = Counter[str]()
        for (place, _), count in devices.items():
            on_record[place] += count
        aws = connected.get(rooms.aws_connections.space.name, 0)
        found = [Counts(registry.PLACE, sum(things.values()), aws)]
        for hub in sorted(one.name for one in rooms.iothub.hubs.all()):
            here, off = connected.get(space_of(hub), 0), devices.get((hub, _OFF), 0)
            found.append(Counts(f"hub/{hub}", on_record[hub], here, off))
        found += [Counts(f"dps/{name}") for name in sorted(one.name for one in rooms.instances.all())]
        found.append(Counts(ca_store.PLACE))
        return [one for one in found if sees(one.at)]

    async def _figures(self, name: str) -> Mapping[tuple[str, str], int]:
        rows = await self.rooms.database.all(SUMS, name=name, from_since=0)
        return {(row["place"], row["state"]): int(row["value"]) for row in rows}
