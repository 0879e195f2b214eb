"""The checker of histories, tried: it finds nothing in what workers do, and each fault that is built into them."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.broker import namespace_sessions, session_queue_writer, subscriptions
from birthmark.broker.model import BrokerMessage, SessionRecord, encode_messages
from birthmark.broker.rules.leases import LEASE_S, Lease
from birthmark.broker.rules.send_window import SendWindow
from birthmark.broker.worker_broker import Broker
from birthmark.broker.worker_leases import Workers
from simulation import virtual
from simulation.machine import Connection, Fleet
from simulation.test_workers import a_fleet, opened, subscribed
from support.kills.history import Finding, Operation, Outcome, Seen, of_grants, of_messages, of_sessions

pytestmark = pytest.mark.integration
LIVE = "live"


def told_of(text: str, connection: Connection) -> Callable[[], bool]:
    return lambda: text in connection.client.acknowledged or connection.is_over


@dataclass
class History:
    """What the clients of a fleet wrote down."""

    fleet: Fleet
    sent: list[Operation] = field(default_factory=list)
    taken: list[Operation] = field(default_factory=list)
    used: list[Operation] = field(default_factory=list)
    revoked: list[Operation] = field(default_factory=list)

    @property
    def now(self) -> float:
        """The time; each look is a little later, so that what comes after is after."""
        self.fleet.world.clock.move(timedelta(microseconds=1))
        return self.fleet.world.clock.monotonic()

    async def open(self, name: str, place: int) -> Connection:
        began = self.now
        connection = await opened(self.fleet, name, place)
        self.taken.append(Operation(name, connection.number, began, self.now))
        return connection

    async def publish(self, connection: Connection, count: int = 1, topic: str = "t/1") -> None:
        """Publish one after the other, each until it is acknowledged or will not be."""
        client = connection.client
        for _ in range(count):
            began, text = self.now, f"{client.name}.{client.sent}"
            await self.fleet.publish(connection, topic, 1)
            with contextlib.suppress(AssertionError):
                await self.fleet.until(told_of(text, connection))
            outcome = Outcome.OK if text in client.acknowledged else Outcome.UNKNOWN
            if topic != LIVE:
                self.sent.append(Operation(client.name, text, began, self.now, outcome))
            self.used.append(Operation(client.name, connection.number, began, self.now, outcome))

    async def revoke(self, name: str, place: int) -> None:
        began = self.now
        await self.fleet.revoke(name, place)
        await self.fleet.until(lambda: name in self.fleet.revoked)
        self.revoked.append(Operation(name, "revoked", began, self.now))

    def findings(self) -> list[Finding]:
        """What no fleet that keeps its promises could have done."""
        seen = [Seen(text.rsplit(".", 1)[0], text, number) for number, text in enumerate(self.fleet.client("sub").got)]
        granted = [Operation(one.device, one.value, one.began, one.ended, one.outcome) for one in self.used]
        return [
            *of_messages(self.sent, seen),
            *of_sessions(self.taken, self.used),
            *of_grants(self.revoked, (), granted),
        ]


async def story(history: History) -> None:
    """Clients that come and go between two workers, of which one is stopped, and one is killed."""
    fleet = history.fleet
    await subscribed(fleet, "sub", 0)
    pub = await history.open("pub", 1)
    await history.publish(pub, 3)  # across workers
    sub = await opened(fleet, "sub", 1)
    await history.publish(pub, 2)
    await fleet.acknowledge(sub, 2)
    await fleet.disconnect(sub)
    await history.publish(pub, 4)  # while it is away
    await fleet.collected("sub")
    stopped = await history.open("stops", 0)
    await history.publish(stopped, 1)
    fleet.world.stopped.add(stopped.worker.name)
    elsewhere = await history.open("stops", 1)
    await history.publish(elsewhere, 1)
    fleet.world.stopped.clear()
    await history.publish(stopped, 1)  # what it had in its socket
    await fleet.recovered()
    hears = await opened(fleet, "hears", 1, expiry_s=0, clean=True)
    await fleet.subscribe(hears, LIVE)
    await fleet.until(lambda: hears.subscribed)
    victim, gone = await history.open("victim", 0), await history.open("gone", 1)
    await history.publish(victim, 1)
    await history.publish(gone, 1)
    await history.revoke("victim", 1)
    await history.publish(victim, 1)
    fleet.world.stopped.add(gone.worker.name)
    await history.revoke("gone", 0)  # while its worker does not hear
    fleet.world.stopped.clear()
    await history.publish(gone, 1, LIVE)  # to a session in memory: no write would be refused
    await fleet.recovered()
    late = await history.open("late", 1)
    await history.publish(late, 2)
    await fleet.kill(1)
    await fleet.live_on(3 * LEASE_S)
    await fleet.collected("sub")


async def findings_of(tmp_path: Path) -> list[Finding]:
    async with a_fleet(f"sqlite:///{tmp_path}/one.db", 2) as fleet:
        history = History(fleet)
        with contextlib.suppress(AssertionError):  # a faulty fleet may not come to an end of it
            await story(history)
        return history.findings()


async def test_nothing_is_found_in_what_workers_do(tmp_path: Path) -> None:
    async with a_fleet(f"sqlite:///{tmp_path}/one.db", 2) as fleet:
        history = History(fleet)
        await story(history)
        assert history.findings() == []
        assert len(history.sent) > 15


Patch = pytest.MonkeyPatch


def a_queue_is_not_written(patch: Patch) -> None:
    patch.setattr(session_queue_writer, "_rows", lambda _write, _shared: iter(()))
    patch.setattr(SendWindow, "appended", lambda *_: None)


def it_is_acknowledged_and_never_written(patch: Patch) -> None:
    async def write(_self: Any, batch: Any) -> None:
        for items in batch.values():
            session_queue_writer._all_done(items, None)

    patch.setattr(session_queue_writer.SessionQueueWriter, "_write", write)


def a_queue_is_read_from_behind(patch: Patch) -> None:
    right = namespace_sessions.Namespace.queued_after

    async def queued_after(
        self: namespace_sessions.Namespace, client: str, after: int
    ) -> list[tuple[int, BrokerMessage]]:
        found = await right(self, client, after)
        messages = [message for _, message in found][::-1]
        return [(number, message) for (number, _), message in zip(found, messages, strict=True)]

    patch.setattr(namespace_sessions.Namespace, "queued_after", queued_after)


def a_lease_never_ends(patch: Patch) -> None:
    patch.setattr(Lease, "is_fresh", lambda _self, _now: True)


def nobody_is_told_that_something_is_revoked(patch: Patch) -> None:
    async def confirmed_by(*_: Any) -> None: ...

    patch.setattr(virtual, "confirmed_by", confirmed_by)


def a_session_begins_anew_each_time(patch: Patch) -> None:
    patch.setattr(SessionRecord, "goes_on", lambda *_: False)


def what_was_not_acknowledged_is_not_sent_again(patch: Patch) -> None:
    right = namespace_sessions.Namespace._outgoing

    def outgoing(self: namespace_sessions.Namespace, *arguments: Any, **more: Any) -> SendWindow:
        made = right(self, *arguments, **more)
        return SendWindow(made.tail, made.tail, made.window)

    patch.setattr(namespace_sessions.Namespace, "_outgoing", outgoing)


def a_filter_is_not_made_known(patch: Patch) -> None:
    async def made_known(*_: Any) -> None: ...

    patch.setattr(Broker, "announce_shapes", made_known)
    patch.setattr(subscriptions.Subscriptions, "learn_shape", lambda *_: None)


def whoever_does_not_answer_is_dead(patch: Patch) -> None:
    async def is_gone(*_: Any) -> bool:
        return True

    patch.setattr(Workers, "is_gone", is_gone)
    patch.setattr(Workers, "is_fresh", property(lambda _self: True))


def a_worker_asks_nobody_for_a_session(patch: Patch) -> None:
    async def append(_self: Any, _worker: str, _space: str, _client: str, _messages: bytes) -> bool:
        return True

    patch.setattr(Broker, "_append_at", append)
    right = Broker.__init__

    def init(self: Broker, *arguments: Any, **more: Any) -> None:
        right(self, *arguments, **more)
        self.appends._ask = lambda *asked: append(self, *asked)

    patch.setattr(Broker, "__init__", init)


def a_message_for_several_loses_its_body(patch: Patch) -> None:
    def encode(messages: Any) -> bytes:
        return encode_messages([message for number, message in enumerate(messages) if number % 2])

    patch.setattr("birthmark.broker.session_queue_writer.encode_messages", encode)


FAULTS: list[Callable[[Patch], None]] = [
    a_queue_is_not_written,
    it_is_acknowledged_and_never_written,
    a_queue_is_read_from_behind,
    a_lease_never_ends,
    nobody_is_told_that_something_is_revoked,
    a_session_begins_anew_each_time,
    what_was_not_acknowledged_is_not_sent_again,
    a_filter_is_not_made_known,
    whoever_does_not_answer_is_dead,
    a_worker_asks_nobody_for_a_session,
    a_message_for_several_loses_its_body,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_fault_that_is_built_in_is_found(tmp_path: Path, fault: Callable[[Patch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        assert await findings_of(tmp_path) != []
