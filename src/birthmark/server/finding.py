"""Devices by a word of their names, their place and their state, wherever they are on record at this server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from birthmark.awsiot.store import registry
from birthmark.ca import store as ca_store
from birthmark.clock import Clock
from birthmark.console.devices import Found, FoundPage, Sees, Wanted
from birthmark.dps import store as dps_store
from birthmark.iothub import store as hub_store
from birthmark.server.names_at import STATES, Kind, NamesAt, Place, Source
from birthmark.server.rooms import Rooms
from birthmark.store.paging import PageInvalidError
from birthmark.text import decode_json

MAX_LOOKED = 2000
"""How many names a page in a state looks at; it may then be short, with another behind it."""
_PAGE, _FEWEST = 500, 100
_LOOK = 10
"""What a look at a place costs, counted in names: there may be many that have none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Finds devices."""

    rooms: Rooms = field(repr=False)
    clock: Clock = field(repr=False)

    async def find(self, wanted: Wanted, after: str, limit: int, *, sees: Sees) -> FoundPage:
        """Return `limit` devices behind `after` of the places that somebody sees: place by place, in each by name.

        Those whose certificates end soon come as they end. Raise `PageInvalidError`.
        """
        begun_at, begun_by, begun_key = _parsed(after)
        found: list[Found] = []
        looked = 0
        for place in sorted(self._places(), key=lambda one: one.kept_at):
            if place.kept_at < begun_at or not sees(place.at) or not _is_of(place, wanted):
                continue
            names, key, is_last = NamesAt(self.rooms.database, self.clock, place, wanted), ("", ""), False
            source = names.source()
            if place.kept_at == begun_at and begun_by is not None:
                source, key = begun_by, begun_key
            while not is_last:
                if wanted.state is not None and looked >= MAX_LOOKED:
                    return FoundPage(found, _after(place, source, key))
                size = _PAGE if wanted.state is not None else max(_FEWEST, min(_PAGE, limit + 1 - len(found)))
                page, is_last = await names.page(source, key, size)
                looked += _LOOK + len(page)
                states = await names.states([name for _, name in page if name is not None])
                for key, name in page:
                    if name is not None and name in states and wanted.state in {None, states[name]}:
                        found.append(Found(name, place.at, _after(place, source, key), states[name]))
                if len(found) > limit:
                    return FoundPage(found[:limit], found[limit - 1].after)
        return FoundPage(found, None)

    def _places(self) -> Iterator[Place]:
        """Yield every place."""
        rooms = self.rooms
        yield Place(registry.PLACE, registry.PLACE, Kind.AWS, space=rooms.aws_connections.space)
        yield Place(ca_store.PLACE, ca_store.PLACE, Kind.SERVER)
        for hub in rooms.iothub.hubs.all():
            space = rooms.hub_connections.space(hub.name)
            yield Place(hub_store.place_of(hub.name), f"hub/{hub.name}", Kind.HUB, hub.name, space)
        for instance in rooms.instances.all():
            kept_at = dps_store.place_of(instance.id_scope)
            yield Place(kept_at, f"dps/{instance.name}", Kind.DPS, instance.id_scope)


def _is_of(place: Place, wanted: Wanted) -> bool:
    return wanted.at in {"", place.at} and (wanted.state is None or wanted.state in STATES[place.kind])


def _after(place: Place, source: Source, key: tuple[str, str]) -> str:
    return json.dumps([place.kept_at, source, *key], ensure_ascii=False, separators=(",", ":"))


def _parsed(after: str) -> tuple[str, Source | None, tuple[str, str]]:
    if not after:
        return "", None, ("", "")
    try:
        kept_at, source, first, second = decode_json(after, tuple[str, Source, str, str])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
    return kept_at, source, (first, second)
