"""`birthmark device` against a real server: a chip's key, a group, and what the chip remembers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.azure.clients import a_file_device
from support.fakes import SeededEntropy
from support.server.servers import RunningServer, a_new_server, a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("device")) as running:
        yield running


@pytest.fixture
def chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftwareElement:
    from birthmark.clock_and_entropy import SystemClock

    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    made = create_software_element(
        tmp_path / "chip", PROFILES["atecc608"], now=SystemClock().now(), entropy=SeededEntropy(3)
    )
    stop_library()
    return made


def one_row(server: RunningServer, *arguments: str, **environment: str) -> dict[str, Any]:
    done = server.run(*arguments, "--json", **environment)
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


def dps_of(server: RunningServer) -> dict[str, str]:
    trust = server.endpoints["trust_bundle"]
    dps = server.endpoints["dps"]
    return {"PROVISIONING_HOST": dps["host"], "PROVISIONING_IDSCOPE": dps["id_scope"], "SSL_CERT_FILE": trust}


def test_a_chip_in_a_group_registers_once_and_then_remembers(
    server: RunningServer, chip: SoftwareElement, tmp_path: Path
) -> None:
    ca, csr, pem = str(tmp_path / "ca"), str(tmp_path / "d.csr"), str(tmp_path / "d.pem")
    server.run("ca", "init", "--name", "Test", "--dir", ca)
    root = next(Path(ca).glob("root*.pem"))
    server.run("dps", "ca", "create", "my-ca", str(root), "--verified")
    server.run("device", "enroll-group", "my-group", "--ca-name", "my-ca")
    here = dict(chip.environment)
    server.run("chip", "csr", "--cn", "gateway-7", "--out", csr, **here)
    server.run("ca", "sign", csr, "--dir", ca, "--out", pem)
    server.run("chip", "write", pem, **here)

    trust = {"SSL_CERT_FILE": server.endpoints["trust_bundle"]}
    options = ("--chip", "--cert", pem)
    registered = one_row(server, "device", "register", *options, "--remember", **here, **dps_of(server))
    assert registered["device_id"] == "gateway-7"
    assert registered["assigned_hub"] == server.endpoints["iothub"]["host"]

    connected = one_row(server, "device", "connect", *options, **here, **trust)
    assert (connected["how"], connected["device_id"], connected["connected"]) == ("remembered", "gateway-7", True)
    sent = one_row(server, "device", "send", '{"n": {n}}', "--count", "3", *options, **here, **trust)
    assert sent["sent"] == 3
    messages = server.rows("hub", "messages", "gateway-7")
    assert [message["body"] for message in messages] == ['{"n": 1}', '{"n": 2}', '{"n": 3}']

    how_to = ("--remember", "--layout", "howto")
    refused = server.attempt("device", "register", *options, *how_to, **here, **dps_of(server))
    assert "elements.data_occupied" in refused.stderr
    one_row(server, "device", "register", *options, *how_to, "--replace-data", **here, **dps_of(server))
    assert server.run("chip", "show", "--object", "slot8", **here).stdout.startswith("gateway-7\0")
    assert one_row(server, "device", "connect", *options, **here, **trust)["how"] == "remembered"


def test_a_file_key_registers_over_https_and_is_refused_with_a_reason(server: RunningServer, tmp_path: Path) -> None:
    from birthmark.clock_and_entropy import SystemClock
    from support.pki.pki_builders import a_ca, a_device

    now = SystemClock().now()
    holder = a_device(a_ca(now=now), "file-device", now=now)
    cert, key = tmp_path / "d.pem", tmp_path / "d.key"
    cert.write_text(holder.certificate.pem())
    key.touch(mode=0o600)
    key.write_text(holder.key_pem)
    options = ("--cert", str(cert), "--key", str(key), "--transport", "https")
    where = dps_of(server)
    where["PROVISIONING_HOST"] += f":{server.endpoints['dps']['https_port']}"
    refused = server.attempt("device", "register", *options, **where)
    assert refused.returncode == 4
    assert "dps.client_refused" in refused.stderr

    server.run("device", "enroll", "--cert", str(cert))
    assert one_row(server, "device", "register", *options, **where)["device_id"] == "file-device"
    assert one_row(server, "device", "send", "hello", *options, **where)["how"] == "registered"


def test_over_https_the_port_is_that_of_the_server_of_this_machine(tmp_path: Path) -> None:
    with a_server(tmp_path, "[ports]\nhttps_also = 0\n") as running:  # as a user who may not bind 443
        device = a_file_device(tmp_path, "by-https")
        running.run("device", "enroll", "--cert", str(device.certificate_file))
        options = ("--cert", str(device.certificate_file), "--key", str(device.key_file), "--transport", "https")
        told = one_row(running, "device", "register", *options, **dps_of(running))
        assert told["device_id"] == "by-https"
