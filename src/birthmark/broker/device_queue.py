"""Device queues: enqueue, receive with a lock, settle by lock token.

The changes that a cloud attaches to the outcome of a message are part of the same commit.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from birthmark.broker import store
from birthmark.broker.errors import DeviceQueueFullError, LockLostError
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.rules.device_queue import DeviceQueueRules, QueuedMessage, QueueOutcome, end_of, is_locked
from birthmark.clock_and_entropy import Entropy, new_uuid
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters

log = logging.getLogger(__name__)

_ATTEMPTS = 8
_PAGE = 200
_LOOKED = 500
_MAX_UNSURE = 10_000
NO_CONDITION = Changes()
Ended = Callable[[str, str, QueuedMessage, QueueOutcome], Changes]
"""Returns further changes for a namespace, client, message and outcome."""


class DeviceQueues:
    """All device queues of a database; `since` is the time from which expirations count (`Steadiness.since`)."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], int],
        since: Callable[[], int],
        entropy: Entropy,
        rules: DeviceQueueRules,
        *,
        ended: Ended = lambda _space, _client, _letter, _outcome: Changes(),
    ) -> None:
        self._database = database
        self._now = now
        self._since = since
        self._entropy = entropy
        self._rules = rules
        self._turns: KeyedLock[tuple[str, str]] = KeyedLock()
        self._looked_at = ("", "")
        self._unsure: dict[tuple[str, str], list[str]] = {}  # possibly orphaned locks: an answer was lost
        self._ended = ended

    async def put(self, space: str, client: str, message: QueuedMessage, also: Changes | None = None) -> QueuedMessage:
        """Append a message to a queue and return it with its position. Raise `InboxFullError`."""

        async def put() -> QueuedMessage:
            row = await self._database.one(store.COUNT_LETTERS_OF, space=space, client=client)
            count, last = (0, None) if row is None else (row["count"], row["last"])
            if count >= self._rules.max_waiting:
                raise DeviceQueueFullError(device_id=client, limit=self._rules.max_waiting)
            placed = msgspec.structs.replace(message, seq=message.enqueued_at if last is None else last + 1)
            changes = enqueue_changes(space, client, placed)
            await self._database.commit(changes if also is None else changes.merge(also))
            return placed

        async with self._turns.lock((space, client)):  # otherwise parallel reads conflict, and one wins
            return await retry_on_conflict(put, after=ChangedMeanwhileError, attempts=_ATTEMPTS)

    async def count(self, space: str, client: str) -> int:
        """Return the number of queued messages, including locked ones."""
        row = await self._database.one(store.COUNT_LETTERS_OF, space=space, client=client)
        return 0 if row is None else int(row["count"])

    async def counts(self, space: str, clients: Sequence[str]) -> dict[str, int]:
        """Return the number of queued messages per client, omitting empty queues."""
        found: dict[str, int] = {}
        for first in range(0, len(clients), MAX_LIST_VALUES):
            some = list_parameters(clients[first : first + MAX_LIST_VALUES])
            rows = await self._database.all(store.COUNT_LETTERS_OF_MANY, space=space, **some)
            found |= {row["client"]: int(row["count"]) for row in rows}
        return found

    async def letters(self, space: str, client: str) -> list[QueuedMessage]:
        """Return the queued messages, oldest first, including locked ones."""
        rows = await self._database.all(store.LETTERS, space=space, client=client, limit=_PAGE)
        return [letter_of(row) for row in rows]

    async def take(
        self, space: str, client: str, lock_s: int | None = None, holder: str = "", condition: Changes = NO_CONDITION
    ) -> QueuedMessage | None:
        """Lock and return the next unlocked message; None if there is none or `condition` fails.

        `holder` is a prefix of the lock token; `free_held` frees all locks with the same prefix.
        """
        seen: QueuedMessage | None = None
        if (space, client) in self._unsure:
            await self.abandon_all(space, client, ())
        place: dict[str, Any] = {"space": space, "client": client, "after": -1}
        while (row := await self._database.one(store.FREE_LETTER, **place, now=(now := self._now()))) is not None:
            if (letter := letter_of(row)) == seen and condition.writes:
                return None  # free, but still not ours
            seen = letter
            if (outcome := end_of(letter, self._rules, now)) is not None:
                if outcome is QueueOutcome.EXPIRED and letter.enqueued_at < self._since():
                    place["after"] = letter.seq  # its end is unknown: it stays, and is not delivered now
                    continue
                await self._end(space, client, letter, outcome)
                continue
            taken = msgspec.structs.replace(
                letter,
                lock=f"{holder}/{new_uuid(self._entropy)}" if holder else new_uuid(self._entropy),
                locked_until=now + (lock_s or self._rules.lock_s) * 1_000_000,
                deliveries=letter.deliveries + 1,
            )
            try:
                await self._database.commit(
                    Changes().merge(condition).merge(self._locking(space, client, letter, taken))
                )
            except ChangedMeanwhileError:
                continue  # now locked elsewhere
            except UnavailableError:  # or it is ours alone until the lock expires
                self._note_unsure(space, client, (taken.lock or "",))
                raise
            return taken
        return None

    async def settle(self, space: str, client: str, lock: str, outcome: QueueOutcome) -> QueuedMessage:
        """Settle a message by its lock token. Raise `LockLostError` if the lock expired or never existed."""
        letter = await self._locked(space, client, lock)
        if not await self._end(space, client, letter, outcome):
            raise LockLostError(lock=lock)
        return letter

    async def abandon(self, space: str, client: str, lock: str) -> None:
        """Abandon a message by its lock token. Raise `LockLostError`."""
        letter = await self._locked(space, client, lock)
        freed = msgspec.structs.replace(letter, lock=None, locked_until=None)
        try:
            await self._database.commit(self._locking(space, client, letter, freed))
        except ChangedMeanwhileError as error:
            raise LockLostError(lock=lock) from error

    async def abandon_all(self, space: str, client: str, locks: Sequence[str]) -> None:
        """Abandon the messages with these lock tokens in one commit; expired and settled locks are ignored."""
        changes, also = Changes(), self._unsure.pop((space, client), [])
        for lock in (*locks, *also):
            changes.run(store.FREE_LETTER_OF, space=space, client=client, held=lock)
        if not changes.writes:
            return
        try:
            await self._database.commit(changes)
        except UnavailableError:
            self._note_unsure(space, client, (*locks, *also))
            raise

    async def restore(self, space: str, client: str, message: QueuedMessage) -> None:
        """Restore a message to its state before `take`: it was not sent, so it does not count as a delivery."""
        before = msgspec.structs.replace(message, lock=None, locked_until=None, deliveries=message.deliveries - 1)
        try:
            await self._database.commit(self._locking(space, client, message, before))
        except ChangedMeanwhileError:
            pass  # the lock expired, and another has it now
        except UnavailableError:
            self._note_unsure(space, client, (message.lock or "",))
            raise

    def _note_unsure(self, space: str, client: str, locks: Sequence[str]) -> None:
        """Schedule locks for release before the next message of this queue is received."""
        if len(self._unsure) < _MAX_UNSURE:  # the rest expire
            self._unsure.setdefault((space, client), []).extend(locks)

    async def free_held(self, holder: str) -> None:
        """Free all locks with a holder prefix, because the holder no longer exists."""
        await self._database.commit(Changes().run(store.FREE_HELD, first=f"{holder}/", beyond=f"{holder}0"))

    async def next_free(self, space: str, client: str, since: int) -> int | None:
        """Return when the first lock expires among those held at a time, or None without a lock."""
        row = await self._database.one(store.FIRST_LOCK_END, space=space, client=client, now=since)
        return None if row is None else row["at"]

    async def waiting(self) -> list[tuple[str, str]]:
        """Return some clients with unlocked messages; successive calls cycle through all of them."""
        space, client = self._looked_at
        rows = await self._database.all(store.WAITED_FOR, space=space, client=client, now=self._now(), limit=_LOOKED)
        found = [(str(row["space"]), str(row["client"])) for row in rows]
        self._looked_at = found[-1] if len(found) == _LOOKED else ("", "")
        return found

    async def trim(self, client: str, limit: int) -> None:
        """Delete the oldest messages of a client, in every namespace, above `most`."""
        for row in await self._database.all(store.SPACES_OVER, client=client, most=limit):
            over = min(row["count"] - limit, _PAGE)
            rows = await self._database.all(store.LETTERS, space=row["space"], client=client, limit=over)
            changes = Changes()
            for letter in map(letter_of, rows):
                name: dict[str, Any] = {"space": row["space"], "client": client, "seq": letter.seq}
                changes.run(store.DROP_LETTER, **name, lock=letter.lock, deliveries=letter.deliveries)
            await self._database.commit(changes)
            log.warning("inbox.trimmed", extra={"space": row["space"], "inbox": client, "dropped": len(rows)})

    async def purge(self, space: str, client: str) -> int:
        """Delete all messages of a queue; return their number."""
        letters = await self.letters(space, client)
        dropped = [await self._end(space, client, letter, QueueOutcome.PURGED) for letter in letters]
        return dropped.count(True)

    async def dead_letter_expired(self) -> int | None:
        """Dead-letter the expired messages; return when the next one expires."""
        while rows := await self._database.all(store.LETTERS_DUE, now=self._now(), since=self._since(), limit=_PAGE):
            for row in rows:
                letter = letter_of(row)
                if (outcome := end_of(letter, self._rules, self._now())) is not None:
                    await self._end(row["space"], row["client"], letter, outcome)
            if len(rows) < _PAGE:
                break
        row = await self._database.one(store.FIRST_LETTER_DUE, now=self._now())
        return None if row is None else row["at"]

    async def _locked(self, space: str, client: str, lock: str) -> QueuedMessage:
        row = await self._database.one(store.HELD_LETTER, space=space, client=client, lock=lock)
        if row is None or not is_locked(letter := letter_of(row), self._now()):
            raise LockLostError(lock=lock)
        return letter

    async def _end(self, space: str, client: str, message: QueuedMessage, outcome: QueueOutcome) -> bool:
        name: dict[str, Any] = {"space": space, "client": client, "seq": message.seq}
        name |= {"lock": message.lock, "deliveries": message.deliveries}
        changes = Changes().run(store.DROP_LETTER, expect=1, **name)
        try:
            await self._database.commit(changes.merge(self._ended(space, client, message, outcome)))
        except ChangedMeanwhileError:
            return False
        return True

    def _locking(self, space: str, client: str, message: QueuedMessage, queued_message: QueuedMessage) -> Changes:
        state: dict[str, Any] = {
            "lock": queued_message.lock,
            "locked_until": queued_message.locked_until,
            "deliveries": queued_message.deliveries,
            "key_space": space,
            "key_client": client,
            "key_seq": message.seq,
            "key_deliveries": message.deliveries,
            "key_lock": message.lock,
        }
        return Changes().run(store.LOCK_LETTER, expect=1, **state)


def enqueue_changes(space: str, client: str, message: QueuedMessage) -> Changes:
    """Return the changes that enqueue a message at its position."""
    return Changes().run(store.PUT_LETTER, space=space, client=client, **msgspec.structs.asdict(message))


def letter_of(row: Any) -> QueuedMessage:
    """Return the message of a row."""
    return QueuedMessage(**{name: row[name] for name in QueuedMessage.__struct_fields__})
