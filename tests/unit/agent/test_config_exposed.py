"""A configuration with a secret that others can read is warned of, with the command that closes it to them alone."""

import grp
import os
from pathlib import Path

import pytest

from birthmark.agent.config.config_with_drop_ins import read_config
from birthmark.ownership_and_sudo_commands import AGENT

SECRET = """\
hostname = "device-1"

[provisioning]
source = "manual"
connection_string = "HostName=hub.example;DeviceId=device-1;SharedAccessKey=a2V5"
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group")


def warnings_of(file: Path) -> list[str]:
    return [one.detail for one in read_config(file).warnings if "other users can read" in one.detail]


def a_config(tmp_path: Path, mode: int, group: int = 0) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(SECRET)
    if os.geteuid() == 0:
        os.chown(file, 0, group)
    file.chmod(mode)
    return file


def test_one_that_its_owner_alone_reads_is_right(tmp_path: Path) -> None:
    assert not warnings_of(a_config(tmp_path, 0o600))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_one_that_others_read_is_told(tmp_path: Path, mode: int) -> None:
    file = a_config(tmp_path, mode)
    (told,) = warnings_of(file)
    assert told.endswith(f"(mode {mode:04o}): chmod 0600 {file}")


@as_root
def test_one_of_roots_that_the_services_group_reads_is_as_the_installation_has_it(tmp_path: Path) -> None:
    assert not warnings_of(a_config(tmp_path, 0o640, group=12))


@as_root
def test_one_of_roots_is_closed_to_all_but_the_service_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed to all, the agent could not read it any more."""
    monkeypatch.setattr(grp, "getgrnam", {AGENT: None}.__getitem__)
    file = a_config(tmp_path, 0o644)
    (told,) = warnings_of(file)
    assert told.endswith(f": chgrp {AGENT} {file} && chmod 0640 {file}")
