"""Devices are followed from their record to their connection, and moved: retired here only when they are seen there."""

import csv
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.servers import RunningServer, a_new_server, warm_environment

pytestmark = pytest.mark.system
NAMES = ("pump-1", "pump-2", "pump-3")
POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect",'
    '"Resource":"arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}"},'
    '{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}'
)


class Fleet:
    """Three devices with files, on a list."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server, self.directory = server, directory
        (directory / "list").mkdir()
        server.run("ca", "init", "--name", "Pumps", "--dir", str(directory / "ca"))
        for name in NAMES:
            made = directory / f"{name}.cert.pem"
            server.run("ca", "issue", name, "--dir", str(directory / "ca"), "--out-dir", str(directory))
            (directory / "list" / f"{name}.pem").write_bytes(made.read_bytes())
        self.list = [str(directory / "list"), "--trust-root", str(directory / "ca" / "root.pem")]

    def follow(self, *options: str) -> dict[str, str]:
        rows = self.server.rows("device", "follow", *self.list, *options)
        return {row["device"]: row["standing"] for row in rows}

    def move(self, *options: str) -> dict[str, str]:
        told = self.server.attempt("device", "move", *self.list, "--json", *options)
        rows = [json.loads(line) for line in told.stdout.splitlines()]
        assert rows, told.stderr
        return {row["device"]: row["moved"] for row in rows}

    def shell(self, name: str, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line as the device would."""
        files = {"CERT": str(self.directory / f"{name}.cert.pem"), "KEY": str(self.directory / f"{name}.key.pem")}
        environment = warm_environment(BIRTHMARK_DATA=str(self.server.data), HOME=str(self.directory), **files)
        script = f'eval "$(birthmark env)"; {line}'
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)

    def sends_to_azure(self, name: str) -> bool:
        return self.shell(name, 'birthmark device send hello --cert "$CERT" --key "$KEY"').returncode == 0

    def sends_to_aws(self, name: str) -> bool:
        host = self.server.endpoints["aws"]["data_endpoint"]
        line = f'mosquitto_pub -h {host} -p 8883 --cafile "$SSL_CERT_FILE" --cert "$CERT" --key "$KEY"'
        return self.shell(name, f"{line} -i {name} -t {name}/t -m hello -q 1").returncode == 0


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A fresh one: it starts in less time than a few devices are removed."""
    with a_new_server(tmp_path_factory.mktemp("move")) as running:
        yield running


@pytest.fixture
def fleet(server: RunningServer, tmp_path: Path) -> Fleet:
    made = Fleet(server, tmp_path)
    made.shell("", f"aws iot create-policy --policy-name own --policy-document '{POLICY}'")
    return made


def test_each_device_is_followed_as_far_as_it_came(server: RunningServer, fleet: Fleet) -> None:
    assert set(fleet.follow().values()) == {"not on record"}
    told = server.attempt("device", "follow", *fleet.list, FORCE_COLOR="1").stderr
    assert ("Looking" in told, "Enrolling" in told) == (True, False)
    server.run("device", "enroll-list", *fleet.list)
    assert set(fleet.follow().values()) == {"unassigned"}
    assert fleet.shell("pump-1", 'birthmark device register --cert "$CERT" --key "$KEY"').returncode == 0
    assert fleet.sends_to_azure("pump-2")
    assert fleet.follow() == {"pump-1": "never seen", "pump-2": "away", "pump-3": "unassigned"}


def test_to_wait_for_what_does_not_come_ends_with_who_is_missing(server: RunningServer, fleet: Fleet) -> None:
    server.run("device", "enroll-list", *fleet.list)
    assert fleet.sends_to_azure("pump-1")
    kept = fleet.directory / "stand.csv"
    late = server.attempt(
        "device", "follow", *fleet.list, "--wait", "assigned", "--timeout", "1s", "--report", str(kept)
    )
    assert late.returncode == 7
    assert "unassigned: pump-2, pump-3" in late.stderr
    with kept.open(newline="") as table:
        rows = {row["device"]: row["outcome"] for row in csv.DictReader(table)}
    assert rows == {"pump-1": "away", "pump-2": "unassigned", "pump-3": "unassigned"}
    for name in NAMES[1:]:
        assert fleet.sends_to_azure(name)
    assert server.attempt("device", "follow", *fleet.list, "--wait", "connected").returncode == 0


def test_a_device_is_retired_only_after_it_was_seen_at_its_new_place(server: RunningServer, fleet: Fleet) -> None:
    server.run("device", "enroll-list", *fleet.list)
    assert all(fleet.sends_to_azure(name) for name in NAMES)
    way = ["--from", "azure", "--to", "aws", "--policy", "own"]
    assert set(fleet.move(*way, "--dry-run").values()) == {"would be enrolled"}
    assert set(fleet.move(*way).values()) == {"waiting"}
    assert all(fleet.sends_to_azure(name) for name in NAMES)
    assert fleet.sends_to_aws("pump-1")
    page = fleet.directory / "move.html"
    assert fleet.move(*way, "--report", str(page)) == {"pump-1": "moved", "pump-2": "waiting", "pump-3": "waiting"}
    assert "3 devices: 2 waiting, 1 moved." in page.read_text()
    assert not fleet.sends_to_azure("pump-1")
    assert fleet.sends_to_azure("pump-2")
    assert all(fleet.sends_to_aws(name) for name in NAMES)
    assert set(fleet.move(*way).values()) == {"moved"}
    assert set(fleet.follow().values()) == {"disabled"}


def test_a_fleet_goes_back_by_the_same_command_and_update(server: RunningServer, fleet: Fleet) -> None:
    server.run("device", "enroll-list", *fleet.list)
    assert all(fleet.sends_to_azure(name) for name in NAMES)
    there, back = ["--from", "azure", "--to", "aws", "--policy", "own"], ["--from", "aws", "--to", "azure"]
    fleet.move(*there)
    assert all(fleet.sends_to_aws(name) for name in NAMES)
    assert set(fleet.move(*there).values()) == {"moved"}
    assert set(fleet.move(*back).values()) == {"refused"}
    assert set(fleet.move(*back, "--dry-run").values()) == {"refused"}
    assert set(fleet.move(*back, "--update", "--dry-run").values()) == {"would be enrolled"}
    assert set(fleet.move(*back, "--update").values()) == {"waiting"}
    assert all(fleet.sends_to_azure(name) for name in NAMES)
    assert set(fleet.move(*back).values()) == {"moved"}
    assert not any(fleet.sends_to_aws(name) for name in NAMES)
    assert set(fleet.move(*there, "--update").values()) == {"waiting"}
    assert all(fleet.sends_to_aws(name) for name in NAMES)
    assert set(fleet.move(*there).values()) == {"moved"}


def test_a_rehearsal_refuses_what_the_move_would(server: RunningServer, fleet: Fleet) -> None:
    server.run("device", "enroll-list", *fleet.list)
    way = ["--from", "azure", "--to", "aws", "--policy", "nobody-made-it", "--dry-run"]
    assert set(fleet.move(*way).values()) == {"refused"}


def test_a_device_that_is_not_where_it_is_moved_from_is_refused(server: RunningServer, fleet: Fleet) -> None:
    told = server.attempt("device", "move", *fleet.list, "--from", "azure", "--to", "aws")
    assert (told.returncode, "fleet.not_at_source" in told.stderr) == (7, True)


def test_another_device_with_its_name_there_is_no_proof(server: RunningServer, fleet: Fleet, tmp_path: Path) -> None:
    server.run("device", "enroll-list", *fleet.list)
    other = tmp_path / "other"
    other.mkdir()
    server.run("ca", "issue", "pump-1", "--dir", str(tmp_path / "ca"), "--out-dir", str(other))
    server.run("device", "enroll", "--to", "aws", "--policy", "own", "--cert", str(other / "pump-1.cert.pem"))
    told = server.attempt("device", "move", *fleet.list, "--from", "azure", "--to", "aws", "--policy", "own")
    assert (told.returncode, "fleet.taken_at_destination" in told.stderr) == (7, True)
    assert fleet.follow()["pump-1"] == "unassigned"


def test_what_a_device_did_in_its_earlier_life_retires_nobody(server: RunningServer, fleet: Fleet) -> None:
    server.run("device", "enroll-list", *fleet.list, "--to", "aws", "--policy", "own")
    assert all(fleet.sends_to_aws(name) for name in NAMES)
    assert set(fleet.move("--from", "aws", "--to", "azure").values()) == {"waiting"}
    assert all(fleet.sends_to_azure(name) for name in NAMES)
    assert set(fleet.move("--from", "aws", "--to", "azure").values()) == {"moved"}
    server.run("device", "enroll-list", *fleet.list, "--to", "aws", "--policy", "own", "--update")
    assert set(fleet.move("--from", "azure", "--to", "aws", "--policy", "own").values()) == {"waiting"}
    assert all(fleet.sends_to_azure(name) for name in NAMES)


def test_a_record_that_was_put_to_sleep_is_woken_by_the_command_that_is_printed_alone(
    server: RunningServer, fleet: Fleet
) -> None:
    way = ["--from", "azure", "--to", "aws", "--policy", "own"]
    server.run("device", "enroll-list", *fleet.list)
    assert set(fleet.move(*way).values()) == {"waiting"}
    fleet.shell(
        "",
        "aws iot list-certificates --query 'certificates[].certificateId' --output text | tr '\\t' '\\n' |"
        " while read id; do aws iot update-certificate --certificate-id $id --new-status INACTIVE; done",
    )
    told = server.attempt("device", "move", *fleet.list, *way)
    assert (told.returncode, "status of the certificate INACTIVE" in told.stderr) == (7, True)
    fix = re.search(r"Fix: .*`birthmark (device move .* --update)`", told.stderr)
    assert fix is not None, told.stderr
    woken = server.attempt(*shlex.split(fix[1]))
    assert (woken.returncode, "enabled again" in woken.stderr) == (7, True), woken.stderr
    assert set(fleet.move(*way).values()) == {"waiting"}


def test_a_device_that_was_taken_back_goes_nowhere_whatever_is_asked(server: RunningServer, fleet: Fleet) -> None:
    there, back = ["--from", "azure", "--to", "aws", "--policy", "own"], ["--from", "aws", "--to", "azure"]
    server.run("device", "enroll-list", *fleet.list)
    assert all(fleet.sends_to_azure(name) for name in NAMES)
    fleet.move(*there)
    assert all(fleet.sends_to_aws(name) for name in NAMES)
    fleet.move(*there)
    server.run("device", "revoke", "pump-3", "--reason", "keyCompromise", "--yes")
    server.run("pki", "release", "pump-3")
    assert fleet.follow() == {"pump-1": "disabled", "pump-2": "disabled", "pump-3": "taken back"}
    told = server.attempt("device", "move", *fleet.list, *back, "--update")
    assert (told.returncode, "pump-3 already exists with status revoked (as keyCompromise)" in told.stderr) == (
        7,
        True,
    )
    assert fleet.follow() == {"pump-1": "never seen", "pump-2": "never seen", "pump-3": "taken back"}
    server.run("device", "rm", "pump-3")
    assert fleet.move(*back, "--update")["pump-3"] == "refused"
    assert fleet.move(*there, "--update")["pump-3"] == "refused"


def test_a_lost_device_that_is_enabled_again_counts_as_any_other(server: RunningServer, fleet: Fleet) -> None:
    server.run("device", "enroll-list", *fleet.list)
    server.run("device", "revoke", "pump-3", "--yes")
    server.run("pki", "release", "pump-3")
    server.run("device", "enable", "pump-3")
    assert fleet.follow()["pump-3"] == "unassigned"
    server.run("device", "disable", "pump-3")
    assert fleet.follow()["pump-3"] == "disabled"
