"""`birthmark enroll … --dps NAME`: which of a server's provisioning services has the record."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from azure_clients import Device, a_file_device
from servers import RunningServer, a_server

pytestmark = pytest.mark.system
SECOND = ("--dps", "factory-2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("two")) as running:
        running.run("dps", "create", "factory-2")
        running.run("dps", "link", "birthmark", *SECOND)
        yield running


def names(server: RunningServer, *more: str) -> set[str]:
    return {row["name"] for row in server.rows("enroll", "list", *more)}


def registers(server: RunningServer, device: Device, scope: str) -> bool:
    files = ["--cert", str(device.certificate_file), "--key", str(device.key_file), "--id-scope", scope]
    return server.attempt("device", "register", *files, **server.environment).returncode == 0


def test_a_record_is_where_it_was_put_and_nowhere_else(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "two-1")
    scopes = {row["name"]: row["id_scope"] for row in server.rows("dps", "show")}
    said = server.run("enroll", "device", "--cert", str(device.certificate_file), *SECOND).stderr
    assert scopes["factory-2"] in said
    assert "two-1" in names(server, *SECOND)
    assert "two-1" not in names(server)
    assert not registers(server, device, scopes["birthmark"])
    assert registers(server, device, scopes["factory-2"])
    server.run("enroll", "disable", "two-1", *SECOND)
    assert not registers(server, device, scopes["factory-2"])
    assert "`birthmark enroll enable two-1 --dps factory-2`" in server.run("why", "two-1").stdout
    server.run("enroll", "remove", "two-1", *SECOND)
    assert "two-1" not in names(server, *SECOND)


def test_a_shipment_and_its_journal_are_one_services(server: RunningServer, tmp_path: Path) -> None:
    server.run("manifest", "create", "--out", str(tmp_path / "s"), "--count", "2")
    trust = ["--signer", str(tmp_path / "s/signer.pem"), "--root", str(tmp_path / "s/root.pem")]
    line = ["enroll", "manifest", str(tmp_path / "s/manifest.json"), *trust, "--journal", str(tmp_path / "j")]
    assert "2 created." in server.run(*line, *SECOND).stderr
    assert server.attempt(*line).returncode != 0
    assert "2 taken back." in server.run(*line, *SECOND, "--undo").stderr


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
    done = server.attempt("enroll", "list", *more)
    assert done.returncode == status
    assert code in done.stderr
