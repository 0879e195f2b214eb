"""A link on which a device or module sends telemetry: a delivery is accepted once its messages are durable."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import NamedTuple

from birthmark.amqp.errors import AmqpError, AmqpErrorScope
from birthmark.amqp.events import DeliveryReceived
from birthmark.amqp.performatives import ACCEPTED
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.errors import BirthmarkError, InvalidRequestError, ThrottledError, UnavailableError
from birthmark.iothub.amqp.error_conditions import CONDITIONS, amqp_error
from birthmark.iothub.amqp.link_handler import LinkDevice, LinkHandler
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.model import TelemetryMessage, authentication_of
from birthmark.iothub.rules.publish_refusals import MAX_MESSAGE_BYTES
from birthmark.iothub.rules.tier_throttles_and_quotas import BACKLOG_S
from birthmark.iothub.wire.amqp_telemetry import parse_telemetry
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.supervised_tasks import told

CREDIT = 100
MAX_UNWRITTEN_BYTES = 1024 * 1024
"""Telemetry of a connection that waits for the database; while it is exceeded, the connection is not read."""
MAX_THROTTLED_BYTES = 1024 * 1024
"""Telemetry of a device that waits for its turn in the hub's tier; more is rejected at once."""


_INVALID_FRAMES = 8  # control frames that an invalid message counts as: each is recorded
_MESSAGE_BYTES = 256  # memory of a message besides its content: a batch may have thousands of empty ones


class _Delivery(NamedTuple):
    """The messages of a delivery, with their approximate memory in bytes."""

    delivery_id: int
    messages: Sequence[TelemetryMessage]
    size: int


class ThrottledTelemetry:
    """Telemetry of one device that waits for its turn in the hub's tier."""

    __slots__ = ("_size",)

    def __init__(self) -> None:
        self._size = 0

    def take(self, size: int) -> bool:
        """Count bytes, unless there would be too many; a single delivery may exceed the limit."""
        if self._size and self._size + size > MAX_THROTTLED_BYTES:
            return False
        self._size += size
        return True

    def release(self, size: int) -> None:
        """Count bytes that wait no longer."""
        self._size -= size


class UnwrittenTelemetry:
    """Telemetry of one connection that is not yet durable."""

    __slots__ = ("_room", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._room: asyncio.Event | None = None

    def add(self, size: int) -> Awaitable[object] | None:
        """Count bytes; the returned awaitable waits until the next ones may be read."""
        self._size += size
        if self._size < MAX_UNWRITTEN_BYTES:
            return None
        if self._room is None:
            self._room = asyncio.Event()
        return self._room.wait()

    def remove(self, size: int) -> None:
        """Count bytes that are durable, or refused."""
        self._size -= size
        if self._room is not None and self._size < MAX_UNWRITTEN_BYTES:
            self._room.set()
            self._room = None


class TelemetryLink(LinkHandler):
    """Handler of one link."""

    __slots__ = (
        "_authentication",
        "_backlog",
        "_clock",
        "_device",
        "_driver",
        "_key",
        "_link",
        "_name",
        "_stream",
        "_throttled",
        "_throttles",
        "_turns",
        "_unwritten",
    )

    def __init__(
        self,
        connections: HubConnections,
        device: LinkDevice,
        driver: AmqpDriver,
        link: ReceiverLink,
        *,
        unwritten: UnwrittenTelemetry,
        backlog: ThrottledTelemetry,
    ) -> None:
        """Accept the link; `unwritten` is of its connection, `backlog` of its device."""
        self._backlog = backlog
        self._device = device
        self._driver = driver
        self._link = link
        self._clock = connections.clock
        self._throttles = connections.iothub.throttles
        self._stream = connections.iothub.telemetry.stream(device.hub)
        self._authentication = authentication_of(device.identity, is_of_policy=device.is_of_policy)
        self._name = device.identity.name
        self._key = key_of(self._name.partition("/")[0])
        self._unwritten = unwritten
        self._throttled: deque[_Delivery] | None = None  # that waits for its turn
        self._turns: asyncio.Task[None] | None = None
        link.accept(credit=CREDIT, max_message_bytes=MAX_MESSAGE_BYTES)

    def received(self, event: DeliveryReceived) -> Awaitable[None] | None:
        try:
            messages = parse_telemetry(
                self._name, event.payload, event.message_format, self._clock.micros(), self._authentication
            )
        except BirthmarkError as error:
            self._refuse(event.delivery_id, error)
            return None
        delivery = _Delivery(event.delivery_id, messages, len(event.payload) + _MESSAGE_BYTES * len(messages))
        if self._throttles.of(self._device.hub.name) is None and self._turns is None:
            waiting = self._append(delivery)
            return None if waiting is None else _wait(waiting)
        if not self._backlog.take(delivery.size):
            reason = "too much telemetry of the device waits for its turn"
            condition = CONDITIONS[ThrottledError]
            self._link.reject(delivery.delivery_id, AmqpError(condition, reason, scope=AmqpErrorScope.DELIVERY))
            self._driver.wrote()
            return None
        if self._throttled is None:
            self._throttled = deque()
        self._throttled.append(delivery)
        if self._turns is None:
            self._turns = asyncio.create_task(told("the turns of a telemetry link", self._take_turns()))
        return None

    async def _take_turns(self) -> None:
        """Take the deliveries of a hub with a tier, each in its turn; other links do not wait for it."""
        hub = self._device.hub.name
        try:
            while self._throttled:
                delivery = self._throttled.popleft()
                sizes = [len(message.body) for message in delivery.messages]
                try:
                    has_turn = await self._throttles.telemetry(hub, self._name, sizes, self._is_over, BACKLOG_S)
                except BirthmarkError as error:
                    self._refuse(delivery.delivery_id, error)
                else:
                    if has_turn and (waiting := self._append(delivery)) is not None:
                        await waiting
                finally:
                    self._backlog.release(delivery.size)
        finally:
            self._backlog.release(sum(delivery.size for delivery in self._throttled or ()))
            self._turns = self._throttled = None

    def _is_over(self) -> bool:
        return self._device.is_over

    def _append(self, delivery: _Delivery) -> Awaitable[object] | None:
        waiting = self._unwritten.add(delivery.size)
        done = partial(self._written, delivery.delivery_id, delivery.size)
        self._stream.append(self._key, delivery.messages, delivery.size, done)
        return waiting

    def _written(self, delivery_id: int, size: int, problem: BaseException | None) -> None:
        self._unwritten.remove(size)
        if problem is None:
            self._link.settle(delivery_id, ACCEPTED)
        else:  # the device sends again
            told = "the hub cannot store the message now"
            condition = CONDITIONS[UnavailableError]
            self._link.reject(delivery_id, AmqpError(condition, told, scope=AmqpErrorScope.DELIVERY))
        self._driver.wrote()

    def _refuse(self, delivery_id: int, error: BirthmarkError) -> None:
        tracking_id = self._device.driver.note(error)
        self._link.reject(delivery_id, amqp_error(error, str(tracking_id), AmqpErrorScope.DELIVERY))
        if isinstance(error, InvalidRequestError) and not self._driver.engine.allowance.spend(_INVALID_FRAMES):
            self._driver.refuse(error)
        self._driver.wrote()


async def _wait(waiting: Awaitable[object]) -> None:
    await waiting
