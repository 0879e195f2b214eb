"""What tells pages of what happens goes on, whatever goes wrong in a look."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from birthmark import supervised_tasks
from birthmark.auth.principals import MACHINE
from birthmark.webconsole import live_updates
from birthmark.webconsole.live_updates import LiveUpdates, _Listener


class FakeFeed:
    """Of one chain, in which something happens at each look."""

    def __init__(self) -> None:
        self.seq = 0

    async def end(self) -> Mapping[str, int]:
        self.seq += 1
        return {"chain": self.seq}

    async def after(self, place: Mapping[str, int]) -> list[Any]:
        row = SimpleNamespace(action="dps.register", detail={})
        return [(row, {"chain": seq}) for seq in range(place["chain"] + 1, self.seq + 1)]


async def test_pages_hear_on_after_a_look_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised_tasks, "AGAIN_S", 0.01)
    monkeypatch.setattr(live_updates, "LOOK_EVERY_S", 0.01)
    failed: list[bool] = []

    async def counted() -> Mapping[str, int]:
        if not failed:
            failed.append(True)
            raise ValueError("a mistake of ours")
        return {}

    site: Any = SimpleNamespace(feed=FakeFeed(), get_user=lambda _request: MACHINE)
    following = LiveUpdates(site, counted)
    told = following._told(SimpleNamespace(), _Listener("anna", sees_rates=False))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        heard = [await anext(told) for _ in range(3)]
    await told.aclose()  # type: ignore[attr-defined]
    assert failed
    assert any("devices" in one for one in heard)
