"""What runs in the background: its mistakes are counted, and it goes on."""

import asyncio
import threading

import pytest

from birthmark import supervised_tasks
from birthmark.supervised_tasks import FAILURES, cancel_and_wait, run_in_thread, start_supervised, told


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised_tasks, "AGAIN_S", 0.0)
    FAILURES.clear()


async def test_work_that_fails_is_counted_and_begun_again() -> None:
    begun = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise KeyError(begun)
        third.set()
        await asyncio.Event().wait()

    task = start_supervised("work", work)
    await third.wait()
    assert FAILURES["work"] == 2
    await cancel_and_wait(task)
    assert task.cancelled()


async def test_what_is_done_once_tells_what_went_wrong_and_ends() -> None:
    async def fails() -> None:
        raise ValueError

    await told("once", fails())
    assert FAILURES["once"] == 1


async def test_nothing_that_never_began_is_ended() -> None:
    await cancel_and_wait(None)


async def test_work_that_answers_its_end_with_an_error_is_ended_all_the_same() -> None:
    turns = 0

    async def answers() -> None:
        nonlocal turns
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            turns += 1
            if turns < 3:
                raise TimeoutError from None
            raise

    task = start_supervised("stubborn", answers)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_and_wait(task)
    assert (turns, task.cancelled()) == (3, True)


async def test_what_is_done_beside_the_loop_keeps_nobody_waiting() -> None:
    goes_on = threading.Event()
    work = asyncio.create_task(run_in_thread(goes_on.wait))
    await asyncio.sleep(0)
    assert not work.done()
    goes_on.set()
    assert await work


async def test_who_is_cancelled_meanwhile_ends_after_what_is_done_beside() -> None:
    goes_on, done = threading.Event(), list[str]()

    def slow() -> None:
        goes_on.wait()
        done.append("made")

    work = asyncio.create_task(run_in_thread(slow))
    await asyncio.sleep(0)
    for _ in range(2):
        work.cancel()
        await asyncio.sleep(0)
        assert not work.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert done == ["made"]
