"""Cloud-to-device messages: from the device queue to a connection, whose outcome settles them.

Connections of a device take turns with its queue: a connection returns its messages before the next one reads, so that
messages keep their order. A connection that finds no message checks again when the earliest lock expires.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from birthmark.broker.errors import LockLostError
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.errors import UnavailableError
from birthmark.iothub.model import Hub, space_of
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.store import Changes

WINDOW = 10
"""Messages without an outcome that a connection has at most."""
_AGAIN_MICROS = 1_000_000  # retry: database outages end


def holder_of(worker: str = "") -> str:
    """Return the holder of MQTT message locks; such a lock is not disclosed and ends with the worker."""
    return f"mqtt-{worker}" if worker else "mqtt"


Delivery: TypeAlias = int | bytes
"""Key of a delivery at its connection: an MQTT packet ID or an AMQP delivery tag."""


class ReceiverFullError(Exception):
    """The connection cannot take the message now; a later `flow` sends it."""


class C2dReceiver(Protocol):
    """The part of a connection that receives messages."""

    @property
    def is_ready(self) -> bool:
        """Whether the device wants messages and can take one now."""
        ...

    def send(self, message: QueuedMessage) -> Delivery | None:
        """Send a message; None if no outcome follows, so that it is completed now. Raise `ReceiverFullError`."""
        ...


class _SentMessage(NamedTuple):
    """A message that was sent and has no outcome yet."""

    lock: str
    until: int


class C2dDelivery:
    """A connection's deliveries from its device queue.

    `look` is called when the queue should be checked again. No message is taken if `living` fails. After a takeover of
    a worker presumed dead, the new holder would otherwise miss one message and get it out of order.
    """

    __slots__ = (
        "_c2d",
        "_device_id",
        "_gave_back",
        "_holder",
        "_is_flowing",
        "_living",
        "_look",
        "_looks_again",
        "_receiver",
        "_space",
        "_taken",
        "_timer",
    )

    def __init__(
        self,
        c2d: CloudToDevice,
        receiver: C2dReceiver,
        hub: Hub,
        device_id: str,
        *,
        holder: str,
        living: Callable[[], Changes],
        look: Callable[[], None],
    ) -> None:
        self._holder = holder
        self._living = living
        self._c2d = c2d
        self._receiver = receiver
        self._space = space_of(hub.name)
        self._device_id = device_id
        self._look = look
        self._taken: dict[Delivery, _SentMessage] = {}
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
        while self._receiver.is_ready and not self._gave_back:
            self._look_at(await self._c2d.inboxes.next_free(self._space, self._device_id, looked_at))
            if not self._looks_again or not self._has_room():
                break
            looked_at = await self._send_what_waits()  # a message came after the last read

    async def _send_what_waits(self) -> int:
        """Send queued messages; return the time of the last read, after which expired locks are not considered."""
        looked_at = self._c2d.now()
        while self._looks_again and self._receiver.is_ready and not self._gave_back and self._has_room():
            self._looks_again = False
            looked_at = self._c2d.now()
            letter = await self._c2d.inboxes.take(
                self._space, self._device_id, holder=self._holder, condition=self._living()
            )
            if letter is not None:
                self._looks_again = True
                await self._send(letter)
        return looked_at

    def _has_room(self) -> bool:
        """Drop deliveries whose lock expired, as they are sent again; return whether the window has space."""
        now = self._c2d.now()
        for key in [key for key, taken in self._taken.items() if taken.until <= now]:
            del self._taken[key]
        return len(self._taken) < WINDOW

    def _look_at(self, timestamp: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if timestamp is not None:
            wait_s = max(0.0, (timestamp - self._c2d.now()) / 1_000_000)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    async def _send(self, message: QueuedMessage) -> None:
        sent = _SentMessage(message.lock or "", message.locked_until or 0)
        try:
            key = self._receiver.send(message)
        except ReceiverFullError:
            self._looks_again = False  # the next outcome or read finds it
            await self._c2d.inboxes.restore(self._space, self._device_id, message)
            return
        if key is not None:
            self._taken[key] = sent
        else:
            await self._settle(sent.lock, QueueOutcome.COMPLETED)

    def complete(self, keys: Sequence[Delivery]) -> Awaitable[None] | None:
        """Complete the messages of these deliveries; others are ignored."""
        return self._settled(keys) if any(key in self._taken for key in keys) else None

    async def _settled(self, keys: Sequence[Delivery]) -> None:
        await self.settle(keys, QueueOutcome.COMPLETED)

    async def settle(self, keys: Sequence[Delivery], outcome: QueueOutcome | None) -> LockLostError | None:
        """End the messages of these deliveries, or return them to the queue without an `outcome`.

        Return the error for a delivery whose lock has expired: its message is sent again.
        """
        taken = {key: self._taken.pop(key) for key in keys if key in self._taken}
        lost = next((LockLostError(lock="of the delivery") for key in keys if key not in taken), None)
        try:
            for key, one in tuple(taken.items()):
                lost = await self._settle(one.lock, outcome) or lost
                del taken[key]
        finally:
            self._taken = taken | self._taken  # unsettled messages go back
            if taken and self._gave_back:
                await self.release_unacknowledged()
        await self.flow()
        return lost

    async def _settle(self, lock: str, outcome: QueueOutcome | None) -> LockLostError | None:
        queue = self._c2d.inboxes
        try:
            if outcome is None:
                await queue.abandon(self._space, self._device_id, lock)
            else:
                await queue.settle(self._space, self._device_id, lock, outcome)
        except LockLostError as error:
            return error
        return None

    async def release_unacknowledged(self) -> None:
        """Return unacknowledged messages to the queue for the next connection."""
        self._look_at(None)
        self._gave_back = True
        async with self._c2d.turns.lock((self._space, self._device_id)):
            taken, self._taken = self._taken, {}
            await self._c2d.inboxes.abandon_all(self._space, self._device_id, [one.lock for one in taken.values()])
