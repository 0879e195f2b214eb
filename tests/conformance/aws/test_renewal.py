"""A device renews its certificate by EST, and is the same thing at AWS without a gap; the old certificate goes."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.testing.device_identity_model import Files
from support.aws.clients import until
from support.aws.device import DeviceProcess, Enrolled
from support.pki.est_curl import EstByCurl
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


def status_of(iot: Any, certificate_id: str) -> str:
    return str(iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["status"])


@pytest.fixture
def pump(server: RunningServer, tmp_path: Path) -> tuple[EstByCurl, str, dict[str, Any]]:
    """Return a device with a certificate of the server's CA, on record at AWS, and how it connects."""
    name, device = tmp_path.name.replace("_", "-")[:60], EstByCurl(server, tmp_path)
    device.enrolled(name)
    files = Files(certificate_file=f"{tmp_path}/{name}.pem", key_file=f"{tmp_path}/{name}.key", not_after="")
    thing = Enrolled(server.cloud.aws_thing(by=files))
    return device, thing.certificate_id, thing.files


def test_a_renewed_certificate_is_the_same_thing_and_the_old_one_goes(
    pump: tuple[EstByCurl, str, dict[str, Any]], iot: Any
) -> None:
    device, old_id, arguments = pump
    name = arguments["client_id"]
    with DeviceProcess(arguments) as before:
        assert "ok" in before("connect")
        new = device.renewed(name).thumbprint.hex()
        assert "ok" in before("publish", topic="before", payload="still here")
        assert status_of(iot, old_id) == "ACTIVE"
        with DeviceProcess(arguments) as after:
            assert "ok" in after("connect")
            assert "ok" in after("publish", topic="after", payload="as another")
            until(lambda: status_of(iot, old_id) == "INACTIVE")
            assert "ok" in after("publish", topic="after", payload="and still")
    principals = iot.list_thing_principals(thingName=name)["principals"]
    assert sorted(one.rpartition("/")[2] for one in principals) == sorted([old_id, new])
    assert status_of(iot, new) == "ACTIVE"


def test_an_operator_says_which_certificate_follows_which(
    server: RunningServer, pump: tuple[EstByCurl, str, dict[str, Any]], iot: Any, tmp_path: Path
) -> None:
    _, old_id, arguments = pump
    name = arguments["client_id"]
    server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", name, "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    new = {**arguments, "certificate": f"{tmp_path}/{name}.cert.pem", "key": f"{tmp_path}/{name}.key.pem"}
    (row,) = server.rows("aws", "certificate", "renew", old_id, new["certificate"])
    assert (row["replaces"], status_of(iot, old_id)) == (old_id, "ACTIVE")
    with DeviceProcess(new) as device:
        assert "ok" in device("connect")
        until(lambda: status_of(iot, old_id) == "INACTIVE")
        assert "ok" in device("publish", topic="hello", payload="x")


def test_at_an_account_of_aws_one_command_carries_over_waits_and_lets_the_old_one_go(
    server: RunningServer, pump: tuple[EstByCurl, str, dict[str, Any]], iot: Any, tmp_path: Path
) -> None:
    _, old_id, arguments = pump
    name = arguments["client_id"]
    server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", name, "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    new = {**arguments, "certificate": f"{tmp_path}/{name}.cert.pem", "key": f"{tmp_path}/{name}.key.pem"}
    command = ("device", "renew", name, "--cert", new["certificate"], "--to", "aws")
    (plan,) = server.rows(*command, "--dry-run")
    assert (plan["old"], plan["things"], plan["policies"]) == (old_id, [name], [name])
    assert len(iot.list_thing_principals(thingName=name)["principals"]) == 1
    server.run(*command)
    with DeviceProcess(new) as device:
        assert "ok" in device("connect")
        (row,) = server.rows(*command, "--wait", "20s")
        assert (row["retired"], status_of(iot, old_id)) == (True, "INACTIVE")
        assert "ok" in device("publish", topic="hello", payload="x")


def test_a_device_that_never_comes_by_its_new_certificate_keeps_the_old_one(
    server: RunningServer, pump: tuple[EstByCurl, str, dict[str, Any]], iot: Any, tmp_path: Path
) -> None:
    _, old_id, arguments = pump
    name = arguments["client_id"]
    server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", name, "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    cert = f"{tmp_path}/{name}.cert.pem"
    done = server.attempt("device", "renew", name, "--cert", cert, "--to", "aws", "--wait", "2s")
    assert done.returncode != 0
    assert "did not connect within 2 s" in " ".join(done.stderr.split())
    assert status_of(iot, old_id) == "ACTIVE"


def test_a_certificate_of_another_name_follows_only_where_somebody_says_so(
    server: RunningServer, pump: tuple[EstByCurl, str, dict[str, Any]], tmp_path: Path
) -> None:
    name = pump[2]["client_id"]
    server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", "fan-7", "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    command = ("device", "renew", name, "--cert", f"{tmp_path}/fan-7.cert.pem", "--to", "aws")
    before = server.rows("aws", "certificate", "ls")
    assert "is of 'CN=fan-7'" in server.run(*command, "--dry-run").stderr
    refused = server.attempt(*command)
    assert (refused.returncode, "--yes" in refused.stderr) == (6, True)
    assert server.rows("aws", "certificate", "ls") == before
    server.run(*command, "--yes")
    assert len(server.rows("aws", "certificate", "ls")) == len(before) + 1


def test_a_ca_s_certificate_follows_no_device_s(
    server: RunningServer, pump: tuple[EstByCurl, str, dict[str, Any]], tmp_path: Path
) -> None:
    server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "ca"))
    refused = server.attempt(
        "device", "renew", pump[2]["client_id"], "--cert", f"{tmp_path}/ca/issuing.pem", "--to", "aws", "--dry-run"
    )
    assert "contains a CA certificate" in refused.stderr


def test_the_fix_of_a_rehearsed_renewal_is_a_rehearsal(
    server: RunningServer, pump: tuple[EstByCurl, str, dict[str, Any]], tmp_path: Path
) -> None:
    name = pump[2]["client_id"]
    server.run("ca", "init", "--name", "Another", "--dir", str(tmp_path / "ca"))
    for folder in ("second", "third"):
        server.run("ca", "issue", name, "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path / folder))
    server.run("device", "renew", name, "--cert", f"{tmp_path}/second/{name}.cert.pem", "--to", "aws")
    third = f"{tmp_path}/third/{name}.cert.pem"
    done = server.attempt("device", "renew", name, "--cert", third, "--to", "aws", "--dry-run")
    assert done.returncode != 0
    assert "--dry-run" in done.stderr.partition("Fix:")[2]
