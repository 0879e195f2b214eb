"""The server's own TLS: its certificate's life, the groups it takes, and a certificate of one's own."""

import json
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from birthmark.pki.certificate_profiles import SERVER
from birthmark.pki.certificates import parse_der
from support.floods.unauthenticated import tls
from support.pki.pki_builders import Holder, a_ca, a_device
from support.server.servers import BIRTHMARK, RunningServer, a_new_server, a_server, clean_environment, free_address

pytestmark = pytest.mark.system
REQUEST = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("certificate")) as running:
        yield running


def served(server: RunningServer) -> bytes:
    with tls(server, 8443) as sock:
        der = sock.getpeercert(binary_form=True)
    assert der is not None
    return der


def until(server: RunningServer, wanted: bytes) -> None:
    deadline = time.monotonic() + 10
    while served(server) != wanted:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def test_the_servers_certificate_lives_at_most_366_days(server: RunningServer) -> None:
    leaf = parse_der(served(server))
    assert leaf.not_after - leaf.not_before <= timedelta(days=366)


@pytest.mark.parametrize(
    ("group", "is_served"), [("X25519", True), ("P-256", True), ("P-384", True), ("P-521", False), ("X448", False)]
)
def test_the_groups_are_x25519_p256_and_p384(server: RunningServer, group: str, is_served: bool) -> None:
    command = ["openssl", "s_client", "-connect", f"{server.address}:8443", "-groups", group]
    done = subprocess.run(
        command, input="", capture_output=True, text=True, check=False, timeout=20, env=clean_environment()
    )
    assert ("BEGIN CERTIFICATE" in done.stdout) is is_served, done.stderr


def refused_start(directory: Path, config: Path) -> str:
    """Return what a server says that does not start."""
    command = [
        BIRTHMARK,
        "serve",
        "--data",
        str(directory / "data"),
        "--listen",
        free_address(),
        "--config",
        str(config),
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


def write_pair(directory: Path, ca: Holder, name: str, begun: datetime | None = None) -> Holder:
    made = a_device(ca, "own", profile=SERVER, san=(x509.DNSName(name),), now=begun or datetime.now(UTC))
    (directory / "own.key").write_text(made.key_pem)
    (directory / "own.pem").write_text(made.certificate.pem() + ca.certificate.pem())
    return made


def test_a_certificate_of_ones_own_is_served_and_read_anew_and_a_bad_one_is_not(tmp_path: Path) -> None:
    ca = a_ca("My Own Root", now=datetime.now(UTC))
    first = write_pair(tmp_path, ca, "localhost")
    config = f'host = "localhost"\n[server]\ncertificate = "{tmp_path}/own.pem"\nkey = "{tmp_path}/own.key"\n'
    with a_server(tmp_path, config) as running:
        assert served(running) == first.certificate.der
        trusted = ssl.create_default_context(cafile=running.endpoints["trust_bundle"])
        with tls(running, 8443, trusted) as open_one:  # whoever uses our trust bundle trusts it
            second = write_pair(tmp_path, ca, "localhost")
            until(running, second.certificate.der)
            open_one.sendall(REQUEST)
            open_one.settimeout(10)
            assert open_one.recv(100).startswith(b"HTTP/1.1 200")  # who is connected stays

        (tmp_path / "own.key").write_text("rubbish")
        deadline = time.monotonic() + 10
        while "server.certificate_not_renewed" not in running.log() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "server.certificate_not_renewed" in running.log()
        assert served(running) == second.certificate.der
        assert found_by_doctor(running) == ["doctor.server_certificate_not_taken"]
        assert "birthmark_server_certificate_taken 0" in metrics_of(running)

        third = write_pair(tmp_path, ca, "localhost")
        assert running.process is not None
        running.process.send_signal(signal.SIGHUP)
        until(running, third.certificate.der)
        assert "birthmark_server_certificate_taken 1" in metrics_of(running)
        assert "Traceback" not in running.log()


def test_a_certificate_of_ones_own_that_ends_soon_is_told(tmp_path: Path) -> None:
    ca, begun = a_ca("My Own Root", now=datetime.now(UTC)), datetime.now(UTC) - SERVER.lifetime + timedelta(days=5)
    ending = write_pair(tmp_path, ca, "localhost", begun)
    config = f'host = "localhost"\n[server]\ncertificate = "{tmp_path}/own.pem"\nkey = "{tmp_path}/own.key"\n'
    with a_server(tmp_path, config) as running:
        assert found_by_doctor(running) == ["doctor.server_certificate_ends"]
        (line,) = [one for one in metrics_of(running).splitlines() if '{of="server"}' in one]
        assert line.startswith("birthmark_certificate_expiry_timestamp_seconds")
        assert float(line.split()[1]) == ending.certificate.not_after.timestamp()
        write_pair(tmp_path, ca, "localhost")
        deadline = time.monotonic() + 10
        while found_by_doctor(running) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found_by_doctor(running) == []


def found_by_doctor(running: RunningServer) -> list[str]:
    rows = map(json.loads, running.attempt("doctor", "--json").stdout.splitlines())
    return [row["code"] for row in rows if row["topic"] == "server" and row["severity"] != "ok"]


def metrics_of(running: RunningServer) -> str:
    with urllib.request.urlopen(running.endpoints["health_url"].replace("/healthz", "/metrics"), timeout=10) as answer:
        return str(answer.read(), "utf-8")


def test_a_pair_that_does_not_belong_together_keeps_the_server_from_starting(tmp_path: Path) -> None:
    ca = a_ca(now=datetime.now(UTC))
    write_pair(tmp_path, ca, "localhost")
    (tmp_path / "own.key").write_text(a_device(ca, "other", now=datetime.now(UTC)).key_pem)
    config = tmp_path / "server.toml"
    config.write_text(f'host = "localhost"\n[server]\ncertificate = "{tmp_path}/own.pem"\nkey = "{tmp_path}/own.key"\n')
    assert "server.certificate_unusable" in refused_start(tmp_path, config)


def test_a_pair_for_another_host_keeps_the_server_from_starting(tmp_path: Path) -> None:
    write_pair(tmp_path, a_ca(now=datetime.now(UTC)), "old.example")
    config = tmp_path / "server.toml"
    config.write_text(f'host = "localhost"\n[server]\ncertificate = "{tmp_path}/own.pem"\nkey = "{tmp_path}/own.key"\n')
    told = refused_start(tmp_path, config)
    assert "server.certificate_unusable" in told
    assert "not for the server's host localhost" in told


def test_probes_reach_the_health_port_and_only_its_health(tmp_path: Path) -> None:
    reached = free_address()
    config = tmp_path / "server.toml"
    config.write_text(f'health_listen = ["{reached}"]\n')
    running = RunningServer(tmp_path / "data", free_address(), config).start()
    try:
        with urllib.request.urlopen(f"http://{reached}:8080/readyz", timeout=10) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://{running.address}:8080/healthz", timeout=10) as answer:
            assert answer.status == 200
    finally:
        assert running.stop() == 0


def test_a_config_with_half_a_pair_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('[server]\ncertificate = "x.pem"\n')
    assert "must both be set, or neither" in refused_start(tmp_path, config)
