"""A device across all clouds: its names, certificates, parts and open connections."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain

from birthmark.broker import Broker
from birthmark.bus import Bus
from birthmark.bus.ports import BusRequest, Reply
from birthmark.clock_and_entropy import format_utc
from birthmark.devices.model import DeviceCounts, DeviceNotOnRecordError, DevicePart, IsVisible, scope_of
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.iam.model import SERVER
from birthmark.net.live_connection import LiveConnection
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.pki.certificates import Thumbprint
from birthmark.refusals import refusals_about
from birthmark.store import Database

_SHA256_BYTES = 32
Place = tuple[str, str]
"""Place and source address of a connection."""


class ConnectionCounts(Reply, frozen=True, tag="devices.connection_counts"):
    """Number of connections by place, at one worker."""

    places: tuple[tuple[str, str, int], ...]
    worker: str = ""


class CountConnections(BusRequest[ConnectionCounts], frozen=True, tag="devices.count_connections"):
    """Bus request that counts a device's connections, by names at a hub or by certificates; `ends` closes them."""

    names: tuple[str, ...]
    certificates: tuple[str, ...]
    ends: bool = False


@dataclass(frozen=True, slots=True)
class DeviceDirectory:
    """All devices of this server, from the records of each package in the order of a revocation."""

    database: Database = field(repr=False)
    broker: Broker = field(repr=False)
    records: Sequence[DeviceRecords] = field(repr=False)

    async def identity(self, name: str) -> DeviceIdentity:
        """Return a device with all known names and certificates."""
        spellings = {name, *chain.from_iterable([await one.spellings(name) for one in self.records])}
        names: set[str] = set()
        presented: set[Thumbprint] = set()
        for spelling in spellings:
            names |= await self._names(spelling)
            presented |= await self.thumbprints(spelling)
        return DeviceIdentity(name, spellings, names, presented)

    async def _names(self, name: str) -> AbstractSet[str]:
        names = {name}
        for one in reversed(self.records):  # a hub adds the registration of its device, which has more names
            names |= await one.names(frozenset(names))
        return names

    async def thumbprints(self, name: str) -> AbstractSet[Thumbprint]:
        """Return the thumbprints with which a device registered, is enrolled, or is known to a cloud."""
        found: set[bytes] = set()
        for one in await self._names(name):
            for records in self.records:
                found.update(await records.thumbprints(one))
        return {Thumbprint(one) for one in found if len(one) == _SHA256_BYTES}

    async def show(self, name: str, *, sees: IsVisible) -> Sequence[DevicePart]:
        """Return every device part in a visible scope, and the last refusal. Raise `DeviceNotOnRecordError`."""
        device = await self.identity(name)
        parts = [part for one in self.records async for part in one.parts(device) if sees(scope_of(part.place))]
        parts += [part async for part in self._connections_by_worker(device) if sees(scope_of(part.place))]
        for refusal in await refusals_about(self.database, name, 1) if sees(SERVER) else ():
            detail = f"{refusal.code}: `birthmark why {refusal.id}`"
            parts.append(DevicePart("refusals", "refused", refusal.id, format_utc(refusal.at), detail))
        if not parts:
            unknown = DeviceNotOnRecordError(name=name)
            unknown.quote(fix="Check the spelling: `birthmark device ls`.")
            raise unknown
        return parts

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        """Yield all access of a device: sources of new access first, its open connections last."""
        for one in self.records:
            async for found in one.access(order):
                yield found
        async for connection in self._connections(order.device.names, order.certificates):
            yield connection

    def scopes(self) -> Sequence[DeviceScope]:
        """Return every scope that has devices, sorted."""
        return sorted(chain.from_iterable(one.scopes() for one in self.records), key=lambda one: one.scope)

    async def counts(self, *, sees: IsVisible) -> Sequence[DeviceCounts]:
        """Return the number of devices in each visible scope; None where it is not counted."""
        connected = await self.broker.connected()
        every = chain.from_iterable([await one.counts(connected) for one in self.records])
        return sorted((one for one in every if sees(one.at)), key=lambda one: one.at)

    # Connections at this worker and other workers.

    def answer_workers(self, bus: Bus) -> None:
        """Answer requests of other workers to count or close a device's connections."""

        async def answer(request: CountConnections) -> ConnectionCounts:
            certificates = [Thumbprint(bytes.fromhex(one)) for one in request.certificates]
            found = self._open_here(request.names, certificates)
            if request.ends:
                _close(found)
            return self._counted(found)

        bus.serve(CountConnections, answer)

    def _counted(self, found: Mapping[Place, Sequence[LiveConnection]]) -> ConnectionCounts:
        places = tuple([(*place, len(drivers)) for place, drivers in found.items()])
        return ConnectionCounts(places, self.database.worker)

    async def _connections_by_worker(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        """Yield where a device is connected, if this server has several workers."""
        if self.broker.workers is None:
            return
        here = self._counted(self._open_here(device.names, device.presented))
        for answer in (here, *await self.broker.ask_others(_request(device.names, device.presented))):
            for place, address, _count in answer.places:
                yield DevicePart(place, "connection", address, "connected", f"worker {answer.worker}")

    async def _connections(
        self, names: AbstractSet[str], certificates: AbstractSet[Thumbprint]
    ) -> AsyncIterator[DeviceAccess]:
        async def close() -> None:
            _close(self._open_here(names, certificates))
            await self.broker.ask_others(_request(names, certificates, ends=True))

        counts = Counter({place: len(drivers) for place, drivers in self._open_here(names, certificates).items()})
        for answer in await self.broker.ask_others(_request(names, certificates)):
            for place, address, count in answer.places:
                counts[place, address] += count
        for (place, address), count in counts.items():
            note = f"{count} of them" if count > 1 else ""
            yield DeviceAccess(place, "connection", address, close, note=note)

    def _open_here(
        self, names: Iterable[str], certificates: Iterable[Thumbprint]
    ) -> Mapping[Place, Sequence[LiveConnection]]:
        named, known = frozenset(names), frozenset(certificates)

        def is_presented(driver: LiveConnection) -> bool:
            return driver.peer.leaf is not None and driver.peer.leaf.thumbprint in known

        found: dict[Place, list[LiveConnection]] = {}
        for one in self.records:
            for place, driver in one.connections(named, is_presented):
                found.setdefault((place, driver.address), []).append(driver)
        return found


def _request(names: Iterable[str], certificates: Iterable[Thumbprint], *, ends: bool = False) -> CountConnections:
    return CountConnections(tuple(sorted(names)), tuple(sorted(one.hex() for one in certificates)), ends)


def _close(found: Mapping[Place, Sequence[LiveConnection]]) -> None:
    for drivers in found.values():
        for driver in drivers:
            if not driver.is_over:  # closed by an earlier step of the revocation
                driver.close(CloseReason.ADMINISTRATIVE)
