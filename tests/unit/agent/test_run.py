"""The loop: it comes up, stays, renews, and comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.state import read_state
from birthmark.agent.state_directory import AgentPaths
from birthmark.device_transports.ports import HttpResponse
from birthmark.errors import BirthmarkError
from support.agent.faults import VirtualOrders
from support.agent.world import LIFETIME, World


class Told(list[str]):
    """What the loop says, to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, event: str, facts: dict[str, object]) -> None:
        self.append(event)
        task = asyncio.get_running_loop().create_task(self._wake())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, event: str, count: int = 1) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: self.count(event) >= count)


@contextlib.asynccontextmanager
async def a_loop(directory: Path, **options: Any) -> AsyncIterator[tuple[World, ControlServer, Told]]:
    """Run an agent's loop, and stop it at the end: `told` then has all that it told."""
    world, orders, told = World(directory), ControlServer(), Told()
    agent = world.agent()
    running = asyncio.create_task(Loop(agent, orders, told, **options).run())
    try:
        yield world, orders, told
    finally:
        orders.give(ControlCommand.STOP)
        await asyncio.wait_for(running, 10)
    assert not agent.state.is_connected


async def test_it_comes_up_and_stops_when_told(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, _orders, told):
        await told.until("connected")
        assert len(world.connections) == 1
    assert told == ["connected", "stopped"]


async def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, _orders, told):
        await told.until("connected")
        world.connections[0].lose()
        await told.until("connected", 2)
    assert told == ["connected", "disconnected", "connected", "stopped"]


async def test_connections_that_end_as_soon_as_they_begin_are_made_ever_more_slowly(tmp_path: Path) -> None:
    """Two agents of one copied identity took the connection from each other a thousand times in fifteen seconds."""
    world = World(tmp_path)
    pauses, told = list[float](), list[str]()

    class Watched(VirtualOrders):
        async def wait(self, seconds: float) -> None:
            if told[-1:] == ["disconnected"]:
                pauses.append(seconds)
            await super().wait(seconds)

    orders = Watched(world.clock)

    def tell(event: str, _facts: dict[str, object]) -> None:
        told.append(event)
        if event == "connected":
            world.connections[-1].lose()
            if told.count("connected") == 12:
                orders.give(ControlCommand.STOP)

    await Loop(world.agent(), orders, tell).run()
    assert len(pauses) >= 9
    assert pauses[0] < 2
    assert all(30 <= one <= 90 for one in pauses[7:])


async def test_it_renews_when_it_is_due_and_the_old_connection_goes(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, _orders, told):
        await told.until("connected")
        world.clock.move(0.85 * LIFETIME)
        world.connections[0].lose()  # so that it looks at the clock now
        await told.until("connected", 2)
        world.clock.move(0.05 * LIFETIME)  # it was overdue, as others' may have been, and waits a little
        world.connections[1].lose()
        await told.until("renewed")
        assert world.connections[-1].over.done() is False
        assert all(one.over.done() for one in world.connections[:-1])
    assert told[-3:] == ["renewing", "renewed", "stopped"]


async def test_a_renewal_that_fails_leaves_the_device_connected_and_is_tried_again(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, orders, told):
        await told.until("connected")
        world.failing = {"est"}
        orders.give(ControlCommand.RENEW)
        await told.until("not renewed")
        assert not world.connections[0].over.done()
        world.failing = set()
        orders.give(ControlCommand.RENEW)
        await told.until("renewed")


async def test_who_was_taken_back_and_is_told_to_renew_comes_back_by_another_certificate(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, orders, told):
        await told.until("connected")
        assert world.at_hub is not None
        world.taken_back, before, world.at_hub = {world.at_hub}, world.at_hub, None
        world.connections[0].lose()
        await told.until("failed")
        orders.give(ControlCommand.RENEW)
        await told.until("connected", 2)
        assert world.at_hub not in {None, before}
    assert told[-3:] == ["renewed", "connected", "stopped"]


async def test_it_registers_again_when_told(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, orders, told):
        await told.until("connected")
        orders.give(ControlCommand.REPROVISION)
        await told.until("connected", 2)
        assert world.asked.count("dps") == 2


@contextlib.asynccontextmanager
async def a_loop_without_its_hub(directory: Path) -> AsyncIterator[tuple[World, ControlServer, Told]]:
    """Run the loop of a device that DPS would assign to another hub by now."""
    async with a_loop(directory) as (world, orders, told):
        await told.until("connected")
        world.failing, world.assigned_hub = {"hub.test"}, "hub-2.test"
        world.connections[0].lose()
        await told.until("failed", 2)
        yield world, orders, told


async def test_it_registers_again_when_told_though_its_hub_is_out_of_reach(tmp_path: Path) -> None:
    async with a_loop_without_its_hub(tmp_path) as (world, orders, told):
        orders.give(ControlCommand.REPROVISION)
        await told.until("connected", 2)
        assert world.asked.count("dps") == 2
        assert world.hosts[-1][0] == "hub-2.test"


