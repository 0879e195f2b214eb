"""`birthmark device disable` and `enable`: nobody registers by what is disabled, and nothing else of it changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.target_profiles import azure_profile
from support.azure.clients import Device, a_file_device
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("switch")) as running:
        yield running


def registered(server: RunningServer, device: Device) -> bool:
    files = ["--cert", str(device.certificate_file), "--key", str(device.key_file)]
    return server.attempt("device", "register", *files, **server.environment).returncode == 0


def switched(server: RunningServer, verb: str, name: str, *more: str) -> tuple[str, str]:
    (row,) = server.rows("device", verb, name, *more)
    return row["state"], row["outcome"]


def state_of(server: RunningServer, name: str) -> str:
    return next(str(row["state"]) for row in server.rows("device", "ls") if row["name"] == name)


def told(server: RunningServer, read: str, name: str) -> dict[str, Any]:
    """What the service tells of a record, but for what every write changes."""
    target = AzureTarget(azure_profile("local", server.data))
    record = dict(getattr(target._sdk._runtime_client, read)(name, raw=True).response.json())
    return {key: value for key, value in record.items() if key not in {"etag", "lastUpdatedDateTimeUtc"}}


def test_who_is_disabled_registers_no_more_until_it_is_enabled(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "switch-1")
    server.run("device", "enroll", "--cert", str(device.certificate_file))
    assert switched(server, "disable", "switch-1", "--dry-run") == ("disabled", "would update")
    assert switched(server, "disable", "switch-1") == ("disabled", "updated")
    assert switched(server, "disable", "switch-1", "--to", "local") == ("disabled", "unchanged")
    assert state_of(server, "switch-1") == "disabled"
    assert not registered(server, device)
    assert switched(server, "enable", "switch-1") == ("enabled", "updated")
    assert registered(server, device)


def test_who_has_registered_is_said_to_be_a_device_of_its_hub_still(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "switch-2")
    server.run("device", "enroll", "pump-2", "--cert", str(device.certificate_file))
    assert registered(server, device)
    ends = server.run("device", "disable", "switch-2").stderr
    assert "`birthmark hub device disable pump-2 --hub birthmark`" in ends


def test_a_group_keeps_all_else_that_it_has(server: RunningServer, tmp_path: Path) -> None:
    ca = a_ca("Line")
    file = tmp_path / "line.pem"
    file.write_text(ca.certificate.pem())
    device = a_file_device(tmp_path, "switch-3", ca=ca)
    server.run("dps", "ca", "create", "line", str(file), "--verified")
    server.run("device", "enroll-group", "line", "--cert", str(file), "--edge")
    before = told(server, "get_enrollment_group", "line")
    assert switched(server, "disable", "line", "--group") == ("disabled", "updated")
    assert not registered(server, device)
    assert "birthmark device enable line --group" in server.run("why", "switch-3").stdout
    assert told(server, "get_enrollment_group", "line") == before | {"provisioningStatus": "disabled"}
    assert switched(server, "enable", "line", "--group") == ("enabled", "updated")
    assert registered(server, device)
    assert before["capabilities"] == {"iotEdge": True}


def test_shared_keys_stay_as_they_are(server: RunningServer, tmp_path: Path) -> None:
    server.run("device", "enroll", "board-1", "--symmetric-key", str(tmp_path / "board.key"))
    read = "get_individual_enrollment_attestation_mechanism"
    before = told(server, read, "board-1")
    assert before["symmetricKey"]["primaryKey"]
    assert switched(server, "disable", "board-1") == ("disabled", "updated")
    assert told(server, read, "board-1") == before


@pytest.mark.parametrize("more", [[], ["--group"]], ids=["device", "group"])
def test_what_is_not_on_record_is_told(server: RunningServer, more: list[str]) -> None:
    done = server.attempt("device", "disable", "nobody", *more)
    assert done.returncode == 3
    assert "fleet.no_such_record" in done.stderr


def test_a_record_that_somebody_changed_since_the_look_is_left(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = a_file_device(tmp_path, "switch-4")
    server.run("device", "enroll", "--cert", str(device.certificate_file))
    target = AzureTarget(azure_profile("local", server.data))
    seen = target._json("get_individual_enrollment", "switch-4")
    server.run("device", "enroll", "--cert", str(device.certificate_file), "--edge", "--update")
    monkeypatch.setattr(target, "_json", lambda _operation, _name: seen)
    with pytest.raises(Exception, match="reject"):
        target.switch("switch-4", is_group=False, is_enabled=False, dry_run=False)
    assert state_of(server, "switch-4") != "disabled"


def test_aws_is_told_to_have_another_switch(server: RunningServer) -> None:
    done = server.attempt("device", "disable", "pump", "--to", "aws")
    assert done.returncode == 2
    assert "update-certificate" in " ".join(done.stderr.split())
