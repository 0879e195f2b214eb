"""A device that its hub has already registers: by the unmodified SDK, and by the identity service's requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.azure.clients import a_file_device, run_app
from support.azure.identity_service import IdentityService, Proof
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("two")) as running:
        running.run("dps", "create", "second")
        running.run("dps", "link", "birthmark", "--dps", "second")
        yield running


def test_a_device_made_by_hand_registers_and_keeps_its_twin(server: RunningServer, tmp_path: Path) -> None:
    server.run("hub", "device", "create", "held-1")
    server.run("hub", "twin", "held-1", "--desired", '{"fps": 30}')
    device = a_file_device(tmp_path, "held-1")
    enroll = ("device", "enroll", "--cert", str(device.certificate_file))
    assert server.rows(*enroll, "--dry-run")[0]["at_hub"] == server.endpoints["iothub"]["host"]
    assert "keeps the twin" in server.run(*enroll).stdout
    done = run_app(server, device)
    assert done.returncode == 0, done.stderr
    assert server.rows("hub", "twin", "held-1")[0]["properties"]["desired"]["fps"] == 30


@pytest.mark.parametrize(
    ("version", "substatus"), [("2019-03-31", "initialAssignment"), ("2021-06-01", "reprovisionedToInitialAssignment")]
)
def test_two_services_of_one_hub_register_a_device_in_turn(
    server: RunningServer, tmp_path: Path, version: str, substatus: str
) -> None:
    device = a_file_device(tmp_path, f"turn-{version}")
    proof = Proof(None, device.certificate_file, device.key_file)
    for options in ((), ("--dps", "second")):
        server.run("device", "enroll", "--cert", str(device.certificate_file), *options)
    services = [IdentityService(server, proof, device.name) for _ in range(2)]
    services[1].scope = next(row["id_scope"] for row in server.rows("dps", "ls") if row["name"] == "second")
    assert services[0].provision(device.name, version=version)["substatus"] == "initialAssignment"
    assert services[1].provision(device.name, version=version)["substatus"] == substatus
