"""IoT Hub over MQTT 3.1.1: CONNECT, telemetry, subscriptions.

A connection whose messages wait for the database, `WINDOW` of them or `WINDOW_BYTES`, is not read until one is written.
"""

import asyncio
import contextlib
import functools
from collections import defaultdict
from collections.abc import Awaitable, Iterator, Sequence

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.errors import connack_code
from birthmark.iothub.model import Device, Hub, Message
from birthmark.iothub.rules.messages import (
    MAX_MESSAGE_BYTES,
    UNSERVED,
    FeatureNotServedError,
    MessageTooLargeError,
    ModuleNotServedError,
    QosNotServedError,
    TopicNotServedError,
)
from birthmark.iothub.service import Hubs
from birthmark.mqtt.packets import Connect, PubAck, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.net.pump import Closed, MqttLink, MqttRefusedError
from birthmark.store import to_micros

MAX_KEEP_ALIVE_S = 1177  # times 1.5 this is the hub's cap of 1767 s
MAX_SUBSCRIPTIONS = 50
WINDOW = 100
WINDOW_BYTES = 1024 * 1024
_FAILURE = 0x80
NOT_IMPLEMENTED = 501
_NOT_SERVED = b'{"errorCode":501001,"message":"Twins are not served here."}'
_METHODS = "$iothub/methods/"
_MAX_ASKED = 16


class _Arrival:
    """A device between CONNECT and CONNACK."""

    is_stale = False  # its identity changed since it was looked at


class HubConnections:
    """The live connections: one per device; a new one ends the old."""

    def __init__(self, hubs: Hubs, clock: Clock) -> None:
        self._hubs = hubs
        self._clock = clock
        self._live: dict[tuple[str, str], HubSession] = {}
        self._arriving: defaultdict[str, set[_Arrival]] = defaultdict(set)

    async def accept(self, link: MqttLink, packet: Connect) -> "HubSession":
        """Return the session of a CONNECT, or raise `MqttRefusedError`."""
        names: dict[str, str] = {}
        try:
            user = wire.parse_username(packet.username or "")
            names = {"device_id": user.device_id, "hub": user.host}
            if user.module_id is not None:
                raise ModuleNotServedError(device_id=user.device_id, module=user.module_id)
            with self._arrives(user.device_id) as arrival:
                hub, device = await self._hubs.connect(user, link.peer, packet.password)
                filters = await self._hubs.stored_subscriptions(hub, device.device_id)
                if packet.clean_start and (filters or (hub.name, device.device_id) in self._live):
                    # Of a connection that is open more may be on their way into the database.
                    await self._hubs.drop_subscriptions(hub, device.device_id, None)
                    filters = {}
                while arrival.is_stale:  # nobody told a connection that was not there yet: it must prove itself again
                    arrival.is_stale = False
                    hub, device = await self._hubs.connect(user, link.peer, packet.password)
        except BirthmarkError as error:
            error.add_facts(**names)
            raise MqttRefusedError(connack_code(error), error) from error
        link.set_keep_alive(min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S))
        return HubSession(self, link, hub, device, filters, is_persistent=not packet.clean_start)

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

    def enter(self, session: "HubSession") -> None:
        """Make `session` the device's one connection."""
        key = (session.hub.name, session.device.device_id)
        old = self._live.get(key)
        self._live[key] = session
        self._hubs.connected[key] = self._clock.now()
        if old is not None:
            old.link.close(Closed.TAKEN_OVER)

    def leave(self, session: "HubSession") -> None:
        """Forget `session` unless another took its place."""
        key = (session.hub.name, session.device.device_id)
        if self._live.get(key) is session:
            del self._live[key]
            self._hubs.connected.pop(key, None)

    def recheck(self, body: dict[str, str]) -> None:
        """An identity changed: its connection must prove itself again."""
        for arrival in self._arriving.get(body["device_id"], ()):
            arrival.is_stale = True
        session = self._live.get((body["hub"], body["device_id"]))
        if session is not None:
            session.link.close(Closed.SERVER)

    def everyone(self) -> tuple["HubSession", ...]:
        """Return every connection."""
        return tuple(self._live.values())

    def revoked(self) -> None:
        """Something was revoked: whoever is between CONNECT and CONNACK must prove itself again."""
        for arrivals in self._arriving.values():
            for arrival in arrivals:
                arrival.is_stale = True

    def drop_hub(self, body: dict[str, str]) -> None:
        """A hub was deleted: its connections end."""
        self.revoked()
        for (hub, _), session in list(self._live.items()):
            if hub == body["hub"]:
                session.link.close(Closed.SERVER)

    def send_telemetry(self, session: "HubSession", messages: Sequence[Message], ids: list[int], size: int) -> None:
        """Queue messages; those with a packet id are acknowledged when durable."""
        written = functools.partial(session.written, ids, len(messages), size)
        self._hubs.intake(session.hub).add(messages, written)

    def now_micros(self) -> int:
        return to_micros(self._clock.now())

    @property
    def hubs(self) -> Hubs:
        return self._hubs


