"""The rooms of both clouds under random faults: whatever happens in whatever order, the promises hold.

`BIRTHMARK_WALKS` makes the run longer: so many seeds, each a walk of its own; `scripts/soak rooms` takes thousands.
"""

import os
from pathlib import Path

import pytest

from simulation.rooms import a_house
from simulation.walk import a_walk

pytestmark = pytest.mark.integration
WALKS = int(os.environ.get("BIRTHMARK_WALKS", "8"))
STEPS = 250


@pytest.mark.parametrize("seed", range(WALKS))
async def test_what_was_promised_is_kept_whatever_happens(tmp_path: Path, seed: int) -> None:
    async with a_house(tmp_path, 3) as house:
        walk = await a_walk(house, seed)
        await walk.go(STEPS)
        assert await walk.end() == []
