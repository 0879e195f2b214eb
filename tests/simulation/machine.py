"""Clients on simulated workers, beside a model that says what must and must not happen."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from birthmark.broker import Arrival, Broker, ConnectedSession, Namespace, SpaceRules
from birthmark.broker.model import NEVER, BrokerMessage, Will, subscription_of
from birthmark.broker.rules.leases import BEAT_S
from birthmark.broker.worker_leases import keep_beating, run_failure_detector_loop
from birthmark.errors import BirthmarkError
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Database, Event
from simulation.virtual import GatedDatabase, VirtualBus, VirtualTimers, World

RULES = SpaceRules(max_waiting=100_000)


class Revoked(Event, frozen=True, tag="simulation.revoked"):
    """A client may do nothing any more."""

    client: str

    @property
    def entity(self) -> str:
        return self.client


class Connection:
    """One client's connection to one worker, as the client sees it."""

    def __init__(self, client: "Client", worker: "Worker", number: int) -> None:
        self.client = client
        self.worker = worker
        self.number = number
        self.attached: ConnectedSession | None = None
        self.is_open = False  # CONNACK came
        self.is_over = False
        self.is_replaced = False  # another connection of this client got its CONNACK
        self.unacknowledged: list[int] = []
        self.subscribed = False
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.taken.set_result(None)

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        self._got(parcel)

    def may_get(self, topic: str) -> bool:
        return True

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        self._got(parcel)
        self.unacknowledged.append(packet_id)
        return True

    async def wait_released(self) -> None: ...

    def end(self, reason: CloseReason) -> None:
        self.is_over = True

    def _got(self, parcel: EncodedMessage) -> None:
        if not self.is_over:
            self.client.got.append(parcel.payload.decode())


@dataclass
class Client:
    """A client id, and everything that ever reached it."""

    name: str
    got: list[str] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    sent: int = 0
    acknowledged: list[str] = field(default_factory=list)


class Observer:
    """A cloud that has nothing to add."""

    def __init__(self) -> None:
        self.space: Namespace | None = None

    def connected(self, attached: ConnectedSession) -> None: ...

    def disconnected(self, attached: ConnectedSession, reason: CloseReason) -> None: ...

    def lost(self, client: str, epoch: int) -> None: ...

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        return None

    def overrun(self, client: str, limit: int) -> None:
        raise AssertionError(f"{client} is overrun")


class Worker:
    """One incarnation of a worker."""

    def __init__(self, world: World, name: str, inner: Database) -> None:
        self.world = world
        self.name = name
        self.bus = VirtualBus(world, name)
        world.buses[name] = self.bus
        self.database = GatedDatabase(world, name, inner)
        self.timers = VirtualTimers(world, name)
        self.broker = Broker(cast("Database", self.database), world.clock, name, self.bus, self.timers)
        self.tasks: set[asyncio.Task[None]] = set()
        self.space: Namespace
        self.is_ready = False
        assert self.broker.workers is not None
        self.workers = self.broker.workers
        self.bus.is_alive = self._is_alive
        self.bus.others = self.workers.others
        self.bus.on(Revoked, self._forget)
        self._allowed: set[str] = set()  # what it remembers of the database
        self._changes = 0
        self.run(self._start())

    async def _is_alive(self, worker: str) -> bool:
        return not await self.workers.is_gone(worker)

    def may_now(self, client: str) -> bool:
        """Say whether it remembers that a client may act, and may act on that."""
        return self.broker.is_fresh and client in self._allowed

    async def may(self, client: str) -> bool:
        """Say whether a client may act, as the database has it."""
        while not self.may_now(client):
            await self.broker.wait_until_fresh()
            seen = self._changes
            if await self.world.ask_for(self.name, "read", partial(self._is_revoked, client)):
                return False
            if seen == self._changes:  # else it may be what was read before a change
                self._allowed.add(client)
        return True

    async def revoke(self, client: str) -> None:
        """Take back what a client may; return when no worker lets it act any more."""
        await self.world.ask_for(self.name, "commit", partial(self._keep_revoked, client))
        await self.bus.confirm(Revoked(client))

    async def _is_revoked(self, client: str) -> bool:
        return client in self.world.revoked

    async def _keep_revoked(self, client: str) -> None:
        self.world.revoked.add(client)

    def _forget(self, revoked: Revoked) -> None:
        self._changes += 1
        self._allowed.discard(revoked.client)
        if (attached := self.space.live.get(revoked.client) if self.is_ready else None) is not None:
            attached.connection.end(CloseReason.ADMINISTRATIVE)
            self.space.disconnect(attached, CloseReason.ADMINISTRATIVE, with_will=False)

    async def _start(self) -> None:
        await self.broker.load()
        self.space = self.broker.space("test", RULES, Observer())
        await self.broker.start()
        self.is_ready = True
        self.run(
            run_failure_detector_loop(self.workers, self.timers)
        )  # beside the beat, as a server does: a look waits for others
        await keep_beating(self.workers, self.timers)

    def run(self, waiting: Awaitable[None]) -> None:
        async def quietly() -> None:
            try:
                await waiting
            except BirthmarkError:
                pass

        task = asyncio.ensure_future(quietly())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def kill(self) -> None:
        """End without a word."""
        self.world.kill(self.name)
        for task in (*self.tasks, *self.bus.tasks, *self.broker._tasks):
            task.cancel()
        await self.world.settle()


