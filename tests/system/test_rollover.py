"""Exchanging the root under devices that keep their own trust: nobody who is online is cut off, in any phase."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from birthmark.agent import connect
from support.agent.device import AgentOnDevice
from support.agent.rollover_fleet import Fleet
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
DEVICES = int(os.environ.get("BIRTHMARK_ROLLOVER_DEVICES", "60"))
CONFIG = "est.renewals_per_s = 100000\n[limits]\nmax_unauthenticated_per_peer = 4096\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with a_server(tmp_path, CONFIG) as running:
        yield running


def step(server: RunningServer, *words: str) -> dict[str, object]:
    (row,) = server.rows("pki", "rollover", *words, "--yes")
    return row


def refused(server: RunningServer, *words: str) -> str:
    done = server.attempt("pki", "rollover", *words, "--yes")
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_nobody_who_is_online_is_cut_off_on_the_way_there_and_back(server: RunningServer, tmp_path: Path) -> None:
    fleet = Fleet.enrolled(server, tmp_path / "devices", DEVICES)
    online, offline = fleet.devices[DEVICES // 10 :], fleet.devices[: DEVICES // 10]
    before = fleet.devices[0].anchors

    assert step(server, "start")["devices"] == DEVICES
    fleet.renew(online)
    assert {len(device.anchors) for device in online} == {2}
    assert "ca.rollover_anchors_missing" in refused(server, "next")
    assert offline[0].name in refused(server, "next")

    assert step(server, "next", "--share", "90%")["state"] == "both trusted, the new signs"
    fleet.renew(online)
    assert "ca.rollover_old_used" in refused(server, "next")  # those that are offline

    assert step(server, "back")["state"] == "both trusted, the old signs"
    fleet.renew(online[1:])
    assert "ca.rollover_new_used" in refused(server, "back")  # one has not renewed by the old root again
    fleet.renew(online[:1])
    assert step(server, "back")["state"] == "one root"
    fleet.renew(online)
    assert {device.anchors for device in online} == {before}

    step(server, "start")
    fleet.renew(online)
    step(server, "next", "--share", "90%")
    fleet.renew(online)
    fleet.renew(offline)  # they know the old root alone until now
    assert {len(device.anchors) for device in fleet.devices} == {2}

    assert step(server, "next")["state"] == "the new alone"
    fleet.renew(fleet.devices)
    assert fleet.failures == []
    assert {device.anchors for device in fleet.devices} == {(fleet.devices[0].anchors[0],)}
    assert fleet.devices[0].anchors != before

    assert step(server, "back")["state"] == "both trusted, the new signs"
    fleet.renew(fleet.devices)
    step(server, "next")
    fleet.renew(fleet.devices)
    assert fleet.failures == []
    assert all(device.is_verified() for device in fleet.devices)


def test_the_state_outlives_kill_9_in_every_phase(tmp_path: Path) -> None:
    with a_server(tmp_path, CONFIG, is_warm=False) as server:
        fleet = Fleet.enrolled(server, tmp_path / "devices", 3)
        for words in (("start",), ("next", "--share", "0"), ("back",), ("next", "--share", "0")):
            state = step(server, *words)["state"]
            server.kill()
            server.start()
            assert server.rows("pki", "rollover", "status")[0]["state"] == state
            fleet.renew(fleet.devices)
        step(server, "next")
        server.kill()
        server.start()
        fleet.renew(fleet.devices)
        assert fleet.failures == []


def test_who_has_the_old_root_alone_verifies_a_server_of_the_new(server: RunningServer, tmp_path: Path) -> None:
    old = tmp_path / "old.pem"
    old.write_text(Path(server.endpoints["trust_bundle"]).read_text())
    step(server, "start")
    step(server, "next")
    new = min(server.data.glob("ca-*/root.pem"))
    for anchor in (old, new):
        done = subprocess.run(
            [
                "openssl",
                "s_client",
                "-connect",
                f"{server.address}:8085",
                "-CAfile",
                str(anchor),
                "-verify_return_error",
            ],
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Verify return code: 0 (ok)" in done.stdout


def test_enrollment_groups_are_taught_the_new_ca(server: RunningServer) -> None:
    server.run("dps", "ca", "create", "est-root", server.endpoints["trust_bundle"], "--verified")
    server.run("device", "enroll-group", "edge", "--ca-name", "est-root")
    step(server, "start")
    assert "birthmark pki rollover groups" in refused(server, "next")
    assert server.rows("pki", "rollover", "groups") == [{"groups": ["edge"]}]
    assert step(server, "next")["groups"] == []


def test_a_group_that_carries_its_ca_goes_on_to_let_devices_in(server: RunningServer, tmp_path: Path) -> None:
    issuing = Path(server.endpoints["trust_bundle"]).parent / "ca" / "issuing.pem"
    server.run("device", "enroll-group", "Gate.ways", "--cert", str(issuing))
    server.run("dps", "ca", "create", "gateways", "--of-group", "Gate.ways", "--verified")
    device = AgentOnDevice(server, tmp_path / "device", "edge-1", Path(server.endpoints["trust_bundle"])).configure()
    before = device.row("apply")
    step(server, "start")
    server.run("pki", "rollover", "groups")
    step(server, "next", "--share", "0%")
    after = device.row("renew")
    assert after["issuer"] != before["issuer"]
    assert device.thumbprint_at_hub() == after["thumbprint"]


def test_an_agent_follows_the_new_root_for_est_and_for_its_hub(server: RunningServer, tmp_path: Path) -> None:
    anchor = tmp_path / "anchor.pem"
    anchor.write_text(Path(server.endpoints["trust_bundle"]).read_text())
    server.run("dps", "ca", "create", "est-root", str(anchor), "--verified")
    server.run("device", "enroll-group", "edge", "--ca-name", "est-root")
    device = AgentOnDevice(server, tmp_path / "device", "edge-1", anchor).configure(
        lambda text: text.replace(server.endpoints["trust_bundle"], str(anchor))
    )
    device.row("apply")
    step(server, "start")
    server.run("pki", "rollover", "groups")
    device.row("renew")
    step(server, "next")  # every device was handed both, without a share
    renewed = device.row("renew")
    step(server, "next")
    again = device.row("renew")
    assert (again["connected"], again["renewals"]) == (False, 3)
    assert device.thumbprint_at_hub() == again["thumbprint"] != renewed["thumbprint"]
    assert "error" not in {row["result"] for row in map(json.loads, device.run("check", "--json").stdout.splitlines())}
    asyncio.run(connected_by_a_program(device, server))


async def connected_by_a_program(device: AgentOnDevice, server: RunningServer) -> None:
    """Connect to the hub as a program does that keeps the device's identity: it trusts what the agent trusts."""
    async with connect(device.config, root=device.root) as kept:
        assert kept.identity.hub is not None
        with (
            socket.create_connection((server.address, 8883), 10) as line,
            kept.identity.ssl_context().wrap_socket(line, server_hostname=kept.identity.hub) as tls,
        ):
            assert tls.version() is not None


