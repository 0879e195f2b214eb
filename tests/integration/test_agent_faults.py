"""Whatever happens to a device at work, the next normal run connects it, with one key for each certificate.

A sample of the matrix; `scripts/soak faults` runs every step.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
EVERY = {"file": 9, "token": 13}
FAULTS = ("kill", "full", "read-only", "pulled")
"""All but power cuts, which need root."""
LEAST = {"est": 20, "azure": 10}

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("by", ["est", "azure"])
@pytest.mark.parametrize("store", ["file", "token"])
@pytest.mark.parametrize("work", ["first", "renew"])
def test_a_device_survives_a_fault_at_any_step(tmp_path: Path, store: str, work: str, by: str) -> None:
    command = [sys.executable, "-m", "support.agent.faults", str(tmp_path / "matrix")]
    kind = ["--store", store, "--work", work, "--by", by]
    every = ["--every", str(EVERY[store]), "--start", str(2 + len(store + work) % 5)]
    faults = [word for fault in FAULTS for word in ("--fault", fault)]
    line = [*command, *kind, *every, *faults]
    done = subprocess.run(line, cwd=TESTS, capture_output=True, text=True, timeout=300, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (rows, done.stderr[-2000:])
    assert sum(row["steps"] for row in rows) > LEAST[by]
    assert {row["fault"] for row in rows} >= {"kill", "full", "read-only"}
