"""Devices of all places of this server, each once: listed by name, word, state or the end of a certificate."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from birthmark.awsiot.store import registry
from birthmark.ca import store as ca_store
from birthmark.clock import Clock
from birthmark.console.devices import Counted, Counts, Found, FoundPage, Sees, Wanted
from birthmark.console.states import Order, State
from birthmark.dps import store as dps_store
from birthmark.iothub import store as hub_store
from birthmark.iothub.model import space_of
from birthmark.pki.names import fold
from birthmark.server.names_at import STATES, Key, Kind, NamesAt, Place, begins, has_few
from birthmark.server.rooms import Rooms
from birthmark.store import from_micros
from birthmark.store.figures import SUMS
from birthmark.store.paging import PageInvalidError
from birthmark.text import decode_json

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


MAX_COUNTED = 5000
"""Names that are counted for a list; of more it says so."""
MAX_LOOKED = 2000
"""How many names a page in a state looks at; it may then be short, with another behind it."""
_PAGE, _FEWEST = 500, 100
_SPELLED = {Kind.HUB, Kind.AWS}
"""Places where letter case counts; the others have folded names."""
_NOT_COUNTED = {State.AWAY, State.UNASSIGNED}


@dataclass(frozen=True, slots=True)
class Finding:
    """Finds devices."""

    rooms: Rooms = field(repr=False)
    clock: Clock = field(repr=False)

    async def find(self, wanted: Wanted, after: str, limit: int, *, sees: Sees) -> FoundPage:
        """Return `limit` devices behind `after` of the places that somebody sees. Raise `PageInvalidError`."""
        every = self._names(wanted, sees)
        sources = _sources(every, wanted)
        order, key = _parsed(after, wanted) if after else (_order(sources, wanted), ("", ""))
        found: list[Found] = []
        looked, is_last = 0, False
        is_sifted = wanted.state is not None or wanted.order is Order.ENDS
        while not is_last:
            if is_sifted and looked >= MAX_LOOKED:
                return FoundPage(await self._told(found, every), _after(order, key))
            size = _PAGE if looked else max(_FEWEST, min(_PAGE, limit + 1))
            batch, is_last = await _merged(sources, order, key, size)
            looked += max(1, len(batch))
            at = await self._states([name for name in batch.values() if name is not None], every, wanted)
            for key, name in batch.items():
                if name is not None and name in at and _fits(at[name], name, wanted):
                    places, states = at[name]
                    found.append(Found(name, places, _after(order, key), states))
            if len(found) > limit:
                return FoundPage(await self._told(found[:limit], every), found[limit - 1].after)
        return FoundPage(await self._told(found, every), None)

    async def count(self, wanted: Wanted, *, sees: Sees) -> Counted | None:
        """Return how many there are, or of how many there are more; None where each had to be looked at."""
        is_sifted = wanted.state is not None and (wanted.begin or wanted.order is Order.ENDS)
        if is_sifted or wanted.state in _NOT_COUNTED or (wanted.order is Order.ENDS and wanted.begin):
            return None
        sources = _sources(self._names(wanted, sees), wanted)
        order = _order(sources, wanted)
        most = MAX_COUNTED if order is Key.NAME else MAX_COUNTED // 5  # a row of a word costs more
        figures = await DeviceCounts(self.rooms).read(sees=sees) if order is Key.NAME and wanted.state is None else ()
        known = max((one.on_record or 0 for one in figures if wanted.at in {"", one.at}), default=0)
        if known > most:
            return Counted(known, is_more=True)
        found: set[str] = set()
        for names in sources:
            page, is_last = await names.page(names.source(order), ("", ""), most + 1)
            some = [name for _, name in page if name is not None]
            if wanted.state is State.CONNECTED:  # connections may be of what is no device
                some = [name for name, state in (await names.states(some)).items() if state is State.CONNECTED]
            found |= {fold(name) for name in some}
            if not is_last or len(found) > most:
                return Counted(most, is_more=True)
        return Counted(len(found))

    def _names(self, wanted: Wanted, sees: Sees) -> Sequence[NamesAt]:
        places = sorted(self._places(), key=lambda one: one.at)
        return [NamesAt(self.rooms.database, self.clock, place, wanted) for place in places if sees(place.at)]

    async def _states(
        self, names: Sequence[str], every: Sequence[NamesAt], wanted: Wanted
    ) -> Mapping[str, tuple[Sequence[str], Sequence[State]]]:
        """Return where devices are and their states, the worst first; a name that is spelled otherwise is left out."""
        if not names:
            return {}
        at: dict[str, list[str]] = {name: [] for name in names}
        told: dict[str, set[State | None]] = {name: set() for name in names}
        spelled: set[str] = set()
        for one in every:
            for name, state in (await one.states(names)).items():
                at[name].append(one.place.at)
                told[name].add(state)
                if one.place.kind in _SPELLED:
                    spelled.add(name)
        others: set[str] = set()
        folded = [name for name in names if name not in spelled and name == fold(name)]
        if folded and not wanted.at and _order((), wanted) is not Key.ENDING:
            for one in every:
                others |= {fold(name) for name in await one.spellings(folded)} if one.place.kind in _SPELLED else set()
        refused, revoked = await every[0].refused(names), await every[0].revoked(names)
        ends = await every[0].ends(names) if wanted.state is State.ENDING else {}
        for name in names:
            told[name] |= {State.REFUSED} if name.lower() in refused else set()
            told[name] |= {State.REVOKED} if fold(name) in revoked else set()
            told[name] |= {State.ENDING} if fold(name) in ends and every[0].is_soon(ends[fold(name)]) else set()
        return {
            name: (at[name], _ordered(told[name]))
            for name in names
            if at[name] and (name in spelled or name not in others)
        }

    async def _told(self, found: Sequence[Found], every: Sequence[NamesAt]) -> Sequence[Found]:
        """Return devices with when they were seen last and their certificates' end."""
        if not found:
            return found
        names = [one.name for one in found]
        seen: dict[str, int] = {}
        for place in (one.place for one in every):
            here = [one.name for one in found if place.at in one.places]
            if place.space is not None and here:
                for name, last in (await place.space.seen_anywhere(here)).items():
                    seen[name] = max(last.at, seen.get(name, 0))
        is_seen = any(one.place.kind is Kind.SERVER for one in every)
        ends = await every[0].ends(names) if is_seen else {}
        return [
            replace(
                one,
                last_seen=from_micros(seen[one.name]) if one.name in seen else None,
                ends=from_micros(ends[fold(one.name)]) if fold(one.name) in ends else None,
            )
            for one in found
        ]

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


