"""A worker that is to be started anew, and cannot be."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birthmark.bus import WorkerUnreachableError
from birthmark.server.workers import parent
from birthmark.server.workers.parent import Parent, ProgramLoader, WorkerProcess


def a_worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that serves, whose successor cannot be loaded."""
    programs = ProgramLoader()
    worker: Any = WorkerProcess("w1", Path(), programs, lambda _: pytest.fail("it is told nothing"))
    worker.signals, worker.kills = [], []
    worker._process = SimpleNamespace(
        returncode=None, send_signal=worker.signals.append, kill=lambda: worker.kills.append("kill")
    )
    worker._is_ready.set()

    async def load(name: str) -> Any:
        raise WorkerUnreachableError(worker=name)

    monkeypatch.setattr(programs, "load", load)
    return worker


async def test_a_worker_whose_successor_cannot_be_loaded_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = a_worker(monkeypatch)
    assert not await worker.replace_with_successor()
    assert worker.is_ready
    assert not worker.signals


LIVE_FOR_S = 10.0


async def test_a_worker_that_another_one_declared_dead_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = a_worker(monkeypatch)
    worker._id, worker._ready_at = "w1-a", asyncio.get_running_loop().time() - LIVE_FOR_S
    worker.kill_if_dead(["w1-a", "w2-b"])
    worker.kill_if_dead([])  # the other one does not know
    assert not worker.kills
    worker.kill_if_dead(["w2-b"])
    assert worker.kills == ["kill"]


async def test_a_worker_is_not_killed_by_what_another_one_read_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = a_worker(monkeypatch)
    worker._id, worker._ready_at = "w1-a", asyncio.get_running_loop().time()
    worker.kill_if_dead(["w2-b"])
    assert not worker.kills


def a_program() -> Any:
    """Return a loaded program that has not ended."""
    program: Any = SimpleNamespace(process=SimpleNamespace(returncode=None), kills=[])
    program.kill = lambda: program.kills.append("kill")
    return program


async def a_spare(programs: ProgramLoader, monkeypatch: pytest.MonkeyPatch, *others: Any) -> Any:
    """Have the loader load a spare program; it loads the others after it."""
    loaded = [spare := a_program(), *others]

    async def load(_worker: str) -> Any:
        return loaded.pop(0)

    monkeypatch.setattr(programs, "load", load)
    monkeypatch.setattr(parent, "_LOOK_EVERY_S", 0.0)
    loading = asyncio.create_task(programs.run_spare_loop(lambda: True))
    while programs._spare is None:
        await asyncio.sleep(0)
    loading.cancel()
    return spare


async def test_a_failed_worker_takes_the_spare_program_once(monkeypatch: pytest.MonkeyPatch) -> None:
    programs, other = ProgramLoader(), a_program()
    spare = await a_spare(programs, monkeypatch, other)
    assert await programs.take("w1") is spare
    assert await programs.take("w2") is other


async def test_a_spare_program_that_has_ended_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    programs, other = ProgramLoader(), a_program()
    spare = await a_spare(programs, monkeypatch, other)
    spare.process.returncode = -9
    assert await programs.take("w1") is other


async def test_a_rolling_restart_uses_no_program_that_was_loaded_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = ProgramLoader()
    spare = await a_spare(programs, monkeypatch)
    whole: Any = SimpleNamespace(
        _restarting=asyncio.Lock(), _workers=[], _programs=programs, _reload_settings=lambda: None
    )
    await Parent.restart(whole)
    assert spare.kills == ["kill"]


async def test_a_restart_ends_with_the_first_that_does_not_come_again() -> None:
    asked: list[str] = []

    def one(name: str, *, comes: bool) -> Any:
        async def again() -> bool:
            asked.append(name)
            return comes

        return SimpleNamespace(name=name, replace_with_successor=again)

    whole: Any = SimpleNamespace(
        _restarting=asyncio.Lock(),
        _read=None,
        _programs=ProgramLoader(),
        _workers=[one("w1", comes=False), one("w2", comes=True)],
    )
    whole._reload_settings = lambda: None
    await Parent.restart(whole)
    assert asked == ["w1"]
    assert parent._OF_THE_PARENT
