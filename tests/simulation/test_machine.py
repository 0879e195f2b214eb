"""A state machine over simulated workers: whatever happens in whatever order, the promises hold.

No acknowledged QoS 1 message of a stored session is lost; what one publisher sends arrives in its order; no connection
has an effect after another of its client id was let in, or after it was confirmed that it is revoked; a session is
there exactly until it expires.
`BIRTHMARK_STEPS` makes the run longer; `scripts/soak machine` takes as many steps as one likes, seed after seed.
"""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from birthmark.broker import store
from birthmark.broker.model import NEVER
from birthmark.store import Changes, Database, open_database
from simulation.machine import Connection, Fleet, settled_one
from simulation.virtual import Fate
from support.fakes import FakeClock

pytestmark = pytest.mark.integration
WORKERS = 3
STEPS = int(os.environ.get("BIRTHMARK_STEPS", "1500"))
PLACES = st.integers(0, WORKERS - 1)
PUBLISHERS = ("pub-a", "pub-b")
SUBSCRIBERS = ("sub-a", "sub-b")
BRIEF_S = 5
_TABLES = (store.sessions, store.subscriptions, store.queue, store.messages, store.retained, store.workers)


class Machine(RuleBasedStateMachine):
    """See the module."""

    url: ClassVar[str]
    steps: ClassVar[int] = 0
    acknowledged: ClassVar[int] = 0
    runs: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        type(self).steps += 1
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        async def opened() -> Fleet:
            databases: list[Database] = [
                await open_database(self.url, FakeClock(), worker=f"w{number}") for number in range(WORKERS)
            ]
            changes = Changes()
            for table in _TABLES:
                changes.run(store.empty(table))
            await databases[0].commit(changes)
            self.databases = databases
            fleet = Fleet(databases)
            for place in range(WORKERS):
                await fleet.start(place)
            await fleet.calm(3)
            for number, name in enumerate(SUBSCRIBERS):
                connection = await fleet.connect(name, number)
                assert connection is not None
                await fleet.until(settled_one(connection))
                await fleet.subscribe(connection, "t/#")
                await fleet.calm(2)
                assert connection.subscribed
            for number, name in enumerate(PUBLISHERS):
                connection = await fleet.connect(name, number + 1, expiry_s=0, clean=True)
                assert connection is not None
                await fleet.until(settled_one(connection))
            return fleet

        self.fleet = self.do(opened())

    # ---- what clients do

    @rule(name=st.sampled_from((*SUBSCRIBERS, *PUBLISHERS)), place=PLACES)
    def connect_and_be_let_in(self, name: str, place: int) -> None:
        clean = name in PUBLISHERS
        self.do(self.fleet.connect(name, place, expiry_s=0 if clean else NEVER, clean=clean))
        self.do(self.fleet.calm(2))

    @rule(count=st.integers(1, 3), turns=st.integers(0, 40))
    def all_publish(self, count: int, turns: int) -> None:
        async def some() -> None:
            for name in PUBLISHERS:
                for connection in self.fleet.open_connections(name)[-1:]:
                    await self.fleet.publish(connection, "t/1", count)
            for _ in range(turns):
                if ready := self.fleet.world.ready():
                    await self.fleet.world.happen(ready[0])

        self.do(some())

    @rule(name=st.sampled_from((*SUBSCRIBERS, *PUBLISHERS)), place=PLACES)
    def connect(self, name: str, place: int) -> None:
        clean = name in PUBLISHERS
        self.do(self.fleet.connect(name, place, expiry_s=0 if clean else NEVER, clean=clean))

    @rule(name=st.sampled_from(PUBLISHERS), count=st.integers(1, 3), topic=st.sampled_from(("t/1", "t/2")))
    def publish(self, name: str, count: int, topic: str) -> None:
        for connection in self.fleet.open_connections(name)[-1:]:
            self.do(self.fleet.publish(connection, topic, count))

    @rule(name=st.sampled_from(PUBLISHERS))
    def publish_on_an_old_connection(self, name: str) -> None:
        for connection in self.fleet.open_connections(name)[:-1]:
            self.do(self.fleet.publish(connection, "t/3", 1))

    @rule(name=st.sampled_from(SUBSCRIBERS), count=st.integers(1, 4))
    def acknowledge(self, name: str, count: int) -> None:
        for connection in self.fleet.open_connections(name):
            self.do(self.fleet.acknowledge(connection, count))

    @rule(name=st.sampled_from((*SUBSCRIBERS, *PUBLISHERS)))
    def disconnect(self, name: str) -> None:
        for connection in self.fleet.open_connections(name)[-1:]:
            self.do(self.fleet.disconnect(connection))

    @rule(name=st.sampled_from(PUBLISHERS), place=PLACES)
    def revoke(self, name: str, place: int) -> None:
        self.do(self.fleet.revoke(name, place))

    @rule(name=st.sampled_from(PUBLISHERS))
    def allow_again(self, name: str) -> None:
        """One that was revoked and is known by the same name is another: nothing is owed to its old connections."""
        if name in self.fleet.revoked:
            self.fleet.allow_again(name)

    # ---- what happens between

    @rule(number=st.integers(0, 30), times=st.integers(1, 12))
    def go_on(self, number: int, times: int) -> None:
        async def some() -> None:
            for _ in range(times):
                if ready := self.fleet.world.ready():
                    await self.fleet.world.happen(ready[number % len(ready)])

        self.do(some())

    @rule(number=st.integers(0, 30), fate=st.sampled_from((Fate.ANSWER_LOST, Fate.LOST)))
    def lose(self, number: int, fate: Fate) -> None:
        if ready := [one for one in self.fleet.world.ready() if one.what != "read"]:
            self.do(self.fleet.world.happen(ready[number % len(ready)], fate))

    @rule(seconds=st.sampled_from((0.05, 0.3, 1.1)))
    def wait(self, seconds: float) -> None:
        self.do(self.fleet.world.pass_time(seconds))

    @rule()
    def catch_up(self) -> None:
        self.do(self.fleet.calm(3))

    # ---- what goes wrong

    @rule(place=PLACES, does_happen=st.booleans())
    def kill(self, place: int, does_happen: bool) -> None:
        async def killed() -> None:
            worker = self.fleet.workers[place]
            if worker is None:
                return
            commits = [one for one in self.fleet.world.pending if one.worker == worker.name and one.what == "commit"]
            for operation in commits if does_happen else ():
                await self.fleet.world.happen(operation)
            await self.fleet.kill(place)

        self.do(killed())

    @precondition(lambda self: hasattr(self, "fleet") and None in self.fleet.workers)
    @rule(place=PLACES)
    def start(self, place: int) -> None:
        if self.fleet.workers[place] is None:
            self.do(self.fleet.start(place))

    @rule(place=PLACES)
    def stop_or_wake(self, place: int) -> None:
        worker = self.fleet.workers[place]
        if worker is not None:
            self.fleet.world.stopped ^= {worker.name}

    # ---- what must hold

    @rule()
    def nobody_acts_for_another(self) -> None:
        assert not self.fleet.violations, self.fleet.violations

    def teardown(self) -> None:
        try:
            if hasattr(self, "fleet"):
                self.do(self._judge())
        finally:
            self.loop.run_until_complete(self._close())
            self.loop.close()

    async def _judge(self) -> None:
        await self.fleet.recovered()
        owed = {name: list(self.fleet.client(name).acknowledged) for name in PUBLISHERS}
        type(self).runs += 1
        type(self).acknowledged += sum(map(len, owed.values()))
        for name in SUBSCRIBERS:
            await self.fleet.collected(name)
            self.fleet.check(name, owed)

    async def _close(self) -> None:
        if hasattr(self, "fleet"):
            for place in range(WORKERS):
                await self.fleet.kill(place)
        for database in getattr(self, "databases", ()):
            await database.close()


