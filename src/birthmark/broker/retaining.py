"""Retained messages of one space (section 3.3.1.3): the last of each topic, for whoever subscribes later."""

from typing import TYPE_CHECKING, Any

from birthmark.broker import store
from birthmark.broker.appends import Pending
from birthmark.broker.errors import RetainedFullError
from birthmark.broker.model import Message, decode_messages, encode_messages
from birthmark.store import Changes
from birthmark.store.database import Row
from birthmark.store.paging import Page, page_of

if TYPE_CHECKING:
    from birthmark.broker.broker import Broker
    from birthmark.broker.space import Space


class Retained:
    """See the module. `count` is how many there are."""

    def __init__(self, broker: "Broker", space: "Space") -> None:
        self._database = broker.database
        self._space = space
        self.count = 0

    async def keep(self, message: Message, pending: Pending) -> None:
        """Keep, replace or delete the retained message of a topic (section 3.3.1.3)."""
        place: dict[str, Any] = {"space": self._space.name, "topic": message.topic}
        is_there = await self._database.one(store.RETAINED, **place) is not None
        if not message.payload:
            if is_there:
                self.count -= 1
                pending.expect()
                self._database.submit(Changes().run(store.FORGET, **place)).add_done_callback(pending.written)
            return
        if not is_there and self.count >= self._space.rules.max_retained:
            limit = self._space.rules.max_retained
            raise RetainedFullError(limit=limit, value=2 * limit, topic=message.topic)
        self.count += not is_there
        values: dict[str, Any] = {"at": self._space.now(), "expires_at": message.expires_at}
        values |= {"qos": message.qos, "size": len(message.payload)}
        changes = Changes().run(store.RETAIN, body=encode_messages([message]), **place, **values)
        pending.expect()
        self._database.submit(changes).add_done_callback(pending.written)

    async def of(self, topic: str) -> tuple[Message, int] | None:
        """Return the retained message of a topic, and when it was kept in microseconds."""
        row = await self._database.one(store.RETAINED, space=self._space.name, topic=topic)
        if row is None or (row["expires_at"] is not None and row["expires_at"] <= self._space.now()):
            return None
        return decode_messages(row["body"])[0], row["at"]

    async def topics(self, after: str, size: int) -> Page[Row]:
        """Return topics with size, QoS and time, in order; what expired is left out, and may leave a page short."""
        rows = await self._database.all(store.RETAINED_PAGE, space=self._space.name, after=after, limit=size + 1)
        page, now = page_of(rows, size, [str(row["topic"]) for row in rows]), self._space.now()
        return Page([row for row in page.items if row["expires_at"] is None or row["expires_at"] > now], page.last)
