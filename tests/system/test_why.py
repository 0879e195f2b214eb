"""`birthmark why`: one refusal is one story, of this server, told in words that can do no harm."""

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.azure.clients import Device, a_file_device
from support.server.servers import RunningServer, a_new_server, a_server, with_clock

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def register(server: RunningServer, device: Device, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = ["device", "register", "--cert", str(device.certificate_file), "--key", str(device.key_file), *more]
    return server.attempt(*line, **{**server.environment, **environment})


@pytest.mark.parametrize("transport", ["mqtt", "https"])
def test_a_forgotten_enrollment_is_one_story_of_client_and_server(
    server: RunningServer, tmp_path: Path, transport: str
) -> None:
    device = a_file_device(tmp_path, f"forgotten-{transport}")
    assert register(server, device, "--transport", transport, "--host", host_of(server, transport)).returncode != 0
    stories = server.rows("why", device.name)
    assert [story["code"] for story in stories] == ["dps.not_enrolled"]
    assert stories[0]["client"]["code"] in {"links.mqtt_refused", "dps.client_refused"}
    assert "birthmark device enroll" in stories[0]["fix"]
    told = server.run("why", device.name).stdout
    assert told.splitlines()[0].split()[1] == "dps.not_enrolled"
    assert "The client reported:" in told


def host_of(server: RunningServer, transport: str) -> str:
    dps = server.endpoints["dps"]
    return f"{dps['host']}:{dps['https_port']}" if transport == "https" else str(dps["host"])


def test_a_device_of_a_ca_of_ones_own_that_nobody_enrolled_is_not_told_of_its_chain(
    server: RunningServer, tmp_path: Path
) -> None:
    server.run("ca", "init", "--name", "Own", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", "own-1", "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    files = ["--cert", str(tmp_path / "own-1.cert.pem"), "--key", str(tmp_path / "own-1.key.pem")]
    assert server.attempt("device", "register", *files, **server.environment).returncode != 0
    assert server.rows("why", "own-1")[0]["code"] == "dps.not_enrolled"


def test_a_client_that_does_not_trust_the_server_is_told_the_command_at_once(
    server: RunningServer, tmp_path: Path
) -> None:
    device = a_file_device(tmp_path, "distrustful")
    done = register(server, device, SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt")
    assert "links.server_untrusted" in done.stderr
    assert 'eval "$(birthmark env)"' in done.stderr
    newest = server.rows("why", "--limit", "1")[0]
    assert newest["code"] == "tls.server_not_trusted"
    assert newest["client"]["code"] == "links.server_untrusted"


def test_a_client_whose_clock_is_years_ahead_is_told_by_its_clock(server: RunningServer) -> None:
    trust = ["--cacert", str(server.endpoints["trust_bundle"])]
    command = ["curl", "-sS", *trust, f"https://{server.address}:8443/"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **with_clock("+30y")}, check=False)
    assert done.returncode != 0
    newest = server.rows("why", "--limit", "1")[0]
    assert newest["code"] == "tls.client_clock_wrong"
    assert "Set the client's clock" in newest["fix"]


def test_rows_of_another_server_are_not_this_ones(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "elsewhere")
    register(server, device)
    server.attempt("dps", "link", "nope")
    with a_new_server(tmp_path) as fresh:
        done = fresh.attempt("why", HOME=str(server.data.parent))
        rows = [
            json.loads(line) for line in fresh.run("why", "--json", HOME=str(server.data.parent)).stdout.splitlines()
        ]
        assert all(row["server"] is None for row in rows), done.stdout
        assert "elsewhere" not in done.stdout


def test_a_refusal_on_this_machine_alone_says_that_no_server_took_part(server: RunningServer, tmp_path: Path) -> None:
    server.attempt("chip", "cert", "--module", str(tmp_path / "nowhere.so"))
    told = server.run("why", "keys.module_missing").stdout
    assert "no server was involved" in told


def test_mistakes_made_on_this_machine_before_are_not_a_fresh_server_s(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        assert server.attempt("ca", "issue", "gateway", "--dir", "nowhere").returncode != 0
        journal = tmp_path / ".local" / "state" / "birthmark" / "refusals.jsonl"
        row = json.loads(journal.read_text().splitlines()[-1])
        del row["server"]  # as version 0.1.0 wrote it
        journal.write_text(journal.read_text() + json.dumps(row) + "\n")
        server.stop()
        server.start()
        assert "No refusals." in server.run("why").stderr
        assert server.rows("why", "ca.missing")


def test_a_mistake_made_on_this_machine_just_now_is_told_beside_the_server_s(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        server.attempt("dps", "link", "nope")
        server.attempt("ca", "issue", "gateway", "--dir", "nowhere")
        assert [row["code"] for row in server.rows("why")][:2] == ["ca.missing", "iothub.unknown_hub"]
        assert {row["code"] for row in server.rows("why", "--data", str(server.data))} == {"iothub.unknown_hub"}


def test_what_a_stranger_calls_itself_reaches_the_terminal_escaped(server: RunningServer) -> None:
    context = ssl.create_default_context(cafile=str(server.data / "trust.pem"))
    name = b"a\x1b[2J\r\nFORGED  row"
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(name).to_bytes(2, "big") + name
    plain = socket.create_connection((server.address, 8883), 10)
    with context.wrap_socket(plain, server_hostname=server.address) as sock:
        sock.sendall(b"\x10" + bytes([len(body)]) + body)
        sock.recv(100)
    told = server.run("why", "--limit", "3").stdout
    assert "\x1b" not in told
    assert not [line for line in told.splitlines() if line.startswith("FORGED")]
    assert "\\u001b" in told


def test_env_after_a_crash_says_that_the_server_is_not_there(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        assert server.run("env").returncode == 0
        server.kill()
        done = server.attempt("env")
        assert done.returncode == 5
        assert done.stdout == ""
        assert "operator.server_not_running" in done.stderr
        server.start()


def test_a_device_that_was_refused_nothing_is_told_whole(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "whole-1")
    server.run("device", "enroll", "--cert", str(device.certificate_file))
    enrolled, shown = ("dps birthmark", "enrollment", "enabled"), ("ca", "certificate of another CA", "good")
    assert parts(server.rows("device", "show", device.name)) == [enrolled, shown]
    assert register(server, device).returncode == 0
    there = [enrolled, ("dps birthmark", "registration", "assigned"), ("hub birthmark", "device", "enabled"), shown]
    assert parts(server.rows("device", "show", device.name)) == there
    nothing = server.attempt("why", device.name)
    assert (nothing.returncode, "No refusals" in nothing.stderr) == (3, True)
    assert "hub birthmark" in nothing.stdout
    assert server.attempt("why", device.name, "--json").stdout == ""
    server.run("device", "revoke", device.name, "--yes")
    assert register(server, device).returncode != 0
    taken = {(place, what): state for place, what, state in parts(server.rows("device", "show", device.name))}
    assert taken["dps birthmark", "enrollment"] == taken["hub birthmark", "device"] == "disabled"
    assert taken["ca", "name"] == "shut out"
    assert taken["ca", "certificate of another CA"] == "revoked"
    assert taken["refusals", "refused"].endswith("UTC")


def parts(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(row["place"], row["what"], row["state"]) for row in rows]


def test_of_what_is_on_record_nowhere_that_is_said(server: RunningServer) -> None:
    for command in ("why", "device show"):
        told = server.attempt(*command.split(), "no-such-device")
        assert (told.returncode, "device.not_on_record" in told.stderr) == (3, True)