class HubSession:
    """One device's connection."""

    def __init__(
        self,
        connections: HubConnections,
        link: MqttLink,
        hub: Hub,
        device: Device,
        filters: dict[str, int],
        *,
        is_persistent: bool,
    ) -> None:
        self._connections = connections
        self._filters = filters
        self._is_persistent = is_persistent
        self._telemetry = wire.telemetry_topic(device.device_id)
        self._was_known = bool(filters)
        self._asked: set[str] = set()
        self._unwritten = self._unwritten_bytes = 0
        self._room = asyncio.Event()
        self.link = link
        self.hub = hub
        self.device = device

    @property
    def session_present(self) -> bool:
        return self._was_known

    def opened(self) -> None:
        self._connections.enter(self)

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        while packets:
            room = WINDOW - self._unwritten
            self._take(packets[:room])
            packets = packets[room:]
            if self._unwritten >= WINDOW or self._unwritten_bytes >= WINDOW_BYTES:
                self._room.clear()
                return self._when_there_is_room(packets)
        return None

    def _take(self, packets: Sequence[Publish]) -> None:
        """Queue what is telemetry; what came before a packet that ends the connection is kept."""
        messages: list[Message] = []
        ids: list[int] = []
        at = self._connections.now_micros()
        size = 0
        try:
            for packet in packets:
                if (bag := self._bag_of(packet)) is None:
                    self._answer_unserved(packet)
                    continue
                properties = wire.parse_property_bag(bag)
                if packet.retain:
                    properties["mqtt-retain"] = "true"
                messages.append(wire.message_of(self.device.device_id, properties, packet.payload, at))
                size += len(packet.payload) + len(bag)
                if packet.packet_id is not None:
                    ids.append(packet.packet_id)
        finally:
            if messages:
                self._unwritten += len(messages)
                self._unwritten_bytes += size
                self._connections.send_telemetry(self, messages, ids, size)

    def _bag_of(self, packet: Publish) -> str | None:
        """Return the properties of a telemetry topic; None for a part of the hub that is not served."""
        device_id = self.device.device_id
        if packet.qos > 1:
            raise QosNotServedError(device_id=device_id)
        if len(packet.payload) > MAX_MESSAGE_BYTES:
            raise MessageTooLargeError(device_id=device_id, size=len(packet.payload))
        head = self._telemetry
        if packet.topic.startswith(head):
            return packet.topic[len(head) :]
        if packet.topic == head[:-1]:
            return ""
        if packet.topic.startswith(UNSERVED):
            return None
        raise TopicNotServedError(device_id=device_id, topic=packet.topic[:200])

    def _answer_unserved(self, packet: Publish) -> None:
        """An SDK asked for a part of the hub that is not here: it gets the hub's own error and stays connected.

        A close would make it reconnect and ask again, for ever.
        """
        self._note_unserved(packet.topic)
        self.link.ack(packet.packet_id)
        if (rid := wire.twin_request(packet.topic)) is not None:
            self.link.publish(wire.twin_response_topic(NOT_IMPLEMENTED, rid), _NOT_SERVED)

    def _note_unserved(self, topic: str) -> None:
        """File what was asked, each kind once a connection: a client may ask every second."""
        kind = topic.partition("?")[0][:200]
        if kind not in self._asked and len(self._asked) < _MAX_ASKED:
            self._asked.add(kind)
            error = FeatureNotServedError(device_id=self.device.device_id, topic=kind)
            self.link.note(error)

    async def _when_there_is_room(self, packets: Sequence[Publish]) -> None:
        await self._room.wait()
        if not self.link.is_over and (waiting := self.published(packets)) is not None:
            await waiting

    def written(self, ids: list[int], count: int, size: int, problem: BaseException | None) -> None:
        """Messages are durable, or were not written: then the device sends again after it reconnects."""
        self._unwritten -= count
        self._unwritten_bytes -= size
        self._room.set()
        if problem is None:
            self.link.ack_all(ids)
        else:
            self.link.close(Closed.SERVER)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        device_id = self.device.device_id
        allowed = (f"devices/{device_id}/", "$iothub/")
        granted: dict[str, int] = {}
        for name, options in packet.filters:
            if not name.startswith(allowed):
                raise TopicNotServedError(device_id=device_id, topic=name[:200])
            if name.startswith(_METHODS):  # nobody can call one here: say so, and let the rest of the client work
                self._note_unserved(name)
                continue
            if name in self._filters or len(self._filters.keys() | granted) < MAX_SUBSCRIPTIONS:
                granted[name] = min(options & 3, 1)
        return self._subscribe(packet, granted)

    async def _subscribe(self, packet: Subscribe, granted: dict[str, int]) -> None:
        self._filters |= granted
        if self._is_persistent:
            await self._connections.hubs.keep_subscriptions(self.hub, self.device.device_id, granted)
        self.link.send(SubAck(packet.packet_id, tuple(granted.get(name, _FAILURE) for name, _ in packet.filters)))

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        return self._unsubscribe(packet)

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        for name in packet.filters:
            self._filters.pop(name, None)
        await self._connections.hubs.drop_subscriptions(self.hub, self.device.device_id, packet.filters)
        self.link.send(UnsubAck(packet.packet_id))

    def acknowledged(self, packet: PubAck) -> Awaitable[None] | None:
        return None

    def closed(self, reason: Closed) -> None:
        self._connections.leave(self)
