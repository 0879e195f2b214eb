"""The names of devices in one scope, page by page, and the state of each.

A page uses the source with the fewest unwanted names. Sources are the index of disabled devices, the connections of a
single worker, certificates by expiry, subjects of refusals, and all records.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeAlias, assert_never

from birthmark.broker import store as broker_store
from birthmark.broker.namespace_sessions import Namespace
from birthmark.ca import store as ca_store
from birthmark.clock_and_entropy import Clock
from birthmark.devices.model import DeviceFilter, DeviceOrder, DeviceState
from birthmark.devices.ports import DeviceScope
from birthmark.pki.names_and_registration_ids import fold
from birthmark.refusals import ledger
from birthmark.refusals import store as refusal_store
from birthmark.store import device_name_prefix_index, to_micros
from birthmark.store.database import DatabaseReader
from birthmark.store.pagination import PageInvalidError, each_among

FEW = 10_000
"""Maximum number of connections to sort for a page; with more, records contain enough connected devices."""
_DIGITS = 18


class NameSource(StrEnum):
    """Source of a page; a search continues with the source that it started with."""

    WORDS = "words"
    RECORD = "record"
    OFF = "off"
    LIVE = "live"
    OWNED = "owned"
    ENDING = "ending"
    REFUSED = "refused"
    REVOKED = "revoked"


class Key(StrEnum):
    """Sort key of a list across all places: name, word, subject of a record, or certificate expiry.

    The first three are the same for a device at every place; certificates exist at one place.
    """

    NAME = "name"
    WORD = "word"
    SUBJECT = "subject"
    ENDING = "ending"


class DeviceName(NamedTuple):
    """A name with the key at which its source continues; None if the entry examined is no match."""

    key: tuple[str, str]
    name: str | None


ReadNames: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
_Page: TypeAlias = tuple[Sequence[DeviceName], bool]
_EVER = 2**62
_BEYOND = "\U0010ffff"
"""Sorts after every name: a place without a spelling of a subject continues after it."""
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ScopeNames:
    """The names of one scope for a list."""

    database: DatabaseReader = field(repr=False)
    clock: Clock = field(repr=False)
    scope: DeviceScope
    wanted: DeviceFilter

    @property
    def has_certificates(self) -> bool:
        """Whether the names of this scope are those of certificates."""
        return DeviceState.ENDING in self.scope.states

    def source(self, key: Key) -> NameSource:
        """Return the source of pages in the order of this key."""
        match key:
            case Key.ENDING:
                return NameSource.ENDING
            case Key.WORD:
                return NameSource.WORDS
            case Key.SUBJECT:
                return NameSource.REVOKED if self.wanted.state is DeviceState.REVOKED else NameSource.REFUSED
            case Key.NAME:
                space = self.scope.space if self.wanted.state is DeviceState.CONNECTED else None
                if space is not None and (self.wanted.begin or has_few(space)):
                    return NameSource.LIVE
                if space is not None and not space.is_alone:
                    return NameSource.OWNED
                return NameSource.OFF if self.wanted.state is DeviceState.DISABLED else NameSource.RECORD
            case _:
                assert_never(key)

    async def page(self, source: NameSource, key: tuple[str, str], limit: int) -> _Page:
        """Return names after a key, and whether they are the last. Raise `PageInvalidError`."""
        read: Mapping[NameSource, Callable[[tuple[str, str], int], Awaitable[_Page]]] = {
            NameSource.WORDS: self._by_word,
            NameSource.RECORD: partial(self._on_record, self.scope.page),
            NameSource.OFF: partial(self._on_record, self.scope.disabled_page or self.scope.page),
            NameSource.LIVE: self._live,
            NameSource.OWNED: self._owned,
            NameSource.ENDING: self._ending,
            NameSource.REFUSED: self._refused,
            NameSource.REVOKED: self._revoked,
        }
        return await read[source](key, limit)

    async def _live(self, key: tuple[str, str], limit: int) -> _Page:
        live = () if self.scope.space is None else self.scope.space.live
        names = sorted(client for client in live if client > key[1])[:limit]
        return [DeviceName(("", name), name if matches_prefix(name, self.wanted) else None) for name in names], len(
            names
        ) < limit

    async def _on_record(self, read: ReadNames, key: tuple[str, str], limit: int) -> _Page:
        names = await read(key[1], limit)
        return [DeviceName(("", name), name) for name in names], len(names) < limit

    async def _by_word(self, key: tuple[str, str], limit: int) -> _Page:
        begin = device_name_prefix_index.folded(self.wanted.begin)
        asked = device_name_prefix_index.range_of(begin, *key)
        rows = await self.database.all(device_name_prefix_index.FIND, place=self.scope.word_scope, limit=limit, **asked)
        found = [
            DeviceName(
                (row["word"], row["name"]),
                row["name"] if device_name_prefix_index.is_first(row["word"], row["name"], begin) else None,
            )
            for row in rows
        ]
        return found, len(rows) < limit

    async def _owned(self, key: tuple[str, str], limit: int) -> _Page:
        if self.scope.space is None:
            return [], True
        rows = await self.database.all(broker_store.OWNED_PAGE, space=self.scope.space.name, after=key[1], limit=limit)
        found = [DeviceName(("", row["client"]), None if row["owner"] is None else row["client"]) for row in rows]
        return found, len(rows) < limit

    async def _ending(self, key: tuple[str, str], limit: int) -> _Page:
        now, upto = self._soon()
        after_end, after = _parsed(key[1]) if key[1] else (now, b"")
        rows = await self.database.all(ca_store.ENDING, after_end=after_end, after=after, upto=upto, limit=limit)
        last = {}
        async for row in each_among(
            self.database, ca_store.LAST_ENDS, {row["name"] for row in rows if row["name"]}, now=now
        ):
            last[row["name"]] = row["last"]
        found = []
        for row in rows:
            is_last = last.get(row["name"]) == row["not_after"]
            key = ("", f"{row['not_after']}.{bytes(row['thumbprint']).hex()}")
            found.append(DeviceName(key, row["name"] if is_last else None))
            if is_last:
                del last[row["name"]]  # of two with one end time, the first
        return found, len(rows) < limit

    async def _refused(self, key: tuple[str, str], limit: int) -> _Page:
        """Return the subjects of refusals, which may be tracking IDs and thumbprints, in this place's spelling."""
        since = self._since()
        rows = await self.database.all(refusal_store.SUBJECTS_PAGE, after=key[0], limit=limit)
        every = [row["subject"] for row in rows]
        late = [row["subject"] for row in rows if row["at"] >= since]
        return await self._spelled(key, every, late), len(rows) < limit

    async def _revoked(self, key: tuple[str, str], limit: int) -> _Page:
        """Return the revoked names in this place's spelling."""
        rows = await self.database.all(ca_store.NAMES_REVOKED, after=key[0], limit=limit)
        names = [row["name"] for row in rows]
        if self.has_certificates:
            return [DeviceName((name, name), name) for name in names], len(rows) < limit
        return await self._spelled(key, names, names), len(rows) < limit

    async def _spelled(
        self, key: tuple[str, str], every: Sequence[str], subjects: Sequence[str]
    ) -> Sequence[DeviceName]:
        begun = [key[0]] if key[1] else []  # more spellings may follow
        of: dict[str, list[str]] = {}
        cut = {device_name_prefix_index.folded(subject) for subject in (*begun, *subjects)}
        async for row in each_among(self.database, device_name_prefix_index.WHOLE, cut, place=self.scope.word_scope):
            of.setdefault(row["name"].lower(), []).append(row["name"])
        found = [
            DeviceName((subject, name or _BEYOND), name)
            for subject in (*begun, *every)
            for name in sorted(of.get(subject, ())) or (None,)
        ]
        return [one for one in found if one.key > key]

    async def spellings(self, folded: Sequence[str]) -> AbstractSet[str]:
        """Return the spellings of case-folded names at this place, which is case-sensitive."""
        rows = each_among(
            self.database,
            device_name_prefix_index.WHOLE,
            {device_name_prefix_index.folded(name) for name in folded},
            place=self.scope.word_scope,
        )
        return {row["name"] async for row in rows}

    async def states(self, names: Sequence[str]) -> Mapping[str, DeviceState | None]:
        """Return the state of each device that this scope has; None for an unknown state."""
        found = await self.scope.find(names)
        if self.scope.space is None:
            return found
        connected = await self._connected(self.scope.space, [name for name in names if name in found])
        there = {name: DeviceState.CONNECTED if name in connected else DeviceState.AWAY for name in found}
        return {name: found[name] or state for name, state in there.items()}

    async def _connected(self, space: Namespace, names: Sequence[str]) -> AbstractSet[str]:
        """Return the names that are connected to any worker."""
        found = {name for name in names if name in space.live}
        if not space.is_alone:  # one row per connection
            away = [name for name in names if name not in found]
            rows = each_among(self.database, broker_store.OWNED_NAMED, away, space=space.name)
            found |= {row["client"] async for row in rows}
        return found

    def _soon(self) -> tuple[int, int]:
        now = to_micros(self.clock.now())
        is_any = self.wanted.order is DeviceOrder.ENDS and self.wanted.state is not DeviceState.ENDING
        return now, _EVER if is_any else now + self.wanted.ending // _MICROSECOND

    async def refused(self, names: Sequence[str]) -> AbstractSet[str]:
        """Return the names, in lower case, with refusals within the retention period."""
        rows = each_among(
            self.database, refusal_store.SUBJECTS_NAMED, {name.lower() for name in names}, since=self._since()
        )
        return {row["subject"] async for row in rows}

    async def revoked(self, names: Sequence[str]) -> AbstractSet[str]:
        """Return which of the names are revoked, case-folded."""
        rows = each_among(self.database, ca_store.NAMES_NAMED, {fold(name) for name in names})
        return {row["name"] async for row in rows if row["lost_at"] is not None}

    async def ends(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the expiry of the last valid certificate of each folded name, in microseconds."""
        rows = each_among(
            self.database, ca_store.LAST_ENDS, {fold(name) for name in names}, now=to_micros(self.clock.now())
        )
        return {row["name"]: row["last"] async for row in rows}

    def is_soon(self, end: int) -> bool:
        """Return whether a certificate with this expiry expires soon."""
        return end <= self._soon()[1]

    def _since(self) -> int:
        return to_micros(self.clock.now() - ledger.KEEP)


def matches_prefix(name: str, device_filter: DeviceFilter) -> bool:
    """Return whether a word of a name has the wanted prefix."""
    begin = device_name_prefix_index.folded(device_filter.begin)
    return not begin or any(word.startswith(begin) for word in device_name_prefix_index.words_of(name))


def has_few(space: Namespace) -> bool:
    """Return whether this worker knows all connections of a namespace, and they are few enough to sort."""
    return space.is_alone and len(space.live) <= FEW


def _parsed(key: str) -> tuple[int, bytes]:
    end, _, thumbprint = key.partition(".")
    try:
        return int(end[:_DIGITS]), bytes.fromhex(thumbprint)
    except ValueError as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
