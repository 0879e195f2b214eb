"""A data directory of version 0.1.0 opens, and everybody who relied on it goes on (made by `make.py`)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pki.pki_builders import a_csr, a_key
from support.server.earlier import alone_at, post, renewed, request_of, send, started, unpacked
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("0.1.0", tmp_path_factory.mktemp("upgrade"))


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[RunningServer]:
    with alone_at(directory):
        running = started(directory)
        yield running
        running.stop()


@pytest.mark.parametrize("name", ["by-group", "by-itself"])
def test_telemetry_of_the_old_version_is_still_read(server: RunningServer, name: str) -> None:
    (message,) = server.rows("hub", "messages", name)
    assert (message["device"], message["body"]) == (name, "hello")


@pytest.mark.parametrize("name", ["by-group", "by-itself"])
def test_devices_register_again_and_send(server: RunningServer, directory: Path, name: str) -> None:
    send(server, directory, name)
    assert [row["body"] for row in server.rows("hub", "messages", name)] == ["hello", "after the upgrade"]


def by_password(server: RunningServer, directory: Path) -> tuple[str, str]:
    est, netrc = server.endpoints["est"], directory / "netrc"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.address} login {est['username']} password {est['password']}\n")
    return "--netrc-file", str(netrc)


def test_the_first_user_s_password_still_opens_names_that_nobody_holds(server: RunningServer, directory: Path) -> None:
    credential = by_password(server, directory)
    assert server.endpoints["est"]["username"] == "estuser"
    assert post(server, directory, "simpleenroll", a_csr("newcomer", key=a_key()), *credential) == 200
    assert post(server, directory, "simpleenroll", a_csr("EST-device", key=a_key()), *credential) == 403


def test_a_device_renews_its_certificate_with_the_subject_it_got(server: RunningServer, directory: Path) -> None:
    assert renewed(server, directory, "est-device") == 200


def test_a_key_that_was_revoked_before_stays_revoked(server: RunningServer, directory: Path) -> None:
    csr = request_of(directory, "est-revoked", "/CN=est-revoked")
    assert post(server, directory, "simpleenroll", csr, *by_password(server, directory)) == 403


def test_the_audit_chain_goes_on_and_is_signed_from_now_on(server: RunningServer) -> None:
    (told,) = server.rows("server", "audit", "verify")
    assert told["head"]["seq"] == told["rows"]


def test_all_that_was_there_is_counted(server: RunningServer) -> None:
    assert server.rows("server", "figures", "--prove") == [{"is_proven": True, "differs": []}]
    counted = {row["what"]: row["count"] for row in server.rows("server", "figures")}
    assert counted["devices"] >= 1
    assert counted["certificates"] >= 1
