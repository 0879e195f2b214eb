"""Messages of one space on their way: to live connections at once, into the queues of stored sessions, to viewers.

What a client published and is not safe yet is known here: its next connection waits for it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from birthmark.broker import store
from birthmark.broker.appends import Pending
from birthmark.broker.attached import Attached
from birthmark.broker.model import (
    NO_LOCAL,
    RETAIN_AS_PUBLISHED,
    Done,
    Message,
    Subscription,
    encode_messages,
    properties_at,
)
from birthmark.broker.requests import DeliverTo
from birthmark.broker.routing import NOWHERE, Receiver, Route, Router
from birthmark.broker.viewing import Viewer
from birthmark.broker.waiting import until_done
from birthmark.mqtt.parcel import Parcel
from birthmark.store.database import Row

if TYPE_CHECKING:
    from birthmark.broker.broker import Broker
    from birthmark.broker.space import Space


class Messages:
    """See the module."""

    def __init__(self, broker: "Broker", space: "Space", router: Router) -> None:
        self._broker = broker
        self._database = broker.database
        self._space = space
        self._router = router
        self._viewers = 0
        self._unsafe: dict[str, tuple[int, asyncio.Future[None] | None]] = {}

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
        pending = Pending(done, "" if self._space.is_alone else self._space.worker)
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

    async def until_safe(self, publisher: str) -> None:
        """Return when nothing that a client published is on its way, or it is known to have failed."""
        while publisher in self._unsafe:
            count, waiting = self._unsafe[publisher]
            waiting = waiting or asyncio.get_running_loop().create_future()
            self._unsafe[publisher] = count, waiting
            await asyncio.shield(waiting)

    def may_hear(self, topic: str) -> bool:
        """Say False when certainly nobody would get a message to this topic."""
        return not self._broker.is_fresh or self._router.find(topic) is not NOWHERE

    def unsafe_until(self, waiting: Awaitable[None], message: Message) -> Coroutine[Any, Any, None]:
        """Note that a message is not safe until this is over; return what waits for that."""
        pending = Pending(_nobody_waits)
        self._not_safe((message,), pending)
        return _until_told(waiting, pending)

    async def published(self, message: Message) -> None:
        """Hand a message on; return when it is as safe as it must be, or raise why it is not."""
        safe, done = until_done()
        if (waiting := self.publish((message,), done)) is not None:
            await waiting
        await safe

    async def _publish_rest(self, messages: Sequence[Message], pending: Pending) -> None:
        """What fails here is nobody's acknowledgement: the publisher hears of it by what is raised."""
        try:
            await self._broker.fresh()
            for message in messages:
                if message.retain:
                    await self._space.retained.keep(message, pending)
                route = self._router.find(message.topic) or await self._look_up(message.topic)
                self._send(route, message, pending)
        except BaseException:
            pending.abandon()
            raise
        pending.one_done()

    async def _look_up(self, topic: str) -> Route:
        seen = self._router.changes
        wanted: dict[str, Any] = {"space": self._space.name, "filters": self._router.candidates(topic)}
        is_alone = self._broker.is_alone
        rows = await self._database.all(store.MATCHING if is_alone else store.MATCHING_ANYWHERE, **wanted)
        rows = sorted(rows, key=_client_of)  # the members of a share stand in the same order for every worker
        found = list(_subscribed(rows))
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
        if message.expires_at <= (now := self._space.now()):
            return None
        return Parcel(message.topic, message.payload, properties_at(message, now), retain=retain)

    def _send_stored(self, route: Route, to: tuple[str, int, int], message: Message, pending: Pending) -> None:
        client, qos, options = to
        owner, is_kept = route.owners.get(client, (self._space.worker, True))
        if qos == 0 or not self._space.rules.routes or not is_kept:
            if (attached := self._space.live.get(client)) is not None:
                attached.deliver(message, qos, options)
            elif owner not in {None, self._space.worker}:
                body = encode_messages([message])
                self._broker.tell(str(owner), DeliverTo(self._space.name, client, body, qos, options))
            return
        if message.retain and not options & RETAIN_AS_PUBLISHED:
            message = msgspec.structs.replace(message, retain=False)
        self._broker.appends.add(self._space, client, message, pending)

    def _send_to_one(self, route: Route, members: Sequence[Receiver], message: Message, pending: Pending) -> None:
        """A member that is connected gets it; else one whose session waits for it."""
        for client, attached, granted, options in members:
            here = attached or self._space.live.get(client)
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
        viewer = Viewer(self._space, f"\0viewer/{self._viewers}")  # no client has U+0000 in its id
        one = Subscription(topic_filter, 1)
        self._router.add(viewer, one)
        try:
            yield viewer
        finally:
            viewer.is_over = True
            self._router.remove(viewer, one)

    async def appended(self, client: str, messages: Sequence[Message], sender: str) -> None:
        """Queue messages that `sender`, another worker, took for a session of this one; return when it is done."""
        safe, done = until_done()
        pending = Pending(done, sender)
        for message in messages:
            self._broker.appends.add(self._space, client, message, pending)
        pending.one_done()
        await safe

    def send_to(self, attached: Attached, message: Message, qos: int) -> None:
        """Send one client a message as it is, for instance what is retained when it subscribes."""
        if qos and attached.outgoing is not None:
            self._broker.appends.add(self._space, attached.client, message, Pending(_nobody_waits))
        else:
            attached.deliver(message, qos, RETAIN_AS_PUBLISHED)


def _subscribed(rows: Sequence[Row]) -> Iterator[tuple[str, Subscription]]:
    """Yield clients with what each asked for: one value for all that asked for the same."""
    same: dict[tuple[str, int, int, str], Subscription] = {}
    for row in rows:
        asked = row["filter"], row["qos"], row["options"], row["share"]
        if (one := same.get(asked)) is None:
            one = same[asked] = Subscription(*asked)
        yield row["client"], one


def _client_of(row: Row) -> str:
    return str(row["client"])


async def _until_told(waiting: Awaitable[None], pending: Pending) -> None:
    try:
        await waiting
    finally:
        pending.one_done()


def _nobody_waits(problem: BaseException | None) -> None:
    del problem
