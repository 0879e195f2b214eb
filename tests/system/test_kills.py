"""Killed at random moments under a mixed load: what was acknowledged is there, and everything goes on.

`scripts/soak kills` does the same for longer.
"""

import random
from pathlib import Path

import pytest

from birthmark.broker.rules.leases import CLOSE_S
from support.kills.kills import ENGINES, run

pytestmark = pytest.mark.system


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_that_was_acknowledged_is_lost_by_kills(engine: str, tmp_path: Path) -> None:
    proof = run(engine, tmp_path, 2, seed := random.randrange(10**6))
    assert not proof.faults, (proof.faults, seed, proof.told())
    assert all(proof.acknowledged.values()), proof.told()  # it was about each of them
    if engine == "postgresql" and proof.longest_kill_s < CLOSE_S:  # PostgreSQL takes longer on a busy machine
        assert not proof.cuts, (seed, proof.told())  # devices stay