def exchanged(server: RunningServer) -> None:
    """Exchange the root of a server whose devices need not be waited for."""
    step(server, "start")
    server.run("pki", "rollover", "groups")
    step(server, "next", "--share", "0%")
    assert step(server, "next")["state"] == "the new alone"


@pytest.mark.parametrize("way", ["by name", "carried"])
def test_who_has_the_old_roots_key_is_let_in_by_no_group_when_the_exchange_is_over(
    server: RunningServer, tmp_path: Path, way: str
) -> None:
    ca = server.data / "ca"
    if way == "by name":
        server.run("dps", "ca", "create", "ours", f"{ca}/root.pem", "--verified")
        server.run("device", "enroll-group", "edge", "--ca-name", "ours")
    else:
        server.run("device", "enroll-group", "edge", "--cert", f"{ca}/issuing.pem")
        server.run("dps", "ca", "create", "ours", "--of-group", "edge", "--verified")
    given = server.endpoints["dps"]
    environment = {"PROVISIONING_HOST": given["host"], "PROVISIONING_IDSCOPE": given["id_scope"]}
    environment |= {"SSL_CERT_FILE": str(server.data / "bundle.pem")}
    shutil.copytree(ca, tmp_path / "stolen")
    server.run("ca", "issue", "edge-7", "--dir", f"{tmp_path}/stolen", "--out-dir", str(tmp_path))
    files = [tmp_path / "edge-7.cert.pem", tmp_path / "stolen" / "issuing.pem"]
    (tmp_path / "chain.pem").write_text("".join(file.read_text() for file in files))
    asked = ("device", "register", "--cert", f"{tmp_path}/chain.pem", "--key", f"{tmp_path}/edge-7.key.pem")
    server.run(*asked, **environment)
    exchanged(server)
    assert server.attempt(*asked, **environment).returncode != 0
    assert "dps.ca_unverified" in server.run("why", "edge-7").stdout
    assert {row["name"]: row["verified"] for row in server.rows("dps", "ca", "ls")}["ours"] is False
    step(server, "back")
    server.run(*asked, **environment)


