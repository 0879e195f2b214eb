"""The keys of services: shown, used by the vendor's SDK, exchanged; and a provisioning service that goes again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.errors import CredentialsRefusedError
from birthmark.fleet.target_profiles import AzureProfile
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("keys")) as running:
        yield running


def target(server: RunningServer, text: str) -> AzureTarget:
    return AzureTarget(AzureProfile(text, ca_file=Path(server.endpoints["trust_bundle"])))


def test_the_key_of_the_first_service_is_what_env_prints(server: RunningServer) -> None:
    (dps,), (hub,) = server.rows("dps", "key"), server.rows("hub", "key")
    assert dps["primary_connection_string"] == server.environment["PROVISIONING_CONNECTION_STRING"]
    assert hub["primary_connection_string"] == server.environment["IOTHUB_CONNECTION_STRING"]


def test_a_service_that_was_made_can_be_used_its_key_exchanged_and_deleted(server: RunningServer) -> None:
    server.run("dps", "create", "factory-2")
    (before,) = server.rows("dps", "key", "factory-2")
    for which in ("primary", "secondary"):
        assert list(target(server, before[f"{which}_connection_string"]).records()) == []
    (after,) = server.rows("dps", "key", "factory-2", "--rotate", "secondary")
    assert after["primary_key"] == before["primary_key"]
    with pytest.raises(CredentialsRefusedError):
        list(target(server, before["secondary_connection_string"]).records())
    for which in ("primary", "secondary"):
        assert list(target(server, after[f"{which}_connection_string"]).records()) == []
    server.run("dps", "rm", "factory-2", "--yes")
    assert "factory-2" not in [row["name"] for row in server.rows("dps", "ls")]
    with pytest.raises(CredentialsRefusedError):
        list(target(server, after["primary_connection_string"]).records())
    assert server.attempt("dps", "key", "factory-2").returncode == 3


def test_the_first_service_stays_and_a_policy_that_is_not_there_is_named(server: RunningServer) -> None:
    refused = server.attempt("dps", "rm", "birthmark", "--yes")
    assert (refused.returncode, "dps.first_instance" in refused.stderr) == (1, True)
    refused = server.attempt("hub", "key", "--policy", "nobody")
    assert (refused.returncode, "registryReadWrite" in refused.stderr) == (3, True)
    (one,) = server.rows("hub", "key", "--policy", "service")
    assert "SharedAccessKeyName=service;" in one["primary_connection_string"]
