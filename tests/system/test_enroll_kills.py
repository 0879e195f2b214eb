"""Killed at any moment, also with its target thrown away between, an enrollment ends as one that nobody disturbed.

`scripts/soak enroll` does the same with ten thousand rows.
"""

from pathlib import Path

import pytest

from support.kills.enroll_kills import disturbed

pytestmark = pytest.mark.system


@pytest.mark.parametrize("cloud", ["azure", "aws"])
def test_a_killed_run_ends_like_an_undisturbed_one_and_is_taken_back(tmp_path: Path, cloud: str) -> None:
    told = disturbed(tmp_path, cloud, count=150, kills=6, seed=1)
    assert told.is_good, told
