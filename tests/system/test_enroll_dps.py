"""`birthmark device enroll … --dps NAME --hub NAME`: which service has the record, which hub gets the device."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.azure.clients import Device, a_file_device
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
SECOND = ("--dps", "factory-2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("two"), 'names = ["hub2.example"]\n') as running:
        running.run("hub", "create", "hub-2", "--host", "hub2.example")
        running.run("hub", "create", "hub-3", "--host", "hub3.example")
        running.run("dps", "link", "hub-2")
        running.run("dps", "create", "factory-2")
        running.run("dps", "link", "birthmark", *SECOND)
        yield running


def names(server: RunningServer, *more: str) -> set[str]:
    return {row["name"] for row in server.rows("device", "ls", *more)}


def registers(server: RunningServer, device: Device, scope: str) -> bool:
    files = ["--cert", str(device.certificate_file), "--key", str(device.key_file), "--id-scope", scope]
    return server.attempt("device", "register", *files, **server.environment).returncode == 0


def test_a_record_is_where_it_was_put_and_nowhere_else(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "two-1")
    scopes = {row["name"]: row["id_scope"] for row in server.rows("dps", "ls")}
    said = server.run("device", "enroll", "--cert", str(device.certificate_file), *SECOND).stderr
    assert scopes["factory-2"] in said
    assert "two-1" in names(server, *SECOND)
    assert "two-1" not in names(server)
    assert not registers(server, device, scopes["birthmark"])
    assert registers(server, device, scopes["factory-2"])
    server.run("device", "disable", "two-1", *SECOND)
    assert not registers(server, device, scopes["factory-2"])
    assert "`birthmark device enable two-1 --dps factory-2`" in server.run("why", "two-1").stdout
    server.run("device", "rm", "two-1", *SECOND)
    assert "two-1" not in names(server, *SECOND)


def test_a_shipment_and_its_journal_are_one_services(server: RunningServer, tmp_path: Path) -> None:
    server.run("manifest", "create", "--out", str(tmp_path / "s"), "--count", "2")
    trust = ["--signer", str(tmp_path / "s/signer.pem"), "--trust-root", str(tmp_path / "s/root.pem")]
    line = ["device", "enroll-list", str(tmp_path / "s/manifest.json"), *trust, "--journal", str(tmp_path / "j")]
    assert "2 created." in server.run(*line, *SECOND).stderr
    assert server.attempt(*line).returncode != 0
    assert " --undo --dps factory-2`" in server.attempt(*line, "--undo").stderr.replace("\n", " ")
    assert "2 undone." in server.run(*line, *SECOND, "--undo").stderr


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        (["--dps", "nope"], 3, "dps.unknown_instance"),
        (["--dps", "factory-2", "--to", "aws"], 2, "cli.option_not_applicable"),
        (["--dps", "factory-2", "--profile", "cloud"], 2, "cli.option_not_applicable"),
    ],
    ids=["unknown", "aws", "another-profile"],
)
def test_a_service_that_is_not_there_is_told(server: RunningServer, more: list[str], status: int, code: str) -> None:
    done = server.attempt("device", "ls", *more)
    assert done.returncode == status
    assert code in done.stderr


def test_what_is_said_of_a_second_service_s_device_names_that_service_and_its_hub(
    server: RunningServer, tmp_path: Path
) -> None:
    server.run("dps", "create", "factory-3")
    server.run("dps", "link", "hub-2", "--dps", "factory-3")
    scope = next(row["id_scope"] for row in server.rows("dps", "ls") if row["name"] == "factory-3")
    there = ("--dps", "factory-3")
    device = a_file_device(tmp_path, "sn-3")
    assert not registers(server, device, scope)
    said = server.run("why", "sn-3").stdout
    thumbprint = device.holder.certificate.thumbprint.hex()
    assert f"`birthmark device enroll --presented {thumbprint} --dps factory-3`" in " ".join(said.split())
    assert "--cert CA-FILE --dps factory-3`" in " ".join(said.split())
    server.run("device", "enroll", "pump-3", "--cert", str(device.certificate_file), *there)
    assert registers(server, device, scope)
    disabled, removed = (server.run("device", verb, "sn-3", *there).stderr for verb in ("disable", "rm"))
    assert "`birthmark hub device disable pump-3 --hub hub-2`" in disabled
    assert "`birthmark hub device rm pump-3 --hub hub-2`" in removed
    missing = server.attempt("device", "rm", "sn-3", *there).stderr
    assert "`birthmark device ls --dps factory-3`" in missing
    assert "`birthmark device ls --dps factory-3`" in server.attempt("device", "disable", "sn-3", *there).stderr


def test_who_never_registered_is_no_hub_s_device(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "never-1")
    server.run("device", "enroll", "--cert", str(device.certificate_file), *SECOND)
    assert "hub device" not in server.run("device", "rm", "never-1", *SECOND).stderr


def hub_of(server: RunningServer, name: str) -> str:
    """Where the record says that its device is."""
    return next(str(row["detail"]) for row in server.rows("device", "ls") if row["name"] == name).partition(" as ")[0]


@pytest.mark.parametrize("hub", ["hub-2", "hub2.example", "birthmark"])
def test_a_device_goes_to_the_hub_that_was_named(server: RunningServer, tmp_path: Path, hub: str) -> None:
    name = f"to-{hub.replace('.', '-')}"
    device = a_file_device(tmp_path, name)
    server.run("device", "enroll", "--cert", str(device.certificate_file), "--hub", hub)
    assert registers(server, device, server.endpoints["dps"]["id_scope"])
    assert hub_of(server, name) == (server.address if hub == "birthmark" else "hub2.example")


def test_a_group_s_devices_go_there_too(server: RunningServer, tmp_path: Path) -> None:
    ca = a_ca("Hall")
    file = tmp_path / "hall.pem"
    file.write_text(ca.certificate.pem())
    server.run("dps", "ca", "create", "hall", str(file), "--verified")
    server.run("device", "enroll-group", "hall", "--cert", str(file), "--hub", "hub-2")
    devices = [a_file_device(tmp_path, f"hall-{number}", ca=ca) for number in range(3)]
    assert all(registers(server, one, server.endpoints["dps"]["id_scope"]) for one in devices)
    assert {row["device"] for row in server.rows("hub", "device", "ls", "--hub", "hub-2")} >= {
        "hall-0",
        "hall-1",
        "hall-2",
    }


def test_a_shipment_is_moved_to_a_hub_by_an_update_and_back_by_its_undo(server: RunningServer, tmp_path: Path) -> None:
    server.run("manifest", "create", "--out", str(tmp_path / "s"), "--count", "2")
    trust = ["--signer", str(tmp_path / "s/signer.pem"), "--trust-root", str(tmp_path / "s/root.pem")]
    line = ["device", "enroll-list", str(tmp_path / "s/manifest.json"), *trust]
    there = [*line, "--hub", "hub-2"]
    server.run(*line)
    assert "2 refused" in server.attempt(*there).stderr
    assert "2 updated." in server.run(*there, "--update", "--journal", str(tmp_path / "j")).stderr
    assert "2 unchanged." in server.run(*there).stderr
    assert "2 unchanged." in server.run(*line).stderr  # which says nothing of hubs
    assert "2 undone." in server.run(*there, "--undo", "--journal", str(tmp_path / "j")).stderr
    assert "2 refused" in server.attempt(*there).stderr
    server.run(*line)


@pytest.mark.parametrize("hub", ["hub-3", "nope"])
def test_a_hub_that_is_not_linked_is_told_before_something_is_written(
    server: RunningServer, tmp_path: Path, hub: str
) -> None:
    device = a_file_device(tmp_path, "nowhere")
    done = server.attempt("device", "enroll", "--cert", str(device.certificate_file), "--hub", hub)
    assert done.returncode == 1
    assert f"`birthmark dps link {hub} --dps birthmark`" in done.stderr
    assert "nowhere" not in names(server)


def test_each_device_of_a_table_goes_to_the_hub_that_its_row_names(server: RunningServer, tmp_path: Path) -> None:
    hubs = {"row-a": "birthmark", "row-b": "hub-2", "row-c": "hub-3"}  # the last is not linked
    ca = a_ca("Maker of rows")
    (tmp_path / "maker.pem").write_text(ca.certificate.pem())
    devices = {name: a_file_device(tmp_path, name, ca=ca) for name in hubs}
    rows = [f'"{device.certificate_file.read_text()}",{hubs[name]}' for name, device in devices.items()]
    (tmp_path / "list.csv").write_text("\n".join(["certificate,hub", *rows]) + "\n")
    (tmp_path / "hubs.toml").write_text('[azure]\nhub = "{csv.hub}"\n')
    line = ["device", "enroll-list", str(tmp_path / "list.csv"), "--trust-root", str(tmp_path / "maker.pem")]
    line += ["--template", str(tmp_path / "hubs.toml")]
    done = server.attempt(*line, "--json")
    assert (done.returncode, "enroll.hub_not_linked" in done.stdout) == (7, True), done.stdout + done.stderr
    scopes = {row["name"]: row["id_scope"] for row in server.rows("dps", "ls")}
    for name in ("row-a", "row-b"):
        assert registers(server, devices[name], scopes["birthmark"])
    assert [hub_of(server, name) for name in ("row-a", "row-b")] == [server.address, "hub2.example"]


def test_a_group_that_is_there_is_left_as_it_is_without_an_update(server: RunningServer, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.pem").write_text(a_ca(name).certificate.pem())
    line = ["device", "enroll-group", "kept", "--cert", str(tmp_path / "first.pem"), "--edge"]
    other = ["device", "enroll-group", "kept", "--cert", str(tmp_path / "second.pem"), "--edge"]
    keys = ["device", "enroll-group", "kept", "--edge", "--symmetric-key", str(tmp_path / "key")]
    assert [row["outcome"] for row in server.rows(*line)] == ["created"]
    assert [row["outcome"] for row in server.rows(*line)] == ["unchanged"]
    for wish in (other, keys, line[:-1]):
        refused = server.attempt(*wish)
        assert "fleet.different_record" in refused.stderr
        assert "--update`" in refused.stderr
    assert not (tmp_path / "key").exists()
    assert [row["outcome"] for row in server.rows(*line)] == ["unchanged"]
    (row,) = server.rows(*other, "--update", "--dry-run")
    assert (row["outcome"], [one["what"] for one in row["difference"]]) == ("would update", ["attestation"])
    assert [row["outcome"] for row in server.rows(*other, "--update")] == ["updated"]
    assert [row["outcome"] for row in server.rows(*keys, "--update")] == ["updated"]
    kept = (tmp_path / "key").read_text()
    again = ["device", "enroll-group", "kept", "--symmetric-key", str(tmp_path / "again"), "--update"]
    assert [row["outcome"] for row in server.rows(*again)] == ["updated"]  # it is no IoT Edge device any more
    assert (tmp_path / "again").read_text() == kept