@pytest.mark.parametrize("is_cut_off", [False, True])
async def test_who_registers_again_while_dps_is_away_keeps_its_hub_and_tries_again(
    tmp_path: Path, is_cut_off: bool
) -> None:
    async with a_loop(tmp_path) as (world, orders, told):
        await told.until("connected")
        world.failing = {"dps"}
        orders.give(ControlCommand.REPROVISION)
        if is_cut_off:
            world.connections[0].lose()
            await told.until("connected", 2)
        await told.until("not registered")
        assert world.hosts[-1][0] == "hub.test"
        assert len(world.connections) == 1 + is_cut_off
        world.failing, world.assigned_hub = set(), "hub-2.test"
        world.clock.move(timedelta(seconds=31))
        orders._news.set()
        await told.until("connected", 2 + is_cut_off)
        assert world.hosts[-1][0] == "hub-2.test"


async def test_it_renews_when_told_though_its_hub_is_out_of_reach(tmp_path: Path) -> None:
    async with a_loop_without_its_hub(tmp_path) as (world, orders, told):
        orders.give(ControlCommand.RENEW)
        await told.until("connected", 2)
        assert world.hosts[-1][0] == "hub-2.test"
    assert told[-4:] == ["renewing", "renewed", "connected", "stopped"]


async def test_a_renewal_that_fails_without_a_hub_is_told_and_the_hub_tried_again(tmp_path: Path) -> None:
    async with a_loop_without_its_hub(tmp_path) as (world, orders, told):
        world.failing |= {"est"}
        orders.give(ControlCommand.RENEW)
        await told.until("not renewed")
        world.failing = set()
        await told.until("connected", 2)
        assert not orders.is_any


async def test_a_renewal_waits_until_there_is_something_to_renew(tmp_path: Path) -> None:
    world, orders, told = World(tmp_path, failing={"est"}), ControlServer(), Told()
    running = asyncio.create_task(Loop(world.agent(), orders, told).run())
    await told.until("failed")
    orders.give(ControlCommand.RENEW)
    await told.until("failed", 2)
    assert orders.is_any
    world.failing = set()
    await told.until("renewed")
    orders.give(ControlCommand.STOP)
    await running


async def test_who_waits_for_an_order_sees_how_it_ended_and_not_what_was_before(tmp_path: Path) -> None:
    async with a_loop_without_its_hub(tmp_path) as (world, orders, told):
        state = AgentPaths(tmp_path / "root").state
        before = read_state(state)
        world.failing |= {"dps"}
        orders.give(ControlCommand.REPROVISION)
        await told.until("failed", told.count("failed") + 1)
        after = read_state(state)
        assert after.failures > before.failures
        assert after.hub == before.hub  # what was good before is not forgotten


async def test_a_hub_that_refuses_leads_back_to_dps(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, _orders, told):
        await told.until("connected")
        world.at_hub = "another"
        world.connections[0].lose()
        await told.until("failed")
        await told.until("connected", 2)
        assert world.asked.count("dps") == 2


async def test_a_hub_that_refuses_once_while_dps_is_away_is_asked_again(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, _orders, told):
        await told.until("connected")
        known, world.at_hub, world.failing = world.at_hub, "another", {"dps"}
        world.connections[0].lose()
        await told.until("failed")
        world.at_hub = known
        await told.until("connected", 2)
        assert world.hosts[-1][0] == "hub.test"


async def test_signs_of_life_are_sent(tmp_path: Path) -> None:
    async with a_loop(tmp_path, telemetry_s=5.0) as (world, _orders, told):
        await told.until("connected")
        while not world.connections[0].sent:
            await asyncio.sleep(0)


async def test_the_same_trouble_is_journaled_once(tmp_path: Path) -> None:
    journaled: list[str] = []

    def keep(problem: BirthmarkError) -> None:
        journaled.append(problem.code)
        assert problem.facts["registration_id"]  # by which `why` finds it

    async with a_loop(tmp_path, journal=keep) as (world, orders, told):
        await told.until("connected")
        world.failing = {"est"}
        for count in (1, 2, 3):
            orders.give(ControlCommand.RENEW)
            await told.until("not renewed", count)
    assert len(journaled) == 1


class Counted(ControlServer):
    """Waiting moves the clock; after so many waits it is over."""

    def __init__(self, world: World, count: int) -> None:
        super().__init__()
        self.world, self.left = world, count

    async def wait(self, seconds: float) -> None:
        self.left -= 1
        if not self.left:
            self.give(ControlCommand.STOP)
        self.world.clock.move(timedelta(seconds=seconds))
        await asyncio.sleep(0)


async def test_the_same_trouble_again_is_written_down_once_an_hour(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.failing.add("est")
    agent = world.agent()
    await Loop(agent, Counted(world, 40), lambda *_: None).run()  # half an hour
    assert agent.state.failures == 40
    assert read_state(agent.places.state).failures == 1
    await Loop(agent, Counted(world, 80), lambda *_: None).run()
    assert 1 < read_state(agent.places.state).failures < 120
    world.failing, world.busy = set(), HttpResponse(503, {}, b"another trouble")
    await Loop(agent, Counted(world, 1), lambda *_: None).run()
    assert read_state(agent.places.state).failures == 121


async def test_an_order_that_has_to_wait_does_not_make_it_try_without_a_pause(tmp_path: Path) -> None:
    orders = ControlServer()
    orders.give(ControlCommand.RENEW)
    async with asyncio.timeout(5):
        await orders.wait(60)  # at once: there is news
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await orders.wait(60)
    assert orders.take() is ControlCommand.RENEW
