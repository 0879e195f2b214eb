"""Inboxes: put, take under a lock, settle by the lock. What a letter's end means to its cloud is in the same commit."""

from collections.abc import Callable
from typing import Any

import msgspec

from birthmark.broker import store
from birthmark.broker.errors import InboxFullError, LockLostError
from birthmark.broker.rules.inbox import InboxRules, Letter, Outcome, end_of, is_locked
from birthmark.clock import Entropy, new_uuid
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database, decided_again

_ATTEMPTS = 8
_PAGE = 200
Ended = Callable[[str, str, Letter, Outcome], Changes]
"""Space, client, letter and what became of it: returns what else is to be written then."""


class Inboxes:
    """All inboxes of one database."""

    def __init__(self, database: Database, now: Callable[[], int], entropy: Entropy, rules: InboxRules) -> None:
        self._database = database
        self._now = now
        self._entropy = entropy
        self._rules = rules
        self.ended: Ended = lambda _space, _client, _letter, _outcome: Changes()

    async def put(self, space: str, client: str, letter: Letter, also: Changes | None = None) -> Letter:
        """Queue a letter behind the others and return it with its place. Raise `InboxFullError`."""

        async def put() -> Letter:
            waiting = await self.letters(space, client)
            if len(waiting) >= self._rules.max_waiting:
                raise InboxFullError(device_id=client, limit=self._rules.max_waiting)
            placed = msgspec.structs.replace(letter, seq=waiting[-1].seq + 1 if waiting else letter.enqueued_at)
            changes = putting(space, client, placed)
            await self._database.commit(changes if also is None else changes.merge(also))
            return placed

        return await decided_again(put, after=ChangedMeanwhileError, attempts=_ATTEMPTS)

    async def letters(self, space: str, client: str) -> list[Letter]:
        """Return what waits, oldest first, taken or not."""
        rows = await self._database.all(store.LETTERS, space=space, client=client, limit=_PAGE)
        return [letter_of(row) for row in rows]

    async def take(self, space: str, client: str, lock_s: int | None = None) -> Letter | None:
        """Return the next letter that nobody has, locked for so long; None where there is none."""
        for letter in await self.letters(space, client):
            now = self._now()
            if is_locked(letter, now):
                continue
            if (outcome := end_of(letter, self._rules, now)) is not None:
                await self._end(space, client, letter, outcome)
                continue
            taken = msgspec.structs.replace(
                letter,
                lock=new_uuid(self._entropy),
                locked_until=now + (lock_s or self._rules.lock_s) * 1_000_000,
                deliveries=letter.deliveries + 1,
            )
            try:
                await self._database.commit(self._locking(space, client, letter, taken))
            except ChangedMeanwhileError:
                continue  # somebody else has it now
            return taken
        return None

    async def settle(self, space: str, client: str, lock: str, outcome: Outcome) -> Letter:
        """End a letter by its lock. Raise `LockLostError` when it ran out, or never was."""
        letter = await self._locked(space, client, lock)
        if not await self._end(space, client, letter, outcome):
            raise LockLostError(lock=lock)
        return letter

    async def abandon(self, space: str, client: str, lock: str) -> None:
        """Give a letter back. Raise `LockLostError`."""
        letter = await self._locked(space, client, lock)
        freed = msgspec.structs.replace(letter, lock=None, locked_until=None)
        try:
            await self._database.commit(self._locking(space, client, letter, freed))
        except ChangedMeanwhileError as error:
            raise LockLostError(lock=lock) from error

    async def purge(self, space: str, client: str) -> int:
        """Drop everything that waits; return how much that was."""
        letters = await self.letters(space, client)
        dropped = [await self._end(space, client, letter, Outcome.PURGED) for letter in letters]
        return dropped.count(True)

    async def bury(self) -> int | None:
        """End the letters whose time is over; return when the next one's is."""
        while rows := await self._database.all(store.LETTERS_DUE, now=self._now(), limit=_PAGE):
            for row in rows:
                letter = letter_of(row)
                if (outcome := end_of(letter, self._rules, self._now())) is not None:
                    await self._end(row["space"], row["client"], letter, outcome)
            if len(rows) < _PAGE:
                break
        row = await self._database.one(store.FIRST_LETTER_DUE, now=self._now())
        return None if row is None else row["at"]

    async def _locked(self, space: str, client: str, lock: str) -> Letter:
        letter = next((one for one in await self.letters(space, client) if one.lock == lock), None)
        if letter is None or not is_locked(letter, self._now()):
            raise LockLostError(lock=lock)
        return letter

    async def _end(self, space: str, client: str, letter: Letter, outcome: Outcome) -> bool:
        name: dict[str, Any] = {"space": space, "client": client, "seq": letter.seq}
        name |= {"lock": letter.lock, "deliveries": letter.deliveries}
        changes = Changes().run(store.DROP_LETTER, expect=1, **name)
        try:
            await self._database.commit(changes.merge(self.ended(space, client, letter, outcome)))
        except ChangedMeanwhileError:
            return False
        return True

    def _locking(self, space: str, client: str, seen: Letter, made: Letter) -> Changes:
        state: dict[str, Any] = {
            "lock": made.lock,
            "locked_until": made.locked_until,
            "deliveries": made.deliveries,
            "key_space": space,
            "key_client": client,
            "key_seq": seen.seq,
            "key_deliveries": seen.deliveries,
            "key_lock": seen.lock,
        }
        return Changes().run(store.LOCK_LETTER, expect=1, **state)


def putting(space: str, client: str, letter: Letter) -> Changes:
    """Return the changes that queue a letter at the place it says."""
    return Changes().run(store.PUT_LETTER, space=space, client=client, **msgspec.structs.asdict(letter))


def letter_of(row: Any) -> Letter:
    """Return the letter of a row."""
    return Letter(**{name: row[name] for name in Letter.__struct_fields__})