def test_the_old_roots_directory_may_go_into_a_safe_when_the_exchange_is_over(tmp_path: Path) -> None:
    with a_server(tmp_path, CONFIG, is_warm=False) as server:
        put_away(server, tmp_path)


def put_away(server: RunningServer, tmp_path: Path) -> None:
    exchanged(server)
    (server.data / "ca").rename(tmp_path / "safe")
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    (tmp_path / "passphrase").chmod(0o600)
    server.run("server", "backup", "--out", f"{tmp_path}/b", "--passphrase-file", f"{tmp_path}/passphrase")
    assert server.rows("pki", "rollover", "status")[0]["state"] == "the new alone"
    server.kill()
    server.start()
    told = refused(server, "back")
    assert f"`cp -anT safe/ca {server.data}/ca`" in told.replace("\n", " ")
    (tmp_path / "safe").rename(server.data / "ca")
    assert step(server, "back")["state"] == "both trusted, the new signs"
    step(server, "next")
    (server.data / "ca").rename(tmp_path / "safe")
    assert step(server, "start")["state"] == "both trusted, the old signs"
    server.kill()
    server.start()


def test_a_second_exchange_takes_the_place_of_a_ca_that_is_over(server: RunningServer) -> None:
    server.run("dps", "ca", "create", "ours", f"{server.data}/ca/root.pem", "--verified")
    server.run("device", "enroll-group", "edge", "--ca-name", "ours")
    exchanged(server)
    exchanged(server)
    verified = [row["name"] for row in server.rows("dps", "ca", "ls") if row["verified"]]
    assert [name.startswith("ours-") for name in verified] == [True]


def test_a_group_with_two_cas_that_are_in_use_is_named_with_what_frees_a_place(
    server: RunningServer, tmp_path: Path
) -> None:
    (tmp_path / "other.pem").write_text(a_ca("Other", now=datetime.now(UTC)).certificate.pem())
    for name, file in (("ours", f"{server.data}/ca/root.pem"), ("other", f"{tmp_path}/other.pem")):
        server.run("dps", "ca", "create", name, file, "--verified")
    server.run("device", "enroll-group", "edge", "--ca-name", "ours", "--secondary", "other")
    step(server, "start")
    told = server.attempt("pki", "rollover", "groups").stderr.replace("\n", " ")
    assert "`birthmark dps ca rm other --yes`" in told
    server.run("dps", "ca", "rm", "other", "--yes")
    assert server.rows("pki", "rollover", "groups") == [{"groups": ["edge"]}]
    step(server, "next", "--share", "0%")
