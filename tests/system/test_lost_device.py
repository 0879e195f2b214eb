"""A lost device: one command takes back everything by which its name comes in, and its neighbor notices nothing."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import warm
from birthmark.pki.certificates import parse_bundle
from conftest import empty_database
from support.aws.device import document, statement
from support.azure.clients import a_file_device
from support.pki.est_curl import EstByCurl
from support.server.servers import RunningServer, a_new_server, a_server

pytestmark = pytest.mark.system

STAY = """
import asyncio, os, sys
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient

async def main():
    options = {"connection_retry": False, "websockets": "WEBSOCKETS" in os.environ}
    if "KEY" in os.environ:
        text = f"HostName={os.environ['HUB']};DeviceId={os.environ['NAME']};SharedAccessKey={os.environ['KEY']}"
        device = IoTHubDeviceClient.create_from_connection_string(text, **options)
    else:
        x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
        device = IoTHubDeviceClient.create_from_x509_certificate(x509, os.environ["HUB"], os.environ["NAME"], **options)
    dropped, loop = asyncio.Event(), asyncio.get_running_loop()
    device.on_connection_state_change = lambda: device.connected or loop.call_soon_threadsafe(dropped.set)
    await device.connect()
    print("connected", flush=True)
    if "ONCE" not in os.environ:
        await asyncio.wait_for(dropped.wait(), 60)
        print("dropped", flush=True)
    await device.shutdown()