def run(url: str, steps: int, seed: int | None = None) -> None:
    """Take about so many steps, in runs of fifty; those of a seed are the same each time."""
    a_run = 50
    Machine.url, Machine.steps, Machine.acknowledged, Machine.runs = url, 0, 0, 0
    hypothesis.seed(seed)(Machine)
    phases = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
    wanted = settings(
        max_examples=max(1, steps // a_run),
        stateful_step_count=a_run,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        report_multiple_bugs=False,
    )
    if seed is not None:
        wanted = settings(wanted, database=None)  # what another seed found is its own
    run_state_machine_as_test(Machine, settings=wanted)


def test_the_promises_hold_whatever_happens(database_url: str) -> None:
    run(database_url, STEPS)
    print(f"{Machine.steps} steps, {Machine.acknowledged} messages acknowledged")  # noqa: T201 - for who looks
    assert Machine.acknowledged  # it was about something


def test_a_session_is_there_exactly_until_it_expires(tmp_path: Path) -> None:
    async def go() -> None:
        url = f"sqlite:///{tmp_path}/x.db"
        databases: list[Database] = [await open_database(url, FakeClock(), worker=f"w{n}") for n in range(2)]
        fleet = Fleet(databases)
        try:
            for place in range(2):
                await fleet.start(place)
            await fleet.calm(3)
            for number, (early, is_there) in enumerate(((0.01, True), (-0.01, False))):
                connection = await connected(fleet, f"c{number}", 0)
                await fleet.disconnect(connection)
                await fleet.world.drain()
                await fleet.live_on(BRIEF_S - early)
                again = await connected(fleet, f"c{number}", 1)
                assert again.attached is not None
                assert again.attached.session_present is is_there
            for place in range(2):
                await fleet.kill(place)
        finally:
            for database in databases:
                await database.close()

    asyncio.run(go())


async def connected(fleet: Fleet, name: str, place: int) -> Connection:
    connection = await fleet.connect(name, place, expiry_s=BRIEF_S)
    assert connection is not None
    await fleet.world.drain()
    assert connection.is_open
    return connection
