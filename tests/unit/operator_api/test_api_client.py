"""What the command line finds in a data directory before it asks the server."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.errors import InvalidRequestError
from birthmark.operator_api.client import server_discovery_and_api_client as client_module
from birthmark.operator_api.client.saved_login import read_invitation
from birthmark.operator_api.client.server_discovery_and_api_client import (
    AnswerTooLargeError,
    DataDirectoryClosedError,
    NoAnswerInTimeError,
    OperatorClient,
    ServerNotRunningError,
    may_take_directory,
    read_endpoints,
)
from birthmark.operator_api.data_directory_lock import DirectoryLock
from birthmark.operator_api.unix_socket import PORT_ALONE

WHOLE: dict[str, dict[str, str]] = {name: {} for name in ("trust_bundle", "est", "dps", "iothub", "aws", "health_url")}


def test_endpoints_are_read(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(WHOLE))
    assert read_endpoints(tmp_path) == WHOLE


def test_a_service_may_be_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemctl start`, and an upgrade of the package, return before it answers."""
    monkeypatch.setattr(client_module, "SERVICE_DATA", tmp_path)
    monkeypatch.setattr("birthmark.ownership_and_sudo_commands.SERVICE_DATA", tmp_path)
    fix = client_module.not_running(tmp_path, "no such file").explain_fix()
    assert "Start it if it is not running: `systemctl start birthmark-server`; " in fix
    assert "started a moment ago" in fix
    assert "prints its endpoints" not in fix


@contextmanager
def a_process(*words: str, lock: Path | None = None) -> Iterator[Path]:
    """Run a process with these words, which has a lock's file open or not."""
    script = "import sys; opened = sys.argv[2:] and open(sys.argv[2]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-ISc", script, *words, *([str(lock)] if lock else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Path(f"/proc/{process.pid}")
        assert process.stdin is not None
        process.stdin.close()


def test_a_server_that_has_its_own_directory_takes_no_other(tmp_path: Path) -> None:
    (lock := tmp_path / "server.lock").touch()
    with a_process("serve") as starting, a_process("serve", lock=lock) as running, a_process("env") as other:
        assert [may_take_directory(one) for one in (starting, running, other)] == [True, False, False]


def test_no_file_means_no_server(tmp_path: Path) -> None:
    with pytest.raises(ServerNotRunningError) as refused:
        read_endpoints(tmp_path)
    assert f"birthmark serve --data {tmp_path}" in refused.value.explain_fix()


@given(content=st.binary(max_size=200) | st.sampled_from([b"{", b"[]", b"null", b'{"dps": {}}', b"\xff"]))
def test_a_damaged_file_is_said_to_be_damaged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    data = tmp_path_factory.getbasetemp() / "damaged"
    data.mkdir(exist_ok=True)
    (data / "endpoints.json").write_bytes(content)
    with pytest.raises(ServerNotRunningError) as refused:
        read_endpoints(data)
    assert "damaged" in refused.value.explain_cause()


def test_a_directory_of_another_user_gives_no_rights(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(WHOLE))
    tmp_path.chmod(0)
    was = os.geteuid()
    try:
        if was == 0:
            os.seteuid(65534)
        with pytest.raises(DataDirectoryClosedError):
            read_endpoints(tmp_path)
    finally:
        os.seteuid(was)
        tmp_path.chmod(0o700)


@contextmanager
def answering(data: Path, answer: bytes | None, status: str = "200 OK") -> Iterator[OperatorClient]:
    """A server that gives one caller this answer, or none."""
    (data / PORT_ALONE).touch()  # as on a file system without sockets
    lock = DirectoryLock(data)
    lock.acquire()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(65536)
                if answer is not None:
                    connection.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode() + answer)
                else:
                    while connection.recv(65536):  # until the caller goes
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield OperatorClient(data, f"http://127.0.0.1:{listening.getsockname()[1]}", "token")
        thread.join()
    lock.release()


@pytest.mark.parametrize("is_left", ["nothing", "the mark of a server without a door"])
def test_the_token_goes_to_nobody_who_has_the_port_of_a_server_that_has_ended(tmp_path: Path, is_left: str) -> None:
    """Another user of the machine may bind it the moment it is free."""
    if is_left != "nothing":
        (tmp_path / PORT_ALONE).touch()
    with socket.create_server(("127.0.0.1", 0)) as thief:
        client = OperatorClient(tmp_path, f"http://127.0.0.1:{thief.getsockname()[1]}", "token")
        with pytest.raises(ServerNotRunningError):
            client.get("/hubs")
        thief.settimeout(0.1)
        with pytest.raises(TimeoutError):
            thief.accept()


def test_a_server_that_is_slow_is_not_said_to_be_gone(tmp_path: Path) -> None:
    with answering(tmp_path, None) as client, pytest.raises(NoAnswerInTimeError) as refused:
        client.post("/audit/verify", {}, patience_s=0.05)
    assert "did not respond within 0.05 s" in refused.value.explain_cause()


def test_an_answer_that_is_too_large_is_asked_for_by_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MAX_BYTES", 10)
    with answering(tmp_path, b"[1, 2, 3, 4]") as client, pytest.raises(AnswerTooLargeError) as refused:
        client.get("/hubs")
    assert f"{client.url}/operator/v1/hubs`" in refused.value.explain_fix()


def test_what_a_server_says_that_hangs_up_before_it_has_read_all_is_told(tmp_path: Path) -> None:
    said, status = b"The request body is larger than 262144 bytes.\n", "413 Request Entity Too Large"
    with answering(tmp_path, said, status) as client, pytest.raises(InvalidRequestError) as refused:
        client.post("/aws/rules", {"sql": "x" * 30_000_000})
    assert "The body exceeds 262144 bytes" in refused.value.explain_cause()


@pytest.mark.parametrize("coded", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_an_invitation_is_read_however_its_text_is_coded(tmp_path: Path, coded: str) -> None:
    said = {"url": "https://localhost:8443", "roots": "", "user": "anna", "code": "x", "ends": "2026-01-01"}
    (path := tmp_path / "anna.invitation").write_bytes(json.dumps(said).encode(coded))
    assert read_invitation(path).user == "anna"
