"""The sessions of one space on this worker: connect, subscribe, publish, disconnect.

Connecting raises the session's epoch by a write that holds only while nobody else did; every later write of the
session names that epoch and this worker. A worker that holds its database alone does not write where nothing would
change: there is nobody to lose the session to.

A session that is not stored lives in memory, as long as its connection.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from birthmark.broker import store
from birthmark.broker.appends import Pending
from birthmark.broker.attached import Attached
from birthmark.broker.errors import RetainedFullError, TooManySessionsError
from birthmark.broker.model import (
    MICROS,
    NEVER,
    NO_LOCAL,
    RETAIN_AS_PUBLISHED,
    Done,
    Message,
    Record,
    Subscription,
    Will,
    decode_messages,
    decode_will,
    encode_messages,
    encode_will,
    properties_at,
)
from birthmark.broker.ports import Connection, Observer
from birthmark.broker.requests import DeliverTo
from birthmark.broker.routing import Receiver, Route, Router
from birthmark.broker.rules.matching import shape_of
from birthmark.broker.rules.outgoing import Outgoing
from birthmark.broker.turns import Turns
from birthmark.broker.viewing import Viewer
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.mqtt.parcel import Parcel
from birthmark.net.admission import Closed
from birthmark.store import Changes
from birthmark.store.database import Row
from birthmark.store.paging import Page, page_of

if TYPE_CHECKING:
    from birthmark.broker.broker import Broker

_ATTEMPTS = 20
_QUEUE_ROWS = 16
_RELEASE_AGAIN_S = 1.0


MAX_SESSIONS = 500_000
MAX_RETAINED = 100_000
MAX_WAITING = 1000


class SpaceRules(msgspec.Struct, frozen=True):
    """What a cloud allows in one space."""

    max_sessions: int = MAX_SESSIONS
    max_waiting: int = MAX_WAITING
    max_retained: int = MAX_RETAINED
    hash_matches_parent: bool = True
    routes: bool = True
    """Messages go by topic to whoever subscribed; without, a session keeps its subscriptions and nothing else."""


class Arrival(msgspec.Struct, frozen=True):
    """A client that may connect."""

    client: str
    connection: Connection
    clean_start: bool
    expiry_s: int = 0
    will: Will | None = None
    window: int = 100
    tags: frozenset[str] = frozenset()
    """What the connection depends on, to be found by."""


class Space:
    """See the module."""

    def __init__(self, broker: "Broker", name: str, rules: SpaceRules, observer: Observer) -> None:
        self._broker = broker
        self._database = broker.database
        self._router = Router(hash_matches_parent=rules.hash_matches_parent)
        self._arriving: Turns[str] = Turns()
        self._stored_count = self._retained_count = self._viewers = 0
        self.name = name
        self.dropped = 0  # messages that found no room in a queue
        self.rules = rules
        self.observer = observer
        self.worker = broker.worker
        self.is_alone = broker.is_alone
        self.now = broker.now
        self.spawn = broker.spawn
        self.live: dict[str, Attached] = {}
        self._tagged: defaultdict[str, set[Attached]] = defaultdict(set)
        self._unsafe: dict[str, tuple[int, asyncio.Future[None] | None]] = {}

    def learn(self, shapes: Mapping[str, int], sessions: int, retained: int) -> None:
        """Learn what is stored: the shapes of its filters with their number, how many sessions and messages."""
        for shape, count in shapes.items():
            self._router.stored_shapes.add(shape, count)
        self._stored_count, self._retained_count = sessions, retained

    # ---- sessions

    @property
    def stored(self) -> int:
        """How many sessions outlive their connections."""
        return self._stored_count

    def is_arriving(self, client: str) -> bool:
        """Somebody is about to take this session."""
        return client in self._arriving

    async def record(self, client: str) -> Record | None:
        """Return what is stored of a session."""
        row = await self._database.one(store.RECORD, space=self.name, client=client)
        return None if row is None else record_of(row)

    async def connect(self, arrival: Arrival) -> Attached:
        """Give a client its session; whoever had it before is closed. Nothing is delivered until `resume`.

        Raise `TooManySessionsError`, or `UnavailableError`.
        """
        await self._broker.fresh()
        # Whoever had it is closed first: what that one published may be on its way into this very session.
        old = self._take_over(arrival.client, clean=arrival.clean_start)
        try:
            await self._until_safe(arrival.client)
            return await self._connect_alone(arrival, old)
        except BaseException:
            if old is not None and old.is_claimed:
                self.spawn(self._release(old, None, 0))
            raise

    async def _connect_alone(self, arrival: Arrival, old: Attached | None) -> Attached:
        """Decide on the session as it is; who is faster makes us decide again."""
        async with self._arriving.alone_with(arrival.client):
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(ChangedMeanwhileError):
                    return await self._connect(arrival, old)
                self._broker.appends.forget(self, arrival.client)
        raise ChangedMeanwhileError(what="The session")

    async def _connect(self, arrival: Arrival, old: Attached | None) -> Attached:
        client, now = arrival.client, self.now()
        record = await self.record(client)
        keeps, is_alone = arrival.expiry_s > 0, self._broker.is_alone
        goes_on = record is not None and not arrival.clean_start and record.goes_on(now)
        if record is not None and record.owner not in {None, self.worker} and not is_alone:
            await self._broker.vacate(self, client, record, ends=not goes_on)
            raise ChangedMeanwhileError(what="The session")
        if keeps:
            await self._make_room(record)
        outgoing = self._outgoing(arrival, record, old, goes_on=goes_on) if keeps and self.rules.routes else None
        gone = await self._stored_subscriptions(client) if record is not None and not (goes_on and keeps) else {}
        name: dict[str, Any] = {"space": self.name, "client": client}
        changes = Changes()
        epoch, is_claimed = 0 if record is None else record.epoch, False
        if record is not None and not (goes_on and keeps):
            changes.run(store.UNSUBSCRIBE_ALL, **name).run(store.DROP_QUEUE, **name)
        if keeps or not is_alone:
            epoch, is_claimed = self._claim(changes, arrival, record, outgoing, goes_on=goes_on)
        elif record is not None:
            changes.run(store.DELETE, expect=1, **name, epoch=record.epoch)
        if changes.writes:
            await self._database.commit(changes)
        self._stored_count += is_claimed - (record is not None and not (keeps and not is_claimed))
        # What the connection before asked for may have been on its way until now.
        known = await self._stored_subscriptions(client) if goes_on and keeps else {}
        self._take_over(client, clean=not goes_on)  # one that was faster
        if record is not None:
            self._after(client, record, goes_on=goes_on)
        self._unsubscribed(gone.values())
        attached = Attached(
            self,
            client,
            arrival.connection,
            epoch=epoch,
            is_claimed=is_claimed,
            is_stored=keeps,
            session_present=goes_on and (self.rules.routes or bool(known)),
            expiry_s=arrival.expiry_s,
            since=now,
            subscriptions=known,
            outgoing=outgoing,
            will=arrival.will,
        )
        self.live[client] = attached
        self.tag(attached, arrival.tags)
        return attached

    def tag(self, attached: Attached, tags: frozenset[str]) -> None:
        """Let a connection be found by what it depends on now."""
        if attached.is_over or tags == attached.tags:
            return
        self._untag(attached)
        attached.tags = tags
        for tag in tags:
            self._tagged[tag].add(attached)

    def tagged(self, tag: str) -> Sequence[Attached]:
        """Return the connections that depend on something."""
        return tuple(self._tagged.get(tag, ()))

    def _untag(self, attached: Attached) -> None:
        for tag in attached.tags:
            self._tagged[tag].discard(attached)
            if not self._tagged[tag]:
                del self._tagged[tag]
        attached.tags = frozenset()

    def _outgoing(self, arrival: Arrival, record: Record | None, old: Attached | None, *, goes_on: bool) -> Outgoing:
        """Return where the queue goes on; the connection that is taken over knows better than its row."""
        if record is None:
            return Outgoing(0, 0, arrival.window)
        if not goes_on:
            return Outgoing(record.tail, record.tail, arrival.window)
        cursor, sent = record.cursor, record.sent
        if old is not None and old.outgoing is not None:
            cursor, sent = max(cursor, old.outgoing.cursor), max(sent, old.outgoing.sent)
        return Outgoing(cursor, record.tail, arrival.window, resent_upto=sent)

    def _after(self, client: str, record: Record, *, goes_on: bool) -> None:
        """Do for the connection before what it can do no more: its worker was killed, or its will is waiting."""
        was_lost = record.owner not in {None, self.worker}
        if record.will is not None and (was_lost if record.will_at is None else not goes_on):
            self._send_will(client, decode_will(record.will))
        if was_lost:
            self.observer.lost(client, record.epoch)

    def _claim(
        self, changes: Changes, arrival: Arrival, record: Record | None, outgoing: Outgoing | None, *, goes_on: bool
    ) -> tuple[int, bool]:
        """Add what makes the session this worker's; return its epoch, and whether a row says so."""
        will = None if arrival.will is None else encode_will(arrival.will)
        may_skip = self._broker.is_alone and not self.rules.routes and will is None
        state: dict[str, Any] = {"owner": self.worker, "expires_at": None, "expiry_s": arrival.expiry_s}
        state |= {"will": will, "will_at": None, "cursor": 0, "sent": 0}
        if record is None:
            if may_skip:
                return 0, False  # its first subscription makes the row
            epoch = self.now()  # greater than that of any session of this name that was forgotten
            changes.run(store.ADD, space=self.name, client=arrival.client, epoch=epoch, tail=0, **state)
            return epoch, True
        if may_skip and goes_on and record.expires_at is None and record.owner is None:
            return record.epoch, False
        if outgoing is not None:
            state |= {"cursor": outgoing.cursor, "sent": max(outgoing.sent, outgoing.resent_upto)}
        epoch = record.epoch + 1
        name: dict[str, Any] = {"key_space": self.name, "key_client": arrival.client}
        seen: dict[str, Any] = {"key_epoch": record.epoch, "key_tail": record.tail}
        changes.run(store.CLAIM, expect=1, epoch=epoch, **state, **name, **seen)
        return epoch, True

    async def _make_room(self, record: Record | None) -> None:
        """Forget the session whose client is away for the longest when there are too many."""
        if record is not None or self._stored_count < self.rules.max_sessions:
            return
        rows = await self._database.all(store.NEXT_TO_EXPIRE, space=self.name, limit=1)
        if not rows:
            limit = self.rules.max_sessions
            raise TooManySessionsError(retry_after_s=60, limit=str(limit), value=str(2 * limit))
        await self.forget(rows[0]["client"], record_of(rows[0]))

    def _take_over(self, client: str, *, clean: bool) -> Attached | None:
        """End the connection that has a session on this worker, and return it."""
        old = self.live.get(client)
        if old is None:
            return None
        if old.will is not None and old.will.delay_s and old.is_stored and not clean:
            old.will = None  # [MQTT-3.1.3-9]
        self._left(old, Closed.TAKEN_OVER, with_will=True)
        old.connection.end(Closed.TAKEN_OVER)
        return old

    async def yields(self, client: str, *, ends: bool) -> None:
        """Let go of a session whose client is about to connect to another worker; return when nothing is left here."""
        old = self._take_over(client, clean=ends)
        await self._until_safe(client)
        async with self._arriving.alone_with(client):
            if old is not None:
                await self._release_now(old, None, 0)
                return
            row = await self._database.one(store.SESSION, space=self.name, client=client)
            if row is not None and row["owner"] == self.worker and client not in self.live:
                await self.free(row)  # letting go of it has not succeeded yet

    def fenced(self, attached: Attached) -> None:
        """Another worker has this session: nothing that this connection does counts any more."""
        if not attached.is_over:
            self._left(attached, Closed.TAKEN_OVER, with_will=False)
            attached.connection.end(Closed.TAKEN_OVER)

    def disconnect(self, attached: Attached, reason: Closed, *, with_will: bool, expiry_s: int | None = None) -> None:
        """Note that a connection is over; a DISCONNECT may have said how long the session is to live."""
        if attached.is_over:
            return
        will = attached.will if with_will else None
        if expiry_s is not None:
            attached.expiry_s = expiry_s
        delay_s = min(will.delay_s, attached.expiry_s) if will is not None and attached.is_stored else 0
        self._left(attached, reason, with_will=with_will and not delay_s)
        if attached.is_claimed:
            self.spawn(self._release(attached, will if delay_s else None, delay_s))

    def _left(self, attached: Attached, reason: Closed, *, with_will: bool) -> None:
        """Take a connection out of memory, and say that it is gone."""
        attached.is_over = True
        if self.live.get(attached.client) is attached:
            del self.live[attached.client]
        self._untag(attached)
        self._broker.unsettled.discard(attached)
        if not attached.is_stored:
            for one in attached.subscriptions.values():
                self._router.remove(attached, one)
        if with_will and attached.will is not None:
            self._send_will(attached.client, attached.will)
        self.observer.disconnected(attached, reason)

    async def _release(self, attached: Attached, will: Will | None, delay_s: int) -> None:
        """Let go of a session before the next of this name begins; a database that is away comes back."""
        await self._until_safe(attached.client)
        while True:
            async with self._arriving.alone_with(attached.client):
                try:
                    await self._release_now(attached, will, delay_s)
                except UnavailableError:
                    pass
                else:
                    return
            await self._broker.sleep(_RELEASE_AGAIN_S)

    async def _release_now(self, attached: Attached, will: Will | None, delay_s: int) -> None:
        now, outgoing, expiry_s = self.now(), attached.outgoing, attached.expiry_s
        if not expiry_s:
            await self.forget(attached.client, epoch=attached.epoch)
            return
        expires_at = None if expiry_s == NEVER else now + expiry_s * MICROS
        will_at = None if will is None else now + delay_s * MICROS
        state: dict[str, Any] = {"owner": None, "expires_at": expires_at, "expiry_s": expiry_s, "will_at": will_at}
        state |= {"will": None if will is None else encode_will(will), "cursor": 0, "sent": 0}
        changes = Changes()
        if outgoing is not None:
            state |= {"cursor": outgoing.cursor, "sent": max(outgoing.sent, outgoing.resent_upto)}
            changes.run(store.DROP_SETTLED, space=self.name, client=attached.client, upto=outgoing.cursor)
        changes.run(store.RELEASE, expect=1, **state, **attached.fence)
        with contextlib.suppress(ChangedMeanwhileError):  # somebody else has it already
            await self._database.commit(changes)
        self._broker.due_at(expires_at)
        self._broker.due_at(will_at)

    async def forget(self, client: str, record: Record | None = None, *, epoch: int | None = None) -> bool:
        """End a session as it was read, with all it holds; say False when it changed meanwhile."""
        epoch = record.epoch if record is not None else epoch
        known = await self._stored_subscriptions(client)
        name: dict[str, Any] = {"space": self.name, "client": client}
        changes = Changes().run(store.DELETE, expect=1, epoch=epoch, **name)
        changes.run(store.UNSUBSCRIBE_ALL, **name).run(store.DROP_QUEUE, **name)
        try:
            await self._database.commit(changes)
        except ChangedMeanwhileError:
            return False
        self._stored_count -= 1
        self._broker.appends.forget(self, client)
        self._unsubscribed(known.values())
        if record is not None and record.will is not None:
            self._send_will(client, decode_will(record.will))
        return True

    async def free(self, row: Row) -> None:
        """Free a session whose worker is no more: its will is due, and its time begins to run."""
        record, client, now = record_of(row), row["client"], self.now()
        will = None if record.will is None else decode_will(record.will)
        delay_s = min(will.delay_s, record.expiry_s) if will is not None else 0
        name: dict[str, Any] = {"space": self.name, "client": client}
        if record.expiry_s:
            fence = {f"key_{key}": value for key, value in name.items()}
            fence |= {"key_epoch": record.epoch, "key_owner": record.owner}
            expires_at = None if record.expiry_s == NEVER else now + record.expiry_s * MICROS
            state: dict[str, Any] = {"epoch": record.epoch + 1, "owner": None, "expires_at": expires_at}
            state |= {"will": record.will if delay_s else None, "will_at": now + delay_s * MICROS if delay_s else None}
            with contextlib.suppress(ChangedMeanwhileError):
                await self._database.commit(Changes().run(store.FREE, expect=1, **state, **fence))
                if will is not None and not delay_s:
                    self._send_will(client, will)
                self.observer.lost(client, record.epoch)
                self._broker.due_at(expires_at)
        elif await self.forget(client, record):
            self.observer.lost(client, record.epoch)

    # ---- wills

    def _send_will(self, client: str, will: Will) -> None:
        if (waiting := self.observer.will(client, will)) is not None:
            pending = Pending(_nobody_waits)
            self._not_safe((will.message,), pending)
            self.spawn(self._until_told(waiting, pending))

    async def _until_told(self, waiting: Awaitable[None], pending: Pending) -> None:
        """A session keeps its will until it is safe elsewhere: nobody goes on with it, or lets go of it, before."""
        try:
            await waiting
        finally:
            pending.one_done()

    async def send_due_will(self, row: Row) -> None:
        """Publish a will whose delay is over, unless the client came back."""
        record = record_of(row)
        client = row["client"]
        name: dict[str, Any] = {"key_space": self.name, "key_client": client}
        seen: dict[str, Any] = {"key_epoch": record.epoch, "key_will_at": record.will_at}
        changes = Changes().run(store.WILL_SENT, expect=1, will=None, will_at=None, **name, **seen)
        with contextlib.suppress(ChangedMeanwhileError):
            await self._database.commit(changes)
            if record.will is not None:
                self._send_will(client, decode_will(record.will))

    # ---- subscriptions

    async def subscribe(self, attached: Attached, wanted: Sequence[Subscription]) -> list[bool]:
        """Enter subscriptions; those of a stored session are durable when this returns. Say which are new."""
        await self._broker.fresh()
        are_new = [one.name not in attached.subscriptions for one in wanted]
        has_rows = attached.is_stored or attached.is_claimed
        if has_rows and wanted:
            changes = Changes()
            if not attached.is_claimed and not attached.subscriptions:
                state: dict[str, Any] = {"owner": None, "expires_at": None, "expiry_s": attached.expiry_s}
                state |= {"tail": 0, "cursor": 0, "sent": 0, "will": None, "will_at": None}
                changes.run(store.ADD_IF_NEW, space=self.name, client=attached.client, epoch=1, **state)
            for one in wanted:
                row: dict[str, Any] = {
                    "filter": one.topic_filter,
                    "share": one.share,
                    "shape": shape_of(one.topic_filter),
                }
                state = {"qos": one.qos, "options": one.options}
                changes.run(store.SUBSCRIBE, space=self.name, client=attached.client, **row, **state)
            await self._commit_as(attached, changes)
        for one, is_new in zip(wanted, are_new, strict=True):
            attached.subscriptions[one.name] = one
            if has_rows and is_new:
                self._router.stored_shapes.add(shape_of(one.topic_filter))
            elif not has_rows and not attached.is_over and self.rules.routes:
                self._router.add(attached, one)
        if has_rows and wanted:
            self._router.stored_changed()
            await self._broker.made_known(self, {shape_of(one.topic_filter) for one in wanted})
        return are_new

    async def unsubscribe(self, attached: Attached, names: Iterable[str]) -> list[bool]:
        """Take filters out by their exact text, and say which were there."""
        await self._broker.fresh()
        found = [attached.subscriptions.get(name) for name in names]
        gone = [one for one in found if one is not None]
        has_rows = attached.is_stored or attached.is_claimed
        if has_rows and gone:
            changes = Changes()
            for one in gone:
                row: dict[str, Any] = {"filter": one.topic_filter, "share": one.share}
                changes.run(store.UNSUBSCRIBE, space=self.name, client=attached.client, **row)
            await self._commit_as(attached, changes)
        for one in gone:
            if attached.subscriptions.pop(one.name, None) is None:
                continue
            if not has_rows:
                self._router.remove(attached, one)
            elif self._broker.is_alone:
                self._router.stored_shapes.discard(shape_of(one.topic_filter))
        if has_rows and gone:
            self._router.stored_changed()
        return [one is not None for one in found]

    async def _commit_as(self, attached: Attached, changes: Changes) -> None:
        """Commit in the name of a session's connection, if it is still the one. Raise `ChangedMeanwhileError`."""
        if attached.is_claimed:
            changes.run(store.STILL_MINE, expect=1, **attached.fence)
        try:
            await self._database.commit(changes)
        except ChangedMeanwhileError:
            self.fenced(attached)
            raise

    def _unsubscribed(self, gone: Iterable[Subscription]) -> None:
        if not gone:
            return
        for one in gone if self._broker.is_alone else ():  # others may use a shape too
            self._router.stored_shapes.discard(shape_of(one.topic_filter))
        self._router.stored_changed()

    def learn_shape(self, shape: str) -> None:
        """Look for filters of this shape too: another worker has one."""
        self._router.stored_shapes.add(shape)
        self._router.stored_changed()

    async def _stored_subscriptions(self, client: str) -> dict[str, Subscription]:
        rows = await self._database.all(store.SUBSCRIPTIONS, space=self.name, client=client)
        found = [Subscription(row["filter"], row["qos"], row["options"], row["share"]) for row in rows]
        return {one.name: one for one in found}

    # ---- messages

    def publish(self, messages: Sequence[Message], done: Done) -> Awaitable[None] | None:
        """Hand messages of one publisher on, in their order; `done` is called when they are as safe as they must be.

        What is returned has to be awaited before the publisher's next ones.
        """
        place = 0
        if self._broker.is_fresh:
            find = self._router.find
            for message in messages:
                route = find(message.topic)
                if route is None or not route.is_live_only or message.retain:
                    break
                self._send_live(route, message)
                place += 1
            else:
                done(None)
                return None
        return self._publish_stored(messages[place:], done)

    def _publish_stored(self, messages: Sequence[Message], done: Done) -> Awaitable[None] | None:
        """Do what `publish` does from the first message on that somebody's stored session may get."""
        pending = Pending(done, "" if self.is_alone else self.worker)
        for place, message in enumerate(messages):
            route = self._router.find(message.topic) if self._broker.is_fresh else None
            if route is None or message.retain:
                self._not_safe(messages, pending)
                return self._publish_rest(messages[place:], pending)
            self._send(route, message, pending)
        pending.one_done()
        if not pending.is_over:
            self._not_safe(messages, pending)
        return None

    def _not_safe(self, messages: Sequence[Message], pending: Pending) -> None:
        """Note what is not safe yet: while it is not, its publisher does not begin anew elsewhere."""
        if messages and (publisher := messages[0].publisher):
            count, waiting = self._unsafe.get(publisher, (0, None))
            self._unsafe[publisher] = count + 1, waiting
            pending.then = partial(self._became_safe, publisher)

    def _became_safe(self, publisher: str) -> None:
        count, waiting = self._unsafe.pop(publisher)
        if count > 1:
            self._unsafe[publisher] = count - 1, waiting
        elif waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _until_safe(self, publisher: str) -> None:
        """Return when nothing that a client published is on its way, or it is known to have failed."""
        while publisher in self._unsafe:
            count, waiting = self._unsafe[publisher]
            waiting = waiting or asyncio.get_running_loop().create_future()
            self._unsafe[publisher] = count, waiting
            await asyncio.shield(waiting)

    async def published(self, message: Message) -> None:
        """Hand a message on; return when it is as safe as it must be, or raise why it is not."""
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(problem: BaseException | None) -> None:
            if safe.done():
                return
            if problem is None:
                safe.set_result(None)
            else:
                safe.set_exception(problem)

        if (waiting := self.publish((message,), done)) is not None:
            await waiting
        await safe

    async def _publish_rest(self, messages: Sequence[Message], pending: Pending) -> None:
        """What fails here is nobody's acknowledgement: the publisher hears of it by what is raised."""
        try:
            await self._broker.fresh()
            for message in messages:
                if message.retain:
                    await self._retain(message, pending)
                route = self._router.find(message.topic) or await self._look_up(message.topic)
                self._send(route, message, pending)
        except BaseException:
            pending.abandon()
            raise
        pending.one_done()

    async def _look_up(self, topic: str) -> Route:
        seen = self._router.changes
        wanted: dict[str, Any] = {"space": self.name, "filters": self._router.candidates(topic)}
        is_alone = self._broker.is_alone
        rows = await self._database.all(store.MATCHING if is_alone else store.MATCHING_ANYWHERE, **wanted)
        found = [(row["client"], Subscription(row["filter"], row["qos"], row["options"], row["share"])) for row in rows]
        owners = None if is_alone else {row["client"]: (row["owner"], row["expiry_s"] > 0) for row in rows}
        return self._router.looked_up(topic, found, seen, owners)

    def _send(self, route: Route, message: Message, pending: Pending) -> None:
        self._send_live(route, message)
        publisher, qos = message.publisher, message.qos
        for client, granted, options in route.stored:
            if not (options & NO_LOCAL and client == publisher):
                self._send_stored(route, (client, min(granted, qos), options), message, pending)
        for share in route.shares:
            self._send_to_one(route, share.in_turn(), message, pending)

    def _send_live(self, route: Route, message: Message) -> None:
        publisher, qos = message.publisher, message.qos
        parcel: Parcel | None = None
        for attached, granted, options in route.live:
            if options or attached.is_on_hold:
                if not (options & NO_LOCAL and attached.client == publisher):
                    attached.deliver(message, min(granted, qos), options)
                continue
            if parcel is None:
                if message.expires_at is None:
                    parcel = Parcel(message.topic, message.payload, message.properties)
                elif (parcel := self.parcel_of(message)) is None:
                    break
            attached.connection.deliver(parcel, min(granted, qos))

    def parcel_of(self, message: Message, *, retain: bool = False) -> Parcel | None:
        """Return a message as it is sent now; None when it has expired."""
        if message.expires_at is None:
            return Parcel(message.topic, message.payload, message.properties, retain=retain)
        if message.expires_at <= (now := self.now()):
            return None
        return Parcel(message.topic, message.payload, properties_at(message, now), retain=retain)

    def _send_stored(self, route: Route, to: tuple[str, int, int], message: Message, pending: Pending) -> None:
        client, qos, options = to
        owner, is_kept = route.owners.get(client, (self.worker, True))
        if qos == 0 or not self.rules.routes or not is_kept:
            if (attached := self.live.get(client)) is not None:
                attached.deliver(message, qos, options)
            elif owner not in {None, self.worker}:
                body = encode_messages([message])
                self._broker.tell(str(owner), DeliverTo(self.name, client, body, qos, options))
            return
        if message.retain and not options & RETAIN_AS_PUBLISHED:
            message = msgspec.structs.replace(message, retain=False)
        self._broker.appends.add(self, client, message, pending)

    def _send_to_one(self, route: Route, members: Sequence[Receiver], message: Message, pending: Pending) -> None:
        """A member that is connected gets it; else one whose session waits for it."""
        for client, attached, granted, options in members:
            here = attached or self.live.get(client)
            elsewhere = route.owners.get(client, (None, True))[0]
            if here is None and elsewhere is None:
                continue
            if attached is not None:
                attached.deliver(message, min(granted, message.qos), options)
            else:
                self._send_stored(route, (client, min(granted, message.qos), options), message, pending)
            return
        for client, _, granted, options in members[:1]:
            self._send_stored(route, (client, min(granted, message.qos), options), message, pending)

    @contextlib.contextmanager
    def watch(self, topic_filter: str) -> Iterator[Viewer]:
        """Show whoever looks on what is published to a filter, as to a client that has no session."""
        self._viewers += 1
        viewer = Viewer(self, f"$viewer/{self._viewers}")
        one = Subscription(topic_filter, 1)
        self._router.add(viewer, one)
        try:
            yield viewer
        finally:
            viewer.is_over = True
            self._router.remove(viewer, one)

    async def queued_after(self, client: str, after: int) -> list[tuple[int, Message]]:
        """Return what waits in a queue after a position: numbers and messages, oldest first."""
        rows = await self._database.all(
            store.QUEUED_AFTER, space=self.name, client=client, after=after, limit=_QUEUE_ROWS
        )
        found: list[tuple[int, Message]] = []
        for row in rows:
            body = row["body"] if row["body"] is not None else row["shared"]
            for number, message in enumerate(
                decode_messages(body) if body is not None else (), row["last"] - row["count"] + 1
            ):
                if number > after:
                    found.append((number, message))
        return found

    def settle_later(self, attached: Attached) -> None:
        """Note that a queue's cursor moved; it is written with the next commit, or soon."""
        self._broker.settle_later(attached)

    def is_unsettled(self, attached: Attached) -> bool:
        """Its cursor moved since it was written."""
        return attached in self._broker.unsettled

    def is_settled(self, attached: Attached) -> None:
        """Its cursor is written."""
        self._broker.unsettled.discard(attached)

    async def appended(self, client: str, messages: Sequence[Message], sender: str) -> None:
        """Queue messages that `sender`, another worker, took for a session of this one; return when it is done."""
        safe: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pending = Pending(lambda problem: safe.set_exception(problem) if problem else safe.set_result(None), sender)
        for message in messages:
            self._broker.appends.add(self, client, message, pending)
        pending.one_done()
        await safe

    def send_to(self, attached: Attached, message: Message, qos: int) -> None:
        """Send one client a message as it is, for instance what is retained when it subscribes."""
        if qos and attached.outgoing is not None:
            self._broker.appends.add(self, attached.client, message, Pending(_nobody_waits))
        else:
            attached.deliver(message, qos, RETAIN_AS_PUBLISHED)

    # ---- retained messages

    async def _retain(self, message: Message, pending: Pending) -> None:
        """Keep, replace or delete the retained message of a topic (section 3.3.1.3)."""
        place: dict[str, Any] = {"space": self.name, "topic": message.topic}
        is_there = await self._database.one(store.RETAINED, **place) is not None
        if not message.payload:
            if is_there:
                self._retained_count -= 1
                pending.expect()
                self._database.submit(Changes().run(store.FORGET, **place)).add_done_callback(pending.written)
            return
        if not is_there and self._retained_count >= self.rules.max_retained:
            limit = self.rules.max_retained
            raise RetainedFullError(limit=limit, value=2 * limit, topic=message.topic)
        self._retained_count += not is_there
        values: dict[str, Any] = {"at": self.now(), "expires_at": message.expires_at}
        values |= {"qos": message.qos, "size": len(message.payload)}
        changes = Changes().run(store.RETAIN, body=encode_messages([message]), **place, **values)
        pending.expect()
        self._database.submit(changes).add_done_callback(pending.written)

    async def retained(self, topic: str) -> tuple[Message, int] | None:
        """Return the retained message of a topic, and when it was kept in microseconds."""
        row = await self._database.one(store.RETAINED, space=self.name, topic=topic)
        if row is None or (row["expires_at"] is not None and row["expires_at"] <= self.now()):
            return None
        return decode_messages(row["body"])[0], row["at"]

    async def retained_topics(self, after: str, size: int) -> Page[Row]:
        """Return topics with size, QoS and time, in order; what expired is left out, and may leave a page short."""
        rows = await self._database.all(store.RETAINED_PAGE, space=self.name, after=after, limit=size + 1)
        page, now = page_of(rows, size, [str(row["topic"]) for row in rows]), self.now()
        return Page([row for row in page.items if row["expires_at"] is None or row["expires_at"] > now], page.last)


def _nobody_waits(problem: BaseException | None) -> None:
    del problem


def record_of(row: Row) -> Record:
    """Return the record of a row."""
    return Record(
        row["epoch"],
        row["owner"],
        row["expires_at"],
        row["expiry_s"],
        row["tail"],
        row["cursor"],
        row["sent"],
        row["will"],
        row["will_at"],
    )
