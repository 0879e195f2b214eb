"""A data directory of another user: each command says how its owner types it, and nothing changes hands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.servers import BIRTHMARK, a_server, clean_environment

OWNER = "nobody"
IS_SUDO_HERE = shutil.which("sudo", path=clean_environment()["PATH"]) is not None


def as_the_owner(command: str) -> str:
    """Return how somebody who is not root types a command of the owner's, on this machine."""
    if IS_SUDO_HERE:
        return f"sudo -u {OWNER} {BIRTHMARK} {command}"
    return f"su -c 'runuser -u {OWNER} -- {BIRTHMARK} {command}'"


def _is_in_reach() -> bool:
    asked = ["runuser", "-u", OWNER, "--", BIRTHMARK, "--version"]
    return (
        shutil.which("runuser") is not None and subprocess.run(asked, capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0 or not _is_in_reach(), reason="only root acts as another user"),
]


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Return a directory of another user's, in which a server ran."""
    with tempfile.TemporaryDirectory(prefix="birthmark-owners-") as place:
        Path(place).chmod(0o755)
        with a_server(Path(place), is_warm=False) as server:
            server.run("pki", "user", "create", "line-3", "--any-name")
        for path in (server.data, *server.data.rglob("*")):
            shutil.chown(path, OWNER)
        yield server.data


def typed(command: str, *, user: str | None = None) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-c", command]
    return subprocess.run(
        words if user is None else ["runuser", "-u", user, "--", *words],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )


def refused(command: str, *, user: str | None = None) -> dict[str, str]:
    done = typed(f"{command} --json" if "--json" not in command else command, user=user)
    assert done.returncode != 0, done.stdout
    told: dict[str, str] = json.loads(done.stderr.splitlines()[-1])
    return told


def command_in(fix: str) -> str:
    return fix.split("`")[1]


def test_root_is_told_how_the_owner_proves_the_audit_trail_and_the_directory_stays_the_owners(data: Path) -> None:
    done = typed(f"birthmark server audit export --data {data}")
    assert "ca.secret_foreign" in done.stderr
    assert "chown" not in done.stderr
    command = command_in(next(line for line in done.stderr.splitlines() if "Fix:" in line))
    assert typed(command).stdout.count('"digest"') >= 1
    assert {path.owner() for path in data.rglob("*")} == {OWNER}


def test_root_is_told_how_the_owner_starts_the_server(data: Path) -> None:
    fix = command_in(refused(f"birthmark device ls --data {data}")["fix"])
    assert fix == f"runuser -u {OWNER} -- {shlex.quote(BIRTHMARK)} serve --data {data} &"


def test_a_server_that_root_starts_there_is_refused_with_the_owners_command(data: Path) -> None:
    done = typed(f"birthmark serve --data {data}")
    assert f"`runuser -u {OWNER} -- {BIRTHMARK} serve --data {data}`" in done.stderr
    assert "chown" not in done.stderr


@pytest.mark.parametrize("command", ["device ls", "server audit verify", "pki user ls", "env"])
def test_who_may_not_look_is_told_to_ask_as_the_owner(data: Path, command: str) -> None:
    done = typed(f"birthmark {command} --data {data}", user="daemon")
    assert "operator.data_directory_closed" in done.stderr
    assert f"`{as_the_owner(f'{command} --data {data}')}`" in done.stderr


def test_doctor_says_that_the_directory_is_closed(data: Path) -> None:
    done = typed(f"birthmark doctor --offline --data {data}", user="daemon")
    assert done.returncode == 6, done.stderr
    assert "operator.data_directory_closed" in done.stdout
    assert as_the_owner(f"doctor --offline --data {data}") in done.stdout


@pytest.mark.parametrize("is_closed_above", [False, True])
def test_doctor_says_that_a_running_server_is_another_users(is_closed_above: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="birthmark-owners-") as place:
        Path(place).chmod(0o755)
        with a_server(Path(place), is_warm=False) as server:
            (server.data.parent if is_closed_above else server.data).chmod(0o700 if is_closed_above else 0o755)
            done = typed(f"birthmark doctor --offline --data {server.data}", user="daemon")
    assert "operator.data_directory_closed" in done.stdout
    assert "no server" not in done.stdout


def test_a_configuration_that_root_alone_may_write_is_written_by_root() -> None:
    with tempfile.TemporaryDirectory(prefix="birthmark-config-") as place:
        Path(place).chmod(0o755)
        file, program = Path(place, "an etc/config.toml"), Path(place, "bin/birthmark")
        fix = refused(f"birthmark agent check --offline --config {shlex.quote(str(file))}", user="daemon")["fix"]
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho whole\n")
        program.chmod(0o755)
        done = typed(f"PATH={program.parent}:$PATH; {command_in(fix)}")
        assert (done.returncode, done.stderr, file.read_text()) == (0, "", "whole\n")
        assert file.stat().st_mode & 0o777 == 0o600
    assert "sudo " in fix or "su -c " in fix


def test_a_configuration_that_root_alone_may_read_is_read_by_root() -> None:
    with tempfile.TemporaryDirectory(prefix="birthmark-config-") as place:
        Path(place).chmod(0o755)
        (file := Path(place, "config.toml")).touch(0o600)
        fix = refused(f"birthmark agent check --offline --config {file}", user="daemon")["fix"]
    assert re.search(rf"`(sudo |su -c ')\S+ agent check --offline --config {file}", fix)


def test_root_may_type_the_agents_first_command_before_its_service_ran() -> None:
    """Its lock was root's, and the service, of another user, never started."""
    with tempfile.TemporaryDirectory(prefix="birthmark-agent-") as place:
        Path(place).chmod(0o755)
        for below in ("certd/certs", "keyd/keys", "identityd"):
            (Path(place) / "var/lib/aziot" / below).mkdir(parents=True)
        for path in (Path(place) / "var/lib/aziot").rglob("*"):
            shutil.chown(path, OWNER)
        config = Path(place) / "config.toml"
        config.write_text(
            '[provisioning]\nsource = "manual"\niothub_hostname = "hub.example"\ndevice_id = "d"\n'
            '[provisioning.authentication]\nmethod = "sas"\ndevice_id_pk = { value = "a2V5" }\n'
        )
        command = f"{shlex.quote(BIRTHMARK)} agent forget-time --root {place} --config {config}"
        for user in (None, OWNER):
            done = typed(command, user=user)
            assert done.returncode == 0, done.stderr
        assert {one.owner() for one in (Path(place) / "var/lib/aziot/identityd").iterdir()} == {OWNER}
