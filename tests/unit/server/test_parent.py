"""A worker that is to be started anew, and cannot be."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birthmark.bus import WorkerUnreachableError
from birthmark.server.workers import parent
from birthmark.server.workers.parent import Parent, WorkerProcess


def a_worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that serves, whose successor cannot be loaded."""
    worker: Any = WorkerProcess("w1", Path(), {}, lambda _: pytest.fail("it is told nothing"))
    worker.signals = []
    worker._process = SimpleNamespace(returncode=None, send_signal=worker.signals.append)
    worker._is_ready.set()

    async def spawn() -> Any:
        raise WorkerUnreachableError(worker="w1")

    monkeypatch.setattr(worker, "_spawn", spawn)
    return worker


async def test_a_worker_whose_successor_cannot_be_loaded_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = a_worker(monkeypatch)
    assert not await worker.replace_with_successor()
    assert worker.is_ready
    assert not worker.signals


async def test_a_restart_ends_with_the_first_that_does_not_come_again() -> None:
    asked: list[str] = []

    def one(name: str, *, comes: bool) -> Any:
        async def again() -> bool:
            asked.append(name)
            return comes

        return SimpleNamespace(name=name, replace_with_successor=again)

    whole: Any = SimpleNamespace(
        _restarting=asyncio.Lock(), _read=None, _workers=[one("w1", comes=False), one("w2", comes=True)]
    )
    whole._reload_settings = lambda: None
    await Parent.restart(whole)
    assert asked == ["w1"]
    assert parent._OF_THE_PARENT
