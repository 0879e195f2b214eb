"""Workers on one database: who lives, who is dead, and who has to read what it was not told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from birthmark.broker import Broker, store
from birthmark.broker.rules.leases import BEAT_S, CUT_OFF_S, LEASE_S
from birthmark.broker.worker_leases import WorkerLostError, Workers, keep_beating, run_failure_detector_loop
from birthmark.bus import LocalBus
from birthmark.store import Database, open_database
from support.fakes import FakeClock

pytestmark = pytest.mark.integration


class Time:
    """What the clock of one machine says."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay_s: float, act: object) -> "Time":
        raise NotImplementedError

    def cancel(self) -> None: ...

    async def sleep(self, delay_s: float) -> None: ...


class Pausing(Time):
    """A clock of which every pause takes its time from another."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self.time = time

    async def sleep(self, delay_s: float) -> None:
        self.time.now += delay_s
        await asyncio.sleep(0.01)


@dataclass
class One:
    """A worker, and what it was told to do."""

    name: str
    database: Database
    time: Time
    read: list[str] = field(default_factory=list)
    freed: list[str] = field(default_factory=list)
    is_gone: bool = False
    fresh: set[str] = field(default_factory=set)
    """Workers that say over the bus that their lease is valid."""
    workers: Workers = field(init=False)

    def __post_init__(self) -> None:
        def gone() -> None:
            self.is_gone = True

        async def free(owner: str) -> None:
            self.freed.append(owner)

        async def catch_up() -> None:
            self.read.append("all")

        async def is_any_fresh(workers: Collection[str]) -> bool:
            return not self.fresh.isdisjoint(workers)

        ports = {"gone": gone, "free": free, "catch_up": catch_up, "is_any_fresh": is_any_fresh}
        self.workers = Workers(self.database, self.name, self.time, **ports)  # type: ignore[arg-type] # as above


@contextlib.asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[One, One, Time]]:
    async with contextlib.AsyncExitStack() as stack:
        time, found = Time(), []
        for name in ("w1-a", "w2-b"):
            database = await open_database(f"sqlite:///{tmp_path}/one.db", FakeClock(), worker=name[:2])
            stack.push_async_callback(database.close)
            found.append(One(name, database, time))
            await found[-1].workers.join()
        yield found[0], found[1], time


async def test_who_beats_lives_and_who_does_not_is_declared_dead(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, time):
        for _ in range(8):
            await first.workers.beat()
            await first.workers.look()
            time.now += BEAT_S
        assert await first.workers.others() == []
        await second.workers.beat()
        assert second.is_gone
        with pytest.raises(WorkerLostError):
            await second.workers.fresh()


@pytest.mark.parametrize("away_s", [1.5, 5.0, 30.0])
async def test_who_returns_first_after_an_outage_of_the_database_declares_nobody_dead(
    tmp_path: Path, away_s: float
) -> None:
    async with two(tmp_path) as (first, second, time):
        for one in (first, second):
            await one.workers.beat()
            await one.workers.look()
        time.now += away_s
        await first.workers.beat()
        await first.workers.look()
        time.now += BEAT_S
        await second.workers.beat()
        await first.workers.look()
        assert await first.workers.others() == ["w2-b"]
        assert second.workers.is_fresh


async def test_a_worker_that_alone_lost_the_database_ends_so_that_its_devices_go_to_another(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, _second, time):
        await first.workers.look()
        first.fresh = {"w2-b"}
        time.now += LEASE_S + BEAT_S
        for _ in range(int(CUT_OFF_S / LEASE_S)):
            await first.workers.end_if_cut_off()
            assert not first.is_gone
            time.now += LEASE_S
        await first.workers.end_if_cut_off()
        assert first.is_gone
        with pytest.raises(WorkerLostError):
            await first.workers.fresh()


async def test_a_worker_that_gets_the_database_back_later_than_another_one_stays(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, _, time):
        await first.workers.look()
        time.now += 30  # the database is away for both
        await first.workers.end_if_cut_off()
        first.fresh = {"w2-b"}
        await first.workers.end_if_cut_off()
        time.now += CUT_OFF_S - BEAT_S
        await first.workers.end_if_cut_off()
        await first.workers.beat()
        time.now += CUT_OFF_S
        await first.workers.end_if_cut_off()
        assert not first.is_gone


async def test_workers_that_all_lost_the_database_stay(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, time):
        await first.workers.look()
        time.now += 30
        await first.workers.end_if_cut_off()
        await first.workers.beat()
        await second.workers.beat()
        assert not first.is_gone
        assert first.workers.is_fresh
        assert second.workers.is_fresh


async def test_who_is_marked_reads_before_it_lives_on(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, time):
        mark = await first.workers.mark("w2-b")
        assert mark is not None
        assert not await first.workers.has_read("w2-b", mark)
        time.now += BEAT_S
        await second.workers.beat()
        assert second.read == ["all"]
        assert await first.workers.has_read("w2-b", mark)
        assert second.workers.is_fresh


async def test_what_a_marked_worker_remembers_counts_for_nothing_after_a_lease(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, time):
        reading = asyncio.Event()

        async def never() -> None:
            await reading.wait()

        second.workers._catch_up = never
        await first.workers.mark("w2-b")
        beating = asyncio.create_task(second.workers.beat())
        time.now += LEASE_S
        await asyncio.sleep(0.05)
        assert not second.workers.is_fresh
        reading.set()
        await beating
        assert second.workers.is_fresh


async def test_two_that_mark_one_at_once_both_know_when_it_has_read(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _time):
        marks = await asyncio.gather(*(first.workers.mark("w2-b") for _ in range(5)))
        assert sorted(mark for mark in marks if mark) == [1, 2, 3, 4, 5]
        await second.workers.beat()
        assert await first.workers.has_read("w2-b", 5)


async def test_nobody_waits_for_a_worker_that_is_dead(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _time):
        await second.workers.leave()
        assert await first.workers.mark("w2-b") is None
        assert await first.workers.has_read("w2-b", 1)
        assert not await first.workers.is_alive("w2-b")


async def test_who_waits_no_more_until_a_worker_knows_that_it_lives_leaves_nothing(tmp_path: Path) -> None:
    """A database that is away for long would have it pile up, by whoever asks and goes."""
    async with two(tmp_path) as (_first, second, time):
        time.now += LEASE_S
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await second.workers.fresh()
        assert not second.workers._waiting


async def test_a_sign_of_life_waits_for_no_look_at_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two(tmp_path) as (first, _second, time):

        async def never(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(first.database, "all", never)
        tasks = [
            asyncio.create_task(keep(first.workers, Pausing(time)))
            for keep in (keep_beating, run_failure_detector_loop)
        ]
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert first.workers.is_fresh
        assert time.now > LEASE_S
        for task in tasks:
            task.cancel()


async def test_a_worker_that_came_while_others_were_looked_at_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two(tmp_path) as (first, _second, _time):
        read = first.database.all

        async def late(statement: object, **params: Any) -> Any:
            found = await read(statement, **params)  # type: ignore[arg-type] # it is handed on
            is_workers = statement is store.WORKERS
            return [row for row in found if row["id"] != "w2-b"] if is_workers else [{"owner": "w2-b"}]

        monkeypatch.setattr(first.database, "all", late)
        await first.workers.look()
        assert first.freed == []


async def test_what_a_dead_worker_held_is_freed_though_it_has_no_session_any_more(tmp_path: Path) -> None:
    async with two(tmp_path) as (one, other, time):
        await one.workers.look()
        for _ in range(round(LEASE_S / BEAT_S)):
            assert not await one.workers.is_gone(other.name)
            time.now += BEAT_S
        await one.workers.beat()
        assert await one.workers.is_gone(other.name)  # as whoever takes its last session over finds
        await one.workers.look()
        assert one.freed == [other.name]
        await one.workers.look()
        assert one.freed == [other.name]


class Line(LocalBus):
    """A bus whose other workers are far away."""

    async def catch_up(self) -> None: ...

    def on_missed(self, act: object) -> None: ...


async def test_a_worker_that_was_taken_for_dead_while_it_began_ends_all_the_same(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/one.db", FakeClock(), worker="w1")
    broker, ended = Broker(database, FakeClock(), "w1-a", Line(database)), []
    assert broker.workers is not None
    await broker.workers.join()
    await database.write_outside_batch(store.DECLARE_DEAD, id="w1-a", beat=0)
    await broker.workers.beat()
    broker.end_when_lost(lambda: ended.append("now"))
    assert ended == ["now"]
    await database.close()
