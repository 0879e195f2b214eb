"""The names of devices at one place, page by page, and how each stands there.

A page comes from whatever has fewest that are not asked for: an index of those that are switched off, the connections
of a worker that is alone, certificates by their end, refusals by whom they are about; or from all that is on record.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple, TypeAlias, assert_never

from birthmark.awsiot.store import registry
from birthmark.broker import store as broker_store
from birthmark.broker.space import Space
from birthmark.ca import store as ca_store
from birthmark.clock import Clock
from birthmark.console.devices import Wanted
from birthmark.console.states import Order, State
from birthmark.dps import store as dps_store
from birthmark.iothub import store as hub_store
from birthmark.pki.names import fold
from birthmark.refusals import ledger
from birthmark.refusals import store as refusal_store
from birthmark.store import Statement, to_micros, words
from birthmark.store.database import Reader
from birthmark.store.keyed import MOST_AMONG, these
from birthmark.store.paging import PageInvalidError

FEW = 10_000
"""Connections that are sorted for a page; where there are more, enough are among any that are on record."""
_DIGITS = 18


class Kind(StrEnum):
    """What has devices on record."""

    HUB = "hub"
    DPS = "dps"
    AWS = "aws"
    SERVER = "server"


STATES: Mapping[Kind, AbstractSet[State]] = {
    Kind.HUB: {State.CONNECTED, State.AWAY, State.DISABLED, State.REFUSED, State.REVOKED},
    Kind.DPS: {State.UNASSIGNED, State.REFUSED, State.REVOKED},
    Kind.AWS: {State.CONNECTED, State.AWAY, State.REFUSED, State.REVOKED},
    Kind.SERVER: {State.ENDING, State.REFUSED, State.REVOKED},
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where devices are on record: as rows of words have it, as roles name it, and by its own name."""

    kept_at: str
    at: str
    kind: Kind
    name: str = ""
    space: Space | None = field(default=None, repr=False)


class Source(StrEnum):
    """Where a page comes from; a search goes on by the one that it began with."""

    WORDS = "words"
    RECORD = "record"
    OFF = "off"
    LIVE = "live"
    OWNED = "owned"
    ENDING = "ending"
    REFUSED = "refused"
    REVOKED = "revoked"


class Key(StrEnum):
    """By what a list is in order, over all places: a name, a word of it, the subject of a record, a certificate's end.

    The first three are alike for one device wherever it is; certificates are at one place.
    """

    NAME = "name"
    WORD = "word"
    SUBJECT = "subject"
    ENDING = "ending"


class Name(NamedTuple):
    """A name, with how a source goes on behind it; None where what was looked at is none."""

    key: tuple[str, str]
    name: str | None


_Page: TypeAlias = tuple[Sequence[Name], bool]
_EVER = 2**62
_BEYOND = "\U0010ffff"
"""Beyond every name: a place without a spelling of a subject is done with it."""
_MICROSECOND = timedelta(microseconds=1)
_RECORD: Mapping[Kind, tuple[Statement, str]] = {
    Kind.HUB: (hub_store.NAMES_OF_DEVICES, "device_id"),
    Kind.DPS: (dps_store.NAMES_ENROLLED, "id"),
    Kind.AWS: (registry.NAMES_OF_THINGS, "name"),
    Kind.SERVER: (ca_store.NAMES_OF_CERTIFICATES, "name"),
}
_OWNER: Mapping[Kind, str] = {Kind.HUB: "hub", Kind.DPS: "scope"}


