"""Each program of `scripts/soak` at its smallest: what was acknowledged is there after kills, faults and floods."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.breadth import variants
from support.server.servers import clean_environment

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
SMALLEST = {
    "amqp_devices": "--kills 1 --engine sqlite --seed 1",
    "cluster": "--each 0 --claims 2 --only kill_worker --seed 1",
    "enroll": "--rows 50 --kills 2 --seed 1",
    "faults": "--store file --work renew --fault kill --every 40",
    "first_contact": "--each 6 --kills 2 --engine sqlite --files --seed 24",
    "fleet": "--each 40 --kills 2 --engine sqlite --seed 26",
    "floods": "--kind publishes --times 3",
    "growth": "--devices 200 --looks 5 --rounds 1 --ungated",
    "history": "--minutes 0.3 --clients 6 --fault worker-killed --seed 1 --untimed",
    "kills": "--kills 1 --engine sqlite",
    "machine": "--steps 20 --engine sqlite",
    "million": "--rows 600 --flips 1",
    "readers": "--kills 1 --engine sqlite --seed 1",
    "registry": "--each 30 --kills 2 --engine sqlite --seed 25",
    "reissue": "--each 3 --kills 2 --engine sqlite --seed 25",
    "renewals": "--rate 5 --seconds 2 --devices 5",
    "rollout": "--each 60 --kills 1 --engine sqlite --seed 3",
    "rooms": "--walks 1 --steps 10",
    "strangers": "--count 20 --bodies 2",
    "swarm": "--devices 20 --seconds 9 --kib 200",
}
IN_EACH_RUN = ("faults", "history", "kills", "machine", "million", "rollout")
ELSEWHERE = {
    "storm": "tests/simulation",
    "rollover": "tests/system/test_rollover.py",
    "upgrade": "tests/upgrade",
    "container": "tests/system/packages",
    "install": "tests/system/packages",
}
"""What others of these tests run."""


def test_every_program_of_the_script_is_run_by_a_test() -> None:
    script = (ROOT / "scripts" / "soak").read_text().partition("\nset -euo")[0]
    assert set(re.findall(r"^#   (\w+) ", script, re.MULTILINE)) == SMALLEST.keys() | ELSEWHERE.keys()
    assert all((ROOT / place).exists() for place in ELSEWHERE.values())


@pytest.mark.parametrize("name", variants(SMALLEST, IN_EACH_RUN))
def test_at_its_smallest(name: str, tmp_path: Path) -> None:
    _run_smallest(name, SMALLEST[name], tmp_path)


def _run_smallest(name: str, arguments: str, tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "benchmarks" / f"soak_{name}.py"), *arguments.split()]
    environment = clean_environment(PYTHONPATH=str(ROOT / "tests"), PATH=os.environ["PATH"])
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
    reason="a disk whose power is cut needs root and loop devices",
)
def test_what_was_acknowledged_is_there_after_the_power_of_the_disk_was_cut(tmp_path: Path) -> None:
    _run_smallest("kills", "--kills 1 --engine sqlite-power", tmp_path)
