"""Retained messages of a namespace (section 3.3.1.3): the last message of each topic, for new subscribers."""

import asyncio
from typing import Any

from birthmark.broker import store
from birthmark.broker.connected_session import SessionNamespace
from birthmark.broker.errors import RetainedFullError, RetainedShareUsedError
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.model import BrokerMessage, decode_messages, encode_messages
from birthmark.broker.rules.principal_quotas import Portions, share_of
from birthmark.broker.session_queue_writer import PendingAppend
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.pagination import Page, page_of


class RetainedMessages:
    """Retained messages of a namespace; `count` is their number."""

    def __init__(self, database: Database, space: SessionNamespace, count: int) -> None:
        self._database = database
        self._space = space
        self.count = count
        self._shares = Portions()  # of topics
        self._turns: KeyedLock[str] = KeyedLock()
        self._on_their_way: dict[str, tuple[bool, int]] = {}  # topic -> whether it will have one, and writes
        self._more = 0  # from writes in flight

    async def keep(self, message: BrokerMessage, pending: PendingAppend) -> None:
        """Store, replace or delete the retained message of a topic (section 3.3.1.3)."""
        topic, limit = message.topic, self._space.rules.max_retained
        place: dict[str, Any] = {"space": self._space.name, "topic": topic}
        async with self._turns.lock(topic):
            is_there, writes = self._on_their_way.get(topic, (False, 0))
            if not writes:
                is_there = await self._database.one(store.RETAINED, **place) is not None
            if not message.payload:
                if is_there:
                    self._shares.remove(topic)
                    self._write(Changes().run(store.FORGET, **place), topic, -1, pending)
                return
            if (no_room := self._database.find_disk_full_error()) is not None:
                raise no_room
            if not is_there and self.count >= limit:
                raise RetainedFullError(limit=limit, value=2 * limit, topic=topic)
            if not is_there and not self._shares.has_room(message.principal, limit):
                raise RetainedShareUsedError(share=share_of(limit), value=2 * limit, topic=topic)
            values: dict[str, Any] = {"at": self._space.now(), "expires_at": message.expires_at}
            values |= {"qos": message.qos, "size": len(message.payload)}
            changes = Changes().run(store.RETAIN, body=encode_messages([message]), **place, **values)
            if is_there:
                self._shares.add(topic, message.principal, message.expires_at, self._space.now())
            else:
                self._shares.remove(topic)
                self._shares.add(topic, message.principal, message.expires_at, self._space.now())
            self._write(changes, topic, int(not is_there), pending)

    def _write(self, changes: Changes, topic: str, more: int, pending: PendingAppend) -> None:
        """Submit a change that adds `more` retained messages; the count changes before it is written."""

        def written(commit: asyncio.Future[None]) -> None:
            self._more -= more
            will_be, writes = self._on_their_way.pop(topic)
            if writes > 1:
                self._on_their_way[topic] = will_be, writes - 1
            if commit.exception() is not None:
                self.count -= more
                if more > 0:
                    self._shares.remove(topic)
            pending.complete_from_commit(commit)

        _, writes = self._on_their_way.get(topic, (False, 0))
        self._on_their_way[topic] = more >= 0, writes + 1
        self._more += more
        self.count += more
        pending.expect()
        self._database.submit(changes).add_done_callback(written)

    async def recount(self, now: int, since: int) -> None:
        """Count the retained messages again; remove those expired by `now`, except any stored before `since`.

        Other workers store messages too. Messages written during the read may be counted or not, so the count is
        approximate until the next recount.
        """
        rows = await self._database.all(store.COUNT_RETAINED)
        self._shares.forget_expired(now, since)
        self.count = self._more + sum(row["total"] for row in rows if row["space"] == self._space.name)

    async def of(self, topic: str) -> tuple[BrokerMessage, int] | None:
        """Return the retained message of a topic, and when it was stored in microseconds."""
        row = await self._database.one(store.RETAINED, space=self._space.name, topic=topic)
        if row is None or (row["expires_at"] is not None and row["expires_at"] <= self._space.now()):
            return None
        return decode_messages(row["body"])[0], row["at"]

    async def topics(self, after: str, size: int) -> Page[Row]:
        """Return topics with size, QoS and time, in order.

        Expired messages are omitted, so a page may be short.
        """
        rows = await self._database.all(store.RETAINED_PAGE, space=self._space.name, after=after, limit=size + 1)
        page, now = page_of(rows, size, [str(row["topic"]) for row in rows]), self._space.now()
        return Page([row for row in page.items if row["expires_at"] is None or row["expires_at"] > now], page.last)
