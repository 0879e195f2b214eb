"""Fixes that name what is on this machine."""

import os
from pathlib import Path

import pytest

from birthmark.cli.output import machine_specific_hints
from birthmark.operator_api.client.server_discovery_and_api_client import DEFAULT_DATA, not_running


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of a service of another user, on the machine of somebody who has none."""
    data = tmp_path / "service"
    data.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.delenv("BIRTHMARK_DATA", raising=False)
    monkeypatch.setattr(machine_specific_hints, "SERVICE_DATA", data)
    monkeypatch.setattr(machine_specific_hints, "other_owner", {data: "birthmark"}.get)
    monkeypatch.setattr("birthmark.ownership_and_sudo_commands.other_owner", lambda path: None)
    monkeypatch.setattr("sys.argv", ["birthmark", "hub", "ls"])
    monkeypatch.setattr("shutil.which", "/usr/bin/{}".format)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return data


def test_who_has_no_server_is_led_to_the_service_of_the_machine(service: Path) -> None:
    fix = machine_specific_hints.hint(not_running(Path(DEFAULT_DATA).expanduser(), "no such file"))
    assert fix is not None
    assert f"`sudo -u birthmark env BIRTHMARK_DATA={service} /usr/bin/birthmark hub ls`" in fix
    assert f"`birthmark serve --data {Path(DEFAULT_DATA).expanduser()} &`" in fix


def test_who_named_a_directory_or_has_one_is_not(service: Path, tmp_path: Path) -> None:
    assert machine_specific_hints.hint(not_running(tmp_path / "named", "no such file")) is None
    own = Path(DEFAULT_DATA).expanduser()
    own.mkdir(parents=True)
    assert machine_specific_hints.hint(not_running(own, "no such file")) is None


def test_without_a_service_there_is_no_word_of_one(service: Path) -> None:
    service.rmdir()
    assert machine_specific_hints.hint(not_running(Path(DEFAULT_DATA).expanduser(), "no such file")) is None