asyncio.run(main())
"""


class Lost:
    """A server, and devices that can be lost there."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server, self.directory = server, directory
        self.est = EstByCurl(server, directory)
        self.hub = str(server.endpoints["iothub"]["host"])

    def environment(self, name: str, **more: str) -> dict[str, str]:
        files = {"X509_CERT_FILE": f"{self.directory}/{name}.chain", "X509_KEY_FILE": f"{self.directory}/{name}.key"}
        return {**self.server.environment, **files, "HUB": self.hub, "NAME": name, **more}

    def enrolled(self, name: str) -> str:
        """Let a device get a certificate by its password, and register by the group of the server's CA."""
        leaf = self.est.enrolled(name)
        issuing = parse_bundle((self.server.data / "ca/issuing.pem").read_bytes())[0]
        (self.directory / f"{name}.chain").write_text(leaf.pem() + issuing.pem())
        assert self.registers(name)
        return leaf.thumbprint.hex()

    def registers(self, name: str) -> bool:
        files = ("--cert", f"{self.directory}/{name}.chain", "--key", f"{self.directory}/{name}.key")
        return self.server.attempt("device", "register", *files, **self.server.environment).returncode == 0

    @contextlib.contextmanager
    def connected(self, name: str, **more: str) -> Iterator["subprocess.Popen[str]"]:
        """Keep a device at the hub by the vendor's SDK, until it is dropped."""
        command = [sys.executable, "-c", STAY]
        with subprocess.Popen(command, env=self.environment(name, **more), stdout=subprocess.PIPE, text=True) as live:
            assert live.stdout is not None
            try:
                assert live.stdout.readline() == "connected\n"
                yield live
            finally:
                live.kill()

    def connects(self, name: str, **more: str) -> bool:
        command = [str(warm.python()), "-c", STAY]
        environment = self.environment(name, ONCE="1", **more)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout == "connected\n"

    @contextlib.contextmanager
    def at_aws(self, name: str, client_id: str = "") -> Iterator["subprocess.Popen[str]"]:
        """Make a device a thing, and keep it connected there."""
        self.server.run(
            "device", "enroll", "--cert", f"{self.directory}/{name}.chain", "--to", "aws", "--policy", "all"
        )
        host = str(self.server.endpoints["aws"]["data_endpoint"])
        files = ("--cert", f"{self.directory}/{name}.chain", "--key", f"{self.directory}/{name}.key")
        trust = ("--cafile", str(self.server.endpoints["trust_bundle"]))
        command = [
            "stdbuf",
            "-oL",
            "mosquitto_sub",
            "-W",
            "60",
            "-h",
            host,
            "-p",
            "8883",
            *trust,
            *files,
            "-i",
            client_id or name,
            "-t",
            name,
            "-d",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as live:
            assert live.stdout is not None
            try:
                assert any("SUBACK" in line for line in live.stdout)
                yield live
            finally:
                live.kill()

    def taken(self, *arguments: str) -> list[dict[str, Any]]:
        """Take a device back."""
        done = self.server.attempt("device", "revoke", *arguments, "--yes", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


def parts(rows: list[dict[str, Any]], became: str) -> set[tuple[str, str]]:
    return {(row["place"], row["what"]) for row in rows if row["became"] == became}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory, config = tmp_path_factory.mktemp("lost"), ""
    if request.param == "postgresql":
        config = f'database = "{empty_database(request.getfixturevalue("postgres_server"))}"\n'
    with a_server(directory, config) as running:
        running.run("dps", "ca", "create", "est-root", str(running.data / "trust.pem"), "--verified")
        running.run("device", "enroll-group", "est", "--ca-name", "est-root")
        policy = document(statement("iot:*"))
        command = ["aws", "iot", "create-policy", "--policy-name", "all", "--policy-document", policy]
        subprocess.run(command, env=dict(running.environment), check=True, capture_output=True)
        yield running


@pytest.fixture
def lost(server: RunningServer, tmp_path: Path) -> Lost:
    return Lost(server, tmp_path)


def test_a_device_is_taken_back_at_every_place_and_nothing_brings_it_back(lost: Lost) -> None:
    server = lost.server
    for name in ("pump-1", "pump-2"):
        lost.enrolled(name)
    token = server.rows("pki", "token", "create", "pump-1")[0]
    password = ":".join(server.est_credential("pump-1"))
    with lost.connected("pump-1") as hub, lost.at_aws("pump-1") as aws, lost.connected("pump-2") as neighbor:
        before = lost.taken("pump-1", "--dry-run")
        assert {row["became"] for row in before} == {"would be taken back"}
        rows = lost.taken("pump-1")
        assert hub.stdout is not None
        assert hub.stdout.readline() == "dropped\n"
        assert aws.stdout is not None
        assert any("sending CONNECT" in line for line in aws.stdout), "it was dropped, and tries again"
        assert neighbor.poll() is None
    assert {row["id"] for row in before} == {row["id"] for row in rows}
    order = [row["what"] for row in rows]
    assert order.index("enrollment") < order.index("device") < order.index("certificate"), "there may be very many"
    assert parts(rows, "taken back") == {
        *(("est", "name"), ("est", "user"), ("est", "token"), ("dps birthmark", "enrollment"), ("ca", "certificate")),
        *(("hub birthmark", "device"), ("hub birthmark", "connection"), ("aws", "certificate"), ("aws", "connection")),
    }

    assert lost.est.status("pump-1", password) == 401
    assert lost.est.status("pump-1", f"{token['name']}:{token['password']}") == 401
    assert lost.est.renewal_status("pump-1") == 403
    (lost.directory / "pump-1.key").rename(lost.directory / "old.key")
    assert lost.est.status("pump-1") == 403, "nor by a password that somebody prints for the name"
    server.why("pump-1", "ca.name_lost")
    (lost.directory / "old.key").rename(lost.directory / "pump-1.key")
    assert not lost.registers("pump-1")
    assert not lost.connects("pump-1")
    assert lost.connects("pump-2")
    assert lost.est.renewal_status("pump-2") == 200

    shown = {row["name"]: row["state"] for row in server.rows("device", "ls")}
    assert shown["pump-1"] == "revoked"
    (device,) = [row for row in server.rows("hub", "device", "ls") if row["device"] == "pump-1"]
    assert (device["status"], device["why"]) == ("revoked", "taken back: keyCompromise")
    assert all(row["revoked"] for row in server.rows("pki", "ls", "pump-1"))
    server.run("pki", "user", "rm", "pump-1", "--yes")
    assert {row["became"] for row in lost.taken("pump-1")} == {"was taken back"}

    server.run("pki", "release", "pump-1")
    (lost.directory / "pump-1.key").unlink()
    assert lost.est.status("pump-1") == 200, "the name is let go: another device may have it"


@pytest.mark.parametrize("websockets", [False, True], ids=["mqtt", "websocket"])
def test_a_device_with_only_a_shared_key_loses_it_and_its_connection(lost: Lost, *, websockets: bool) -> None:
    name, more = ("by-websocket" if websockets else "by-key"), ({"WEBSOCKETS": "1"} if websockets else {})
    key = lost.server.rows("hub", "device", "create", name)[0]["primary_key"]
    with lost.connected(name, KEY=key, **more) as live:
        rows = lost.taken(name)
        assert live.stdout is not None
        assert live.stdout.readline() == "dropped\n"
    assert {("hub birthmark", "device"), ("hub birthmark", "connection")} <= parts(rows, "taken back")
    assert not lost.connects(name, KEY=key, **more)
    lost.server.run("hub", "device", "enable", name)
    assert not lost.connects(name, KEY=key, **more), "the key is gone for good"


def test_every_connection_of_a_device_is_counted(lost: Lost) -> None:
    lost.enrolled("pump-3")
    with lost.at_aws("pump-3"), lost.at_aws("pump-3", "another"):
        (row,) = [row for row in lost.taken("pump-3", "--dry-run") if row["what"] == "connection"]
    assert row["note"] == "2 of them"


def test_a_device_is_taken_back_by_its_name_in_any_letter_case(lost: Lost) -> None:
    for spelled in ("Valve-7", "VALVE-7"):
        key = lost.server.rows("hub", "device", "create", spelled)[0]["primary_key"]
    lost.enrolled("vAlve-7")
    with lost.at_aws("vAlve-7") as aws, lost.connected("VALVE-7", KEY=key) as hub:
        lost.taken("valve-7")
        assert hub.stdout is not None
        assert hub.stdout.readline() == "dropped\n"
        assert aws.stdout is not None
        assert any("sending CONNECT" in line for line in aws.stdout), "it was dropped, and tries again"
    devices = [row for row in lost.server.rows("hub", "device", "ls") if row["device"].lower() == "valve-7"]
    assert len(devices) == 3
    assert {row["status"] for row in devices} == {"revoked"}


def test_a_thing_is_taken_back_by_its_name_in_any_letter_case(lost: Lost, tmp_path: Path) -> None:
    ca = str(tmp_path / "ca")
    lost.server.run("ca", "init", "--name", "Valves", "--dir", ca)
    lost.server.run("ca", "issue", "Valve-8", "--dir", ca, "--out-dir", str(tmp_path))
    (tmp_path / "Valve-8.cert.pem").rename(tmp_path / "Valve-8.chain")
    (tmp_path / "Valve-8.key.pem").rename(tmp_path / "Valve-8.key")
    with lost.at_aws("Valve-8") as aws:
        assert ("aws", "certificate") in parts(lost.taken("valve-8"), "taken back")
        assert aws.stdout is not None
        assert any("sending CONNECT" in line for line in aws.stdout), "it was dropped, and tries again"


def test_a_key_shared_with_the_provisioning_service_registers_no_more(lost: Lost, tmp_path: Path) -> None:
    secret = tmp_path / "by-dps.key"
    lost.server.run("device", "enroll", "by-dps", "--symmetric-key", str(secret))
    rows = lost.taken("by-dps")
    assert ("dps birthmark", "enrollment") in parts(rows, "taken back")
    before = secret.read_text()
    lost.server.run("device", "enroll", "by-dps", "--symmetric-key", str(tmp_path / "again.key"), "--update")
    assert (tmp_path / "again.key").read_text() != before, "the key is gone for good"


def test_what_lets_in_others_too_is_left_and_told_with_its_command(lost: Lost) -> None:
    lost.server.run("pki", "user", "create", "line-1", "--any-name")
    lost.server.run("hub", "device", "create", "shared")
    left = [row for row in lost.taken("shared") if row["became"] == "left"]
    assert [(row["what"], row["id"]) for row in left] == [("user", "line-1")]
    lost.server.run(*left[0]["command"].strip("`").split()[1:])


def test_a_name_that_nobody_knows_is_told_and_can_be_shut_out(lost: Lost) -> None:
    refused = lost.server.attempt("device", "revoke", "nobody", "--yes")
    assert (refused.returncode, "device.not_on_record" in refused.stderr) == (3, True)
    assert lost.est.status("nobody") == 200, "refused means that nothing was done"
    lost.taken("nobody-2", "--block")
    assert lost.est.status("nobody-2") == 403


@pytest.mark.parametrize("name", ["stolen-7\r", "stolen-7 ", "\ufeffstolen-7"])
def test_a_line_of_a_list_with_its_end_is_shut_out_as_no_device(lost: Lost, name: str) -> None:
    refused = lost.server.attempt("device", "revoke", name, "--block", "--yes")
    assert "device.name_unseen" in refused.stderr, refused.stderr
    assert "birthmark device revoke stolen-7 --block --yes" in refused.stderr


def test_several_lines_are_told_as_several_names(lost: Lost) -> None:
    refused = lost.server.attempt("device", "revoke", "stolen-8\rstolen-9\r", "--block", "--yes")
    for name in ("stolen-8", "stolen-9"):
        assert f"`birthmark device revoke {name} --block --yes`" in refused.stderr, refused.stderr


def test_who_enables_or_creates_a_lost_device_is_told_that_it_stays_blocked(lost: Lost) -> None:
    lost.server.run("hub", "device", "create", "stolen-10")
    lost.taken("stolen-10")
    enabled = lost.server.attempt("hub", "device", "enable", "stolen-10")
    lost.server.run("hub", "device", "rm", "stolen-10", "--yes")
    made = lost.server.attempt("hub", "device", "create", "stolen-10")
    for told in (enabled, made):
        assert "`birthmark pki release stolen-10`" in told.stderr, told.stderr


def test_run_again_it_says_since_when_the_name_is_held_also_where_nothing_else_is_left(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:  # without groups, which would leave a disabled enrollment
        server.run("pki", "user", "create", "locked", "--device", "locked")
        for name, option in (("locked", []), ("unheard-of", ["--block"])):
            server.run("device", "revoke", name, "--yes", *option)
            (row,) = server.rows("device", "revoke", name, "--yes")
            assert (row["what"], row["became"]) == ("name", "was taken back")
            assert row["note"].startswith("held since 20")
            assert f"`birthmark pki release {name}`" in row["note"]
            server.run("pki", "release", name)
            refused = server.attempt("device", "revoke", name, "--yes")
            assert (refused.returncode, "device.not_on_record" in refused.stderr) == (3, True)


def test_a_device_that_is_called_otherwise_than_it_registers_is_shut_out_by_its_own_name(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        device = a_file_device(tmp_path, "gw-0001")
        server.run("device", "enroll", "line-2-gw-0001", "--cert", str(device.certificate_file))
        files = ("--cert", str(device.certificate_file), "--key", str(device.key_file))
        server.run("device", "revoke", "line-2-gw-0001", "--block", "--yes")
        refused = server.attempt("device", "register", *files, **server.environment)
        assert refused.returncode != 0
        assert server.why("gw-0001")["code"] == "dps.device_taken_back"
        server.run("pki", "release", "line-2-gw-0001")
        server.run("device", "register", *files, **server.environment)


def test_every_list_shows_a_certificate_that_was_taken_back_alone(lost: Lost) -> None:
    thumbprint = lost.enrolled("pump-8")
    lost.server.run("pki", "revoke", thumbprint)
    lost.server.run("device", "enroll", "pump-8", "--cert", f"{lost.directory}/pump-8.chain", "--force")
    lost.server.run("hub", "device", "create", "pump-9", "--cert", f"{lost.directory}/pump-8.chain")
    at_hub = lost.server.rows("hub", "device", "ls", "--where", "status=revoked")
    assert "pump-9" in {row["device"] for row in at_hub}
    on_record = lost.server.rows("device", "ls", "--where", "state=revoked")
    assert "pump-8" in {row["name"] for row in on_record}
    assert all(row["revoked"] for row in lost.server.rows("pki", "ls", "pump-8"))


def test_the_devices_of_a_group_are_listed_below_it(lost: Lost) -> None:
    lost.enrolled("pump-10")
    rows = lost.server.rows("device", "ls", "--where", "kind=of a group", "--where", "name=pump-10")
    assert [(row["state"], row["detail"].partition(": ")[2]) for row in rows] == [("assigned", lost.hub)]


def test_nothing_is_done_before_somebody_agrees(lost: Lost) -> None:
    lost.server.run("hub", "device", "create", "kept")
    refused = lost.server.attempt("device", "revoke", "kept")
    assert "action_needed" in refused.stderr
    (device,) = [row for row in lost.server.rows("hub", "device", "ls") if row["device"] == "kept"]
    assert device["status"] == "enabled"


@pytest.fixture
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Another server, which the first one's operator knows by a profile, as a vendor's cloud is known."""
    with a_new_server(tmp_path_factory.mktemp("plant")) as running:
        yield running


@pytest.fixture
def profile(lost: Lost, plant: RunningServer) -> dict[str, str]:
    """Write the profile `plant`, and return what the AWS SDK takes from the environment."""
    endpoints, home = plant.endpoints, lost.server.data.parent
    for name in ("dps", "iothub"):
        (home / name).write_text(endpoints[name]["service_connection_string"])
        (home / name).chmod(0o600)
    trust, aws = endpoints["trust_bundle"], endpoints["aws"]
    (home / ".config/birthmark").mkdir(parents=True, exist_ok=True)
    (home / ".config/birthmark/profiles.toml").write_text(
        f'[plant.azure]\nconnection_string_file = "{home}/dps"\nhub_connection_string_file = "{home}/iothub"\n'
        f'ca_file = "{trust}"\n'
        f'[plant.aws]\nendpoint_url = "{aws["endpoint_url"]}"\nregion = "{aws["region"]}"\nca_file = "{trust}"\n'
    )
    return {"AWS_ACCESS_KEY_ID": aws["access_key_id"], "AWS_SECRET_ACCESS_KEY": aws["secret_access_key"]}


def test_the_clouds_are_asked_too_by_the_same_command(
    lost: Lost, plant: RunningServer, profile: dict[str, str], tmp_path: Path
) -> None:
    ca, there = str(tmp_path / "ca"), Lost(plant, tmp_path)
    plant.run("ca", "init", "--name", "Pumps", "--dir", ca)
    for name in ("far-1", "far-2"):
        plant.run("ca", "issue", name, "--dir", ca, "--out-dir", str(tmp_path))
        (tmp_path / f"{name}.cert.pem").rename(tmp_path / f"{name}.chain")
        (tmp_path / f"{name}.key.pem").rename(tmp_path / f"{name}.key")
        for to in ("azure", "aws"):
            plant.run("device", "enroll", "--cert", str(tmp_path / f"{name}.chain"), "--to", to)
        assert there.registers(name)
    everywhere = ["--to", "local", "--to", "azure:plant", "--to", "aws:plant", "--yes", "--json"]

    with there.connected("far-1") as live, there.connected("far-2") as neighbor:
        done = lost.server.attempt("device", "revoke", "far-1", *everywhere, **profile)
        assert done.returncode == 0, done.stdout + done.stderr
        assert live.stdout is not None
        assert live.stdout.readline() == "dropped\n"
        assert neighbor.poll() is None
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["what"], row["became"]) for row in rows] == [
        *(("enrollment", "taken back"), ("device", "taken back"), ("certificate", "taken back"))
    ]
    assert not there.registers("far-1")
    assert there.registers("far-2")
    assert {row["status"] for row in plant.rows("aws", "certificate", "ls")} == {"REVOKED", "ACTIVE"}
    again = lost.server.attempt("device", "revoke", "far-1", *everywhere, **profile)
    assert {json.loads(line)["became"] for line in again.stdout.splitlines()} == {"was taken back"}


def test_a_name_that_nobody_knows_is_shut_out_at_azure(
    lost: Lost, plant: RunningServer, profile: dict[str, str]
) -> None:
    command = ["device", "revoke", "far-off", "--to", "azure:plant", "--yes", "--json"]
    assert lost.server.attempt(*command, **profile).stdout == ""
    done = lost.server.attempt(*command, "--block", **profile)
    assert [json.loads(line)["became"] for line in done.stdout.splitlines()] == ["taken back"], done.stderr
    (row,) = [one for one in plant.rows("device", "ls") if one["name"] == "far-off"]
    assert row["state"] == "disabled"


def test_a_place_that_does_not_answer_is_told_and_the_others_are_taken(lost: Lost, profile: dict[str, str]) -> None:
    lost.server.run("hub", "device", "create", "near")
    (lost.server.data.parent / "dps").write_text(
        "HostName=127.0.0.1;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=aGk="
    )
    command = ["device", "revoke", "near", "--to", "azure:plant", "--to", "local", "--yes"]
    done = lost.server.attempt(*command, "--json", **profile)
    became = {row["place"]: row["became"] for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 7
    assert (became["azure:plant"], became["hub birthmark"]) == ("failed", "taken back")