def _sources(every: Sequence[NamesAt], wanted: Wanted) -> Sequence[NamesAt]:
    """Return the places whose names are read for what is asked."""
    if wanted.order is Order.ENDS or (wanted.state is State.ENDING and not wanted.begin):
        return [one for one in every if one.place.kind is Kind.SERVER]
    return [
        one
        for one in every
        if wanted.at in {"", one.place.at} and (wanted.state is None or wanted.state in STATES[one.place.kind])
    ]


def _order(sources: Sequence[NamesAt], wanted: Wanted) -> Key:
    """Return by what the list is in order."""
    if wanted.order is Order.ENDS or (wanted.state is State.ENDING and not wanted.begin):
        return Key.ENDING
    spaces = [one.place.space for one in sources if one.place.space is not None]
    if wanted.state is State.CONNECTED and all(has_few(one) for one in spaces):
        return Key.NAME
    if wanted.begin:
        return Key.WORD
    return Key.SUBJECT if wanted.state in {State.REFUSED, State.REVOKED} else Key.NAME


async def _merged(
    sources: Sequence[NamesAt], order: Key, key: tuple[str, str], size: int
) -> tuple[Mapping[tuple[str, str], str | None], bool]:
    """Return what follows a key at any of the places, each key once, and whether it is the last of all."""
    found: dict[tuple[str, str], str | None] = {}
    ends: list[tuple[str, str]] = []
    for names in sources:
        page, is_last = await names.page(names.source(order), key, size)
        for one, name in page:
            found[one] = found.get(one) or name
        if not is_last:
            ends.append(page[-1].key)
    upto = min(ends, default=None)
    keys = sorted(one for one in found if upto is None or one <= upto)
    return {one: found[one] for one in keys}, upto is None


def _fits(at: tuple[Sequence[str], Sequence[State]], name: str, wanted: Wanted) -> bool:
    places, states = at
    is_there = wanted.at in {"", *places}
    return is_there and (wanted.state is None or wanted.state in states) and begins(name, wanted)


def _ordered(states: set[State | None]) -> Sequence[State]:
    """Return states, the worst first; of being connected, away and never registered the best one counts."""
    is_connected = State.CONNECTED in states
    presence = [one for one in (State.CONNECTED, State.AWAY, State.UNASSIGNED) if one in states][:1]
    flags = [one for one in (State.REVOKED, State.DISABLED) if one in states]
    notes = [one for one in (State.REFUSED, State.ENDING) if one in states]
    return [*flags, *presence, *notes] if is_connected else [*flags, *notes, *presence]


def _after(order: Key, key: tuple[str, str]) -> str:
    return json.dumps([order, *key], ensure_ascii=False, separators=(",", ":"))


def _parsed(after: str, wanted: Wanted) -> tuple[Key, tuple[str, str]]:
    try:
        order, first, second = decode_json(after, tuple[Key, str, str])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
    known = {_order((), wanted), *([Key.NAME, Key.WORD] if wanted.state is State.CONNECTED else [])}
    if order not in known:
        raise PageInvalidError(detail="the marker is of another list")
    return order, (first, second)
