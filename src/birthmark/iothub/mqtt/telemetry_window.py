"""Telemetry of one connection, a burst at a time.

A connection with `WINDOW` messages or `WINDOW_BYTES` pending at the database is not read until some are written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from birthmark.broker.ports import MessageStream
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.model import SenderAuthentication, TelemetryMessage
from birthmark.iothub.rules.publish_refusals import MAX_MESSAGE_BYTES, MessageTooLargeError
from birthmark.iothub.rules.tier_throttles_and_quotas import AT_A_TURN, BACKLOG_S
from birthmark.iothub.service.throttles import Throttles
from birthmark.mqtt.packets import Publish
from birthmark.mqtt.topics import CACHED
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import CloseReason

WINDOW = 100
_OWN = "devices/"  # other topics are rejected
WINDOW_BYTES = 1024 * 1024
TopicOf = Callable[[Publish], wire.TelemetryTopic | None]


class TelemetryWindow:
    """A device's telemetry that is not yet durable."""

    __slots__ = (
        "_authentication",
        "_clock",
        "_driver",
        "_hub",
        "_key",
        "_like",
        "_name",
        "_room",
        "_stream",
        "_throttles",
        "_topic",
        "_unwritten",
        "_unwritten_bytes",
    )

    def __init__(
        self,
        driver: MqttDriver,
        name: str,
        stream: MessageStream[TelemetryMessage],
        clock: Clock,
        *,
        hub: str,
        throttles: Throttles,
        authentication: SenderAuthentication,
    ) -> None:
        """`name` is that of a device or module; a module's messages use the ordering key of its device."""
        self._throttles = throttles
        self._authentication = authentication
        self._hub = hub
        self._driver = driver
        self._name = name
        self._key = key_of(name.partition("/")[0])
        self._stream = stream
        self._clock = clock
        self._unwritten = self._unwritten_bytes = 0
        self._room: asyncio.Event | None = None
        self._like: TelemetryMessage | None = None  # empty, with the topic of the last message
        self._topic = ""

    def take(self, packets: Sequence[Publish], topic_of: TopicOf) -> Awaitable[None] | None:
        """Queue the telemetry of a burst; the returned awaitable waits until the window has space for the rest.

        On a hub with a tier, excess messages wait for their turn. Raise `TierThrottledError`, `TierQuotaError`.
        """
        if self._throttles.of(self._hub) is not None:
            return self._in_turns(packets, topic_of)
        return self._take(packets, topic_of)

    async def _in_turns(self, packets: Sequence[Publish], topic_of: TopicOf) -> None:
        """Queue a burst a few messages at a time, so that throttled devices of a hub share its rate."""
        for begin in range(0, len(packets), AT_A_TURN):
            some = packets[begin : begin + AT_A_TURN]
            own = [len(packet.payload) for packet in some if packet.topic.startswith(_OWN)]
            if own and not await self._have_their_turn(own):
                return
            if self._driver.is_over:
                return
            if (waiting := self._take(some, topic_of)) is not None:
                await waiting

    async def _have_their_turn(self, sizes: list[int]) -> bool:
        throttles, driver = self._throttles, self._driver
        try:
            return await throttles.telemetry(self._hub, self._name, sizes, lambda: driver.is_over, BACKLOG_S)
        except BirthmarkError as error:
            error.add_facts(device_id=self._name)
            raise

    def _take(self, packets: Sequence[Publish], topic_of: TopicOf) -> Awaitable[None] | None:
        while packets:
            room = WINDOW - self._unwritten
            self._queue(packets[:room], topic_of)
            packets = packets[room:]
            if self._unwritten >= WINDOW or self._unwritten_bytes >= WINDOW_BYTES:
                self._room = asyncio.Event()
                return self._when_there_is_room(self._room, packets, topic_of)
        return None

    def _queue(self, packets: Sequence[Publish], topic_of: TopicOf) -> None:
        """Queue telemetry; messages before a packet that closes the connection are kept."""
        messages: list[TelemetryMessage] = []
        ids: list[int] = []
        at = self._clock.micros()
        size, topic, like, (method, generation) = 0, self._topic, self._like, self._authentication
        try:
            for packet in packets:
                payload = packet.payload
                if (length := len(payload)) > MAX_MESSAGE_BYTES:
                    raise MessageTooLargeError(device_id=self._name, size=length)
                # Most messages of a device go to one topic, so packets like the previous one skip most checks.
                if like is None or packet.topic is not topic or packet.qos > 1 or packet.retain:
                    if (found := topic_of(packet)) is None:
                        like = None
                        continue
                    like, topic = self._message_like(found, at, is_retained=packet.retain), packet.topic
                    self._like, self._topic = (
                        (like, topic) if len(topic) <= CACHED and not packet.retain else (None, "")
                    )
                messages.append(
                    TelemetryMessage(like.device_id, at, payload, like.system, like.properties, method, generation)
                )
                size += length + len(topic)
                if packet.packet_id is not None:
                    ids.append(packet.packet_id)
                if packet.retain:
                    like = None
        finally:
            if messages:
                self._unwritten += len(messages)
                self._unwritten_bytes += size
                self._stream.append(
                    self._key, messages, size, partial(self._acknowledge_written, ids, len(messages), size)
                )

    def _message_like(self, topic: wire.TelemetryTopic, timestamp: int, *, is_retained: bool) -> TelemetryMessage:
        """Return a message with a topic's properties and an empty body."""
        properties = wire.parse_property_bag(topic.bag)
        if is_retained:
            properties["mqtt-retain"] = "true"
        return wire.message_of(self._name, properties, b"", timestamp, self._authentication)

    async def _when_there_is_room(self, room: asyncio.Event, packets: Sequence[Publish], topic_of: TopicOf) -> None:
        await room.wait()
        if not self._driver.is_over and (waiting := self._take(packets, topic_of)) is not None:
            await waiting

    def _acknowledge_written(self, ids: list[int], count: int, size: int, problem: BaseException | None) -> None:
        """Acknowledge durable messages; after a failed write, the device reconnects and sends again."""
        self._unwritten -= count
        self._unwritten_bytes -= size
        if self._room is not None:
            self._room.set()
            self._room = None
        if problem is None:
            self._driver.ack_all(ids)
        else:
            self._driver.close(CloseReason.SERVER)
