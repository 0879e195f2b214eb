"""The container file: what a second pair of eyes says of it, and that it is what the pages say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
LINTER = Path(sys.executable).with_name("hadolint")
pytestmark = pytest.mark.system


@pytest.mark.skipif(not LINTER.exists(), reason="hadolint has no wheel for this machine")
def test_hadolint_finds_nothing() -> None:
    told = subprocess.run([LINTER, TOP / "deploy/Containerfile"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def test_it_is_of_no_base_image_and_of_no_root_and_says_how_it_is() -> None:
    lines = (TOP / "deploy/Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == ["FROM scratch"]
    assert "USER 10001:10001" in lines
    assert "VOLUME /data" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not on this machine")
def test_shellcheck_finds_nothing_in_what_packages_run() -> None:
    scripts = sorted((TOP / "deploy/debian").iterdir())
    told = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert told.stdout == ""
