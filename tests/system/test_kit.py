"""The test kit as somebody has it: a directory of their own, the plugin that is installed, and nothing of ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
SUITES = Path(__file__).parents[1] / "kit"
VENDORS_WARN = ("-W", "ignore::DeprecationWarning")
"""azure-iot-device names a constant of ssl that is to go."""


def in_a_directory_of_their_own(
    directory: Path, *suites: str, options: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    for suite in suites:
        shutil.copy(SUITES / f"suite_{suite}.py", directory / f"test_{suite}.py")
    foreign = ("PYTEST_", "BIRTHMARK_", "AWS_", "SSL_CERT", "REQUESTS_CA", "CURL_CA", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *VENDORS_WARN, *options],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def passed(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_a_suite_on_azures_sdk_passes(tmp_path: Path) -> None:
    passed(in_a_directory_of_their_own(tmp_path, "azure"))
