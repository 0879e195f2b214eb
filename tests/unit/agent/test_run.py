"""The loop: it comes up, stays, renews, and comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agent_world import LIFETIME, World
from birthmark.agent.orders import Order, Orders
from birthmark.agent.run import Loop
from birthmark.errors import BirthmarkError


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
async def a_loop(directory: Path, **options: Any) -> AsyncIterator[tuple[World, Orders, Told]]:
    """Run an agent's loop, and stop it at the end: `told` then has all that it told."""
    world, orders, told = World(directory), Orders(), Told()
    agent = world.agent()
    running = asyncio.create_task(Loop(agent, orders, told, **options).run())
    try:
        yield world, orders, told
    finally:
        orders.give(Order.STOP)
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
        orders.give(Order.RENEW)
        await told.until("not renewed")
        assert not world.connections[0].over.done()
        world.failing = set()
        orders.give(Order.RENEW)
        await told.until("renewed")


async def test_it_registers_again_when_told(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, orders, told):
        await told.until("connected")
        orders.give(Order.REPROVISION)
        await told.until("connected", 2)
        assert world.asked.count("dps") == 2


async def test_a_hub_that_refuses_leads_back_to_dps(tmp_path: Path) -> None:
    async with a_loop(tmp_path) as (world, _orders, told):
        await told.until("connected")
        world.at_hub = "another"
        world.connections[0].lose()
        await told.until("failed")
        await told.until("connected", 2)
        assert world.asked.count("dps") == 2


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
            orders.give(Order.RENEW)
            await told.until("not renewed", count)
    assert len(journaled) == 1
