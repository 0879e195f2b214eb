"""Devices by the beginning of any word of their names, at every place of this server where they are on record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from birthmark.awsiot.store import registry
from birthmark.ca import store as ca_store
from birthmark.console.devices import Found, Sees
from birthmark.dps import store as dps_store
from birthmark.iothub import store as hub_store
from birthmark.server.rooms import Rooms
from birthmark.store import words

_BETWEEN = "\n"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """Finds devices."""

    rooms: Rooms = field(repr=False)

    async def find(self, begin: str, after: str, limit: int, *, sees: Sees) -> Sequence[Found]:
        """Return `limit` devices behind `after` of the places that somebody sees: place by place, in each by word."""
        place_before, _, rest = after.partition(_BETWEEN)
        word, _, name = rest.partition(_BETWEEN)
        found: list[Found] = []
        begin = words.folded(begin)
        for kept_at, place in sorted(self._places()):
            if not sees(place) or kept_at < place_before:
                continue
            behind = (word, name) if kept_at == place_before else ("", "")
            while len(found) < limit:
                between = words.range_of(begin, *behind)
                page = await self.rooms.database.all(words.FIND, place=kept_at, limit=_PAGE, **between)
                found += [
                    Found(row["name"], place, _BETWEEN.join((kept_at, row["word"], row["name"])))
                    for row in page
                    if words.is_first(row["word"], row["name"], begin)
                ]
                if len(page) < _PAGE:
                    break
                behind = page[-1]["word"], page[-1]["name"]
        return found[:limit]

    def _places(self) -> Iterator[tuple[str, str]]:
        """Yield every place, as rows have it and as roles name it."""
        rooms = self.rooms
        yield registry.PLACE, registry.PLACE
        yield ca_store.PLACE, ca_store.PLACE
        for hub in rooms.iothub.hubs.all():
            yield hub_store.place_of(hub.name), f"hub/{hub.name}"
        for instance in rooms.instances.all():
            yield dps_store.place_of(instance.id_scope), f"dps/{instance.name}"
