"""What every adapter of the bus keeps."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path

import pytest

from birthmark.bus import Bus, EmptyReply, NoAnswerError, WorkerUnreachableError
from birthmark.errors import ThrottledError
from birthmark.store import Changes
from contract.bus.desk import Add, Desk, DeviceMoved, Hang, Note, Refuse, Stumble, Sum
from contract.bus.worlds import WORLDS, Adapter, Join, World
from support.store.store_table import OtherTold, ThingTold

pytestmark = pytest.mark.integration

Open = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(params=[(name, count) for name, adapter in WORLDS.items() for count in (1, 3) if count <= adapter.most])
def open_world(request: pytest.FixtureRequest, tmp_path: Path, desk: Desk) -> Open:
    """Opens each adapter's world, of one worker and of several, over one database."""
    name, count = request.param
    adapter: Adapter = WORLDS[name]

    def opened(join: Join = desk.join) -> AbstractAsyncContextManager[World]:
        return adapter.open(f"sqlite:///{tmp_path}/world.db", count, join)

    return opened


async def test_an_event_is_heard_by_every_worker(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        world.buses[0].announce(ThingTold("once"))
        await world.settled()
        assert desk.heard == {bus.worker: ["once"] for bus in world.buses}


async def test_a_confirmed_event_has_been_handled_by_every_worker(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        world.buses[0].announce(ThingTold("before"))
        await world.buses[0].confirm(ThingTold("confirmed"))
        assert desk.heard == {bus.worker: ["before", "confirmed"] for bus in world.buses}


async def test_only_who_listens_to_a_kind_hears_of_it(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        await world.buses[0].confirm(OtherTold())
        assert desk.heard == {}


async def test_events_of_a_commit_are_heard_by_every_worker_in_their_order(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        for number in range(5):
            await world.databases[0].commit(Changes().event(ThingTold(f"{number} a")).event(ThingTold(f"{number} b")))
        await world.settled()
        told = [f"{number} {letter}" for number in range(5) for letter in "ab"]
        assert desk.heard == {bus.worker: told for bus in world.buses}


async def test_an_event_of_a_commit_has_been_handled_here_before_who_committed_is_answered(
    open_world: Open, desk: Desk
) -> None:
    async with open_world() as world:
        for number in range(3):
            await world.databases[0].commit(Changes().event(ThingTold(str(number))))
            assert desk.heard[world.buses[0].worker] == [str(one) for one in range(number + 1)]
        await world.settled()
        assert desk.heard == {bus.worker: ["0", "1", "2"] for bus in world.buses}


async def test_what_was_committed_before_a_restart_is_heard_after_it(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        worker = world.buses[0].worker
        await world.end(worker)
        await world.databases[0].commit(Changes().event(ThingTold("while it was away")))
    async with open_world() as world:
        await world.settled()
        assert desk.heard[worker] == ["while it was away"]


async def test_an_event_that_is_older_than_one_that_was_handed_on_is_dropped(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        for version, place in ((2, "second"), (1, "first"), (2, "again"), (3, "third")):
            await world.buses[0].confirm(DeviceMoved("a", place, version=version))
        await world.buses[0].confirm(DeviceMoved("b", "first", version=1))
        told = ["a second", "a again", "a third", "b first"]
        assert desk.heard == {bus.worker: told for bus in world.buses}


async def test_an_event_whose_order_is_not_known_is_never_dropped(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        for version in (5, 0):
            await world.buses[0].confirm(DeviceMoved("a", str(version), version=version))
        assert desk.heard[world.buses[0].worker] == ["a 5", "a 0"]


async def test_a_handler_that_fails_ends_nothing_else(open_world: Open, desk: Desk) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    def fail(_event: ThingTold) -> None:
        raise ValueError("a mistake")

    def join(bus: Bus) -> None:
        bus.on(ThingTold, fail)
        desk.join(bus)

    async with open_world(join) as world:
        await world.buses[0].confirm(ThingTold("one"))
        await world.databases[0].commit(Changes().event(ThingTold("two")))
        await world.settled()
        assert desk.heard == {bus.worker: ["one", "two"] for bus in world.buses}
        assert len(complaints) == 2 * len(world.buses)


async def test_a_question_is_answered_by_the_worker_that_is_asked(open_world: Open, desk: Desk) -> None:
    async with open_world() as world:
        for number, bus in enumerate(world.buses):
            assert await world.buses[0].ask(bus.worker, Add(number, 1)) == Sum(number + 1)
            assert await world.buses[0].ask(bus.worker, Note(str(number))) == EmptyReply()
        assert desk.noted == {bus.worker: [str(number)] for number, bus in enumerate(world.buses)}


async def test_a_refusal_travels_as_what_it_is(open_world: Open) -> None:
    async with open_world() as world:
        for bus in world.buses:
            with pytest.raises(ThrottledError) as refused:
                await world.buses[0].ask(bus.worker, Refuse())
            assert refused.value.facts["retry_after_s"] == "7"


async def test_a_worker_that_is_not_there_is_told_at_once(open_world: Open) -> None:
    async with open_world() as world:
        with pytest.raises(WorkerUnreachableError) as refused:
            await asyncio.wait_for(world.buses[0].ask("nobody", Add(1, 1), timeout_s=60), 1)
        assert refused.value.worker == "nobody"
        world.buses[0].tell("nobody", [Note("lost")])


async def test_a_worker_that_has_died_is_not_there(open_world: Open) -> None:
    async with open_world() as world:
        for bus in world.buses[1:2]:
            await world.end(bus.worker)
            with pytest.raises(WorkerUnreachableError):
                await asyncio.wait_for(world.buses[0].ask(bus.worker, Add(1, 1), timeout_s=60), 1)
            await asyncio.wait_for(world.buses[0].confirm(ThingTold("without it")), 5)


async def test_an_answer_that_takes_too_long_is_not_waited_for(open_world: Open) -> None:
    async with open_world() as world:
        for bus in world.buses:
            with pytest.raises(NoAnswerError, match="did not respond"):
                await asyncio.wait_for(world.buses[0].ask(bus.worker, Hang(), timeout_s=0.05), 2)


async def test_a_mistake_of_a_handler_is_no_answer_and_ends_nothing_else(
    open_world: Open, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world() as world:
        for bus in world.buses:
            with caplog.at_level(logging.ERROR), pytest.raises(NoAnswerError):
                await world.buses[0].ask(bus.worker, Stumble())
            assert await world.buses[0].ask(bus.worker, Add(1, 1)) == Sum(2)
        assert "bus.request_failed" in caplog.text


async def test_a_request_that_a_worker_does_not_serve_is_no_answer(open_world: Open) -> None:
    async with open_world(lambda _bus: None) as world:
        for bus in world.buses:
            with pytest.raises(NoAnswerError):
                await world.buses[0].ask(bus.worker, Add(1, 1))


async def test_what_is_told_is_handled_in_its_order_and_a_failure_ends_nothing_else(
    open_world: Open, desk: Desk
) -> None:
    async with open_world() as world:
        for bus in world.buses:
            world.buses[0].tell(bus.worker, [Note("1"), Refuse(), Note("2"), Stumble(), Note("3")])
        await world.settled()
        assert desk.noted == {bus.worker: ["1", "2", "3"] for bus in world.buses}


async def test_questions_do_not_wait_for_each_other(open_world: Open) -> None:
    async with open_world() as world:
        for asking, asked in pairwise([*world.buses, world.buses[0]]):
            slow = asyncio.create_task(asking.ask(asked.worker, Hang(), timeout_s=5))
            assert await asyncio.wait_for(asking.ask(asked.worker, Add(2, 2)), 2) == Sum(4)
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
