"""A broker on a real database, with clients that keep what they get."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field

import pytest

from birthmark.broker import Arrival, Broker, ConnectedSession, Namespace, SpaceRules
from birthmark.broker.model import BrokerMessage, Will, subscription_of
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Changes, Database, open_database
from birthmark.store.sqlite import DatabaseUnavailableError
from support.fakes import FakeClock

HOUR = 3600


class Client:
    """A connection that keeps what it gets."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.got: list[tuple[str, bytes, int]] = []
        self.ids: list[int | None] = []
        self.duplicates: list[bytes] = []
        self.retained: list[bytes] = []
        self.ended: CloseReason | None = None
        self.takes = True
        self._acknowledged = 0
        self.attached: ConnectedSession

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        if self.takes:
            self._take(parcel, qos, None)

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        if not self.takes:
            return False
        self._take(parcel, 1, packet_id)
        if dup:
            self.duplicates.append(parcel.payload)
        return True

    def _take(self, parcel: EncodedMessage, qos: int, packet_id: int | None) -> None:
        self.got.append((parcel.topic, parcel.payload, qos))
        self.ids.append(packet_id)
        if parcel.retain:
            self.retained.append(parcel.payload)

    def may_get(self, topic: str) -> bool:
        return self.takes

    async def wait_released(self) -> None: ...

    def end(self, reason: CloseReason) -> None:
        self.ended = reason

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload, _ in self.got]

    def acknowledge(self, count: int | None = None) -> None:
        """Acknowledge what was not, or the first of it."""
        some = self.ids[self._acknowledged :][:count]
        self._acknowledged += len(some)
        for packet_id in some:
            if packet_id is not None:
                self.attached.acknowledge((packet_id,))


@dataclass
class Observer:
    """Keeps what the broker tells."""

    space: Namespace | None = None
    gone: list[tuple[str, CloseReason]] = field(default_factory=list)
    lost_clients: list[str] = field(default_factory=list)
    overruns: list[str] = field(default_factory=list)

    def disconnected(self, attached: ConnectedSession, reason: CloseReason) -> None:
        self.gone.append((attached.client, reason))

    def lost(self, client: str, epoch: int) -> None:
        self.lost_clients.append(client)

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        assert self.space is not None
        return self.space.messages.publish((will.message,), lambda _problem: None)

    def overrun(self, client: str, limit: int) -> None:
        self.overruns.append(client)


class World:
    """One worker with one space."""

    def __init__(self, database: Database, clock: FakeClock, rules: SpaceRules) -> None:
        self.database = database
        self.clock = clock
        self.rules = rules
        self.observer = Observer()
        self.has_room = True
        self._starts = 0

    async def start(self) -> None:
        """Start the worker, anew where it ran before."""
        self._starts += 1
        name = f"worker.{self._starts}"
        full = DatabaseUnavailableError(where="the disk", reason="full")
        self.database.find_disk_full_error = lambda: None if self.has_room else full  # type: ignore[method-assign]
        self.broker = Broker(self.database, self.clock, name)
        await self.broker.load()
        self.space = self.observer.space = self.broker.space("test", self.rules, self.observer)
        await self.broker.start()
        await self.broker.wait_until_settled()

    async def connect(
        self,
        client_id: str,
        *,
        expiry_s: int = 0,
        clean: bool | None = None,
        will: Will | None = None,
        window: int = 100,
        held: bool = False,
        principal: str = "",
    ) -> Client:
        client = Client(client_id)
        is_clean = expiry_s == 0 if clean is None else clean
        arrival = Arrival(client_id, client, is_clean, expiry_s, will, window, principal=principal)
        client.attached = await self.space.connect(arrival)
        if not held:
            client.attached.resume()
            await self.broker.wait_until_settled()
        return client

    async def subscribe(self, client: Client, *names: str, options: int = 1) -> list[bool]:
        return await self.space.subscriptions.subscribe(
            client.attached, [subscription_of(name, options) for name in names]
        )

    async def leave(self, client: Client, *, with_will: bool = False, expiry_s: int | None = None) -> None:
        reason = CloseReason.LOST if with_will else CloseReason.DISCONNECT
        self.space.disconnect(client.attached, reason, with_will=with_will, expiry_s=expiry_s)
        await self.broker.wait_until_settled()

    async def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, **more: object) -> None:
        await self.space.messages.publish_one(BrokerMessage(topic, payload, qos, **more))  # type: ignore[arg-type] # fields by name
        await self.broker.wait_until_settled()


@contextlib.asynccontextmanager
async def a_world(database_url: str, rules: SpaceRules = SpaceRules()) -> AsyncIterator[World]:  # noqa: B008 - frozen
    clock = FakeClock()
    database = await open_database(database_url, clock)
    world = World(database, clock, rules)
    try:
        await world.start()
        yield world
        await world.broker.stop()
    finally:
        await database.close()


def hold_what_is_submitted(database: Database, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let what is submitted from now on wait for the event."""
    real, go_on = database.submit, asyncio.Event()

    async def later(changes: Changes) -> None:
        await go_on.wait()
        await real(changes)

    monkeypatch.setattr(database, "submit", lambda changes: asyncio.ensure_future(later(changes)))
    return go_on
