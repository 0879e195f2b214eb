"""What versions from 0.2.0 on left goes on: a server, an agent, a journal and a backup (made by `make.py`)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent.device import AgentOnDevice
from support.pki.pki_builders import a_csr, a_key
from support.server.earlier import (
    alone_at,
    documents_are_what_they_were,
    post,
    renewed,
    request_of,
    send,
    started,
    the_lost_device_stays_out,
    unpacked,
)
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=["0.2.0", "0.3.0"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(request.param, tmp_path_factory.mktemp("upgrade"))


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[RunningServer]:
    with alone_at(directory):
        running = started(directory)
        yield running
        running.stop()


@pytest.mark.parametrize("name", ["by-group", "by-itself"])
def test_devices_register_again_and_send(server: RunningServer, directory: Path, name: str) -> None:
    send(server, directory, name)
    assert [row["body"] for row in server.rows("hub", "messages", name)] == ["hello", "after the upgrade"]


def test_a_twin_and_a_shadow_are_what_they_were(server: RunningServer) -> None:
    documents_are_what_they_were(server)


def test_a_lost_device_stays_out(server: RunningServer, directory: Path) -> None:
    the_lost_device_stays_out(server, directory)


def test_a_users_password_still_opens_names_that_nobody_holds(server: RunningServer, directory: Path) -> None:
    credential = "--netrc-file", str(directory / "netrc")
    assert post(server, directory, "simpleenroll", a_csr("newcomer", key=a_key()), *credential) == 200
    assert post(server, directory, "simpleenroll", a_csr("EST-device", key=a_key()), *credential) == 403


def test_a_device_renews_and_a_revoked_key_stays_revoked(server: RunningServer, directory: Path) -> None:
    assert renewed(server, directory, "est-device") == 200
    csr, credential = request_of(directory, "est-revoked", "/CN=est-revoked"), ("--netrc-file", directory / "netrc")
    assert post(server, directory, "simpleenroll", csr, *map(str, credential)) == 403


def test_an_agent_keeps_its_identity_and_renews_it(server: RunningServer, directory: Path) -> None:
    device = AgentOnDevice(server, directory / "agent", "edge-1")
    before = device.row("status")["thumbprint"] if device.attempt("status").returncode == 0 else None
    applied = device.row("apply")
    assert before in {None, applied["thumbprint"]}
    assert device.thumbprint_at_hub() == applied["thumbprint"]
    assert device.row("renew")["thumbprint"] != applied["thumbprint"]


def test_a_journal_takes_back_what_it_says(server: RunningServer, directory: Path) -> None:
    listed = {row["name"] for row in server.rows("device", "ls")}
    assert {"listed-1", "listed-2"} <= listed
    known = ["--root", str(directory / "ca" / "root.pem"), "--journal", str(directory / "run.journal")]
    server.run("device", "enroll-list", str(directory / "chips"), *known, "--undo")
    assert listed - {row["name"] for row in server.rows("device", "ls")} == {"listed-1", "listed-2"}


def test_the_audit_chain_is_intact(server: RunningServer) -> None:
    (told,) = server.rows("server", "audit", "verify")
    assert told["head"]["seq"] == told["rows"]


def test_a_backup_is_restored_and_serves(server: RunningServer, directory: Path) -> None:
    passphrase = directory / "backup.passphrase"
    passphrase.chmod(0o600)
    restored = ["server", "restore", str(directory / "server.birthmark"), "--data", str(directory / "restored")]
    server.run(*restored, "--passphrase-file", str(passphrase))
    server.stop()
    again = started(directory, "restored")
    try:
        send(again, directory, "by-group")
        assert json.loads((directory / "facts.json").read_text())["address"] == again.address
    finally:
        again.stop()
        server.start()


def test_all_that_was_there_is_counted(server: RunningServer) -> None:
    assert server.rows("server", "figures", "--prove") == [{"is_proven": True, "differs": []}]
    counted = {row["what"]: row["count"] for row in server.rows("server", "figures")}
    assert counted["devices"] >= 1
    assert counted["certificates"] >= 1


def test_what_was_on_record_is_found_by_its_words(server: RunningServer) -> None:
    found = {row["name"]: row["places"] for row in server.rows("device", "find", "itself")}
    assert set(found) == {"by-itself"}
    assert any(place.startswith("hub/") for place in found["by-itself"])
