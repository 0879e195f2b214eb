"""Bulk deletes in portions: a commit of 100 MB would block every other write for seconds."""

import asyncio
from collections.abc import Sequence
from typing import Any

from birthmark.broker import store
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database
from birthmark.store.database import Row

PORTION_BYTES, _LITTLE_BYTES = 2 * 1024 * 1024, 16 * 1024
_ROWS = 256


def portion_of(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the first rows that fit into one delete commit by their `size` in bytes; at least one row."""
    left = PORTION_BYTES
    for number, row in enumerate(rows):
        left -= row["size"]
        if left < 0:
            return rows[: max(1, number)]
    return rows


async def delete_most_of_queue(
    database: Database, space: str, client: str, epoch: int, turns: asyncio.Semaphore
) -> bool:
    """Delete most of a session's queue; return False if the session changed in the process.

    Sessions that end at the same time run in sequence; their pending statements share a commit.
    """
    name: dict[str, Any] = {"space": space, "client": client}
    while True:
        rows = await database.all(store.QUEUE_SIZES, limit=_ROWS, **name)
        if len(rows) < _ROWS and sum(row["size"] for row in rows) <= _LITTLE_BYTES:
            return True
        changes = Changes().run(store.STILL_AS_READ, expect=1, key_epoch=epoch, key_space=space, key_client=client)
        changes.run(store.DROP_SETTLED, upto=portion_of(rows)[-1]["last"], **name)
        try:
            async with turns:
                await database.commit(changes)
        except ChangedMeanwhileError:
            return False


async def drop_expired_retained(database: Database, now: int, since: int) -> None:
    """Delete the retained messages that expired by `now`, except those from before `since`."""
    times = {"now": now, "since": since}
    while rows := await database.all(store.EXPIRED_RETAINED, limit=_ROWS, **times):
        changes = Changes()
        for row in portion_of(rows):
            changes.run(store.FORGET_EXPIRED, space=row["space"], topic=row["topic"], now=now)
        await database.commit(changes)


async def drop_unused(database: Database, after: int, before: int) -> None:
    """Delete the messages between two IDs that no queue references."""
    while rows := await database.all(store.UNUSED, after=after, before=before, limit=_ROWS):
        upto = portion_of(rows)[-1]["id"]
        await database.commit(Changes().run(store.DROP_UNUSED, after=after, before=upto + 1))
        after = upto
