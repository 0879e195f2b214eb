"""A part of `scripts/test --scaled` in each run: real clients of both clouds against two workers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import scaled

pytestmark = [pytest.mark.system, scaled.for_one]

TESTS = Path(__file__).parents[1]
PARTS = {
    "azure": ["azure/test_device_sdk.py", "azure/test_service_sdks.py", "azure/test_node_device.py"],
    "aws": ["aws/test_devices.py", "aws/test_shadows.py", "aws/test_mqtt5.py", "aws/test_control_plane.py"],
    "protocols": ["est/test_rfc7030.py", "mqtt/test_mqtt_3_1_1.py", "mqtt/test_mqtt_5.py"],
}


@pytest.mark.parametrize("part", PARTS)
def test_the_clients_of_one_process_pass_against_two_workers(part: str, tmp_path: Path) -> None:
    files = [str(TESTS / "conformance" / name) for name in PARTS[part]]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses=0", "-q", f"--basetemp={tmp_path / 'tests'}", *files],
        cwd=TESTS.parent,
        env=inherited | {"BIRTHMARK_TEST_WORKERS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert passed is not None
    assert int(passed[1]) > 15 * len(files) // 2
