"""A server for tests (`birthmark test-server`): as new by one word, and gone with whoever asked for it."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from support.azure.clients import a_file_device
from support.server.servers import BIRTHMARK, TrialServer, clean_environment

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def trial() -> Iterator[TrialServer]:
    server = TrialServer(Path("/nonexistent"), "").start()
    yield server
    server.stop()


def test_nothing_that_was_made_is_there_after_a_reset(trial: TrialServer) -> None:
    trial.run("hub", "create", "another", "--host", "another.example")
    trial.run("hub", "device", "create", "pump-1", "--json")
    trial.run("aws", "key", "create", "--json")
    (trial.data / "left").write_text("here")
    trial.reset()
    assert [one["name"] for one in trial.rows("hub", "ls")] == ["birthmark"]
    assert trial.rows("hub", "device", "ls") == []
    assert len(trial.rows("aws", "key", "ls")) == 1
    assert not (trial.data / "left").exists()
    trial.run("server", "audit", "verify")


@pytest.mark.parametrize(
    ("given", "answers"),
    [(b"help", 1), (b"help\r", 1), (b"help\r\nhelp", 2), (b"help\rhelp\r", 2), (b"\xef\xbb\xbfhelp\r\n", 1)],
)
def test_each_line_is_answered_however_it_ends(given: bytes, answers: int) -> None:
    environment = clean_environment(HOME="/nonexistent")
    done = subprocess.run(
        [BIRTHMARK, "test-server", "--json"], input=given, env=environment, capture_output=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == 1 + answers  # the first says how to reach it


def test_what_a_client_was_told_stays_true(trial: TrialServer) -> None:
    before, root = trial.endpoints, (trial.data / "trust.pem").read_text()
    trial.reset()
    assert trial.endpoints == before
    assert (trial.data / "trust.pem").read_text() == root
    context = ssl.create_default_context(cafile=str(trial.data / "trust.pem"))
    raw = socket.create_connection((trial.address, 8443), 5)
    context.wrap_socket(raw, server_hostname=trial.address).close()


def test_its_log_is_what_it_logged_since_it_was_new(trial: TrialServer) -> None:
    trial.reset()
    assert trial.log() == ""
    trial.cloud.set_line("through")  # behind which it begins again
    assert "server.ready" in trial.log()
    trial.reset()
    assert trial.log() == ""


def test_a_connection_ends_and_its_session_is_forgotten(trial: TrialServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "pump-2")
    trial.run("hub", "device", "create", "pump-2", "--cert", str(device.certificate_file))
    answers: list[int] = []
    came, went = threading.Event(), threading.Event()
    client = paho.Client("pump-2", clean_session=False)
    client.username_pw_set(f"{trial.address}/pump-2/?api-version=2021-04-12")
    context = ssl.create_default_context(cafile=str(trial.data / "trust.pem"))
    context.load_cert_chain(device.certificate_file, device.key_file)
    client.tls_set_context(context)

    def connected(*told: Any) -> None:
        answers.append(told[3])
        came.set()

    client.on_connect, client.on_disconnect = connected, lambda *_: went.set()
    client.reconnect_delay_set(1, 1)
    client.connect(trial.address, 8883)
    client.loop_start()
    assert came.wait(10)
    came.clear()
    trial.reset()
    assert went.wait(10)
    assert came.wait(10)
    client.disconnect()
    client.loop_stop()
    assert answers[0] == 0
    assert answers[1] != 0  # nobody knows it any more
    assert trial.why("pump-2")["code"] == "iothub.unknown_device"


def test_guesses_of_before_a_reset_are_nobodys(trial: TrialServer) -> None:
    url = f"https://{trial.address}:8085/.well-known/est/simpleenroll"
    command = [
        "curl",
        "-sk",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-u",
        "nobody:wrong",
        "-H",
        "Content-Type: application/pkcs10",
        "-d",
        "x",
        url,
    ]

    def guess() -> int:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    found = [guess() for _ in range(14)]
    assert found[0] == 401
    assert found[-1] == 429
    trial.reset()
    assert guess() == 401


def test_words_are_answered_in_turn_and_what_is_refused_changes_nothing() -> None:
    said = conversation("azure-device pump-1", "nonsense", '{"do": "expire", "name": "pump-2"}', "messages", "help")
    endpoints, device, nonsense, unknown, messages, told = map(json.loads, said.stdout.splitlines())
    assert device["provisioning_host"] == endpoints["dps"]["host"]
    assert device["environment"]["X509_CERT_FILE"] == device["files"]["certificate_file"]
    assert nonsense["error"] == "testing.word_invalid"
    assert (unknown["error"], unknown["fix"][:6]) == ("testing.subject_unknown", "Create")
    assert messages == {"items": []}
    assert set(told) == {"words", "refusals"}
    assert said.returncode == 1  # as a word was refused


def test_a_line_that_is_too_long_is_one_refusal() -> None:
    said = conversation("x" * 1_000_000, "messages")
    _, too_long, messages = map(json.loads, said.stdout.splitlines())
    assert too_long["error"] == "testing.word_invalid"
    assert len(too_long["cause"]) < 1000
    assert messages == {"items": []}


def test_words_out_of_all_proportion_are_refused_and_the_server_lives_on() -> None:
    deep = '{"a":' * 3000
    said = conversation("clock +9999999d", deep, "aws-thing pump-1 lasts=9999999d", "expire pump-1", "messages")
    _, far, nested, _thing, endless, messages = map(json.loads, said.stdout.splitlines())
    assert far["error"] == nested["error"] == endless["error"] == "testing.word_invalid"
    assert messages == {"items": []}


def test_a_strangers_directory_of_the_same_name_is_left_alone() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root is a stranger, too")
    foreign = Path(tempfile.mkdtemp(prefix="birthmark-test-", dir="/dev/shm"))
    try:
        (foreign / "file").touch()
        foreign.chmod(0o755)
        os.chown(foreign, 65534, 65534)
        assert conversation("messages").returncode == 0
        assert (foreign / "file").exists()
    finally:
        shutil.rmtree(foreign, ignore_errors=True)


def test_where_memory_has_no_room_its_data_is_on_the_disk() -> None:
    """Containers have 64 MB there, which all of them share."""
    if os.geteuid() != 0:
        pytest.skip("only root makes memory small")
    small = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$0" test-server --json'
    command = ["unshare", "--mount", "sh", "-c", small, BIRTHMARK]
    found = subprocess.run(command, input="", capture_output=True, text=True, env=clean_environment(), check=True)
    assert json.loads(found.stdout)["trust_bundle"].startswith("/tmp/")


def test_keys_of_devices_are_their_owners_alone_and_gone_after_a_reset() -> None:
    pipe = subprocess.PIPE
    command = [BIRTHMARK, "test-server", "--json"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=clean_environment()) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdout.readline()
        print("azure-device pump-1", file=asked.stdin, flush=True)
        key = Path(json.loads(asked.stdout.readline())["files"]["key_file"])
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.parent.stat().st_mode & 0o777 == 0o700
        print("reset", file=asked.stdin, flush=True)
        asked.stdout.readline()
        assert not key.exists()
        asked.stdin.close()
        assert asked.wait(20) == 0


def conversation(*words: str) -> "subprocess.CompletedProcess[str]":
    """Say some words to a server, and return what it answered until its end."""
    return subprocess.run(
        [BIRTHMARK, "test-server", "--json"],
        input="".join(f"{word}\n" for word in words),
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )


def test_it_ends_with_its_input_and_leaves_nothing() -> None:
    pipe = subprocess.PIPE
    command = [BIRTHMARK, "test-server", "--json"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=clean_environment()) as asked:
        assert asked.stdout is not None
        assert asked.stdin is not None
        data = Path(json.loads(asked.stdout.readline())["trust_bundle"]).parent
        assert data.is_dir()
        asked.stdin.close()
        assert asked.wait(20) == 0
    assert not data.parent.exists()


def test_without_an_input_it_stays_until_it_is_told_to_end() -> None:
    """A shell gives its jobs /dev/null."""
    none, pipe = subprocess.DEVNULL, subprocess.PIPE
    command = [BIRTHMARK, "test-server"]
    with subprocess.Popen(command, stdin=none, stdout=pipe, text=True, env=clean_environment()) as asked:
        assert asked.stdout is not None
        assert asked.stdout.readline().startswith("export ")
        with pytest.raises(subprocess.TimeoutExpired):
            asked.wait(0.5)
        asked.send_signal(signal.SIGTERM)
        assert asked.wait(20) == 0


def ending_of(word: str, end: Callable[["subprocess.Popen[str]"], None]) -> tuple[int, float, bool]:
    """Ask something, end it, and return its exit code, how long that took, and whether its data is gone."""
    pipe = subprocess.PIPE
    command = [BIRTHMARK, "test-server", "--json"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=clean_environment()) as asked:
        assert asked.stdin is not None
        assert asked.stdout is not None
        data = Path(json.loads(asked.stdout.readline())["trust_bundle"]).parent
        if word:
            print(word, file=asked.stdin, flush=True)
            time.sleep(0.5)
        began = time.monotonic()
        end(asked)
        code = asked.wait(60)
        return code, time.monotonic() - began, not data.parent.exists()


def leave(asked: "subprocess.Popen[str]") -> None:
    """As who is killed does."""
    for pipe in (asked.stdin, asked.stdout):
        assert pipe is not None
        pipe.close()


def terminate_twice(asked: "subprocess.Popen[str]") -> None:
    asked.terminate()
    time.sleep(0.1)
    asked.terminate()


@pytest.mark.parametrize("end", [leave, subprocess.Popen.terminate, terminate_twice])
def test_it_ends_at_once_also_while_a_word_waits(end: Callable[["subprocess.Popen[str]"], None]) -> None:
    code, took, is_gone = ending_of("why nobody within_s=40", end)
    assert (code, is_gone) == (0, True)
    assert took < 10


def test_what_its_closed_terminal_ends_leaves_nothing() -> None:
    assert ending_of("", lambda asked: asked.send_signal(signal.SIGHUP))[::2] == (0, True)


def test_where_answers_are_read_the_last_word_has_its_time() -> None:
    began = time.monotonic()
    said = conversation("why nobody within_s=2")
    assert json.loads(said.stdout.splitlines()[-1]) == {"items": []}
    assert time.monotonic() - began > 2
