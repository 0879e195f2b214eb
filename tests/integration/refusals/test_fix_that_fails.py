"""A fix that fails on its way leaves nothing that stands in the way of typing it again."""

import os
import subprocess
from pathlib import Path

import pytest

from birthmark.agent.config.toml_tables import ConfigMissingError

pytestmark = pytest.mark.integration


def type_fix(directory: Path, birthmark: str) -> int:
    """Type the fix for a missing configuration, where `birthmark` does what this shell script says."""
    program = directory / "bin" / "birthmark"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{birthmark}\n")
    program.chmod(0o755)
    command = ConfigMissingError(file=directory / "etc" / "config.toml", reason="?").explain_fix().split("`")[1]
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False).returncode


def test_a_configuration_that_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    assert type_fix(tmp_path, "exit 4") != 0
    assert type_fix(tmp_path, "echo whole") == 0
    made = tmp_path / "etc" / "config.toml"
    assert (made.read_text(), made.stat().st_mode & 0o777) == ("whole\n", 0o600)


def test_a_configuration_that_is_there_stays(tmp_path: Path) -> None:
    type_fix(tmp_path, "echo theirs")
    assert type_fix(tmp_path, "echo ours") != 0
    assert (tmp_path / "etc" / "config.toml").read_text() == "theirs\n"
