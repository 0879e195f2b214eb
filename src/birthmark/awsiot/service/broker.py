"""Messages between connections: who gets what, and what waits for those who are away.

A client that connects with clean session 0 has a stored session: its subscriptions, and QoS 1 messages until it has
acknowledged them. These are written before the publisher gets its PUBACK and read back to be sent, so a crash loses
none of them and costs at most a duplicate. A session lives SESSION_LIFETIME after its connection ended; at most
MAX_STORED messages wait in it, later ones are dropped. Of more than MAX_SESSIONS the one whose client has been away
longest is forgotten.

Everyone else gets a message from memory, or not at all.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from birthmark.awsiot.store import sessions as store
from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.mqtt.topics import TopicTree
from birthmark.store import Changes, Database, from_micros, to_micros

log = logging.getLogger(__name__)

SESSION_LIFETIME = timedelta(hours=1)
MAX_STORED = 1000
MAX_SESSIONS = 20_000
MAX_SUBSCRIPTIONS = 1_000_000
EXPIRE_EVERY_S = 60
_PAGE = 1000


class TooManySessionsError(ThrottledError):
    """Too many stored sessions."""

    code = "awsiot.too_many_sessions"
    cause = "{limit} clients with a stored session are connected; there may be no more."
    fix = (
        "Connect with a clean session where nothing has to wait for the client. If all of them are needed, make room "
        "in the server's configuration file, above its tables: `aws.max_sessions = {value}`"
    )
    limit: str
    value: str


class Subscriber(Protocol):
    """A live connection, as the broker sees it."""

    client_id: str
    is_persistent: bool
    session_present: bool
    """An earlier session goes on."""

    def deliver(self, topic: str, payload: bytes, qos: int) -> None:
        """Send a message from memory."""
        ...

    def wake(self) -> None:
        """There is something new in the stored session."""
        ...


class Broker:
    """Subscriptions and deliveries of one account."""

    def __init__(self, database: Database, clock: Clock, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._database = database
        self._clock = clock
        # `sensor/#` does not match `sensor`, unlike the specification (developer guide, "MQTT topic filters").
        self._tree: TopicTree[str] = TopicTree(hash_matches_parent=False, max_subscriptions=MAX_SUBSCRIPTIONS)
        self._filters: dict[str, dict[str, int]] = {}
        self._live: dict[str, Subscriber] = {}
        self._stored: dict[str, int] = {}  # client id -> messages that wait
        self._expiries: deque[tuple[datetime, str]] = deque()
        self._expires_at: dict[str, datetime] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Read the stored sessions. Whoever was connected when the server ended has SESSION_LIFETIME from now."""
        now = self._clock.now()
        await self._database.commit(Changes().run(store.START_EXPIRY, expires_at=to_micros(now + SESSION_LIFETIME)))
        after = ""
        while rows := await self._database.all(store.ALL, after=after, limit=_PAGE):
            for row in rows:
                client_id = after = row["client_id"]
                await self._restore(client_id, from_micros(row["expires_at"]))
        self._expiries = deque(sorted((at, client_id) for client_id, at in self._expires_at.items()))
        await self.expire()

    async def keep_expiring(self) -> None:
        """Forget sessions whose time is over, now and then, whether or not anybody connects."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            with contextlib.suppress(BirthmarkError):  # the next look forgets what this one could not
                await self.expire()

    async def settled(self) -> None:
        """Return when nothing that was begun is unfinished."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def spawn(self, waiting: Awaitable[None]) -> asyncio.Task[None]:
        """Run something to its end, whoever else is gone by then; what it raises is logged."""
        task = asyncio.ensure_future(_logged(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Sessions

    def live(self, client_id: str) -> Subscriber | None:
        """Return the connection of a client id, if it has one."""
        return self._live.get(client_id)

    def everyone(self) -> tuple[Subscriber, ...]:
        """Return every connection."""
        return tuple(self._live.values())

    async def open(self, client_id: str, *, is_persistent: bool) -> bool:
        """Prepare the session of a client that connects, and say whether an earlier one goes on."""
        await self.expire()
        if not is_persistent:
            if client_id in self._stored:
                await self._forget(client_id)
            return False
        known = client_id in self._stored
        if not known and len(self._stored) >= self._max_sessions:
            await self._forget_oldest()
        self._expires_at.pop(client_id, None)
        await self._database.commit(Changes().run(store.PUT, client_id=client_id, expires_at=None))
        self._stored.setdefault(client_id, 0)
        return known

    def enter(self, subscriber: Subscriber) -> Subscriber | None:
        """Make `subscriber` its client id's one connection; return the one it takes over from."""
        old = self._live.get(subscriber.client_id)
        self._live[subscriber.client_id] = subscriber
        if not subscriber.session_present:
            self._drop_filters(subscriber.client_id)
        return old

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a connection unless another took its place; start the clock of its stored session."""
        client_id = subscriber.client_id
        if self._live.get(client_id, subscriber) is not subscriber:
            return
        self._live.pop(client_id, None)
        if not subscriber.is_persistent:
            self._drop_filters(client_id)
            return
        at = self._clock.now() + SESSION_LIFETIME
        self._expires_at[client_id] = at
        self._expiries.append((at, client_id))
        self.spawn(self._database.commit(Changes().run(store.PUT, client_id=client_id, expires_at=to_micros(at))))

    # Subscriptions

    def filters_of(self, client_id: str) -> Mapping[str, int]:
        """Return a client's filters with their QoS."""
        return self._filters.get(client_id, {})

    async def subscribe(self, subscriber: Subscriber, filters: Mapping[str, int]) -> None:
        """Add filters; those of a stored session are durable when this returns. Raise `TreeFullError`."""
        client_id = subscriber.client_id
        known = self._filters.setdefault(client_id, {})
        for topic_filter, qos in filters.items():
            self._tree.subscribe(topic_filter, client_id, qos)
            known[topic_filter] = qos
        if subscriber.is_persistent:
            changes = Changes()
            for topic_filter, qos in filters.items():
                changes.run(store.SUBSCRIBE, client_id=client_id, filter=topic_filter, qos=qos)
            await self._database.commit(changes)

    async def unsubscribe(self, subscriber: Subscriber, filters: tuple[str, ...]) -> None:
        """Remove filters by their exact text."""
        client_id, changes = subscriber.client_id, Changes()
        known = self._filters.get(client_id, {})
        for topic_filter in filters:
            if known.pop(topic_filter, None) is not None:
                self._tree.unsubscribe(topic_filter, client_id)
                changes.run(store.UNSUBSCRIBE, client_id=client_id, filter=topic_filter)
        if subscriber.is_persistent and changes.writes:
            await self._database.commit(changes)

    # Messages

    def route(self, topic: str, payload: bytes, qos: int) -> Awaitable[None] | None:
        """Hand a message to everyone who subscribed; await what this returns before it is acknowledged."""
        keep: list[str] = []
        for client_id, granted in self._tree.match(topic).items():
            effective = min(qos, granted)
            live = self._live.get(client_id)
            if effective and client_id in self._stored and (live is None or live.is_persistent):
                keep.append(client_id)
            elif live is not None:
                live.deliver(topic, payload, effective)
        return self._store(keep, topic, payload) if keep else None

    def route_later(self, topic: str, payload: bytes, qos: int) -> None:
        """Hand on a message that nobody waits for: a will, an event."""
        waiting = self.route(topic, payload, qos)
        if waiting is not None:
            self.spawn(waiting)

    async def stored_after(self, client_id: str, seq: int, limit: int) -> list[tuple[int, str, bytes]]:
        """Return stored messages in order: number, topic, payload."""
        rows = await self._database.all(store.QUEUED_AFTER, client_id=client_id, after=seq, limit=limit)
        return [(row["seq"], row["topic"], row["payload"]) for row in rows]

    def delivered(self, client_id: str, seq: int) -> None:
        """Forget a stored message that its receiver has acknowledged, or may not get."""
        if client_id in self._stored:
            self._stored[client_id] = max(0, self._stored[client_id] - 1)
        self.spawn(self._database.commit(Changes().run(store.DELIVERED, seq=seq)))

    # Inside

    async def _store(self, clients: list[str], topic: str, payload: bytes) -> None:
        changes = Changes()
        for client_id in clients:
            if self._stored.get(client_id, MAX_STORED) >= MAX_STORED:
                log.warning("awsiot.session_full", extra={"client_id": client_id})
                continue
            self._stored[client_id] += 1
            changes.run(store.QUEUE, client_id=client_id, topic=topic, payload=payload)
        if not changes.writes:
            return
        try:
            await self._database.commit(changes)
        except BirthmarkError:
            for write in changes.writes:
                self._stored[write.params["client_id"]] -= 1
            raise
        for client_id in clients:
            live = self._live.get(client_id)
            if live is not None:
                live.wake()

    async def _restore(self, client_id: str, expires_at: datetime) -> None:
        filters = {row["filter"]: row["qos"] for row in await self._database.all(store.FILTERS, client_id=client_id)}
        for topic_filter, qos in filters.items():
            self._tree.subscribe(topic_filter, client_id, qos)
        self._filters[client_id] = filters
        row = await self._database.one(store.COUNT, client_id=client_id)
        self._stored[client_id] = 0 if row is None else row["total"]
        self._expires_at[client_id] = expires_at

    async def expire(self) -> None:
        """Forget sessions whose time is over. All live equally long, so they stand in order."""
        now = self._clock.now()
        while self._expiries and self._expiries[0][0] <= now:
            at, client_id = self._expiries.popleft()
            if self._expires_at.get(client_id) == at:
                await self._forget(client_id)

    async def _forget_oldest(self) -> None:
        """Raise `TooManySessionsError` when everyone is connected."""
        while self._expiries:
            at, client_id = self._expiries.popleft()
            if self._expires_at.get(client_id) == at:
                await self._forget(client_id)
                return
        facts: dict[str, Any] = {"limit": self._max_sessions, "value": 2 * self._max_sessions}
        raise TooManySessionsError(retry_after_s=60, **facts)

    async def _forget(self, client_id: str) -> None:
        self._drop_filters(client_id)
        self._stored.pop(client_id, None)
        self._expires_at.pop(client_id, None)
        await self._database.commit(
            Changes()
            .run(store.DELETE, client_id=client_id)
            .run(store.UNSUBSCRIBE_ALL, client_id=client_id)
            .run(store.DROP_QUEUE, client_id=client_id)
        )

    def _drop_filters(self, client_id: str) -> None:
        for topic_filter in self._filters.pop(client_id, {}):
            self._tree.unsubscribe(topic_filter, client_id)


async def _logged(waiting: Awaitable[None]) -> None:
    try:
        await waiting
    except BirthmarkError as error:
        log.warning("awsiot.not_written", extra={"code": error.code})
