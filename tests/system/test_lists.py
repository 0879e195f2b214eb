"""Lists by command: devices by place and state, refusals by code and by reason, the audit by who and what."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import warm
from support.azure.clients import a_file_device
from support.server.servers import RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory: Path = tmp_path_factory.mktemp("server")
    with a_server(directory) as running:
        device = a_file_device(directory, "unknown")
        line = ["--cert", str(device.certificate_file), "--key", str(device.key_file)]
        assert running.attempt("device", "register", *line, **running.environment).returncode != 0
        running.run("hub", "device", "create", "pump-1")
        yield running


def test_devices_are_listed_by_place_and_state(server: RunningServer) -> None:
    (found,) = (row for row in server.rows("device", "find") if row["name"] == "pump-1")
    assert (found["at"].partition("/")[0], found["state"]) == ("hub", "away")
    assert found in server.rows("device", "find", "--at", found["at"], "--state", "away")
    assert server.rows("device", "find", "pump", "--state", "connected") == []
    assert "with --state ending" in server.attempt("device", "find", "--within", "1d").stderr


def test_refusals_are_told_by_reason_and_by_code(server: RunningServer) -> None:
    reasons = {row["code"]: row for row in server.rows("why", "--reasons")}
    assert reasons["dps.not_enrolled"]["is_new"]
    assert "birthmark device enroll" in server.run("why", "--reasons", "--last", "2d").stdout
    assert server.rows("why", "--reasons", "--last", "20s") == server.rows("why", "--reasons", "--last", "1h")
    assert {row["code"] for row in server.rows("why", "--code", "dps.not_enrolled")} == {"dps.not_enrolled"}
    nobody = server.attempt("why", "--code", "dps.nothing")
    assert (nobody.returncode, "No refusals with code dps.nothing." in nobody.stderr) == (0, True)
    assert "--last" in server.attempt("why", "--last", "1d").stderr
    assert "--code" in server.attempt("why", "--reasons", "--code", "dps.not_enrolled").stderr


def test_a_list_without_a_row_says_what_was_asked_for(server: RunningServer) -> None:
    assert "No certificate expires within 1h." in server.run("pki", "ls", "--expiring", "1h").stderr
    assert "No such certificate was issued." in server.run("pki", "ls", "nothing-1").stderr
    for column in ("subject", "actor"):
        assert "No row matches." in server.run("server", "audit", "ls", "--where", f"{column}=nothing-1").stderr


def test_events_say_that_they_are_waited_for_and_a_type_that_there_is_not_is_refused(server: RunningServer) -> None:
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    command = [str(warm.programs() / "birthmark"), "events"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "Waiting for events; stop with Ctrl-C.\n"
        waiting.send_signal(signal.SIGINT)
    assert "feed.types_invalid" in server.attempt("events", "--type", "birthmark.nothing").stderr


def test_the_audit_is_listed_by_who_and_what(server: RunningServer) -> None:
    every = server.rows("server", "audit", "ls")
    (made,) = server.rows("server", "audit", "ls", "--about", "pump-1")
    assert server.rows("server", "audit", "ls", "pump-1") == [made]
    area = made["action"].partition(".")[0] + "."
    assert made in server.rows("server", "audit", "ls", "--action", area, "--by", made["actor"])
    assert len(server.rows("server", "audit", "ls", "--action", area)) < len(every)
    assert server.rows("server", "audit", "ls", "--by", "nobody") == []
    assert server.attempt("server", "audit", "ls", "pump-1", "--about", "pump-2").returncode != 0
