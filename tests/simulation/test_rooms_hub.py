"""A hub whose devices go from worker to worker: what was promised at one of them is kept at the others."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from birthmark.broker.rules.leases import BEAT_S, LEASE_S
from birthmark.iothub.connections.device_connections import LOOK_S
from simulation.hub import Hub, a_hub
from simulation.rooms import a_house
from simulation.virtual import Fate
from support.kills.history import Outcome

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def a_hub_on(tmp_path: Path, count: int = 2) -> AsyncIterator[Hub]:
    """Yield a hub on so many workers; in the end nothing may be found in what its clients wrote down."""
    async with a_house(tmp_path, count) as house:
        hub = await a_hub(house)
        yield hub
        await house.recovered()
        assert await hub.findings() == []


async def test_a_device_connects_and_its_telemetry_is_in_the_stream(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 1)
        device.send(3)
        await hub.house.until(lambda: not device.unacknowledged)
        assert await hub.stream() == ["pump.1", "pump.2", "pump.3"]


async def test_a_device_that_connects_elsewhere_ends_its_connection_here(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        first = await hub.connected(device, 0)
        await hub.connected(device, 1)
        assert first.driver.is_over
        assert not device.line.driver.is_over


async def test_telemetry_on_both_sides_of_a_move_keeps_its_order(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        device.send(3)  # of which nothing has arrived yet
        await hub.connected(device, 1)
        device.send(3)
        await hub.house.until(lambda: not device.unacknowledged)


async def test_telemetry_whose_commit_is_lost_is_sent_again_and_kept_once_acknowledged(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        line = await hub.connected(device, 0)
        device.send(2)
        await hub.house.next_is("commit", Fate.LOST, line.worker)
        await hub.house.until(lambda: line.is_over)
        assert hub.book.values("telemetry") == []
        await hub.connected(device, 1)
        await hub.house.until(lambda: not device.unacknowledged)


async def test_telemetry_whose_commit_has_no_answer_is_in_the_stream_at_least_once(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        line = await hub.connected(device, 0)
        device.send(1)
        await hub.house.until(lambda: not device.unacknowledged)
        device.send(2)
        await hub.house.next_is("commit", Fate.ANSWER_LOST, line.worker)
        await hub.house.until(lambda: not device.unacknowledged)
        assert not line.is_over


async def test_a_device_whose_worker_dies_is_served_by_another(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        device.send(2)
        await hub.house.kill(0)
        assert device.line.is_over
        await hub.connected(device, 1)
        await hub.house.until(lambda: not device.unacknowledged)


async def test_devices_of_two_workers_that_died_together_are_served_by_a_third(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path, 3) as hub:
        devices = [await hub.device(f"pump-{number}") for number in range(8)]
        for number, device in enumerate(devices):
            await hub.connected(device, number % 2)
        for place in range(2):
            await hub.house.kill(place)
        for device in devices:  # one after the other
            device.connect(2)
            await hub.house.live_on(0.25)
        await hub.house.until(lambda: all(device.is_ready for device in devices), most_s=3 * LEASE_S)


async def test_a_message_that_is_sent_while_the_device_moves_is_delivered_and_completed(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        line, asked = device.connect(1), hub.send(0, device)
        await hub.until_answered(asked)
        await hub.house.until(lambda: bool(hub.book.seen("mail")))
        await hub.house.live_on(1.0)
        await hub.read_feedback(1)
        assert line is device.line
        assert hub.book.values("settled") == [(asked.doing.value, "Success")]
        assert await hub.waiting(device) == []


async def test_a_message_that_was_not_acknowledged_comes_again_at_another_worker(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        device.acknowledges = False
        for _ in range(2):
            await hub.until_answered(hub.send(1, device))
        await hub.house.until(lambda: len(hub.book.seen("mail")) == 2)
        device.acknowledges = True
        await hub.connected(device, 1)
        await hub.house.until(lambda: len(hub.book.seen("mail")) == 4)
        await hub.house.live_on(1.0)
        assert await hub.waiting(device) == []


async def test_messages_that_a_dead_worker_had_taken_come_in_their_order(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        device.acknowledges = False
        await hub.until_answered(hub.send(1, device))
        await hub.house.until(lambda: bool(hub.book.seen("mail")))
        await hub.house.kill(0)
        device.acknowledges = True
        await hub.until_answered(hub.send(1, device))
        await hub.connected(device, 1)
        await hub.house.until(lambda: len({one.value for one in hub.book.seen("mail")}) == 2)
        await hub.house.recovered()
        assert await hub.waiting(device) == []


async def test_a_connection_that_the_next_one_ended_and_could_not_follow_takes_no_message(tmp_path: Path) -> None:
    """Nobody knows of it any more: what it took would be missing wherever the device comes then."""
    async with a_hub_on(tmp_path) as hub:
        house, device = hub.house, await hub.device()
        await hub.connected(device, 1)
        device.line.cut()
        await house.live_on(1.0)
        first, second = device.connect(0), device.connect(0)
        await house.next_is("commit", Fate.DONE, first.worker)
        await house.next_is("commit", Fate.ANSWER_LOST, first.worker)
        await house.until(lambda: second.is_over)
        await hub.until_answered(hub.send(1, device))
        await house.live_on(2 * LOOK_S)
        await hub.until_answered(hub.send(1, device))
        await hub.connected(device, 1)
        await house.live_on(1.0)
        assert [one.value for one in hub.book.seen("mail")] == ["pump.m1", "pump.m2"]
        assert first.driver.is_over


@pytest.mark.parametrize("reads", range(6))
async def test_a_worker_that_begins_gives_back_what_a_dead_one_had_taken_before_its_device_comes(
    tmp_path: Path, reads: int
) -> None:
    """The new one knows of the death while it begins, and has come so far with it when it is ready."""
    async with a_hub_on(tmp_path) as hub:
        house, device = hub.house, await hub.device()
        await hub.connected(device, 0)
        device.acknowledges = False
        await hub.until_answered(hub.send(1, device))
        await house.until(lambda: bool(hub.book.seen("mail")))
        await house.kill(1)
        worker = await house.start(1)
        await house.kill(0)
        world = house.world
        await house.only(lambda _: True, lambda: any(one.what == "beside" for one in world.ready()))
        for _ in range(8):
            while others := [one for one in world.ready() if one.asker is not worker.starting]:
                await world.happen(others[0])
            await world.pass_time(BEAT_S)
        for _ in range(reads):
            for one in [one for one in world.ready() if one.asker is not worker.starting][:1]:
                await world.happen(one)
        await house.only(lambda one: one.asker is worker.starting, lambda: worker.is_ready)
        device.acknowledges = True
        await hub.until_answered(hub.send(1, device))
        await hub.connected(device, 1)
        await house.live_on(2 * LEASE_S)
        assert [one.value for one in hub.book.seen("mail")] == ["pump.m1", "pump.m1", "pump.m2"]


async def test_what_is_desired_at_one_worker_reaches_a_device_at_another(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 1)
        for _ in range(2):
            await hub.until_answered(hub.desire(0, device))
        await hub.house.live_on(1.0)
        assert [one.value[1] for one in hub.book.seen("desired")] == [2, 3]


async def test_what_is_desired_while_the_device_is_away_is_in_the_twin_it_reads(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        await hub.house.kill(0)
        asked = hub.desire(1, device)
        await hub.until_answered(asked)
        await hub.connected(device, 1)
        read = device.read()
        await hub.house.until(lambda: read.is_over)
        assert (read.value, read.version) == (asked.doing.value, asked.doing.version)


@pytest.mark.parametrize("steps", range(0, 20, 4))
async def test_what_is_desired_while_the_device_moves_is_heard_or_read_by_it(tmp_path: Path, steps: int) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        device.connect(1)
        for _ in range(steps):
            await hub.house.world.happen(hub.house.world.ready()[0])
        asked = hub.desire(0, device)
        await hub.house.until(lambda: asked.is_over and device.is_ready)
        read = device.read()
        await hub.house.until(lambda: read.is_over)
        assert asked.doing.version == read.version == 2


async def test_two_workers_that_change_one_twin_at_one_moment_give_each_change_its_version(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        asked = [hub.desire(place, device) for place in (0, 1, 0, 1)]
        reports = [device.report() for _ in range(2)]
        await hub.house.until(lambda: all(one.is_over for one in asked) and all(one.is_over for one in reports))
        assert sorted(one.doing.version or 0 for one in asked) == [2, 3, 4, 5]
        assert [one.version for one in reports] == [2, 3]
        read = device.read()
        await hub.house.until(lambda: read.is_over)


async def test_a_change_of_a_twin_that_has_no_answer_is_made_or_not(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 0)
        for fate in (Fate.ANSWER_LOST, Fate.LOST):
            asked = hub.desire(1, device)
            await hub.house.next_is("commit", fate, asked.worker)
            await hub.until_answered(asked)
            assert asked.doing.outcome is Outcome.UNKNOWN
        await hub.until_answered(hub.desire(1, device))
        read = device.read()
        await hub.house.until(lambda: read.is_over)
        assert read.version == 3


async def test_a_method_is_answered_by_a_device_at_another_worker(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.connected(device, 1)
        answer = await hub.until_answered(hub.call(0, device))
        assert answer is not None
        assert answer.status == 200


async def test_a_method_of_a_device_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        answer = await hub.until_answered(hub.call(0, device))
        assert answer is not None
        assert answer.status == 404


async def test_a_method_waits_for_a_device_that_is_about_to_come(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        asked = hub.call(0, device, connect_s=20)
        await hub.house.live_on(3.0)
        await hub.connected(device, 1)
        answer = await hub.until_answered(asked)
        assert answer is not None
        assert answer.status == 200


async def test_a_method_whose_device_is_silent_is_refused_in_time(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        device.answers_methods = False
        await hub.connected(device, 1)
        began = hub.house.world.clock.monotonic()
        answer = await hub.until_answered(hub.call(0, device, response_s=5))
        assert answer is not None
        assert answer.status == 504
        assert hub.house.world.clock.monotonic() - began < 7.0


async def test_a_method_whose_worker_dies_is_not_said_to_have_reached_nobody(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        device.answers_methods = False
        await hub.connected(device, 1)
        asked = hub.call(0, device)
        await hub.house.until(lambda: bool(hub.book.seen("method")))
        await hub.house.kill(1)
        await hub.until_answered(asked)
        assert asked.doing.outcome is Outcome.UNKNOWN


async def test_a_device_that_is_disabled_at_one_worker_does_nothing_more_at_another(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        line = await hub.connected(device, 1)
        device.send(1)
        await hub.house.until(lambda: not device.unacknowledged)
        await hub.until_answered(hub.disable(0, device))
        assert line.driver.is_over
        again = device.connect(1)
        await hub.house.until(lambda: again.is_over)
        assert not again.is_open


async def test_a_worker_that_stands_still_takes_nothing_of_a_device_that_was_deleted_meanwhile(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        line = await hub.connected(device, 1)
        hub.house.stop(1)
        began = hub.house.world.clock.monotonic()
        asked = hub.delete(0, device)
        await hub.until_answered(asked)
        assert asked.doing.outcome is Outcome.OK
        assert hub.house.world.clock.monotonic() - began < 3 * LEASE_S
        device.send(2)
        hub.house.go_on()
        await hub.house.until(lambda: line.is_over)
        assert hub.book.values("telemetry") == []


async def test_a_device_that_may_come_again_is_let_in_everywhere(tmp_path: Path) -> None:
    async with a_hub_on(tmp_path) as hub:
        device = await hub.device()
        await hub.until_answered(hub.disable(0, device))
        await hub.until_answered(hub.enable(1, device))
        await hub.connected(device, 0)
        device.send(1)
        await hub.connected(device, 1)
        await hub.house.until(lambda: not device.unacknowledged)
