"""One device's connection: telemetry in, subscriptions, and what is not served."""

from collections.abc import Awaitable, Sequence

from birthmark.broker import Attached
from birthmark.broker.model import Message, Subscription
from birthmark.clock import Clock
from birthmark.iothub import wire
from birthmark.iothub.model import DeviceId, Hub
from birthmark.iothub.mqtt.telemetry import TelemetryWindow
from birthmark.iothub.rules.messages import FeatureNotServedError, QosNotServedError, TopicNotServedError
from birthmark.iothub.service import IotHub
from birthmark.mqtt.packets import PubAck, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.net.admission import Closed
from birthmark.net.pump import MqttPump

MAX_SUBSCRIPTIONS = 50
_FAILURE = 0x80
NOT_IMPLEMENTED = 501
_NOT_SERVED = b'{"errorCode":501001,"message":"Twins are not served here."}'
_METHODS = "$iothub/methods/"
_MAX_ASKED = 16


class HubConnection:
    """One device's connection."""

    __slots__ = (
        "_asked",
        "_telemetry",
        "attached",
        "device_id",
        "hub",
        "pump",
    )

    def __init__(self, iothub: IotHub, clock: Clock, pump: MqttPump, *, hub: Hub, device_id: DeviceId) -> None:
        self._asked: frozenset[str] = frozenset()
        self._telemetry = TelemetryWindow(pump, device_id, iothub.telemetry.intake(hub), clock)
        self.pump = pump
        self.hub = hub
        self.device_id = device_id
        self.attached: Attached

    def opened(self) -> None:
        self.attached.resume()

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        return self._telemetry.take(packets, self._topic_of)

    def _topic_of(self, packet: Publish) -> wire.TelemetryTopic | None:
        """Return the topic of telemetry, else answer what was asked and return None."""
        device_id = self.device_id
        if packet.qos > 1:
            raise QosNotServedError(device_id=device_id)
        match wire.parse_topic(packet.topic, device_id):
            case wire.TelemetryTopic() as topic:
                return topic
            case wire.TwinRequest() | wire.MethodAnswer() as asked:
                self._answer_unserved(packet, asked)
                return None
            case None:
                raise TopicNotServedError(device_id=device_id, topic=packet.topic[:200])

    def _answer_unserved(self, packet: Publish, asked: wire.TwinRequest | wire.MethodAnswer) -> None:
        """An SDK asked for a part of the hub that is not here: it gets the hub's own error and stays connected.

        A close would make it reconnect and ask again, for ever.
        """
        self._note_unserved(packet.topic)
        self.pump.ack(packet.packet_id)
        if isinstance(asked, wire.TwinRequest) and asked.rid is not None:
            self.pump.publish(wire.twin_response_topic(NOT_IMPLEMENTED, asked.rid), _NOT_SERVED)

    def _note_unserved(self, topic: str) -> None:
        """File what was asked, each kind once a connection: a client may ask every second."""
        kind = topic.partition("?")[0][:200]
        if kind not in self._asked and len(self._asked) < _MAX_ASKED:
            self._asked |= {kind}
            error = FeatureNotServedError(device_id=self.device_id, topic=kind)
            self.pump.note(error)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        device_id = self.device_id
        allowed = (f"devices/{device_id}/", "$iothub/")
        granted: dict[str, int] = {}
        for name, options in packet.filters:
            if not name.startswith(allowed):
                raise TopicNotServedError(device_id=device_id, topic=name[:200])
            if name.startswith(_METHODS):  # nobody can call one here: say so, and let the rest of the client work
                self._note_unserved(name)
                continue
            known = self.attached.subscriptions
            if name in known or len(known.keys() | granted) < MAX_SUBSCRIPTIONS:
                granted[name] = min(options & 3, 1)
        return self._subscribe(packet, granted)

    async def _subscribe(self, packet: Subscribe, granted: dict[str, int]) -> None:
        wanted = [Subscription(name, qos) for name, qos in granted.items()]
        await self.attached.space.subscribe(self.attached, wanted)
        self.pump.send(SubAck(packet.packet_id, tuple(granted.get(name, _FAILURE) for name, _ in packet.filters)))

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        return self._unsubscribe(packet)

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        await self.attached.space.unsubscribe(self.attached, packet.filters)
        self.pump.send(UnsubAck(packet.packet_id))

    def acknowledged(self, packet: PubAck) -> Awaitable[None] | None:
        self.attached.acknowledged(packet.packet_id)
        return None

    def closed(self, reason: Closed, session_expiry_s: int | None) -> None:
        self.attached.space.disconnect(self.attached, reason, with_will=reason is not Closed.DISCONNECT)

    # ---- what the broker calls

    def deliver(
        self, message: Message, qos: int, *, retain: bool, packet_id: int | None = None, dup: bool = False
    ) -> bool:
        del retain, packet_id, dup
        self.pump.publish(message.topic, message.payload, qos)
        return True

    def end(self, reason: Closed) -> None:
        self.pump.close(reason)
