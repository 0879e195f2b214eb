"""Who has more to do than a slice of time has a turn after each look of the loop at everybody else, and no second."""

import asyncio
from functools import partial
from itertools import count

import pytest

from birthmark.net import backlog
from birthmark.net.backlog import SLICE_S, TURN_S, Backlog


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(backlog, "now", lambda: next(ticks) * SLICE_S)  # each look at the clock is a slice later


async def test_between_two_looks_of_the_loop_all_who_have_more_work_for_one_turn() -> None:
    waiting, worked = Backlog.running(), 0

    def go_on() -> None:
        nonlocal worked
        worked += 1
        waiting.add(go_on)

    waiting.add(go_on)
    for _ in range(20):
        before = worked
        await asyncio.sleep(0)
        assert worked - before <= TURN_S / SLICE_S + 1
    assert worked >= 20


async def test_all_who_wait_work_in_turn() -> None:
    waiting, worked = Backlog.running(), []

    def one(name: str) -> None:
        worked.append(name)
        waiting.add(partial(one, name))

    for name in "abc":
        waiting.add(partial(one, name))
    for _ in range(6):
        await asyncio.sleep(0)
    assert worked[:9] == ["a", "b", "c"] * 3


async def test_a_mistake_of_one_keeps_no_other_waiting() -> None:
    waiting, worked = Backlog.running(), []

    def mistaken() -> None:
        raise ZeroDivisionError

    waiting.add(mistaken)
    waiting.add(lambda: worked.append("other"))
    await asyncio.sleep(0)
    assert worked == ["other"]
