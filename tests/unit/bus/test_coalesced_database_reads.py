"""What confirmations ask of the database is asked once for all who wait, and never counts for who came later."""

import asyncio
from collections.abc import Sequence

import pytest

from birthmark.bus.coalesced_database_reads import CoalescedReader
from birthmark.bus.stale_cache_marks import MissedWorkerMarker
from birthmark.errors import UnavailableError

LEASE_S, PAUSE_S = 0.2, 0.001


class Members:
    """The workers as a database knows them: w2 reads when it is let."""

    is_fresh = True

    def __init__(self) -> None:
        self.marks = self.heard = 0
        self.is_dead = self.is_away = False

    async def mark(self, worker: str) -> int | None:
        await asyncio.sleep(0)
        if self.is_away:
            raise UnavailableError
        if self.is_dead:
            return None
        self.marks += 1
        return self.marks

    async def has_read(self, worker: str, mark: int) -> bool:
        await asyncio.sleep(0)
        return self.is_dead or self.heard >= mark

    async def others(self) -> Sequence[str]:
        return ["w2"]

    async def is_alive(self, worker: str) -> bool:
        return not self.is_dead


@pytest.fixture
def members() -> Members:
    return Members()


@pytest.fixture
def marking(members: Members) -> MissedWorkerMarker:
    return MissedWorkerMarker(members, "w2", LEASE_S, PAUSE_S)


async def asked(marking: MissedWorkerMarker, count: int, *, is_whole: bool = False) -> list["asyncio.Task[bool]"]:
    tasks = [asyncio.create_task(marking.read(is_whole=is_whole)) for _ in range(count)]
    await asyncio.sleep(10 * PAUSE_S)
    return tasks


async def test_a_hundred_who_wait_mark_a_worker_once(members: Members, marking: MissedWorkerMarker) -> None:
    tasks = await asked(marking, 100)
    assert members.marks == 1
    members.heard = 1
    assert await asyncio.gather(*tasks) == [True] * 100


async def test_who_comes_while_a_worker_reads_waits_for_the_next_mark(
    members: Members, marking: MissedWorkerMarker
) -> None:
    first = await asked(marking, 1)
    late = await asked(marking, 50)
    assert members.marks == 1
    members.heard = 1
    assert await first[0]
    await asyncio.sleep(10 * PAUSE_S)
    assert members.marks == 2
    assert not any(one.done() for one in late)
    members.heard = 2
    assert await asyncio.gather(*late) == [True] * 50


async def test_what_a_worker_remembers_counts_for_nothing_when_its_lease_is_over(marking: MissedWorkerMarker) -> None:
    assert await marking.read(is_whole=False) is False


async def test_who_waits_until_it_has_read_waits_longer_than_its_lease(
    members: Members, marking: MissedWorkerMarker
) -> None:
    (whole,) = await asked(marking, 1, is_whole=True)
    assert await marking.read(is_whole=False) is False
    assert not whole.done()
    members.heard = members.marks
    assert await whole


async def test_nobody_waits_for_a_worker_that_is_dead(members: Members, marking: MissedWorkerMarker) -> None:
    waiting = await asked(marking, 2, is_whole=True)
    members.is_dead = True
    assert await asyncio.gather(*waiting, marking.read(is_whole=True)) == [True] * 3


async def test_a_database_that_comes_back_is_asked_again(members: Members, marking: MissedWorkerMarker) -> None:
    members.is_away = True
    (waiting,) = await asked(marking, 1)
    members.is_away = False
    members.heard = 1
    assert await waiting
    assert members.marks == 1


async def test_nothing_goes_on_when_all_have_given_up(members: Members, marking: MissedWorkerMarker) -> None:
    for task in await asked(marking, 3):
        task.cancel()
    await asyncio.sleep(10 * PAUSE_S)
    assert not marking.is_asked


async def test_a_mistake_of_ours_is_told_to_who_waits_and_keeps_nobody(
    members: Members, marking: MissedWorkerMarker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(_worker: str) -> int:
        raise RuntimeError("ours")

    monkeypatch.setattr(members, "mark", mistaken)
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="ours"):
            await marking.read(is_whole=True)


async def test_what_is_read_afresh_was_begun_after_each_asked() -> None:
    begun, go_on = 0, asyncio.Event()

    async def read() -> int:
        nonlocal begun
        begun += 1
        number = begun
        await go_on.wait()
        return number

    afresh = CoalescedReader(read)
    first = asyncio.create_task(afresh())
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(afresh()) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert begun == 1
    go_on.set()
    assert await first == 1
    assert await asyncio.gather(*late) == [2] * 50
