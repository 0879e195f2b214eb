"""The queue of a hub's telemetry: whoever waits has taken nothing yet, and devices have their turns by turns."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from birthmark.iothub.rules.tier_throttles_and_quotas import (
    BACKLOG_S,
    PATIENCE_S,
    Edition,
    HubThrottle,
    ThrottleClass,
    Tier,
    TierThrottledError,
)
from birthmark.iothub.service import throttles
from birthmark.iothub.service.throttles import Shaper
from birthmark.supervised_tasks import FAILURES
from support.fakes import FakeClock


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles, "LOOK_S", 0.005)


class Hub:
    """A hub of the tier S1, of which the messages of this second are used up."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.throttle: HubThrottle | None = HubThrottle("hub-2", Edition(Tier.S1))
        self.throttle.take(ThrottleClass.TELEMETRY, self.clock.monotonic(), 100)
        self.shaper = Shaper(lambda: self.throttle, self.clock)
        self.served: list[str] = []

    def waits(
        self, device: str, amount: int = 10, is_over: Callable[[], bool] = lambda: False, patience_s: float = BACKLOG_S
    ) -> asyncio.Task[bool]:
        async def wait() -> bool:
            has_it = await self.shaper.turn(device, amount, is_over, patience_s)
            self.served.append(device)
            return has_it

        return asyncio.create_task(wait())

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(0.01)  # whoever waits is in the queue
        self.clock.move(timedelta(seconds=seconds))
        await asyncio.sleep(0.05)


async def test_what_there_is_room_for_has_its_turn_at_once() -> None:
    hub = Hub()
    hub.clock.move(timedelta(seconds=1))
    assert await hub.shaper.turn("d", 10, lambda: False, 0)


async def test_who_waits_has_a_turn_when_there_is_room() -> None:
    hub = Hub()
    first, second = hub.waits("d"), hub.waits("e")
    await hub.passes(0.1)
    assert first.done()
    assert not second.done()
    await hub.passes(0.1)
    assert second.result()


async def test_who_hung_up_while_it_waited_took_nothing() -> None:
    hub, over = Hub(), asyncio.Event()
    gone = [hub.waits(f"gone-{number}", is_over=over.is_set) for number in range(100)]
    await asyncio.sleep(0)
    polite = hub.waits("polite")
    await asyncio.sleep(0)
    over.set()
    await hub.passes(0.1)
    assert polite.result()
    assert not any([await one for one in gone])


async def test_a_request_that_was_given_up_took_nothing() -> None:
    hub = Hub()
    given_up = hub.waits("d")
    await asyncio.sleep(0)
    polite = hub.waits("polite")
    given_up.cancel()
    await hub.passes(0.1)
    assert polite.result()


async def test_devices_have_their_turns_by_turns_whatever_the_number_of_their_connections() -> None:
    hub = Hub()
    greedy = [hub.waits("greedy") for _ in range(50)]
    await asyncio.sleep(0)
    polite = hub.waits("polite", 1, patience_s=PATIENCE_S)
    await hub.passes(0.2)
    assert polite.result()
    assert hub.served == ["greedy", "polite"]
    for one in greedy:
        one.cancel()


async def test_a_batch_leaves_turns_to_others() -> None:
    hub = Hub()
    batch = hub.waits("greedy", 500)
    await asyncio.sleep(0)
    polite = hub.waits("polite", 1)
    await hub.passes(0.2)
    assert polite.result()
    assert not batch.done()
    for _ in range(5):
        await hub.passes(1)
    assert batch.result()


async def test_who_would_wait_too_long_is_refused_at_once_and_takes_nothing() -> None:
    hub = Hub()
    waiting = [hub.waits(f"device-{number}") for number in range(100)]  # ten seconds' worth
    await asyncio.sleep(0)
    for _ in range(100):
        with pytest.raises(TierThrottledError) as caught:
            await hub.shaper.turn("polite", 10, lambda: False, PATIENCE_S)
        assert caught.value.retry_after_s == 11
    assert not any(one.done() for one in waiting)
    for one in waiting:
        one.cancel()


async def test_a_device_whose_own_messages_wait_long_is_refused_and_others_are_not() -> None:
    hub = Hub()
    waiting = [hub.waits("greedy") for _ in range(300)]
    await asyncio.sleep(0)
    with pytest.raises(TierThrottledError):
        await hub.shaper.turn("greedy", 10, lambda: False, BACKLOG_S)
    polite = hub.waits("polite", 1, patience_s=PATIENCE_S)
    await hub.passes(0.2)
    assert polite.result()
    for one in waiting:
        one.cancel()


async def test_without_its_tier_nobody_waits_any_more() -> None:
    hub = Hub()
    waiting = [hub.waits("d") for _ in range(20)]
    await asyncio.sleep(0)
    hub.throttle = None
    await hub.passes(0)
    assert all(one.result() for one in waiting)


async def test_a_mistake_ends_the_waiting_and_not_the_turns_of_those_that_come_later() -> None:
    hub = Hub()

    def broken() -> bool:
        if asyncio.current_task() is not mistaken:
            raise ValueError
        return False

    before = FAILURES["the turns of a hub"]
    mistaken, other = hub.waits("d", is_over=broken), hub.waits("e")
    for one in (mistaken, other):
        with pytest.raises(RuntimeError):
            await one
    assert FAILURES["the turns of a hub"] == before + 1
    later = hub.waits("f")
    await hub.passes(0.2)
    assert later.result()


async def test_turns_that_are_given_out_leave_nothing_behind() -> None:
    hub = Hub()
    waiting = [hub.waits(f"device-{number % 3}", 1 + number * 7 % 25) for number in range(9)]
    await asyncio.sleep(0)
    waiting[4].cancel()
    await hub.passes(1)
    await hub.passes(1)
    await asyncio.wait(waiting, timeout=10)
    assert sum(one.done() for one in waiting) == 9
    assert (hub.shaper._round, hub.shaper._amount, len(hub.shaper._lines)) == (0, 0, 0)
    assert hub.shaper._serving is None
