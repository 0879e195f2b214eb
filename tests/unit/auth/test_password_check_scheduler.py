"""Whose password is checked next."""

import asyncio

import pytest

from birthmark.auth import password_check_scheduler
from birthmark.auth.password_check_scheduler import PasswordAttempt, PasswordScheduler
from birthmark.est.rules.caller_rate_limit import EstThrottledError
from support.fakes import FakeClock

pytestmark = pytest.mark.anyio


def sent_away() -> EstThrottledError:
    return EstThrottledError(retry_after_s=1, wait_s=1, who="", burst=1, every_s=1.0)


class Slow:
    """Checks that end when they are told to; who was looked at, in order."""

    def __init__(self) -> None:
        self.queue = PasswordScheduler(
            FakeClock(), lambda: EstThrottledError(retry_after_s=1, wait_s=1, who="", burst=1, every_s=1.0)
        )
        self.seen: list[str] = []
        self._ends: asyncio.Queue[bool] = asyncio.Queue()

    def ask(
        self, name: str, *rank: int, address: str = "", user: str = "", of_user: int = 0, is_unknown: bool = False
    ) -> "asyncio.Task[bool]":
        async def is_right() -> bool:
            self.seen.append(name)
            return await self._ends.get()

        asked = PasswordAttempt(user or name, address or name, is_unknown, of_user, *rank)
        return asyncio.create_task(self.queue.check(asked, is_right))

    def end(self, *, right: bool) -> None:
        self._ends.put_nowait(right)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_guessed_least_is_looked_at_next() -> None:
    slow = Slow()
    tasks = [slow.ask("first", 9, 900)]
    await turns()
    tasks += [slow.ask("guesser", 5, 500), slow.ask("neighbor", 0, 500), slow.ask("elsewhere", 0, 0)]
    await turns()
    for _ in tasks:
        slow.end(right=True)
    assert await asyncio.gather(*tasks) == [True] * 4
    assert slow.seen == ["first", "elsewhere", "neighbor", "guesser"]


async def test_an_address_that_asks_many_at_once_waits_for_itself() -> None:
    slow = Slow()
    tasks = [slow.ask(f"guess {number}", 0, 0, address="noisy") for number in range(5)]
    await turns()
    tasks.append(slow.ask("device", 0, 0))
    await turns()
    for _ in tasks:
        slow.end(right=True)
    await asyncio.gather(*tasks)
    assert slow.seen[:3] == ["guess 0", "guess 1", "device"]


async def test_names_that_somebody_makes_up_keep_no_device_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_check_scheduler, "MAX_WAITING", 3)
    slow = Slow()
    made_up = [slow.ask(f"none {number}", 0, 0, is_unknown=True) for number in range(4)]
    await turns()
    device = slow.ask("device", 9, 900)
    await turns()
    for _ in range(4):
        slow.end(right=True)
    assert await device
    await asyncio.gather(*made_up, return_exceptions=True)
    assert slow.seen[1] == "device"


async def test_who_gives_up_keeps_no_turn() -> None:
    slow = Slow()
    first, second, third = slow.ask("first", 0, 0), slow.ask("second", 0, 0), slow.ask("third", 0, 0)
    await turns()
    second.cancel()
    await turns()
    slow.end(right=False)
    slow.end(right=True)
    assert (await first, await third) == (False, True)
    assert slow.seen == ["first", "third"]


async def test_a_check_that_fails_leaves_the_turn_to_the_next() -> None:
    slow = Slow()

    async def broken() -> bool:
        raise OSError

    with pytest.raises(OSError):
        await slow.queue.check(PasswordAttempt("", ""), broken)
    slow.end(right=True)
    assert await slow.ask("next", 0, 0)


async def test_where_too_many_wait_the_worst_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_check_scheduler, "MAX_WAITING", 2)
    slow = Slow()
    tasks = [slow.ask("running", 0, 0), slow.ask("guesser", 3, 9), slow.ask("other", 1, 1)]
    await turns()
    tasks.append(slow.ask("clean", 0, 0))
    await turns()
    with pytest.raises(EstThrottledError):
        await tasks[1]
    for _ in range(3):
        slow.end(right=True)
    assert [await tasks[0], await tasks[2], await tasks[3]] == [True] * 3


async def test_who_is_sent_away_and_gives_up_at_once_leaves_no_turn_that_was_not_his(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(password_check_scheduler, "MAX_WAITING", 1)
    slow = Slow()
    running, guesser = slow.ask("running", 0, 0), slow.ask("guesser", 9, 9)
    await turns()
    clean = slow.ask("clean", 0, 0)
    asyncio.get_running_loop().call_soon(guesser.cancel)  # after it is sent away, and before it hears of it
    await turns()
    assert guesser.cancelled()
    assert slow.seen == ["running"]
    for _ in range(2):
        slow.end(right=True)
    assert [await running, await clean] == [True] * 2


async def test_who_guesses_at_one_user_from_everywhere_keeps_no_other_waiting() -> None:
    slow = Slow()
    tasks = [slow.ask(f"guess {number}", 0, 0, user="edge") for number in range(5)]
    await turns()
    tasks.append(slow.ask("device", 0, 0))
    await turns()
    for _ in tasks:
        slow.end(right=True)
    await asyncio.gather(*tasks)
    assert slow.seen[:2] == ["guess 0", "device"]


async def test_a_user_at_whom_nobody_guessed_comes_before_many_who_were_guessed_at() -> None:
    slow = Slow()
    tasks = [slow.ask(f"guess {number}", 0, 0, of_user=1) for number in range(5)]
    await turns()
    tasks.append(slow.ask("device", 0, 0))
    await turns()
    for _ in tasks:
        slow.end(right=True)
    await asyncio.gather(*tasks)
    assert slow.seen[:2] == ["guess 0", "device"]


async def test_where_too_many_wait_it_is_the_user_of_most_who_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_check_scheduler, "MAX_WAITING", 3)
    slow = Slow()
    tasks = [slow.ask(f"guess {number}", 0, 0, user="edge") for number in range(4)]
    await turns()
    device = slow.ask("device", 0, 0)
    await turns()
    with pytest.raises(EstThrottledError):
        await tasks[3]
    for _ in range(4):
        slow.end(right=True)
    assert [await device, *await asyncio.gather(*tasks[:3])] == [True] * 4
