"""Delivery of a namespace's messages: to live connections, queues of stored sessions, and monitors.

It tracks messages of a client that are not durable yet; the client's next connection waits for them.
"""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Generator, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from birthmark.broker import store
from birthmark.broker.broker_context import BrokerContext
from birthmark.broker.bus_requests import LiveMessage
from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.message_monitor import Viewer
from birthmark.broker.model import (
    NO_LOCAL,
    RETAIN_AS_PUBLISHED,
    BrokerMessage,
    Done,
    Subscription,
    encode_messages,
    properties_at,
)
from birthmark.broker.ports import PublishListener
from birthmark.broker.publisher_backpressure import ROW_BYTES
from birthmark.broker.retained_messages import RetainedMessages
from birthmark.broker.session_queue_writer import PendingAppend
from birthmark.broker.topic_router import (
    NOWHERE,
    PORTION,
    Owner,
    Receiver,
    RouteLookup,
    SharedSubscription,
    StoredRow,
    TopicRoute,
    TopicRouter,
    portions,
    run_steps,
    weight_of,
)
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.fair_scheduler import Backlog, Slices
from birthmark.store.database import Row

Away: TypeAlias = defaultdict[str, list[tuple[str, int, int]]]
"""Receivers on other workers: client, QoS and options by worker."""
_FEW = 64  # up to this many matching subscriptions are read at once, more by page


