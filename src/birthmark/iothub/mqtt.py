"""IoT Hub over MQTT 3.1.1: CONNECT, telemetry, subscriptions."""

import functools
from collections.abc import Awaitable

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.errors import connack_code
from birthmark.iothub.model import Device, Hub
from birthmark.iothub.rules.messages import (
    MAX_MESSAGE_BYTES,
    MessageTooLargeError,
    QosNotServedError,
    TopicNotServedError,
)
from birthmark.iothub.service import Hubs
from birthmark.mqtt.packets import Connect, PubAck, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.net.pump import Closed, MqttLink, MqttRefusedError
from birthmark.store import to_micros

MAX_KEEP_ALIVE_S = 1177  # times 1.5 this is the hub's cap of 1767 s


class HubConnections:
    """The live connections: one per device; a new one ends the old."""

    def __init__(self, hubs: Hubs, clock: Clock) -> None:
        self._hubs = hubs
        self._clock = clock
        self._live: dict[tuple[str, str], HubSession] = {}

    async def accept(self, link: MqttLink, packet: Connect) -> "HubSession":
        """Return the session of a CONNECT, or raise `MqttRefusedError`."""
        try:
            user = wire.parse_username(packet.username or "")
            if user.module_id is not None:
                raise TopicNotServedError(
                    "Modules are not served", device_id=user.device_id, topic=f"module {user.module_id}"
                )
            hub, device = await self._hubs.connect(user, link.peer.leaf, packet.password)
            if packet.clean_start:
                filters: dict[str, int] = {}
                await self._hubs.drop_subscriptions(hub, device.device_id, None)
            else:
                filters = await self._hubs.stored_subscriptions(hub, device.device_id)
        except BirthmarkError as error:
            raise MqttRefusedError(connack_code(error), error) from error
        link.set_keep_alive(min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S))
        return HubSession(self, link, hub, device, filters, is_persistent=not packet.clean_start)

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
        session = self._live.get((body["hub"], body["device_id"]))
        if session is not None:
            session.link.close(Closed.SERVER)

    def drop_hub(self, body: dict[str, str]) -> None:
        """A hub was deleted: its connections end."""
        for (hub, _), session in list(self._live.items()):
            if hub == body["hub"]:
                session.link.close(Closed.SERVER)

    def send_telemetry(self, session: "HubSession", packet: Publish, bag: str) -> None:
        """Queue a message; it is acknowledged when durable."""
        properties = wire.parse_property_bag(bag)
        if packet.retain:
            properties["mqtt-retain"] = "true"
        now = to_micros(self._clock.now())
        message = wire.message_of(session.device.device_id, properties, packet.payload, now)
        self._hubs.intake(session.hub).add(message, functools.partial(_acknowledge, session.link, packet.packet_id))

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
        self.link = link
        self.hub = hub
        self.device = device

    @property
    def session_present(self) -> bool:
        return self._was_known

    def opened(self) -> None:
        self._connections.enter(self)

    def published(self, packet: Publish) -> Awaitable[None] | None:
        device_id = self.device.device_id
        if packet.qos > 1:
            raise QosNotServedError("QoS 2 is not served", device_id=device_id)
        if len(packet.payload) > MAX_MESSAGE_BYTES:
            raise MessageTooLargeError("The message is too large", device_id=device_id, size=len(packet.payload))
        head = self._telemetry
        if packet.topic.startswith(head):
            self._connections.send_telemetry(self, packet, packet.topic[len(head) :])
        elif packet.topic == head[:-1]:
            self._connections.send_telemetry(self, packet, "")
        else:
            raise TopicNotServedError("The topic is not served", device_id=device_id, topic=packet.topic[:200])
        return None

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        device_id = self.device.device_id
        allowed = (f"devices/{device_id}/", "$iothub/")
        granted: dict[str, int] = {}
        for name, options in packet.filters:
            if not name.startswith(allowed):
                raise TopicNotServedError("The filter is not served", device_id=device_id, topic=name[:200])
            granted[name] = min(options & 3, 1)
        return self._subscribe(packet, granted)

    async def _subscribe(self, packet: Subscribe, granted: dict[str, int]) -> None:
        self._filters |= granted
        if self._is_persistent:
            await self._connections.hubs.keep_subscriptions(self.hub, self.device.device_id, granted)
        self.link.send(SubAck(packet.packet_id, tuple(granted[name] for name, _ in packet.filters)))

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


def _acknowledge(link: MqttLink, packet_id: int | None, error: BirthmarkError | None) -> None:
    if error is None:
        link.ack(packet_id)
    else:
        link.close(Closed.SERVER)  # the device sends again after it reconnects
