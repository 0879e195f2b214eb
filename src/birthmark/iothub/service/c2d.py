"""Messages to devices: queued in the device's inbox, taken by its connection, their end told to the service."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.actor import Actor
from birthmark.broker.device_queue import DeviceQueues, putting
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.clock import Clock, ClockStability, Entropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import C2dMessage, Hub, space_of
from birthmark.iothub.ports import Notifier
from birthmark.iothub.rules import c2d as rules
from birthmark.iothub.rules.c2d import FEEDBACK
from birthmark.iothub.service.registry import Registry, still_there
from birthmark.iothub.wire import registry_time
from birthmark.ref import Ref
from birthmark.store import Changes, Database, from_micros
from birthmark.store.time_ids import Numbers
from birthmark.untrusted_text import decode_json

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(C2dMessage).decode
BURY_EVERY_S = 5
MAX_FEEDBACK = 10_000
"""What waits of a hub's feedback; beyond it the oldest goes, as the service keeps no more than it can hand out."""
_FEEDBACK_LIFE = rules.MAX_LIFE_S * 1_000_000


class CloudToDevice:
    """The messages to all devices, and what became of them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        registry: Registry,
        notifier: Ref[Notifier] | None = None,
    ) -> None:
        """Without a `notifier`, or while it is unset, nobody is connected who waits for messages."""
        self._clock = clock
        self._notifier = notifier or Ref()
        self._entropy = entropy
        self._registry = registry
        self._places = Numbers(database.sharing)  # of letters to the service
        self.turns: KeyedLock[tuple[str, str]] = KeyedLock()
        """Of the connections of one device, with its inbox: by space and device."""
        since = ClockStability(clock).since
        self.inboxes = DeviceQueues(database, self.now, since, entropy, rules.RULES, ended=self._ended)
        self.feedback = DeviceQueues(database, self.now, since, entropy, rules.FEEDBACK_RULES)

    async def send(
        self,
        hub: Hub,
        device_id: str,
        mail: C2dMessage,
        *,
        message_id: str,
        feedback: str,
        expiry: str | None,
        actor: str,
    ) -> QueuedMessage:
        """Queue a message and tell the device. Raise `UnknownDeviceError`, `C2dInvalidError`, `InboxFullError`."""
        device = await self._registry.device(hub, device_id)
        now = self.now()
        expires_at = rules.parse_expiry(expiry, now)
        told = {"$.exp": registry_time(from_micros(expires_at))} if expiry and expires_at is not None else {}
        mail = msgspec.structs.replace(mail, generation=device.generation_id, system=mail.system | told)
        feedback = feedback or "none"
        message_id = message_id or new_uuid(self._entropy)
        ends_at = now if expires_at is None else expires_at
        rules.check_mail(device_id, message_id, mail, feedback, expires_at=ends_at, now=now)
        letter = QueuedMessage(0, message_id, _encode(mail), now, expires_at or 0, feedback=feedback)
        also = Changes()
        if isinstance(actor, Actor):  # a policy names no person, and its program may send without end
            also.audit(actor, "iothub.c2d_sent", device_id, hub=hub.name, message=message_id)
        also.merge(still_there(hub.name, device_id))
        queued = await self.inboxes.put(space_of(hub.name), device_id, letter, also)
        self._notify(hub, device_id)
        return queued

    async def abandon(self, hub: Hub, device_id: str, lock: str) -> None:
        """Give a message back, and tell the device of it. Raise `LockLostError`."""
        await self.inboxes.abandon(space_of(hub.name), device_id, lock)
        self._notify(hub, device_id)

    def _notify(self, hub: Hub, device_id: str) -> None:
        if (notifier := self._notifier.get()) is not None:
            notifier.mail_came(hub, device_id)

    async def count(self, hub: str, device_id: str) -> int:
        """Return how many messages wait."""
        return await self.inboxes.count(space_of(hub), device_id)

    async def counts(self, hub: str, device_ids: Sequence[str]) -> Mapping[str, int]:
        """Return how many messages wait for each of some devices that has any."""
        return await self.inboxes.counts(space_of(hub), device_ids)

    async def keep_burying(self) -> None:
        """End the messages whose time is over, also where nobody looks for them, and feedback that nobody reads."""
        while True:
            await asyncio.sleep(BURY_EVERY_S)
            with contextlib.suppress(BirthmarkError):  # the next look ends what this one could not
                await self.inboxes.bury()
                await self.feedback.trim(FEEDBACK, MAX_FEEDBACK)

    def mail_of(self, letter: QueuedMessage) -> C2dMessage:
        """Return what a letter holds."""
        return _decode(letter.body)

    def record_of(self, letter: QueuedMessage) -> Mapping[str, Any]:
        """Return the feedback record that a letter to the service holds."""
        record: dict[str, Any] = decode_json(letter.body)
        return record

    def _ended(self, space: str, client: str, letter: QueuedMessage, outcome: QueueOutcome) -> Changes:
        """Write the feedback in the commit that ends the letter; a purged inbox may be one of a device that is gone."""
        if not rules.is_told(letter, outcome):
            return Changes()
        now = self.now()
        at = registry_time(from_micros(now))
        record = rules.feedback_of(client, self.mail_of(letter).generation, letter, outcome, at)
        body = msgspec.json.encode(record)
        return putting(
            space,
            FEEDBACK,
            QueuedMessage(self._places.next(now), new_uuid(self._entropy), body, now, now + _FEEDBACK_LIFE),
        )

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._clock.micros()
