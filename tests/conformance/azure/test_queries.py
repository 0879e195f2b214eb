"""Queries as the vendors' unmodified service SDKs ask them: hubs in Python and Node, enrollments in both."""

from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python
from support.azure.node_clients import in_node
from support.server.servers import a_server

pytestmark = pytest.mark.system

HUB = """
import os
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])

def make(name, tags, desired=None):
    manager.create_device_with_sas(name, "", "", "enabled")
    manager.update_twin(name, Twin(tags=tags, properties=TwinProperties(desired=desired or {})), "*")

def ask(text, marker=None, size=None):
    return manager.query_iot_hub(QuerySpecification(query=text), marker, size)
"""


def in_python(cloud: Cloud, body: str, head: str = HUB) -> list[str]:
    done = run_python(head + body, cloud.environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_python_finds_twins_by_a_tag_and_goes_on_page_by_page(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
for number in range(5):
    make(f"python-query-{number}", {"site": "python-north" if number % 2 == 0 else "python-south"}, {"n": number})
text = "SELECT * FROM devices WHERE tags.site = 'python-north'"
first = manager.query_iot_hub(QuerySpecification(query=text), None, 2)
print([twin.device_id for twin in first.items], type(first.items[0]).__name__)
second = ask(text, first.continuation_token, 2)
print([twin.device_id for twin in second.items], second.continuation_token)
print(second.items[0].tags, second.items[0].properties.desired["n"], second.items[0].connection_state)
""",
    ) == [
        "['python-query-0', 'python-query-2'] Twin",
        "['python-query-4'] None",
        "{'site': 'python-north'} 4 Disconnected",
    ]


def test_python_selects_and_counts(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
for number in range(4):
    make(f"python-count-{number}", {"count": "python", "kind": "ab"[number % 2]})
where = "WHERE tags.count = 'python'"
rows = ask(f"SELECT tags.kind AS kind, COUNT() AS n FROM devices {where} GROUP BY tags.kind")
print([(row.additional_properties["kind"], row.additional_properties["n"]) for row in rows.items])
rows = ask(f"SELECT deviceId FROM devices {where} AND tags.kind = 'b'")
print([row.device_id for row in rows.items])
""",
    ) == ["[('a', 2), ('b', 2)]", "['python-count-1', 'python-count-3']"]


def test_python_hears_what_is_wrong_with_a_query_and_where(cloud: Cloud) -> None:
    (told,) = in_python(
        cloud,
        """
try:
    ask("SELECT * FROM devices WHERE tags.site LIKE 'x'")
except Exception as error:
    print(error.response.status_code, error.response.headers["iothub-errorcode"], error.response.json()["Message"])
""",
    )
    assert told.startswith("400 ArgumentInvalid ErrorCode:ArgumentInvalid;")
    assert "at position 39 AND, OR, GROUP BY or the end is expected, not \"LIKE 'x'\"" in told


def test_python_finds_who_is_connected_to_whichever_worker(cloud: Cloud) -> None:
    assert (
        in_python(
            cloud,
            """
from azure.iot.device import IoTHubDeviceClient
host = os.environ["IOTHUB_CONNECTION_STRING"].split(";")[0]
for name in ("python-here", "python-away"):
    make(name, {"presence": "python"})
key = manager.get_device("python-here").authentication.symmetric_key.primary_key
device = IoTHubDeviceClient.create_from_connection_string(f"{host};DeviceId=python-here;SharedAccessKey={key}")
device.connect()
device.patch_twin_reported_properties({"load": 0.25})
where = "WHERE connectionState = 'Connected' AND tags.presence = 'python'"
for _ in range(3):
    print([(twin.device_id, twin.properties.reported["load"]) for twin in ask(f"SELECT * FROM devices {where}").items])
device.shutdown()
""",
        )
        == ["[('python-here', 0.25)]"] * 3
    )


def test_node_finds_twins_page_by_page(cloud: Cloud) -> None:
    assert in_node(
        cloud,
        """
const {Registry} = require('azure-iothub');
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
for (let n = 0; n < 5; n++) {
  await registry.create({deviceId: `node-query-${n}`, status: 'enabled'});
  await registry.updateTwin(`node-query-${n}`, {tags: {site: 'node', n}}, '*');
}
const query = registry.createQuery("SELECT * FROM devices WHERE tags.site = 'node' AND tags.n >= 1", 3);
while (query.hasMoreResults) {
  const {result} = await query.nextAsTwin();
  say(result.map((twin) => [twin.deviceId, twin.tags.n]));
}
const rows = registry.createQuery("SELECT COUNT() AS n FROM devices WHERE tags.site = 'node'");
say((await rows.next()).result);
""",
    ) == [
        '[["node-query-1",1],["node-query-2",2],["node-query-3",3]]',
        '[["node-query-4",4]]',
        '[{"n":5}]',
    ]


DPS = """
import os
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import *
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])

def make(name, status, edge=False):
    client.create_or_update(IndividualEnrollment(
        registration_id=name, attestation=AttestationMechanism(type="symmetricKey"),
        capabilities=DeviceCapabilities(iot_edge=edge), provisioning_status=status))

def ask(text, size=None):
    query = client.create_individual_enrollment_query(QuerySpecification(query=text), size)
    return [[one.registration_id for one in page] for page in query]
"""


def test_python_finds_enrollments_by_what_they_say(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
for number in range(4):
    make(f"enrolled-{number}", "disabled" if number % 2 else "enabled", edge=number == 3)
mine = "STARTSWITH(registrationId, 'enrolled-')"
print(ask(f"SELECT * FROM enrollments WHERE provisioningStatus = 'disabled' AND {mine}"))
print(ask(f"SELECT * FROM enrollments WHERE {mine}", 3))
print(ask(f"SELECT * FROM enrollments WHERE capabilities.iotEdge = true AND {mine}"))
print(ask("SELECT * FROM enrollments WHERE registrationId IN ['enrolled-2', 'ENROLLED-0', 'nobody']"))
print(ask(f"SELECT * FROM enrollments WHERE attestation.type = 'x509' AND {mine}"))
""",
        DPS,
    ) == [
        "[['enrolled-1', 'enrolled-3']]",
        "[['enrolled-0', 'enrolled-1', 'enrolled-2'], ['enrolled-3']]",
        "[['enrolled-3']]",
        "[['enrolled-0', 'enrolled-2']]",
        "[]",
    ]


def test_python_hears_of_every_enrollment_also_in_the_largest_pages(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
for number in range(101):
    make(f"many-{number}", "enabled")
print(sum(name.startswith("many-") for page in ask("SELECT * FROM enrollments", 100) for name in page))
print(sum(name.startswith("many-") for page in ask("SELECT * FROM enrollments") for name in page))
""",
        DPS,
    ) == ["101", "101"]


def test_node_finds_enrollment_groups_by_what_they_say(cloud: Cloud) -> None:
    assert in_node(
        cloud,
        """
const {ProvisioningServiceClient} = require('azure-iot-provisioning-service');
const client = ProvisioningServiceClient.fromConnectionString(process.env.PROVISIONING_CONNECTION_STRING);
for (const [name, status] of [['node-group-1', 'enabled'], ['node-group-2', 'disabled']])
  await client.createOrUpdateEnrollmentGroup({
    enrollmentGroupId: name, attestation: {type: 'symmetricKey'}, provisioningStatus: status});
const ask = async (text) => {
  const query = client.createEnrollmentGroupQuery({query: text}, 10);
  const found = [];
  while (query.hasMoreResults)
    found.push(...(await query.next(query.continuationToken)).responseBody.map((group) => group.enrollmentGroupId));
  return found.filter((name) => name.startsWith('node-group-'));
};
say(await ask("SELECT * FROM enrollmentGroups WHERE provisioningStatus = 'disabled'"));
say(await ask("SELECT * FROM enrollmentGroups WHERE enrollmentGroupId = 'node-group-1'"));
try {
  await ask("SELECT * FROM enrollmentGroups ORDER BY etag");
} catch (error) {
  say(error.response.statusCode, /WHERE, GROUP BY or the end is expected/.test(error.responseBody));
}
""",
    ) == ['["node-group-2"]', '["node-group-1"]', "400 true"]


def test_what_was_tagged_before_kill_9_is_found_by_the_server_that_comes_back(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        for number in range(3):
            server.run("hub", "device", "create", f"killed-{number}")
            server.run("hub", "twin", f"killed-{number}", "--tags", f'{{"site": "{"ab"[number % 2]}"}}')
        server.kill()  # within the half second in which nothing is indexed yet
        server.start()
        text = "SELECT deviceId FROM devices WHERE tags.site = 'a'"
        assert server.rows("hub", "query", text) == [{"deviceId": "killed-0"}, {"deviceId": "killed-2"}]
        assert server.rows("hub", "query", text, "--top", "1") == [{"deviceId": "killed-0"}]
