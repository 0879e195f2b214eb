"""Messages to a device over MQTT: PUBACK completes one; what is not acknowledged goes back into the inbox.

A device's connections take turns with its inbox: what the one before gives back is there before the next one looks, so
that letters keep their order. Whoever looked and found nothing looks again when the earliest lock ends.
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
from birthmark.net.mqtt_driver import MqttPump
from birthmark.store import Changes

WINDOW = 10
_AGAIN_MICROS = 1_000_000  # a database that is away comes back


def holder_of(worker: str = "") -> str:
    """Return who holds what a connection took: its lock is told to nobody, and ends with the worker."""
    return f"mqtt-{worker}" if worker else "mqtt"


class _UnacknowledgedMessage(NamedTuple):
    """What was sent and is not acknowledged."""

    lock: str
    until: int


class C2dDelivery:
    """What one connection has of its device's inbox; `subscriptions` say, at any time, whether it wants more.

    `look` is called when it is time to look again. Nothing is taken where `living` fails: who took this device over
    from a worker that was thought dead would find one letter missing, and get it behind the next.
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
        "_pump",
        "_space",
        "_subscriptions",
        "_taken",
        "_timer",
    )

    def __init__(
        self,
        c2d: CloudToDevice,
        pump: MqttPump,
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
        self._pump = pump
        self._space = space_of(hub.name)
        self._device_id = device_id
        self._subscriptions = subscriptions
        self._look = look
        self._taken: dict[int, _UnacknowledgedMessage] = {}  # by packet id
        self._is_flowing = self._looks_again = self._gave_back = False
        self._timer: asyncio.TimerHandle | None = None

    async def flow(self) -> None:
        """Send what waits, as far as the window goes."""
        self._looks_again = True  # what came while somebody looks may have come too late for that look
        if self._is_flowing:
            return
        self._is_flowing = True
        try:
            async with self._c2d.turns.alone_with((self._space, self._device_id)):
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
            looked_at = await self._send_what_waits()  # something came after the last look

    async def _send_what_waits(self) -> int:
        """Return the time of the last look: a lock that ended since was not seen to."""
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
        """Forget those whose lock ended, for they are sent again; say whether another may be on its way."""
        now = self._c2d.now()
        for packet_id in [number for number, taken in self._taken.items() if taken.until <= now]:
            del self._taken[packet_id]
        return len(self._taken) < WINDOW

    def _look_at(self, at: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            wait_s = max(0.0, (at - self._c2d.now()) / 1_000_000)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    @property
    def _wanted(self) -> Subscription | None:
        """By which subscription messages go out now."""
        return None if self._pump.is_over else self._subscriptions.get(wire.devicebound(self._device_id))

    async def _send(self, letter: QueuedMessage, taken: _UnacknowledgedMessage) -> None:
        if (wanted := self._wanted) is None:
            await self._c2d.inboxes.take_back(self._space, self._device_id, letter)
            return
        mail = self._c2d.mail_of(letter)
        topic = wire.devicebound_topic(self._device_id, letter.id, letter.feedback, mail)
        try:
            packet_id = self._pump.publish(topic, mail.payload, wanted.qos)
        except QueueFullError:
            self._looks_again = False  # the next acknowledgement, or look for mail, finds it
            await self._c2d.inboxes.take_back(self._space, self._device_id, letter)
            return
        if packet_id is not None:
            self._taken[packet_id] = taken
        elif not wanted.qos:
            await self._settle(taken.lock)

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        """Complete the messages that were sent with these packet ids."""
        taken = {packet_id: self._taken.pop(packet_id) for packet_id in packet_ids if packet_id in self._taken}
        return self._completed(taken) if taken else None

    async def _completed(self, taken: dict[int, _UnacknowledgedMessage]) -> None:
        try:
            for packet_id, one in tuple(taken.items()):
                await self._settle(one.lock)
                del taken[packet_id]
        finally:
            self._taken = taken | self._taken  # what could not be completed is given back
            if taken and self._gave_back:
                await self.give_back()
        await self.flow()

    async def _settle(self, lock: str) -> None:
        with suppress(LockLostError):  # it ran out: the message is sent once more
            await self._c2d.inboxes.settle(self._space, self._device_id, lock, QueueOutcome.COMPLETED)

    async def give_back(self) -> None:
        """Let the next connection have what this one did not acknowledge."""
        self._look_at(None)
        self._gave_back = True
        async with self._c2d.turns.alone_with((self._space, self._device_id)):
            taken, self._taken = self._taken, {}
            await self._c2d.inboxes.give_back(self._space, self._device_id, [one.lock for one in taken.values()])
