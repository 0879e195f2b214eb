"""Devices of every scope of this server, each once: by name, word, state or certificate expiry."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from birthmark.clock_and_entropy import Clock
from birthmark.devices.device_directory import DeviceDirectory
from birthmark.devices.device_name_pages import Key, ScopeNames, has_few, matches_prefix
from birthmark.devices.model import (
    DeviceFilter,
    DeviceListPage,
    DeviceOrder,
    DeviceState,
    DeviceTotal,
    IsVisible,
    ListedDevice,
)
from birthmark.pki.names_and_registration_ids import fold
from birthmark.store import from_micros
from birthmark.store.pagination import PageInvalidError
from birthmark.untrusted_json_and_text import decode_json

MAX_COUNTED = 5000
"""Maximum number of names that a list counts; above it, the total is a lower bound."""
MAX_LOOKED = 2000
"""Maximum number of names that a page filtered by state examines; a short page may have a successor."""
_PAGE, _FEWEST = 500, 100
_NOT_COUNTED = {DeviceState.AWAY, DeviceState.UNASSIGNED}


@dataclass(frozen=True, slots=True)
class DeviceSearch:
    """Searches the scopes of a directory."""

    directory: DeviceDirectory = field(repr=False)
    clock: Clock = field(repr=False)

    async def find(self, device_filter: DeviceFilter, after: str, limit: int, *, sees: IsVisible) -> DeviceListPage:
        """Return up to `limit` devices after `after` at visible places. Raise `PageInvalidError`."""
        every = self._names(device_filter, sees)
        sources = _sources(every, device_filter)
        order, key = _parsed(after, device_filter) if after else (_order(sources, device_filter), ("", ""))
        found: list[ListedDevice] = []
        looked, is_last = 0, False
        is_sifted = device_filter.state is not None or device_filter.order is DeviceOrder.ENDS
        while not is_last:
            if is_sifted and looked >= MAX_LOOKED:
                return DeviceListPage(await self._add_details(found, every), _after(order, key))
            size = _PAGE if looked else max(_FEWEST, min(_PAGE, limit + 1))
            batch, is_last = await _merged(sources, order, key, size)
            looked += max(1, len(batch))
            at = await self._states([name for name in batch.values() if name is not None], every, device_filter)
            for key, name in batch.items():
                if name is not None and name in at and _fits(at[name], name, device_filter):
                    places, states = at[name]
                    found.append(ListedDevice(name, places, _after(order, key), states))
            if len(found) > limit:
                return DeviceListPage(await self._add_details(found[:limit], every), found[limit - 1].after)
        return DeviceListPage(await self._add_details(found, every), None)

    async def count(self, device_filter: DeviceFilter, *, sees: IsVisible) -> DeviceTotal | None:
        """Return the number of devices, or a lower bound; None if each device would have to be examined."""
        is_sifted = device_filter.state is not None and (device_filter.begin or device_filter.order is DeviceOrder.ENDS)
        if (
            is_sifted
            or device_filter.state in _NOT_COUNTED
            or (device_filter.order is DeviceOrder.ENDS and device_filter.begin)
        ):
            return None
        sources = _sources(self._names(device_filter, sees), device_filter)
        order = _order(sources, device_filter)
        most = MAX_COUNTED if order is Key.NAME else MAX_COUNTED // 5  # rows of a word cost more
        figures = await self.directory.counts(sees=sees) if order is Key.NAME and device_filter.state is None else ()
        known = max((one.on_record or 0 for one in figures if device_filter.scope in {"", one.at}), default=0)
        if known > most:
            return DeviceTotal(known, is_more=True)
        found: set[str] = set()
        for names in sources:
            page, is_last = await names.page(names.source(order), ("", ""), most + 1)
            some = [name for _, name in page if name is not None]
            if device_filter.state is DeviceState.CONNECTED:  # a connection may not belong to a device
                some = [name for name, state in (await names.states(some)).items() if state is DeviceState.CONNECTED]
            found |= {fold(name) for name in some}
            if not is_last or len(found) > most:
                return DeviceTotal(most, is_more=True)
        return DeviceTotal(len(found))

    def _names(self, device_filter: DeviceFilter, sees: IsVisible) -> Sequence[ScopeNames]:
        database = self.directory.database
        return [
            ScopeNames(database, self.clock, one, device_filter) for one in self.directory.scopes() if sees(one.scope)
        ]

    async def _states(
        self, names: Sequence[str], every: Sequence[ScopeNames], device_filter: DeviceFilter
    ) -> Mapping[str, tuple[Sequence[str], Sequence[DeviceState]]]:
        """Return the scopes and states of devices, most severe first, without names in another spelling."""
        if not names:
            return {}
        at: dict[str, list[str]] = {name: [] for name in names}
        told: dict[str, set[DeviceState | None]] = {name: set() for name in names}
        spelled: set[str] = set()
        for one in every:
            for name, state in (await one.states(names)).items():
                at[name].append(one.scope.scope)
                told[name].add(state)
                if one.scope.is_case_sensitive:
                    spelled.add(name)
        others: set[str] = set()
        folded = [name for name in names if name not in spelled and name == fold(name)]
        if folded and not device_filter.scope and _order((), device_filter) is not Key.ENDING:
            for one in every:
                others |= {fold(name) for name in await one.spellings(folded)} if one.scope.is_case_sensitive else set()
        refused, revoked = await every[0].refused(names), await every[0].revoked(names)
        ends = await every[0].ends(names) if device_filter.state is DeviceState.ENDING else {}
        for name in names:
            told[name] |= {DeviceState.REFUSED} if name.lower() in refused else set()
            told[name] |= {DeviceState.REVOKED} if fold(name) in revoked else set()
            told[name] |= {DeviceState.ENDING} if fold(name) in ends and every[0].is_soon(ends[fold(name)]) else set()
        return {
            name: (at[name], _ordered(told[name]))
            for name in names
            if at[name] and (name in spelled or name not in others)
        }

    async def _add_details(
        self, devices: Sequence[ListedDevice], every: Sequence[ScopeNames]
    ) -> Sequence[ListedDevice]:
        """Return devices with last activity, certificate expiry and tags."""
        if not devices:
            return devices
        names = [one.name for one in devices]
        seen: dict[str, int] = {}
        tags: dict[str, dict[str, None]] = {}
        for scope in (one.scope for one in every):
            here = [one.name for one in devices if scope.scope in one.scopes]
            if scope.space is not None and here:
                for name, last in (await scope.space.get_last_contacts(here)).items():
                    seen[name] = max(last.at, seen.get(name, 0))
            if scope.tags is not None and here:
                for name, noted in (await scope.tags(here)).items():
                    tags.setdefault(name, {}).update(dict.fromkeys(_texts(noted)))
        is_seen = any(one.has_certificates for one in every)
        ends = await every[0].ends(names) if is_seen else {}
        return [
            replace(
                one,
                last_seen=from_micros(seen[one.name]) if one.name in seen else None,
                ends=from_micros(ends[fold(one.name)]) if fold(one.name) in ends else None,
                tags=list(tags.get(one.name, ())),
            )
            for one in devices
        ]


def _texts(tags: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield tags as strings, with the dotted path of nested tags."""
    for name, value in tags.items():
        if isinstance(value, Mapping):
            yield from _texts(value, f"{path}{name}.")
        else:
            yield f"{path}{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def _sources(every: Sequence[ScopeNames], device_filter: DeviceFilter) -> Sequence[ScopeNames]:
    """Return the sources whose names match the filter's scope and state."""
    if device_filter.order is DeviceOrder.ENDS or (
        device_filter.state is DeviceState.ENDING and not device_filter.begin
    ):
        return [one for one in every if one.has_certificates]
    return [
        one
        for one in every
        if device_filter.scope in {"", one.scope.scope}
        and (device_filter.state is None or device_filter.state in one.scope.states)
    ]