class Fleet:
    """Workers and clients."""

    def __init__(self, databases: list[Database]) -> None:
        self.world = World()
        self._databases = databases
        self._starts = 0
        self.workers: list[Worker | None] = [None] * len(databases)
        self.clients: dict[str, Client] = {}
        self.violations: list[str] = []
        self.revoked: set[str] = set()  # those of whom a revocation was confirmed
        self.allowed_again: Counter[str] = Counter()

    def client(self, name: str) -> Client:
        return self.clients.setdefault(name, Client(name))

    async def start(self, place: int) -> None:
        """Start the worker of a place, anew."""
        self._starts += 1
        self.workers[place] = Worker(self.world, f"w{place}.{self._starts}", self._databases[place])
        await self.world.settle()

    async def kill(self, place: int) -> None:
        worker, self.workers[place] = self.workers[place], None
        if worker is None:
            return
        for client in self.clients.values():
            for connection in client.connections:
                if connection.worker is worker:
                    connection.is_over = True
        await worker.kill()

    async def connect(self, name: str, place: int, *, expiry_s: int = NEVER, clean: bool = False) -> Connection | None:
        """Begin to connect."""
        worker, client = self.workers[place], self.client(name)
        if worker is None or not worker.is_ready:
            return None
        connection = Connection(client, worker, len(client.connections))
        client.connections.append(connection)

        async def go() -> None:
            try:
                if not await worker.may(name):
                    connection.is_over = True
                    return
                attached = await worker.space.connect(Arrival(name, connection, clean, expiry_s, None, 10))
                if not worker.may_now(name) and not await worker.may(name):  # nobody told one that was not there
                    connection.is_over = True
                    worker.space.disconnect(attached, CloseReason.ADMINISTRATIVE, with_will=False)
                    return
            except BirthmarkError:
                connection.is_over = True
                raise
            connection.attached = attached
            if attached.is_over:
                connection.is_over = True
                return
            connection.is_open, connection.is_replaced = True, False
            for other in client.connections:
                if other is not connection:
                    other.is_replaced = True
            attached.resume()

        worker.run(go())
        await self.world.settle()
        return connection

    def open_connections(self, name: str) -> list[Connection]:
        return [c for c in self.client(name).connections if c.is_open and not c.is_over and c.worker in self.workers]

    async def publish(self, connection: Connection, topic: str, count: int) -> None:
        """Send messages; when they are acknowledged is noted."""
        client = connection.client
        texts = [f"{client.name}.{number}" for number in range(client.sent, client.sent + count)]
        client.sent += count
        was_replaced, was_revoked = connection.is_replaced, client.name in self.revoked

        def done(problem: BaseException | None) -> None:
            if problem is not None or connection.is_over:
                connection.is_over = True
                return
            if was_replaced:
                self.violations.append(f"{client.name}/{connection.number} had an effect after it was replaced")
            if was_revoked:
                self.violations.append(f"{client.name}/{connection.number} had an effect after it was revoked")
            client.acknowledged.extend(texts)

        messages = [BrokerMessage(topic, text.encode(), 1, publisher=client.name) for text in texts]
        before, connection.taken = connection.taken, asyncio.get_running_loop().create_future()
        taken = connection.taken

        async def go() -> None:
            """A connection's packets are taken one after the other."""
            try:
                await before
                if not await self._may_publish(connection):
                    return
                waiting = connection.worker.space.messages.publish(messages, done)
                if waiting is not None:
                    await waiting
            except BirthmarkError:
                connection.is_over = True
                raise
            finally:
                if not taken.done():  # whoever waits for it may have been killed
                    taken.set_result(None)

        connection.worker.run(go())
        await self.world.settle()

    async def _may_publish(self, connection: Connection) -> bool:
        name, worker = connection.client.name, connection.worker
        if not connection.is_over and not worker.may_now(name) and not await worker.may(name):
            connection.is_over = True
        return not connection.is_over

    async def revoke(self, name: str, place: int) -> None:
        """Begin to revoke a client, on one worker; when it is confirmed is noted."""
        worker = self.workers[place]
        if worker is None or not worker.is_ready:
            return

        times_allowed = self.allowed_again[name]

        async def go() -> None:
            await worker.revoke(name)
            if self.allowed_again[name] == times_allowed:  # else another has the name by now
                self.revoked.add(name)

        worker.run(go())
        await self.world.settle()

    def allow_again(self, name: str) -> None:
        """Let another have the name of one that was revoked."""
        self.allowed_again[name] += 1
        self.revoked.discard(name)
        self.world.revoked.discard(name)

    async def subscribe(self, connection: Connection, name: str) -> None:
        async def go() -> None:
            assert connection.attached is not None
            await connection.worker.space.subscriptions.subscribe(connection.attached, [subscription_of(name, 1)])
            connection.subscribed = not connection.is_over

        connection.worker.run(go())
        await self.world.settle()

    async def acknowledge(self, connection: Connection, count: int | None = None) -> None:
        some, connection.unacknowledged = connection.unacknowledged[:count], connection.unacknowledged[count or 10**9 :]
        for packet_id in some:
            if connection.attached is not None and not connection.is_over:
                connection.attached.acknowledge((packet_id,))
        await self.world.settle()

    async def disconnect(self, connection: Connection) -> None:
        connection.is_over = True
        if connection.attached is not None:
            connection.worker.space.disconnect(connection.attached, CloseReason.DISCONNECT, with_will=False)
        await self.world.settle()

    # ---- until nothing is left to do

    async def calm(self, rounds: int = 40) -> None:
        """Let everything happen, and time pass, until the workers that live agree."""
        for _ in range(rounds):
            await self.world.drain()
            await self.world.pass_time(BEAT_S)

    async def live_on(self, seconds: float) -> None:
        """Let time pass and everything happen in time."""
        while seconds > 0:
            await self.world.drain()
            await self.world.pass_time(min(0.2, seconds))
            seconds -= 0.2
        await self.world.drain()

    async def recovered(self) -> None:
        """Start whoever is dead, let whoever is stopped go on, and wait."""
        self.world.stopped.clear()
        await self.calm(4)
        for place, worker in enumerate(self.workers):
            if worker is None or not worker.workers.is_fresh:
                await self.kill(place)
                await self.start(place)
        await self.calm(12)

    async def collected(self, name: str) -> list[str]:
        """Let a client come back and take everything that waits for it; return all it ever got."""
        place = next(place for place, worker in enumerate(self.workers) if worker is not None)
        for _ in range(5):
            connection = await self.connect(name, place)
            assert connection is not None
            await self.until(settled_one(connection))
            if connection.is_open and not connection.is_over:
                break
        else:
            raise AssertionError(f"{name} cannot come back")
        before = -1
        while before != len(self.client(name).got) or connection.unacknowledged:
            before = len(self.client(name).got)
            await self.acknowledge(connection)
            await self.world.drain()
            await self.world.pass_time(0.2)
        return self.client(name).got

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(60):
            await self.world.drain()
            if condition():
                return
            await self.world.pass_time(0.1)
        raise AssertionError(f"it never came to that: {self.world.pending[:5]}")

    def check(self, name: str, publishers: dict[str, list[str]]) -> None:
        """What a subscriber of everything must have: all that was acknowledged after it subscribed, in order.

        What was not acknowledged its publisher gave up with its connection: a worker that was stopped may have it yet.
        """
        assert not self.violations, self.violations
        first: defaultdict[str, list[int]] = defaultdict(list)
        seen, promised = set[str](), {text for owed in publishers.values() for text in owed}
        for text in self.client(name).got:
            if text not in seen:
                seen.add(text)
                publisher, number = text.rsplit(".", 1)
                if text in promised:
                    first[publisher].append(int(number))
        for publisher, owed in publishers.items():
            missing = [text for text in owed if text not in seen]
            assert not missing, f"{name} lacks {missing[:5]} of {publisher}"
        for publisher, numbers in first.items():
            assert numbers == sorted(numbers), f"{name} got {publisher} as {numbers}"


def settled_one(connection: Connection) -> Callable[[], bool]:
    """Return what says whether a connection was let in, or not."""
    return lambda: connection.is_open or connection.is_over