class MessagePublisher:
    """Delivers the messages of a namespace."""

    def __init__(
        self,
        broker: BrokerContext,
        space: SessionNamespace,
        router: TopicRouter,
        retained: RetainedMessages,
        tap: PublishListener | None = None,
    ) -> None:
        """Create a publisher; `tap` observes everything that is published here."""
        self._broker = broker
        self._retained = retained
        self._database = broker.database
        self._space = space
        self._router = router
        self._viewers = 0
        self._backlog = Backlog.running()
        self._reading = asyncio.Lock()
        self._unsafe: dict[str, tuple[int, asyncio.Future[None] | None]] = {}
        self._tap = tap

    def publish(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        """Deliver a publisher's messages in order; call `done` when they meet their durability requirement.

        Await the result before the publisher's next messages.
        """
        if self._tap is None or (tapped := self._tap.take(messages, done)) is None:
            return self.hand_on(messages, done)
        done, room = tapped
        waiting = self.hand_on(messages, done)
        return waiting if room is None else _after_both(room, waiting)

    def hand_on(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        """Deliver messages as `publish` does, without the tap."""
        place, left = 0, PORTION
        if self._broker.is_fresh:
            find = self._router.find
            for message in messages:
                route = find(message.topic)
                if (
                    route is None
                    or not route.is_live_only
                    or message.retain
                    or (left := left - route.cost_of(message)) < 0
                ):
                    break
                self._send_live(route.live, message)
                place += 1
            else:
                done(None)
                return None
        return self._publish_stored(messages[place:], done)

    def _publish_stored(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        """Deliver messages from the first one for a stored session or a large fan-out."""
        pending, left = PendingAppend(done, "" if self._space.is_alone else self._space.worker), PORTION
        broker, owner, weight = self._broker, self._owner_of(messages[0]) if messages else "", 0
        is_full = broker.unwritten.wait_for_space(owner) is not None
        for place, message in enumerate(messages):
            route = self._router.find(message.topic) if broker.is_fresh else None
            if route is None or is_full or message.retain or (left := left - route.cost_of(message)) < 0:
                self._track_pending(messages, pending)
                return self._publish_rest(messages[place:], pending)
            if not route.is_live_only:
                size = message.size if message.properties else len(message.payload)
                weight += size + ROW_BYTES * route.rows
            self._send(route, message, pending)
        pending.complete_one()
        if not pending.is_over:
            self._track_pending(messages, pending, owner, weight)
        return broker.in_flight.wait_for_space(owner) if broker.in_flight else broker.unwritten.wait_for_space(owner)

    def _track_pending(
        self, messages: Sequence[BrokerMessage], pending: PendingAppend, owner: str = "", weight: int = 0
    ) -> None:
        """Track messages that are not durable yet.

        Until they are durable, the publisher cannot open a new session elsewhere, and `weight` counts against `owner`.
        Messages of the cloud service have no owner.
        """
        publisher = messages[0].publisher if messages else ""
        if publisher:
            count, waiting = self._unsafe.get(publisher, (0, None))
            self._unsafe[publisher] = count + 1, waiting
        if not owner:
            weight = 0
        if weight:
            self._broker.unwritten.add(owner, weight)
        if publisher or weight:
            pending.when_over(self._became_safe, publisher, owner, weight)

    def _became_safe(self, publisher: str, owner: str, weight: int) -> None:
        if weight:
            self._broker.unwritten.remove(owner, weight)
        if not publisher:
            return
        count, waiting = self._unsafe.pop(publisher)
        if count > 1:
            self._unsafe[publisher] = count - 1, waiting
        elif waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def until_safe(self, publisher: str) -> None:
        """Wait until all messages of a client are durable or have failed."""
        while publisher in self._unsafe:
            count, waiting = self._unsafe[publisher]
            waiting = waiting or asyncio.get_running_loop().create_future()
            self._unsafe[publisher] = count, waiting
            await asyncio.shield(waiting)

    def may_have_subscribers(self, topic: str) -> bool:
        """Return False if the topic certainly has no receivers."""
        if self._tap is not None and self._tap.wants(topic):
            return True
        return not self._broker.is_fresh or self._router.find(topic) is not NOWHERE

    def track_until(self, waiting: Awaitable[None], message: BrokerMessage) -> Coroutine[Any, Any, None]:
        """Track a message as not durable until `waiting` completes; return a coroutine that waits for it."""
        pending = PendingAppend(_ignore_result)
        self._track_pending((message,), pending)
        return _until_told(waiting, pending)

    async def publish_one(self, message: BrokerMessage) -> None:
        """Deliver a message; return when it meets its durability requirement, or raise the error."""
        safe, done = until_done()
        if (waiting := self.publish((message,), done)) is not None:
            await waiting
        await safe

    async def _publish_rest(self, messages: Sequence[BrokerMessage], pending: PendingAppend) -> None:
        """Deliver the remaining messages; errors reach the publisher as exceptions, not as acknowledgements."""
        try:
            await self._broker.wait_until_fresh()
            left = PORTION
            for message in messages:
                owner = self._owner_of(message)
                while (
                    no_room := self._broker.unwritten.wait_for_space(owner)
                ) is not None:  # many waiters are possible
                    await no_room
                part = pending.add_part()
                try:
                    left = await self._publish_one(message, owner, part, left)
                finally:
                    part.complete_one()
                if (no_room := self._broker.in_flight.wait_for_space(owner)) is not None:
                    await no_room
        except BaseException:
            pending.abandon()
            raise
        pending.complete_one()

    async def _publish_one(self, message: BrokerMessage, owner: str, part: PendingAppend, left: int) -> int:
        """Deliver a message; return how many more receivers this time slice may serve."""
        if message.retain:
            await self._retained.keep(message, part)
        if not self._broker.is_fresh:
            await self._broker.wait_until_fresh()
        route = self._router.find(message.topic) or await self._look_up(message.topic, owner)
        if owner and not route.is_live_only:
            weight = message.size + ROW_BYTES * route.rows
            self._broker.unwritten.add(owner, weight)
            part.when_over(self._broker.unwritten.remove, owner, weight)
        if (left := left - route.cost_of(message)) < 0:
            await self._backlog.run_in_turns(self._sending(route, message, part), owner)
            return PORTION
        self._send(route, message, part)
        return left

    def _owner_of(self, message: BrokerMessage) -> str:
        """Return the owner of a message's time slices: its ordering key or client.

        It is empty for the cloud service.
        """
        if message.principal:
            return message.principal
        publisher = self._space.live.get(message.publisher)
        return (publisher.principal if publisher is not None else "") or message.publisher

    async def _look_up(self, topic: str, owner: str) -> TopicRoute:
        """Return the route of a topic; large lookups are paged and run in the owner's time slices."""
        read = _Read(self._router.changes, self._router.known(topic))
        if read.found is None:
            read = await self._read(topic)
        found = read.found or RouteLookup(frozenset(read.filters), read.rows, read.owners)
        steps = self._router.build_route_steps(topic, found, read.seen)
        if self._router.size_of(topic, found) <= PORTION:
            return run_steps(steps)
        return await self._backlog.run_in_turns(steps, owner)

    async def _read(self, topic: str) -> "_Read":
        """Read the stored subscriptions that match a topic."""
        read, filters, is_alone = _Read(self._router.changes), self._router.candidates(topic), self._broker.is_alone
        wanted: dict[str, Any] = {"space": self._space.name, "filters": json.dumps(filters), "limit": _FEW + 1}
        rows = await self._database.all(store.MATCHING if is_alone else store.MATCHING_ANYWHERE, **wanted)
        if len(rows) > _FEW:
            async with self._reading:
                return await self._read_many(topic, filters)
        read.add(
            sorted(rows, key=_client_of), with_owners=not is_alone
        )  # share members have the same order on every worker
        return read

    async def _read_many(self, topic: str, filters: Sequence[str]) -> "_Read":
        """Read a large number of stored subscriptions by page, unless another task did so."""
        is_alone, slices, find = self._broker.is_alone, Slices(1), self._database.all
        statement = store.MATCHING_PAGE if is_alone else store.MATCHING_PAGE_ANYWHERE
        read = _Read(self._router.changes, self._router.known(topic))
        if read.found is not None:
            return read
        wanted: dict[str, Any] = {"space": self._space.name}
        in_use = []
        for one in filters:
            if await find(statement, **wanted, filter=one, client="", share="", limit=1):
                in_use.append(one)
            await slices.step()
        if (known := self._router.found(frozenset(in_use))) is not None:
            return _Read(read.seen, known)
        for one in in_use:
            after, is_more = {"client": "", "share": ""}, True
            while is_more:
                page = await find(statement, **wanted, filter=one, **after, limit=PORTION)
                read.add(page, with_owners=not is_alone)
                if is_more := len(page) == PORTION:
                    after = {name: page[-1][name] for name in after}
                await slices.step()
        return read

    def _send(self, route: TopicRoute, message: BrokerMessage, pending: PendingAppend) -> None:
        """Deliver a message to the receivers of a route that fits into one portion."""
        if route.live:
            self._send_live(route.live, message)
        if route.is_live_only:
            return
        away: Away = defaultdict(list)
        self._send_all_stored(route, route.stored, message, pending, away)
        for share in route.shares:
            run_steps(self._sending_to_one(route, share, message, pending, away))
        if away:
            self._send_away(message, away)

    def _sending(
        self, route: TopicRoute, message: BrokerMessage, pending: PendingAppend
    ) -> Generator[None, None, None]:
        """Deliver a message to a portion of the receivers per step."""
        away: Away = defaultdict(list)
        for live in portions(route.live, weight_of(message)):
            self._send_live(live, message)
            yield
        for stored in portions(route.stored, weight_of(message)):
            self._send_all_stored(route, stored, message, pending, away, is_for_many=route.size > PORTION)
            yield
        for share in route.shares:
            yield from self._sending_to_one(route, share, message, pending, away)
        if away:
            self._send_away(message, away)

    def _send_away(self, message: BrokerMessage, away: Away) -> None:
        """Forward a message to other workers for their connected clients without stored sessions."""
        body, owner = encode_messages([message]), self._owner_of(message)
        for worker, clients in away.items():
            self._broker.across.send(worker, LiveMessage(self._space.name, tuple(clients), body), owner)

    def _send_all_stored(
        self,
        route: TopicRoute,
        stored: Sequence[tuple[str, int, int]],
        message: BrokerMessage,
        pending: PendingAppend,
        away: Away,
        *,
        is_for_many: bool = False,
    ) -> None:
        publisher, qos, space = message.publisher, message.qos, self._space
        is_plain = bool(qos) and not route.owners and not message.retain and space.rules.routes
        for client, granted, options in stored:
            if options & NO_LOCAL and client == publisher:
                continue
            if is_plain and granted:  # usual case
                self._broker.appends.add(space, client, message, pending, is_for_many=is_for_many)
            else:
                to = client, min(granted, qos), options
                self._send_stored(route, to, message, pending, away, is_for_many=is_for_many)

    def _send_live(self, live: Sequence[tuple[ConnectedSession, int, int]], message: BrokerMessage) -> None:
        publisher, qos = message.publisher, message.qos
        parcel: EncodedMessage | None = None
        for attached, granted, options in live:
            if options or attached.is_on_hold:
                if not (options & NO_LOCAL and attached.client == publisher):
                    attached.deliver(message, min(granted, qos), options)
                continue
            if parcel is None:
                if message.expires_at is None:
                    parcel = EncodedMessage(message.topic, message.payload, message.properties)
                elif (parcel := self.parcel_of(message)) is None:
                    break
            attached.connection.deliver(parcel, min(granted, qos))

    def parcel_of(self, message: BrokerMessage, *, retain: bool = False) -> EncodedMessage | None:
        """Return a message encoded for sending now, or None if it has expired."""
        if message.expires_at is None:
            return EncodedMessage(message.topic, message.payload, message.properties, retain=retain)
        if message.expires_at <= (now := self._space.now()):
            return None
        return EncodedMessage(message.topic, message.payload, properties_at(message, now), retain=retain)

    def _send_stored(
        self,
        route: TopicRoute,
        to: tuple[str, int, int],
        message: BrokerMessage,
        pending: PendingAppend,
        away: Away,
        *,
        is_for_many: bool = False,
    ) -> None:
        client, qos, options = to
        owner, is_kept = route.owners.get(client, (self._space.worker, True))
        if qos == 0 or not self._space.rules.routes or not is_kept:
            if (attached := self._space.live.get(client)) is not None:
                attached.deliver(message, qos, options)
            elif owner not in {None, self._space.worker}:
                away[str(owner)].append(to)
            return
        if message.retain and not options & RETAIN_AS_PUBLISHED:
            message = msgspec.structs.replace(message, retain=False)
        self._broker.appends.add(self._space, client, message, pending, is_for_many=is_for_many)

    def _sending_to_one(
        self, route: TopicRoute, share: SharedSubscription, message: BrokerMessage, pending: PendingAppend, away: Away
    ) -> Generator[None, None, None]:
        """Deliver to one member of a shared subscription.

        A connected, authorized member takes precedence over a stored session.
        """
        arrivals = self._space.arrivals
        first: Receiver | None = None
        is_denied = False
        for count, member in enumerate(share.in_turn(arrivals), 1):
            client, attached, granted, options = member
            here = attached or self._space.live.get(client)
            if here is not None and not here.connection.may_get(message.topic):
                is_denied = True
            elif attached is not None:
                attached.deliver(message, min(granted, message.qos), options)
                return
            elif here is not None or route.owners.get(client, (None, True))[0] is not None:
                self._send_stored(route, (client, min(granted, message.qos), options), message, pending, away)
                return
            else:
                first = first or member
            if not count % PORTION:
                yield
        if not is_denied:  # a later permission is not an arrival
            share.note_absence(arrivals)
        if first is not None:
            client, _, granted, options = first
            self._send_stored(route, (client, min(granted, message.qos), options), message, pending, away)

    @contextlib.contextmanager
    def watch(self, topic_filter: str) -> Iterator[Viewer]:
        """Monitor the messages published to a filter, like a client without a session."""
        self._viewers += 1
        viewer = Viewer(self._space, f"\0viewer/{self._viewers}")  # client IDs never have U+0000
        one = Subscription(topic_filter, 1)
        self._router.add(viewer, one)
        try:
            yield viewer
        finally:
            self._router.remove(viewer, one)

    def deliver_forwarded(
        self, message: BrokerMessage, clients: Sequence[tuple[str, int, int]]
    ) -> asyncio.Future[None]:
        """Deliver a message that another worker accepted for clients of this one, in the publisher's order."""
        return self._backlog.run_in_turns(self._delivering(message, clients), self._owner_of(message))

    def _delivering(
        self, message: BrokerMessage, clients: Sequence[tuple[str, int, int]]
    ) -> Generator[None, None, None]:
        for some in portions(clients, weight_of(message)):
            for client, qos, options in some:
                if (attached := self._space.live.get(client)) is not None:
                    attached.deliver(message, qos, options)
            yield

    async def append_forwarded(self, client: str, messages: Sequence[BrokerMessage], sender: str) -> None:
        """Queue messages that worker `sender` accepted for a session of this one.

        Return when they are durable.
        """
        safe, done = until_done()
        pending = PendingAppend(done, sender)
        for message in messages:
            self._broker.appends.add(self._space, client, message, pending)
        pending.complete_one()
        await safe

    def send_to(self, attached: ConnectedSession, message: BrokerMessage, qos: int) -> None:
        """Send a client a message unchanged, for example a retained message on subscribe."""
        if qos and attached.outgoing is not None:
            self._broker.appends.add(self._space, attached.client, message, PendingAppend(_ignore_result))
        else:
            attached.deliver(message, qos, RETAIN_AS_PUBLISHED)


class _Read:
    """Rows read for a topic at the router's `changes` count `seen`, or the known result `found`."""

    def __init__(self, seen: int, lookup: RouteLookup | None = None) -> None:
        self.seen = seen
        self.found = lookup
        self.filters: set[str] = set()
        self.rows: list[StoredRow] = []
        self.owners: dict[str, Owner] = {}
        self._same: dict[tuple[str, int, int, str], Subscription] = {}

    def add(self, rows: Sequence[Row], *, with_owners: bool) -> None:
        """Add rows; identical subscription values are shared."""
        for row in rows:
            asked = row["filter"], row["qos"], row["options"], row["share"]
            if (one := self._same.get(asked)) is None:
                one = self._same[asked] = Subscription(*asked)
                self.filters.add(one.topic_filter)
            self.rows.append((row["client"], one))
            if with_owners:
                self.owners[row["client"]] = row["owner"], row["expiry_s"] > 0


def _client_of(row: Row) -> str:
    return str(row["client"])


async def _until_told(waiting: Awaitable[None], pending: PendingAppend) -> None:
    try:
        await waiting
    finally:
        pending.complete_one()


async def _after_both(room: Awaitable[None], waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        await waiting
    await room


def _ignore_result(problem: BaseException | None) -> None:
    del problem