def _order(sources: Sequence[ScopeNames], device_filter: DeviceFilter) -> Key:
    """Return the sort key of the list."""
    if device_filter.order is DeviceOrder.ENDS or (
        device_filter.state is DeviceState.ENDING and not device_filter.begin
    ):
        return Key.ENDING
    spaces = [one.scope.space for one in sources if one.scope.space is not None]
    if device_filter.state is DeviceState.CONNECTED and all(has_few(one) for one in spaces):
        return Key.NAME
    if device_filter.begin:
        return Key.WORD
    return Key.SUBJECT if device_filter.state in {DeviceState.REFUSED, DeviceState.REVOKED} else Key.NAME


async def _merged(
    sources: Sequence[ScopeNames], order: Key, key: tuple[str, str], size: int
) -> tuple[Mapping[tuple[str, str], str | None], bool]:
    """Return the entries of all sources after a key, each key once, and whether they are the last."""
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


def _fits(at: tuple[Sequence[str], Sequence[DeviceState]], name: str, device_filter: DeviceFilter) -> bool:
    places, states = at
    is_there = device_filter.scope in {"", *places}
    return (
        is_there
        and (device_filter.state is None or device_filter.state in states)
        and matches_prefix(name, device_filter)
    )


def _ordered(states: set[DeviceState | None]) -> Sequence[DeviceState]:
    """Return states, most severe first; of connected, away and never registered, only the best."""
    is_connected = DeviceState.CONNECTED in states
    presence = [one for one in (DeviceState.CONNECTED, DeviceState.AWAY, DeviceState.UNASSIGNED) if one in states][:1]
    flags = [one for one in (DeviceState.REVOKED, DeviceState.DISABLED) if one in states]
    notes = [one for one in (DeviceState.REFUSED, DeviceState.ENDING) if one in states]
    return [*flags, *presence, *notes] if is_connected else [*flags, *notes, *presence]


def _after(order: Key, key: tuple[str, str]) -> str:
    return json.dumps([order, *key], ensure_ascii=False, separators=(",", ":"))


def _parsed(after: str, device_filter: DeviceFilter) -> tuple[Key, tuple[str, str]]:
    try:
        order, first, second = decode_json(after, tuple[Key, str, str])
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise PageInvalidError(detail="the marker is not one of ours") from error
    known = {_order((), device_filter), *([Key.NAME, Key.WORD] if device_filter.state is DeviceState.CONNECTED else [])}
    if order not in known:
        raise PageInvalidError(detail="the marker is of another list")
    return order, (first, second)
