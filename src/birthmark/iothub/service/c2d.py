"""Cloud-to-device messages: the device queue, delivery to its connection, and feedback to the service."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.actor import Actor
from birthmark.broker.device_queue import DeviceQueues, enqueue_changes
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.clock_and_entropy import Clock, ClockStability, Entropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import C2dMessage, Hub, space_of
from birthmark.iothub.ports import Notifier
from birthmark.iothub.rules import c2d as rules
from birthmark.iothub.rules.c2d import FEEDBACK
from birthmark.iothub.service.registry import Registry, guard_identity
from birthmark.iothub.wire import registry_time
from birthmark.late_reference import Ref
from birthmark.store import Changes, Database, from_micros
from birthmark.store.time_ids import Numbers
from birthmark.untrusted_json_and_text import decode_json

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(C2dMessage).decode
BURY_EVERY_S = 5
MAX_FEEDBACK = 10_000
"""Maximum queued feedback of a hub; beyond it the oldest is dropped."""
_FEEDBACK_LIFE = rules.MAX_LIFE_S * 1_000_000


class CloudToDevice:
    """Cloud-to-device messages and their feedback."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        registry: Registry,
        notifier: Ref[Notifier] | None = None,
    ) -> None:
        """Without a `notifier`, or while it is unset, no device is notified of messages."""
        self._clock = clock
        self._notifier = notifier or Ref()
        self._entropy = entropy
        self._registry = registry
        self._places = Numbers(database.sharing)  # of messages to it
        self.turns: KeyedLock[tuple[str, str]] = KeyedLock()
        """Turns of a device's connections with its queue, by namespace and device."""
        since = ClockStability(clock).since
        self.inboxes = DeviceQueues(database, self.now, since, entropy, rules.RULES, ended=self._feedback_changes)
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
        """Queue a message and notify the device. Raise `UnknownDeviceError`, `C2dInvalidError`, `InboxFullError`."""
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
        if isinstance(actor, Actor):  # a policy names no user, and its application may send endlessly
            also.audit(actor, "iothub.c2d_sent", device_id, hub=hub.name, message=message_id)
        also.merge(guard_identity(hub.name, device_id))
        queued = await self.inboxes.put(space_of(hub.name), device_id, letter, also)
        self._notify(hub, device_id)
        return queued

    async def abandon(self, hub: Hub, device_id: str, lock: str) -> None:
        """Abandon a message and notify the device. Raise `LockLostError`."""
        await self.inboxes.abandon(space_of(hub.name), device_id, lock)
        self._notify(hub, device_id)

    def _notify(self, hub: Hub, device_id: str) -> None:
        if (notifier := self._notifier.get()) is not None:
            notifier.notify_messages(hub, device_id)

    async def count(self, hub: str, device_id: str) -> int:
        """Return the number of queued messages."""
        return await self.inboxes.count(space_of(hub), device_id)

    async def counts(self, hub: str, device_ids: Sequence[str]) -> Mapping[str, int]:
        """Return the number of queued messages by device, for those that have any."""
        return await self.inboxes.counts(space_of(hub), device_ids)

    async def run_expiry_loop(self) -> None:
        """Expire overdue messages and unread feedback, forever."""
        while True:
            await asyncio.sleep(BURY_EVERY_S)
            with contextlib.suppress(BirthmarkError):  # the next run retries the rest
                await self.inboxes.dead_letter_expired()
                await self.feedback.trim(FEEDBACK, MAX_FEEDBACK)

    def mail_of(self, message: QueuedMessage) -> C2dMessage:
        """Return the content of a queued message."""
        return _decode(message.body)

    def record_of(self, message: QueuedMessage) -> Mapping[str, Any]:
        """Return the feedback record in a queued message to the service."""
        record: dict[str, Any] = decode_json(message.body)
        return record

    def _feedback_changes(self, space: str, client: str, message: QueuedMessage, outcome: QueueOutcome) -> Changes:
        """Return the feedback for the commit that ends the message; a purged queue may belong to a deleted device."""
        if not rules.is_told(message, outcome):
            return Changes()
        now = self.now()
        at = registry_time(from_micros(now))
        record = rules.feedback_of(client, self.mail_of(message).generation, message, outcome, at)
        body = msgspec.json.encode(record)
        return enqueue_changes(
            space,
            FEEDBACK,
            QueuedMessage(self._places.next(now), new_uuid(self._entropy), body, now, now + _FEEDBACK_LIFE),
        )

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._clock.micros()
