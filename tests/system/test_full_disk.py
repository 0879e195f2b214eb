"""A disk that takes nothing more: the server says so where it is asked, loses nothing, and goes on by itself."""

import json
import resource
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.server.servers import BIRTHMARK, RunningServer, a_new_server, a_server, clean_environment

pytestmark = pytest.mark.system
_ANY = resource.RLIM_INFINITY


def run(server: RunningServer, *command: str, max_file_bytes: int = _ANY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIRTHMARK, *command],
        env=clean_environment(BIRTHMARK_DATA=str(server.data)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, _ANY)),
    )


@contextmanager
def no_more_writes(server: RunningServer) -> Iterator[None]:
    """Let the kernel refuse whatever the server writes to a file."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, _ANY))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (_ANY, _ANY))


def readiness(server: RunningServer) -> tuple[int, dict[str, object]]:
    url = server.endpoints["health_url"].removesuffix("healthz") + "readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def test_a_server_whose_disk_is_full_says_that_it_is_not_ready_until_there_is_room(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        assert readiness(server)[0] == 200
        with no_more_writes(server):
            refused = run(server, "pki", "user", "create", "ann", "--device", "pump")
            assert "store.unavailable" in refused.stderr
            time.sleep(1.1)  # an answer is kept for a second
            status, told = readiness(server)
            assert (status, told["database"]) == (503, "away")
            assert "doctor.database_away" in run(server, "doctor", "--json").stdout
        time.sleep(1.1)
        assert readiness(server)[0] == 200
        assert run(server, "pki", "user", "create", "ann", "--device", "pump").returncode == 0


def test_a_backup_without_room_for_its_copy_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        secret = tmp_path / "backup.passphrase"
        secret.write_text("correct horse battery staple\n")
        secret.chmod(0o600)
        command = ["server", "backup", "--out", str(tmp_path / "one.birthmark"), "--passphrase-file", str(secret)]
        refused = run(server, *command, max_file_bytes=64 * 1024)
        assert refused.returncode == 5
        assert "Traceback" not in refused.stderr
        assert "store.unavailable" in refused.stderr
        assert not list(server.data.glob(".backup*"))
        assert not (tmp_path / "one.birthmark").exists()
        assert run(server, *command).returncode == 0
