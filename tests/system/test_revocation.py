"""A certificate that was taken back opens nothing any more, and its live connection ends."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from birthmark.pki.certificates import parse_bundle
from support.azure.clients import Device, a_file_device, run_app
from support.pki.est_curl import enroll_by_curl
from support.pki.pki_builders import Holder
from support.server.servers import RunningServer, a_new_server, a_server

pytestmark = pytest.mark.system

STAY = """
import asyncio, os
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient

async def main():
    x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    host, name = os.environ["PROVISIONING_HOST"], os.environ["DPS_X509_REGISTRATION_ID"]
    device = IoTHubDeviceClient.create_from_x509_certificate(x509, host, name, connection_retry=False)
    dropped, loop = asyncio.Event(), asyncio.get_running_loop()
    device.on_connection_state_change = lambda: device.connected or loop.call_soon_threadsafe(dropped.set)
    await device.connect()
    print("connected", flush=True)
    await asyncio.wait_for(dropped.wait(), 20)
    print("dropped", flush=True)
    await device.shutdown()

asyncio.run(main())
"""


def an_est_device(server: RunningServer, directory: Path, name: str) -> Device:
    leaf = enroll_by_curl(server, directory, name)
    issuing = next(c for c in parse_bundle((server.data / "ca" / "issuing.pem").read_bytes()))
    certificate_file = directory / f"{name}.pem"
    certificate_file.write_text(leaf.pem() + issuing.pem())
    return Device(name, Holder(leaf, None), certificate_file, directory / "est.key")  # type: ignore[arg-type]  # the parts that are not used are left out


def test_a_revoked_certificate_is_refused_everywhere_and_loses_its_connection(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        server.run("dps", "ca", "create", "est-root", str(server.data / "trust.pem"), "--verified")
        server.run("device", "enroll-group", "est", "--ca-name", "est-root")
        device = an_est_device(server, tmp_path, "taken-back")
        assert run_app(server, device).returncode == 0
        thumbprint = device.holder.certificate.thumbprint.hex()
        (row,) = server.rows("pki", "ls", "taken-back")
        assert (row["thumbprint"], row["revoked"]) == (thumbprint, None)

        command = [sys.executable, "-c", STAY]
        live = subprocess.Popen(command, env=device.environment(server), stdout=subprocess.PIPE, text=True)
        assert live.stdout is not None
        assert live.stdout.readline() == "connected\n"
        server.run("pki", "revoke", thumbprint, "--reason", "keyCompromise")
        assert live.stdout.readline() == "dropped\n"
        live.stdout.close()
        live.wait(20)

        done = run_app(server, device)
        assert "CredentialError" in done.stderr
        assert server.why("taken-back")["code"] == "ca.certificate_revoked"
        assert server.rows("pki", "ls", thumbprint)[0]["reason"] == "keyCompromise"
        assert server.attempt("pki", "revoke", thumbprint).returncode == 1


def a_live_device(server: RunningServer, device: Device) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", STAY]
    live = subprocess.Popen(command, env=device.environment(server), stdout=subprocess.PIPE, text=True)
    assert live.stdout is not None
    assert live.stdout.readline() == "connected\n"
    return live


def test_a_device_whose_key_is_taken_back_loses_its_connection(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        server.run("dps", "ca", "create", "est-root", str(server.data / "trust.pem"), "--verified")
        server.run("device", "enroll-group", "est", "--ca-name", "est-root")
        device = an_est_device(server, tmp_path, "by-key")
        assert run_app(server, device).returncode == 0
        live = a_live_device(server, device)
        assert live.stdout is not None
        server.run("pki", "revoke", "--key-of", str(device.certificate_file), "--reason", "keyCompromise")
        assert live.stdout.readline() == "dropped\n"
        live.stdout.close()
        live.wait(20)


def test_devices_below_a_maker_s_ca_that_is_taken_back_lose_their_connections(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        maker = tmp_path / "maker"
        server.run("ca", "init", "--name", "Maker", "--dir", str(maker))
        server.run("dps", "ca", "create", "maker", str(maker / "root.pem"), "--verified")
        server.run("device", "enroll-group", "maker", "--ca-name", "maker")
        server.run("ca", "issue", "made", "--dir", str(maker), "--out-dir", str(tmp_path))
        files = tmp_path / "made.cert.pem", tmp_path / "made.key.pem"
        device = Device("made", None, *files)  # type: ignore[arg-type]  # the parts that are not used are left out
        assert run_app(server, device).returncode == 0
        live = a_live_device(server, device)
        assert live.stdout is not None
        server.run("pki", "revoke", "--key-of", str(maker / "issuing.pem"), "--yes")
        assert live.stdout.readline() == "dropped\n"
        assert run_app(server, device).returncode != 0
        assert server.why("made")["code"] == "ca.certificate_revoked"
        live.stdout.close()
        live.wait(20)


def test_a_revoked_root_is_seen_above_the_ca_that_a_group_carries(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        maker = tmp_path / "maker"
        server.run("ca", "init", "--name", "Maker", "--dir", str(maker))
        server.run("dps", "ca", "create", "maker", str(maker / "root.pem"), "--verified")
        server.run("device", "enroll-group", "line-1", "--cert", str(maker / "issuing.pem"))
        server.run("ca", "issue", "made", "--dir", str(maker), "--out-dir", str(tmp_path))
        chain, key = tmp_path / "made.cert.pem", tmp_path / "made.key.pem"
        end = "-----END CERTIFICATE-----\n"
        chain.write_text(chain.read_text().partition(end)[0] + end)
        device = Device("made", None, chain, key)  # type: ignore[arg-type]  # the parts that are not used are left out
        assert run_app(server, device).returncode == 0
        server.run("pki", "revoke", "--key-of", str(maker / "root.pem"), "--yes")
        assert run_app(server, device).returncode != 0
        assert server.why("made")["code"] == "ca.certificate_revoked"


def test_a_stolen_device_of_another_ca_is_taken_back_by_its_name_alone(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        device, other = a_file_device(tmp_path, "stolen"), a_file_device(tmp_path, "still-ours")
        for one in (device, other):
            server.run("device", "enroll", "--cert", str(one.certificate_file))
            assert run_app(server, one).returncode == 0
        server.run("device", "enroll", "--to", "aws", "--cert", str(device.certificate_file))
        live = a_live_device(server, device)
        assert live.stdout is not None
        (row,) = server.rows("pki", "revoke", "--device", "stolen")
        assert row["thumbprint"] == device.holder.certificate.thumbprint.hex()
        assert live.stdout.readline() == "dropped\n"
        assert run_app(server, device).returncode != 0
        assert server.why("stolen")["code"] == "ca.certificate_revoked"
        assert run_app(server, other).returncode == 0
        assert server.attempt("pki", "revoke", "--device", "stolen").returncode == 3
        live.stdout.close()
        live.wait(20)


def test_devices_below_a_ca_that_is_taken_back_lose_their_connections_and_others_stay(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        server.run("dps", "ca", "create", "est-root", str(server.data / "trust.pem"), "--verified")
        server.run("device", "enroll-group", "est", "--ca-name", "est-root")
        device = an_est_device(server, tmp_path, "below")
        other = a_file_device(tmp_path, "elsewhere")
        server.run("device", "enroll", "--cert", str(other.certificate_file))
        for one in (device, other):
            assert run_app(server, one).returncode == 0
        live, staying = a_live_device(server, device), a_live_device(server, other)
        assert live.stdout is not None
        assert staying.stdout is not None
        issuing = str(server.data / "ca" / "issuing.pem")
        assert "cli.action_needed" in server.attempt("pki", "revoke", "--key-of", issuing).stderr
        server.run("pki", "revoke", "--key-of", issuing, "--yes", "--reason", "cACompromise")
        assert live.stdout.readline() == "dropped\n"
        assert run_app(server, device).returncode != 0
        assert server.why("below")["code"] == "ca.certificate_revoked"
        assert staying.poll() is None
        assert run_app(server, other).returncode == 0  # which takes its place: the hub knows each device once
        assert staying.stdout.readline() == "dropped\n"
        for process in (live, staying):
            process.stdout.close()  # type: ignore[union-attr]  # the parts that are not used are left out
            process.wait(20)


def test_taking_one_certificate_back_says_what_stays_good_of_the_device(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        first, second = (enroll_by_curl(server, tmp_path, "pump-1") for _ in range(2))
        done = server.run("pki", "revoke", second.thumbprint.hex(), "--reason", "keyCompromise")
        assert f"Still good, by another key: {first.thumbprint.hex()}" in done.stderr
        assert "`birthmark device revoke pump-1`" in done.stderr
        done = server.run("pki", "revoke", first.thumbprint.hex())
        assert "Still good" not in done.stderr


def test_a_command_for_directories_leaves_a_servers_ca_to_the_server(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        leaf, ca = enroll_by_curl(server, tmp_path, "pump-1"), str(server.data / "ca")
        for command in (("issue", "pump-2"), ("crl",), ("revoke", leaf.thumbprint.hex())):
            refused = server.attempt("ca", *command, "--dir", ca)
            assert (refused.returncode, "ca.of_a_server" in refused.stderr) == (1, True)
            (typed,) = re.findall("`birthmark (.*)`", refused.stderr.replace("\n", " "))
            server.run(*shlex.split(typed))
        assert server.rows("pki", "ls", leaf.thumbprint.hex())[0]["revoked"]
        server.stop()
        assert "ca.of_a_server" in server.attempt("ca", "issue", "pump-2", "--dir", ca).stderr, "nor while it rests"
        assert not (server.data / "ca" / "inventory.db").exists()
