"""The live connections of devices: who is there, and who must prove itself again."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.errors import connack_code
from birthmark.iothub.events import DeviceChanged, HubDeleted
from birthmark.iothub.mqtt.connection import HubConnection
from birthmark.iothub.rules.messages import ModuleNotServedError
from birthmark.iothub.service import IotHub
from birthmark.mqtt.packets import Connect
from birthmark.net.pump import Closed, MqttPump, MqttRefusedError

MAX_KEEP_ALIVE_S = 1177  # times 1.5 this is the hub's cap of 1767 s


class _Arrival:
    """A device between CONNECT and CONNACK."""

    is_stale = False  # its identity changed since it was looked at


class HubConnections:
    """One connection for each device; a new one ends the old."""

    def __init__(self, iothub: IotHub, clock: Clock) -> None:
        self._iothub = iothub
        self._clock = clock
        self._live: dict[tuple[str, str], HubConnection] = {}
        self._since: dict[tuple[str, str], datetime] = {}
        self._arriving: defaultdict[str, set[_Arrival]] = defaultdict(set)

    def connected_since(self, hub: str, device_id: str) -> datetime | None:
        """Return since when a device is connected, or None."""
        return self._since.get((hub, device_id))

    async def accept(self, pump: MqttPump, packet: Connect) -> HubConnection:
        """Return the connection of a CONNECT, or raise `MqttRefusedError`."""
        names: dict[str, str] = {}
        try:
            user = wire.parse_username(packet.username or "")
            names = {"device_id": user.device_id, "hub": user.host}
            if user.module_id is not None:
                raise ModuleNotServedError(device_id=user.device_id, module=user.module_id)
            with self._arrives(user.device_id) as arrival:
                hub, device = await self._iothub.registry.authenticate(user, pump.peer, packet.password)
                filters = await self._iothub.subscriptions.stored(hub, device.device_id)
                if packet.clean_start and (filters or (hub.name, device.device_id) in self._live):
                    # Of a connection that is open more may be on their way into the database.
                    await self._iothub.subscriptions.drop(hub, device.device_id, None)
                    filters = {}
                while arrival.is_stale:  # nobody told a connection that was not there yet: it must prove itself again
                    arrival.is_stale = False
                    hub, device = await self._iothub.registry.authenticate(user, pump.peer, packet.password)
        except BirthmarkError as error:
            error.add_facts(**names)
            raise MqttRefusedError(connack_code(error), error) from error
        pump.set_keep_alive(min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S))
        is_persistent = not packet.clean_start
        return HubConnection(
            self,
            self._iothub,
            self._clock,
            pump,
            hub=hub,
            device_id=device.device_id,
            filters=filters,
            is_persistent=is_persistent,
        )

    @contextlib.contextmanager
    def _arrives(self, device_id: str) -> Iterator[_Arrival]:
        arrival = _Arrival()
        self._arriving[device_id].add(arrival)
        try:
            yield arrival
        finally:
            self._arriving[device_id].discard(arrival)
            if not self._arriving[device_id]:
                del self._arriving[device_id]

    def enter(self, connection: HubConnection) -> None:
        """Make `connection` the device's one connection."""
        key = (connection.hub.name, connection.device_id)
        old = self._live.get(key)
        self._live[key] = connection
        self._since[key] = self._clock.now()
        if old is not None:
            old.pump.close(Closed.TAKEN_OVER)

    def leave(self, connection: HubConnection) -> None:
        """Forget `connection` unless another took its place."""
        key = (connection.hub.name, connection.device_id)
        if self._live.get(key) is connection:
            del self._live[key]
            self._since.pop(key, None)

    def recheck(self, changed: DeviceChanged) -> None:
        """An identity changed: its connection must prove itself again."""
        for arrival in self._arriving.get(changed.device_id, ()):
            arrival.is_stale = True
        connection = self._live.get((changed.hub, changed.device_id))
        if connection is not None:
            connection.pump.close(Closed.SERVER)

    def everyone(self) -> tuple[HubConnection, ...]:
        """Return every connection."""
        return tuple(self._live.values())

    def revoked(self) -> None:
        """Something was revoked: whoever is between CONNECT and CONNACK must prove itself again."""
        for arrivals in self._arriving.values():
            for arrival in arrivals:
                arrival.is_stale = True

    def drop_hub(self, deleted: HubDeleted) -> None:
        """A hub was deleted: its connections end."""
        self.revoked()
        for (hub, _), connection in list(self._live.items()):
            if hub == deleted.hub:
                connection.pump.close(Closed.SERVER)