@dataclass(frozen=True, slots=True)
class NamesAt:
    """The names at one place that are asked for."""

    database: Reader = field(repr=False)
    clock: Clock = field(repr=False)
    place: Place
    wanted: Wanted

    def source(self, key: Key) -> Source:
        """Return where pages in the order of such keys come from."""
        match key:
            case Key.ENDING:
                return Source.ENDING
            case Key.WORD:
                return Source.WORDS
            case Key.SUBJECT:
                return Source.REVOKED if self.wanted.state is State.REVOKED else Source.REFUSED
            case Key.NAME:
                space = self.place.space if self.wanted.state is State.CONNECTED else None
                if space is not None and (self.wanted.begin or has_few(space)):
                    return Source.LIVE
                if space is not None and not space.is_alone:
                    return Source.OWNED
                return Source.OFF if self.wanted.state is State.DISABLED else Source.RECORD
            case _:
                assert_never(key)

    async def page(self, source: Source, key: tuple[str, str], limit: int) -> _Page:
        """Return names behind a key, and whether they are the last. Raise `PageInvalidError`."""
        read: Mapping[Source, Callable[[tuple[str, str], int], Awaitable[_Page]]] = {
            Source.WORDS: self._by_word,
            Source.RECORD: partial(self._by, *_RECORD[self.place.kind]),
            Source.OFF: partial(self._by, hub_store.DEVICES_OFF, "device_id"),
            Source.LIVE: self._live,
            Source.OWNED: self._owned,
            Source.ENDING: self._ending,
            Source.REFUSED: self._refused,
            Source.REVOKED: self._revoked,
        }
        return await read[source](key, limit)

    async def _live(self, key: tuple[str, str], limit: int) -> _Page:
        live = () if self.place.space is None else self.place.space.live
        names = sorted(client for client in live if client > key[1])[:limit]
        return [Name(("", name), name if begins(name, self.wanted) else None) for name in names], len(names) < limit

    async def _by(self, statement: Statement, column: str, key: tuple[str, str], limit: int) -> _Page:
        owner = {_OWNER[self.place.kind]: self.place.name} if self.place.kind in _OWNER else {}
        rows = await self.database.all(statement, after=key[1], limit=limit, **owner)
        return [Name(("", row[column]), row[column]) for row in rows], len(rows) < limit

    async def _by_word(self, key: tuple[str, str], limit: int) -> _Page:
        begin = words.folded(self.wanted.begin)
        asked = words.range_of(begin, *key)
        rows = await self.database.all(words.FIND, place=self.place.kept_at, limit=limit, **asked)
        found = [
            Name((row["word"], row["name"]), row["name"] if words.is_first(row["word"], row["name"], begin) else None)
            for row in rows
        ]
        return found, len(rows) < limit

    async def _owned(self, key: tuple[str, str], limit: int) -> _Page:
        if self.place.space is None:
            return [], True
        rows = await self.database.all(broker_store.OWNED_PAGE, space=self.place.space.name, after=key[1], limit=limit)
        found = [Name(("", row["client"]), None if row["owner"] is None else row["client"]) for row in rows]
        return found, len(rows) < limit

    async def _ending(self, key: tuple[str, str], limit: int) -> _Page:
        now, upto = self._soon()
        after_end, after = _parsed(key[1]) if key[1] else (now, b"")
        rows = await self.database.all(ca_store.ENDING, after_end=after_end, after=after, upto=upto, limit=limit)
        last = {}
        async for row in self._among(ca_store.LAST_ENDS, {row["name"] for row in rows if row["name"]}, now=now):
            last[row["name"]] = row["last"]
        found = []
        for row in rows:
            is_last = last.get(row["name"]) == row["not_after"]
            key = ("", f"{row['not_after']}.{bytes(row['thumbprint']).hex()}")
            found.append(Name(key, row["name"] if is_last else None))
            if is_last:
                del last[row["name"]]  # of two that end at one moment, the first
        return found, len(rows) < limit

    async def _refused(self, key: tuple[str, str], limit: int) -> _Page:
        """Read the subjects of refusals, which may be tracking ids and thumbprints, as this place spells them."""
        since = self._since()
        rows = await self.database.all(refusal_store.SUBJECTS_PAGE, after=key[0], limit=limit)
        every = [row["subject"] for row in rows]
        late = [row["subject"] for row in rows if row["at"] >= since]
        return await self._spelled(key, every, late), len(rows) < limit

    async def _revoked(self, key: tuple[str, str], limit: int) -> _Page:
        """Read the names that are revoked, as this place spells them."""
        rows = await self.database.all(ca_store.NAMES_REVOKED, after=key[0], limit=limit)
        names = [row["name"] for row in rows]
        if self.place.kind is Kind.SERVER:
            return [Name((name, name), name) for name in names], len(rows) < limit
        return await self._spelled(key, names, names), len(rows) < limit

    async def _spelled(self, key: tuple[str, str], every: Sequence[str], subjects: Sequence[str]) -> Sequence[Name]:
        begun = [key[0]] if key[1] else []  # more spellings of it may follow
        of: dict[str, list[str]] = {}
        cut = {words.folded(subject) for subject in (*begun, *subjects)}
        async for row in self._among(words.WHOLE, cut, place=self.place.kept_at):
            of.setdefault(row["name"].lower(), []).append(row["name"])
        found = [
            Name((subject, name or _BEYOND), name)
            for subject in (*begun, *every)
            for name in sorted(of.get(subject, ())) or (None,)
        ]
        return [one for one in found if one.key > key]

    async def spellings(self, folded: Sequence[str]) -> AbstractSet[str]:
        """Return how this place, where letter case counts, spells folded names."""
        rows = self._among(words.WHOLE, {words.folded(name) for name in folded}, place=self.place.kept_at)
        return {row["name"] async for row in rows}

    async def states(self, names: Sequence[str]) -> Mapping[str, State | None]:
        """Return the state of each device that this place has; None where it knows no state."""
        match self.place.kind:
            case Kind.SERVER:
                there = {row["name"] async for row in self._among(ca_store.NAMES_NAMED, map(fold, names))}
                return {name: None for name in names if fold(name) in there}
            case Kind.DPS:
                scope = self.place.name
                rows = self._among(dps_store.ENROLLED_NAMED, map(fold, names), scope=scope)
                there = {row["id"] async for row in rows}
                rows = self._among(dps_store.REGISTERED_NAMED, there, scope=scope)
                registered = {row["registration_id"] async for row in rows}
                return {
                    name: None if fold(name) in registered else State.UNASSIGNED
                    for name in names
                    if fold(name) in there
                }
            case Kind.AWS:
                on_record = {row["name"] async for row in self._among(registry.THINGS_NAMED, names)}
                off: AbstractSet[str] = frozenset()
            case Kind.HUB:
                rows = self._among(hub_store.DEVICES_NAMED, names, hub=self.place.name)
                enabled = {row["device_id"]: row["enabled"] async for row in rows}
                on_record, off = set(enabled), {name for name, is_enabled in enabled.items() if not is_enabled}
            case _:
                assert_never(self.place.kind)
        connected = await self._connected(names)
        return {
            name: State.DISABLED if name in off else State.CONNECTED if name in connected else State.AWAY
            for name in names
            if name in on_record
        }

    async def _connected(self, names: Sequence[str]) -> AbstractSet[str]:
        """Return who of them is connected, to whichever worker."""
        space = self.place.space
        if space is None:
            return frozenset()
        found = {name for name in names if name in space.live}
        if not space.is_alone:  # each connection has its row
            away = [name for name in names if name not in found]
            found |= {row["client"] async for row in self._among(broker_store.OWNED_NAMED, away, space=space.name)}
        return found

    async def _among(
        self, statement: Statement, values: Iterable[str], **asked: Any
    ) -> AsyncIterator[Mapping[str, Any]]:
        some = list(values)
        for first in range(0, len(some), MOST_AMONG):
            for row in await self.database.all(statement, **these(some[first : first + MOST_AMONG]), **asked):
                yield row

    def _soon(self) -> tuple[int, int]:
        now = to_micros(self.clock.now())
        is_any = self.wanted.order is Order.ENDS and self.wanted.state is not State.ENDING
        return now, _EVER if is_any else now + self.wanted.ending // _MICROSECOND

    async def refused(self, names: Sequence[str]) -> AbstractSet[str]:
        """Return the names, in lower case, that something was refused to within the time that refusals are kept."""
        rows = self._among(refusal_store.SUBJECTS_NAMED, {name.lower() for name in names}, since=self._since())
        return {row["subject"] async for row in rows}

    async def revoked(self, names: Sequence[str]) -> AbstractSet[str]:
        """Return the names, folded, that are revoked."""
        rows = self._among(ca_store.NAMES_NAMED, {fold(name) for name in names})
        return {row["name"] async for row in rows if row["lost_at"] is not None}

    async def ends(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return when the last valid certificate of each folded name ends, in microseconds."""
        rows = self._among(ca_store.LAST_ENDS, {fold(name) for name in names}, now=to_micros(self.clock.now()))
        return {row["name"]: row["last"] async for row in rows}

    def is_soon(self, end: int) -> bool:
        """Say whether a certificate that ends then is one that ends soon."""
        return end <= self._soon()[1]

    def _since(self) -> int:
        return to_micros(self.clock.now() - ledger.KEEP)


def begins(name: str, wanted: Wanted) -> bool:
    """Say whether a word of a name begins as is asked for."""
    begin = words.folded(wanted.begin)
    return not begin or any(word.startswith(begin) for word in words.words_of(name))


def has_few(space: Space) -> bool:
    """Say whether the connections of a space are all known here, and few enough to be sorted."""
    return space.is_alone and len(space.live) <= FEW


def _parsed(key: str) -> tuple[int, bytes]:
    end, _, thumbprint = key.partition(".")
    try:
        return int(end[:_DIGITS]), bytes.fromhex(thumbprint)
    except ValueError as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
