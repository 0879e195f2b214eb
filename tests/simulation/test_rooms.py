"""The rooms of both clouds under random faults: whatever happens in whatever order, the promises hold.

`BIRTHMARK_WALKS` makes the run longer: so many seeds, each a walk of its own; `scripts/soak rooms` takes thousands.
"""

import os
from pathlib import Path

import pytest

from simulation.rooms import a_house
from simulation.walk import a_walk
from support.kills.history import Finding

pytestmark = pytest.mark.integration
WALKS = int(os.environ.get("BIRTHMARK_WALKS", "8"))
STEPS = 250


async def walked(directory: Path, seed: int, url: str = "") -> list[Finding]:
    async with a_house(directory, 3, url) as house:
        walk = await a_walk(house, seed)
        await walk.go(STEPS)
        return await walk.end()


@pytest.mark.parametrize("seed", range(WALKS))
async def test_what_was_promised_is_kept_whatever_happens(tmp_path: Path, seed: int) -> None:
    assert await walked(tmp_path, seed) == []


@pytest.mark.parametrize("seed", range(WALKS, WALKS + WALKS // 4))
async def test_what_was_promised_is_kept_on_postgresql_too(tmp_path: Path, seed: int, postgres_url: str) -> None:
    assert await walked(tmp_path, seed, postgres_url) == []
