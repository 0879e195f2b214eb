"""A service token opens what it names at its own service, whatever the Host header says."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator

import pytest

from birthmark.auth.connection_strings import parse_connection_string
from support.azure.sas_tokens import make_sas
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("tokens")) as running:
        yield running


def ask(server: RunningServer, token_for: str, path: str, host: str | None = None) -> int:
    """GET `path` with a token for `token_for` (below the service's host); return the status."""
    dps = server.endpoints["dps"]
    named = parse_connection_string(dps["service_connection_string"])
    token = make_sas(f"{dps['host']}{token_for}", named.key, int(time.time()) + 300, named.policy)
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    connection = http.client.HTTPSConnection(server.address, 8443, context=context, timeout=10)
    try:
        connection.putrequest("GET", f"{path}?api-version=2021-10-01", skip_host=True)
        connection.putheader("Host", host or dps["host"])
        connection.putheader("Authorization", token)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_token_for_the_service_opens_all_of_it(server: RunningServer) -> None:
    assert ask(server, "", "/enrollments/b") == 404
    assert ask(server, "", "/enrollments/b", f"{server.endpoints['dps']['host']}:8443") == 404


def test_a_token_for_one_record_opens_no_other(server: RunningServer) -> None:
    assert ask(server, "/enrollments/a", "/enrollments/a") == 404
    assert ask(server, "/enrollments/a", "/enrollments/b") == 401


@pytest.mark.parametrize("suffix", ["/enrollments/a", "/enrollments/a?", "/enrollments/a#", "%2Fenrollments%2Fa"])
def test_a_host_header_with_a_path_moves_nothing(server: RunningServer, suffix: str) -> None:
    host = server.endpoints["dps"]["host"] + suffix
    assert ask(server, "/enrollments/a", "/enrollments/b", host) == 400


def test_a_token_for_another_host_is_refused_though_host_names_it(server: RunningServer) -> None:
    assert ask(server, "", "/enrollments/b", "elsewhere.example") in {400, 404}
    dps = server.endpoints["dps"]
    named = parse_connection_string(dps["service_connection_string"])
    assert named.host.partition(":")[0] == dps["host"]


@pytest.mark.parametrize(
    ("path", "item"),
    [("/enrollments", {"enrollmentGroupId": "sneak"}), ("/enrollmentGroups", {"registrationId": "sneak"})],
)
def test_a_bulk_operation_reaches_only_what_its_path_names(
    server: RunningServer, path: str, item: dict[str, str]
) -> None:
    dps = server.endpoints["dps"]
    named = parse_connection_string(dps["service_connection_string"])
    token = make_sas(f"{dps['host']}{path}", named.key, int(time.time()) + 300, named.policy)
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    kept = "enrollmentGroups" if "Group" in path else "enrollments"
    for mode in ("create", "delete"):
        body = json.dumps({"mode": mode, kept: [{**item, "attestation": {"type": "symmetricKey"}}]})
        connection = http.client.HTTPSConnection(server.address, 8443, context=context, timeout=10)
        connection.request("POST", f"{path}?api-version=2021-10-01", body, {"Authorization": token})
        assert connection.getresponse().status == 400
        connection.close()
