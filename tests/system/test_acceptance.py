"""`scripts/acceptance`, rehearsed: chips and a TPM of software, and our own server where it goes to Azure and AWS."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tools.acceptance.journeys import journeys

from servers import RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system
TOP = Path(__file__).resolve().parents[2]
PROFILE = """[factory.azure]
connection_string_file = "{home}/dps"
hub_connection_string_file = "{home}/hub"
ca_file = "{ca}"
"""


def acceptance(*arguments: str, **environment: str) -> tuple[Sequence[str], dict[str, str]]:
    python = str(Path(sys.executable).parent)
    known = clean_environment(**environment)
    return [sys.executable, "-m", "tools.acceptance", *arguments], known | {
        "PYTHONPATH": str(TOP),
        "PATH": f"{python}:{known['PATH']}",
    }


def play(place: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command, known = acceptance(*arguments, "--out", str(place / "seen"), **environment)
    return subprocess.run(
        command,
        cwd=place,
        env=known,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def record_of(place: Path) -> Any:
    return json.loads((place / "seen" / "acceptance.json").read_text())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with a_server(tmp_path) as running:
        yield running


@pytest.fixture
def at_factory(server: RunningServer, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose profile `factory` is our own server."""
    told, home = server.endpoints, tmp_path / "home"
    profiles = home / ".config" / "birthmark" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    for name, text in {
        "dps": told["dps"]["service_connection_string"],
        "hub": told["iothub"]["service_connection_string"],
    }.items():
        (home / name).touch(0o600)
        (home / name).write_text(text)
    profiles.write_text(PROFILE.format(home=home, ca=told["trust_bundle"]))
    return {
        "HOME": str(home),
        "SSL_CERT_FILE": told["trust_bundle"],
        "REQUESTS_CA_BUNDLE": told["trust_bundle"],
        "PROVISIONING_HOST": told["dps"]["host"],
        "PROVISIONING_IDSCOPE": told["dps"]["id_scope"],
        "IOTHUB_CONNECTION_STRING": told["iothub"]["service_connection_string"],
    }


def known_of(server: RunningServer) -> set[str]:
    """Return what of these runs is on record at a server."""
    places = (["device", "ls"], ["hub", "device", "ls"])
    return {
        name for place in places for row in server.rows(*place) for name in row.values() if "acceptance" in str(name)
    }


@pytest.mark.parametrize("name", journeys())
def test_a_journey_goes_as_it_has_to_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    done = play(tmp_path, name, "--rehearse")
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = record_of(tmp_path)["journeys"]
    assert kept["result"] == "as it has to be"
    assert [one["step"] for one in kept["steps"]] == [step.title for step in journeys()[name].steps]
    assert kept["owed"] == []
    assert "SharedAccessKey=" not in json.dumps(kept).replace("SharedAccessKey=(secret)", "")


def test_what_writes_asks_and_without_anybody_to_ask_it_writes_nothing(
    server: RunningServer, at_factory: dict[str, str], tmp_path: Path
) -> None:
    done = play(tmp_path, "azure", "--profile", "factory", **at_factory)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "an individual enrollment at the provisioning service" in done.stdout
    assert known_of(server) == set()


def test_without_what_it_needs_a_journey_is_not_played(tmp_path: Path) -> None:
    done = play(tmp_path, "azure", "--yes")
    assert done.returncode == 1
    assert "it needs PROVISIONING_HOST, PROVISIONING_IDSCOPE, IOTHUB_CONNECTION_STRING" in done.stdout


def begun(place: Path, at_factory: dict[str, str], step: str) -> "subprocess.Popen[str]":
    """Play until a step is done."""
    command, known = acceptance("azure", "--profile", "factory", "--yes", "--out", str(place / "seen"), **at_factory)
    process = subprocess.Popen(command, cwd=place, env=known, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if step in line and "ok" in line:
            return process
    raise AssertionError(step)


def test_broken_off_it_takes_back_what_was_done(
    server: RunningServer, at_factory: dict[str, str], tmp_path: Path
) -> None:
    process = begun(tmp_path, at_factory, "three messages")
    assert known_of(server) != set()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert known_of(server) == set()


def test_killed_it_is_taken_back_later(server: RunningServer, at_factory: dict[str, str], tmp_path: Path) -> None:
    process = begun(tmp_path, at_factory, "three messages")
    process.kill()
    process.communicate(timeout=120)
    time.sleep(3)  # the step that was on its way ends by itself
    assert known_of(server) != set()
    command, known = acceptance("--undo", str(tmp_path / "seen"), **at_factory)
    done = subprocess.run(command, cwd=tmp_path, env=known, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert known_of(server) == set()
    assert (tmp_path / "seen" / "acceptance.json").stat().st_mode & 0o077 == 0
