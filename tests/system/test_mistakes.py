"""Mistakes that need a running server: odd names, a wrong token, a damaged file, a closed pipe, Ctrl-C."""

import functools
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.server.servers import BIRTHMARK, RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (["hub", "create", "a b", "--host", "x.example"], 1, "operator.name_invalid"),
        (["hub", "rm", "a b/../c?d", "--yes"], 3, "HTTP status 404"),
        (["hub", "device", "ls", "--hub", "nope"], 3, "birthmark hub ls"),
        (["dps", "create", "x/y"], 1, "operator.name_invalid"),
        (["dps", "link", "nope"], 3, "birthmark hub ls"),
        (["dps", "ca", "code", "a b"], 3, "birthmark dps ca ls"),
        (["aws", "key", "rm", "nope", "--yes"], 3, "birthmark aws key ls"),
        (["pki", "user", "create", "a:b", "--any-name"], 1, "no colon"),
        (["pki", "user", "rm", "no one", "--yes"], 3, "birthmark pki user ls"),
        (["device", "rm", "nope"], 3, "birthmark device ls"),
        (["device", "enroll-group", "g", "--ca-name", "nope"], 1, "no CA certificate named nope"),
        (["device", "ls", "--profile", "nope"], 1, "profiles.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_explained(server: RunningServer, line: list[str], code: int, told: str) -> None:
    done = server.attempt(*line)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_whoever_has_another_token_has_no_rights(server: RunningServer, tmp_path: Path) -> None:
    token = server.data / "operator.token"
    kept = token.read_bytes()
    try:
        for wrong in (b"wrong\n", b"\n", b"\xff\xfe\n"):
            token.write_bytes(wrong)
            done = server.attempt("hub", "ls")
            assert done.returncode in {4, 5}
            assert "Fix:" in done.stderr
            assert "Traceback" not in done.stderr
    finally:
        token.write_bytes(kept)


def test_nobody_confirms_in_a_script(server: RunningServer, tmp_path: Path) -> None:
    server.run("ca", "init", "--name", "X", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", "device-1", "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    line = ["device", "enroll", "--cert", str(tmp_path / "device-1.cert.pem"), "--profile", "cloud"]
    text = server.endpoints["dps"]["service_connection_string"]
    done = subprocess.run(
        [BIRTHMARK, *line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(PROVISIONING_CONNECTION_STRING=text),
    )
    assert done.returncode == 6
    assert "--yes" in done.stderr
    assert "SharedAccessKey" not in done.stderr


def test_a_reader_that_leaves_early_and_a_full_disk_are_no_tracebacks(server: RunningServer) -> None:
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    for line in ("birthmark env | true", "birthmark hub ls --json | true", "birthmark hub ls > /dev/full"):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=environment)
        assert "Traceback" not in done.stderr, line
        assert "Exception ignored" not in done.stderr, line


def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    line = [BIRTHMARK, "env", "--wait", "60", "--data", str(tmp_path)]
    # A test run in the background ignores SIGINT, and its children would inherit that.
    attended = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: dict[str, Any] = {"stderr": subprocess.PIPE, "env": clean_environment(), "preexec_fn": attended}
    with subprocess.Popen(line, text=True, **options) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert "Traceback" not in told
