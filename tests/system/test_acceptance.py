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
from tools.acceptance.playing import Play, variables_of
from tools.acceptance.steps import Journey, Step

from support.server.servers import RunningServer, a_server, clean_environment

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
    assert f"what that is: {journeys()['azure'].needs}" in done.stdout


def test_what_was_not_played_is_no_reason_to_take_another_place(tmp_path: Path) -> None:
    done = play(tmp_path, "atecc608")
    assert "docs/howto/atecc608.md" in done.stdout
    done = play(tmp_path, "atecc608", BIRTHMARK_PKCS11_MODULE=str(tmp_path / "none.so"))
    assert "what the doctor finds" in done.stdout
    done = play(tmp_path, "atecc608", BIRTHMARK_PKCS11_MODULE=str(tmp_path / "none.so"))
    assert (done.returncode, "has what was seen before" in done.stderr) == (2, True)


def begun(place: Path, at_factory: dict[str, str], step: str, *others: str) -> "subprocess.Popen[str]":
    """Play until a step is done."""
    options = ["--profile", "factory", "--yes", "--out", str(place / "seen")]
    command, known = acceptance("azure", *others, *options, **at_factory)
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


def take_back(place: Path, at_factory: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command, known = acceptance("--undo", str(place / "seen"), **at_factory)
    return subprocess.run(command, cwd=place, env=known, capture_output=True, text=True, timeout=120, check=False)


def owing(place: Path, name: str, *lines: str) -> None:
    """Have been killed while these were owed."""
    (place / "seen" / name).mkdir(parents=True)
    kept = {"name": name, "owed": lines, "profile": "factory", "names": {"NAME": "acceptance-1", "ID": "acceptance-1"}}
    (place / "seen" / "acceptance.json").write_text(json.dumps({"journeys": [kept]}))


def test_broken_off_no_further_journey_begins(at_factory: dict[str, str], tmp_path: Path) -> None:
    process = begun(tmp_path, at_factory, "a CA of this run's own", "aws")
    process.send_signal(signal.SIGTERM)  # as a machine that goes down has it
    told, _ = process.communicate(timeout=120)
    assert "broken off" in told
    assert "aws:" not in told


def played(directory: Path, *steps: Step) -> tuple[bool, Play]:
    """Play some steps, whose record is a file of what is owed."""

    def keep() -> None:
        (directory / "record").write_text("\n".join(playing.owed))

    scenario = Journey("some", "some steps", "nothing", steps=steps)
    playing = Play(scenario, directory / "here", dict(clean_environment()), lambda _: True, lambda _: None, keep)
    playing.begin()
    return playing.play(), playing


def test_what_is_owed_is_on_record_before_it_is_begun(tmp_path: Path) -> None:
    """A kill may come at any moment."""
    step = Step("write", "grep 'take it back' ../record", writes="something", undo="take it back")
    assert played(tmp_path, step)[0]


def test_what_is_taken_back_is_owed_no_more_when_the_next_line_is_run(tmp_path: Path) -> None:
    first = Step("one", "true", writes="one", undo="! grep -x 'true later' ../record")
    _, playing = played(tmp_path, first, Step("two", "true", writes="two", undo="true later"))
    assert playing.undo()


@pytest.mark.parametrize("answer", ["a b", "--all", "$(id)", "", "a*"])
def test_an_odd_answer_becomes_no_name(answer: str, tmp_path: Path) -> None:
    is_good, playing = played(tmp_path, Step("the name", f"echo '{answer}'", keeps="ID"), Step("use it", "true"))
    assert (is_good, len(playing.seen)) == (False, 1)


def test_the_number_of_an_account_is_not_kept(tmp_path: Path) -> None:
    _, playing = played(tmp_path, Step("a policy", "echo arn:aws:iot:eu-west-1:123456789012:policy/acceptance-1"))
    assert playing.seen[0]["out"] == "arn:aws:iot:eu-west-1:(account):policy/acceptance-1\n"


def test_the_key_of_an_agent_that_is_in_use_stays_in_its_tpm(tmp_path: Path) -> None:
    done = play(tmp_path, "tpm", "--rehearse")
    assert done.returncode == 0, done.stdout
    (kept,) = record_of(tmp_path)["journeys"]
    assert not any("0x81000100" in step["out"] for step in kept["steps"])


def test_what_a_chip_s_name_has_already_is_left_alone(
    server: RunningServer, at_factory: dict[str, str], tmp_path: Path
) -> None:
    """A real chip may be in use: its name is not of this run."""
    known = clean_environment() | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    chip = variables_of(f'eval "$(birthmark chip simulate "{tmp_path}/chip" --chip se050)"', known)
    subprocess.run(["birthmark", "chip", "cert", "--out", str(tmp_path / "chip.pem")], env=chip, check=True)
    server.run("device", "enroll", "--cert", str(tmp_path / "chip.pem"))
    there = server.rows("device", "ls")
    assert len(there) == 1
    used = {name: value for name, value in chip.items() if name not in known} | at_factory
    done = play(tmp_path, "azure-chip", "--profile", "factory", "--yes", **used)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is there already" in done.stdout
    assert server.rows("device", "ls") == there


def test_what_never_came_about_is_taken_back_already(at_factory: dict[str, str], tmp_path: Path) -> None:
    owing(tmp_path, "azure", *[step.undo for step in journeys()["azure"].steps if step.undo])
    done = take_back(tmp_path, at_factory)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_that_ended_takes_nobody_else_along(tmp_path: Path) -> None:
    """Its number may be another's by now."""
    (undo,) = [step.undo for step in journeys()["se050"].steps if step.undo]
    owing(tmp_path, "se050", undo)
    with subprocess.Popen(["sleep", "60"], cwd="/") as other:
        (tmp_path / "seen" / "se050" / "chip-cloud.pid").write_text(f"{other.pid}\n")
        assert take_back(tmp_path, {}).returncode == 0
        assert other.poll() is None
        other.kill()


def test_a_record_of_another_s_making_runs_nothing(tmp_path: Path) -> None:
    owing(tmp_path, "azure", f"touch {tmp_path}/ran")
    assert take_back(tmp_path, {}).returncode == 8
    assert not (tmp_path / "ran").exists()
