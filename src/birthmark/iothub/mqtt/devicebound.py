"""Messages to a device over MQTT: PUBACK completes one; what is not acknowledged goes back into the inbox."""

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress

from birthmark.broker.errors import LockLostError
from birthmark.broker.model import Subscription
from birthmark.broker.rules.inbox import Letter, Outcome
from birthmark.iothub import wire
from birthmark.iothub.model import DeviceId, Hub, space_of
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.net.pump import MqttPump

WINDOW = 10


class DeviceBound:
    """What one connection has of its device's inbox; `subscriptions` say, at any time, whether it wants more."""

    __slots__ = ("_c2d", "_device_id", "_is_flowing", "_looks_again", "_pump", "_space", "_subscriptions", "_taken")

    def __init__(
        self,
        c2d: CloudToDevice,
        pump: MqttPump,
        hub: Hub,
        device_id: DeviceId,
        subscriptions: Mapping[str, Subscription],
    ) -> None:
        self._c2d = c2d
        self._pump = pump
        self._space = space_of(hub.name)
        self._device_id = device_id
        self._subscriptions = subscriptions
        self._taken: dict[int, str] = {}  # packet id -> lock
        self._is_flowing = self._looks_again = False

    async def flow(self) -> None:
        """Send what waits, as far as the window goes."""
        self._looks_again = True  # what came while somebody looks may have come too late for that look
        if self._is_flowing:
            return
        self._is_flowing = True
        try:
            while self._looks_again and self._wanted is not None and len(self._taken) < WINDOW:
                self._looks_again = False
                letter = await self._c2d.inboxes.take(self._space, self._device_id)
                if letter is not None:
                    self._looks_again = True
                    await self._send(letter, letter.lock or "")
        finally:
            self._is_flowing = False

    @property
    def _wanted(self) -> Subscription | None:
        """By which subscription messages go out now."""
        return None if self._pump.is_over else self._subscriptions.get(wire.devicebound(self._device_id))

    async def _send(self, letter: Letter, lock: str) -> None:
        if (wanted := self._wanted) is None:
            await self._c2d.inboxes.abandon(self._space, self._device_id, lock)
            return
        mail = self._c2d.mail_of(letter)
        topic = wire.devicebound_topic(self._device_id, letter.id, letter.feedback, mail)
        packet_id = self._pump.publish(topic, mail.payload, wanted.qos)
        if packet_id is not None:
            self._taken[packet_id] = lock
        elif not wanted.qos:
            await self._settle(lock)

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        """Complete the messages that were sent with these packet ids."""
        locks = [self._taken.pop(packet_id) for packet_id in packet_ids if packet_id in self._taken]
        return self._completed(locks) if locks else None

    async def _completed(self, locks: Sequence[str]) -> None:
        for lock in locks:
            await self._settle(lock)
        await self.flow()

    async def _settle(self, lock: str) -> None:
        with suppress(LockLostError):  # it ran out: the message is sent once more
            await self._c2d.inboxes.settle(self._space, self._device_id, lock, Outcome.COMPLETED)

    async def give_back(self) -> None:
        """Let the next connection have what this one did not acknowledge."""
        taken, self._taken = self._taken, {}
        for lock in taken.values():
            with suppress(LockLostError):
                await self._c2d.inboxes.abandon(self._space, self._device_id, lock)
