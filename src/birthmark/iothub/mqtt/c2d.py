"""Cloud-to-device messages over MQTT: PUBACK completes a message; others return to the device queue.

Connections of a device take turns with its queue: a connection returns its messages before the next one reads, so that
messages keep their order. A connection that finds no message checks again when the earliest lock expires.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from birthmark.broker.errors import LockLostError
from birthmark.broker.model import Subscription
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.errors import UnavailableError
from birthmark.iothub import wire
from birthmark.iothub.model import Hub, space_of
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.mqtt.errors import QueueFullError
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.store import Changes

WINDOW = 10
_AGAIN_MICROS = 1_000_000  # retry: database outages end


def holder_of(worker: str = "") -> str:
    """Return the holder of MQTT message locks; such a lock is not disclosed and ends with the worker."""
    return f"mqtt-{worker}" if worker else "mqtt"


class _UnacknowledgedMessage(NamedTuple):
    """A message that was sent and is not yet acknowledged."""

    lock: str
    until: int


class C2dDelivery:
    """A connection's deliveries from its device queue; `subscriptions` are evaluated at each delivery.

    `look` is called when the queue should be checked again. No message is taken if `living` fails. After a takeover of
    a worker presumed dead, the new holder would otherwise miss one message and get it out of order.
    """

    __slots__ = (
        "_c2d",
        "_device_id",
        "_driver",
        "_gave_back",
        "_holder",
        "_is_flowing",
        "_living",
        "_look",
        "_looks_again",
        "_space",
        "_subscriptions",
        "_taken",
        "_timer",
    )

    def __init__(
        self,
        c2d: CloudToDevice,
        driver: MqttDriver,
        hub: Hub,
        device_id: str,
        subscriptions: Mapping[str, Subscription],
        *,
        holder: str,
        living: Callable[[], Changes],
        look: Callable[[], None],
    ) -> None:
        self._holder = holder
        self._living = living
        self._c2d = c2d
        self._driver = driver
        self._space = space_of(hub.name)
        self._device_id = device_id
        self._subscriptions = subscriptions
        self._look = look
        self._taken: dict[int, _UnacknowledgedMessage] = {}  # by packet ID
        self._is_flowing = self._looks_again = self._gave_back = False
        self._timer: asyncio.TimerHandle | None = None

    async def flow(self) -> None:
        """Send queued messages, up to the window."""
        self._looks_again = True  # the running read may miss messages that arrive now
        if self._is_flowing:
            return
        self._is_flowing = True
        try:
            async with self._c2d.turns.lock((self._space, self._device_id)):
                await self._flow()
        except UnavailableError:
            self._look_at(self._c2d.now() + _AGAIN_MICROS)
            raise
        finally:
            self._is_flowing = False

    async def _flow(self) -> None:
        looked_at = await self._send_what_waits()
        while self._wanted is not None:
            self._look_at(await self._c2d.inboxes.next_free(self._space, self._device_id, looked_at))
            if not self._looks_again or not self._has_room():
                break
            looked_at = await self._send_what_waits()  # a message came after the last read

    async def _send_what_waits(self) -> int:
        """Send queued messages; return the time of the last read, after which expired locks are not considered."""
        looked_at = self._c2d.now()
        while self._looks_again and self._wanted is not None and self._has_room():
            self._looks_again = False
            looked_at = self._c2d.now()
            letter = await self._c2d.inboxes.take(
                self._space, self._device_id, holder=self._holder, condition=self._living()
            )
            if letter is not None:
                self._looks_again = True
                await self._send(letter, _UnacknowledgedMessage(letter.lock or "", letter.locked_until or 0))
        return looked_at

    def _has_room(self) -> bool:
        """Drop deliveries whose lock expired, as they are sent again; return whether the window has space."""
        now = self._c2d.now()
        for packet_id in [number for number, taken in self._taken.items() if taken.until <= now]:
            del self._taken[packet_id]
        return len(self._taken) < WINDOW

    def _look_at(self, timestamp: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timestamp is not None:
            wait_s = max(0.0, (timestamp - self._c2d.now()) / 1_000_000)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    @property
    def _wanted(self) -> Subscription | None:
        """Return the subscription that currently receives messages, or None."""
        return None if self._driver.is_over else self._subscriptions.get(wire.devicebound(self._device_id))

    async def _send(self, message: QueuedMessage, unacknowledged_message: _UnacknowledgedMessage) -> None:
        if (wanted := self._wanted) is None:
            await self._c2d.inboxes.restore(self._space, self._device_id, message)
            return
        mail = self._c2d.mail_of(message)
        topic = wire.devicebound_topic(self._device_id, message.id, message.feedback, mail)
        try:
            packet_id = self._driver.publish(topic, mail.payload, wanted.qos)
        except QueueFullError:
            self._looks_again = False  # the next acknowledgement or read finds it
            await self._c2d.inboxes.restore(self._space, self._device_id, message)
            return
        if packet_id is not None:
            self._taken[packet_id] = unacknowledged_message
        elif not wanted.qos:
            await self._settle(unacknowledged_message.lock)

    def complete(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        """Complete the messages with these packet ids."""
        taken = {packet_id: self._taken.pop(packet_id) for packet_id in packet_ids if packet_id in self._taken}
        return self._completed(taken) if taken else None

    async def _completed(self, taken: dict[int, _UnacknowledgedMessage]) -> None:
        try:
            for packet_id, one in tuple(taken.items()):
                await self._settle(one.lock)
                del taken[packet_id]
        finally:
            self._taken = taken | self._taken  # uncompleted messages go back
            if taken and self._gave_back:
                await self.release_unacknowledged()
        await self.flow()

    async def _settle(self, lock: str) -> None:
        with suppress(LockLostError):  # lock expired: the message is sent again
            await self._c2d.inboxes.settle(self._space, self._device_id, lock, QueueOutcome.COMPLETED)

    async def release_unacknowledged(self) -> None:
        """Return unacknowledged messages to the queue for the next connection."""
        self._look_at(None)
        self._gave_back = True
        async with self._c2d.turns.lock((self._space, self._device_id)):
            taken, self._taken = self._taken, {}
            await self._c2d.inboxes.abandon_all(self._space, self._device_id, [one.lock for one in taken.values()])
