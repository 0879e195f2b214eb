"""The bus over NATS where NATS, or a worker, is away: nothing is sent late, nobody waits for the dead."""

import asyncio
import time
from pathlib import Path

import pytest

from birthmark.bus import NoAnswerError
from birthmark.bus.nats import LEASE_S
from birthmark.store import Changes
from birthmark.store.remembered import Remembered
from birthmark.store.schema import COUNT_OUTBOX
from contract.bus.desk import Add, Desk, Note, Sum
from contract.bus.worlds import NatsWorld, a_nats_world
from store_table import ThingTold

pytestmark = pytest.mark.integration


async def test_a_request_that_is_too_large_is_no_answer_and_ends_nothing(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        first, second = world.buses
        with pytest.raises(NoAnswerError):
            await first.ask(second.worker, Note("x" * 2_000_000))
        assert await first.ask(second.worker, Add(1, 1)) == Sum(2)


async def test_a_worker_that_hears_nothing_is_waited_for_until_its_lease_has_run_out(tmp_path: Path) -> None:
    desk = Desk()
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, desk.join) as world:
        assert isinstance(world, NatsWorld)
        first, second = world.buses
        await world.connections[second.worker].close()
        confirming = asyncio.create_task(first.confirm(ThingTold("revoked")))
        await asyncio.sleep(0.5)
        assert not confirming.done()
        world.leases.discard(second.worker)
        await asyncio.wait_for(confirming, 5)
        assert desk.heard == {first.worker: ["revoked"]}


async def test_who_commits_is_answered_when_the_lease_of_one_that_hears_nothing_is_over(tmp_path: Path) -> None:
    desk = Desk()
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, desk.join) as world:
        assert isinstance(world, NatsWorld)
        await world.connections[world.buses[1].worker].close()
        began = time.monotonic()
        await asyncio.wait_for(world.databases[0].commit(Changes().event(ThingTold("revoked"))), 10)
        assert time.monotonic() - began >= LEASE_S


async def test_what_a_worker_did_not_hear_it_reads_before_it_lives_on(tmp_path: Path) -> None:
    desk = Desk()
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, desk.join) as world:
        assert isinstance(world, NatsWorld)
        second = world.buses[1]
        await world.connections[second.worker].close()
        await world.databases[0].commit(Changes().event(ThingTold("meanwhile")))
        assert desk.heard[second.worker] == []
        await second.catch_up()
        assert desk.heard[second.worker] == ["meanwhile"]


async def test_who_remembers_rows_forgets_them_when_another_worker_changed_them(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        remembered = Remembered(world.databases[1], ThingTold)
        await remembered.all(COUNT_OUTBOX, dict)
        assert len(remembered) == 1
        await world.databases[0].commit(Changes().event(ThingTold("changed")))
        assert len(remembered) == 0


async def test_a_worker_that_may_be_deaf_acts_on_nothing_that_it_remembers(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        remembered = Remembered(world.databases[1], ThingTold)
        world.databases[1].sharing.is_fresh = lambda: False
        await remembered.all(COUNT_OUTBOX, dict)
        assert len(remembered) == 0
