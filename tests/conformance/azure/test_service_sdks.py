"""azure-iothub-provisioningserviceclient and azure-iot-hub, unmodified: enrollments and the registry."""

import json
import os
import stat
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import a_file_device, run_python
from support.server.servers import BIRTHMARK, RunningServer

pytestmark = pytest.mark.system

ENROLLMENTS = """
import os
from provisioningserviceclient import ProvisioningServiceClient, ProvisioningServiceError
from provisioningserviceclient.models import *
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
pem = open(os.environ["X509_CERT_FILE"]).read()

def wish(name):
    return IndividualEnrollment.create(
        registration_id=name, attestation=AttestationMechanism.create_with_x509_client_certs(pem))
"""


def run(cloud: Cloud, body: str) -> list[str]:
    done = run_python(ENROLLMENTS + body, cloud.azure_device().environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_enrollment_is_created_read_updated_by_etag_and_deleted(cloud: Cloud) -> None:
    lines = run(
        cloud,
        """
made = client.create_or_update(wish("crud-1"))
made.provisioning_status = "disabled"
changed = client.create_or_update(made)
print(changed.provisioning_status, made.etag != changed.etag)
try:
    client.create_or_update(made)
except ProvisioningServiceError as error:
    print(error)
client.delete(client.get_individual_enrollment("crud-1"))
try:
    client.get_individual_enrollment("crud-1")
except ProvisioningServiceError as error:
    print(error)
""",
    )
    assert lines[0] == "disabled True"
    assert "412" in lines[1]
    assert "404" in lines[2]


def test_enrollments_are_queried_page_by_page(cloud: Cloud) -> None:
    lines = run(
        cloud,
        """
for number in range(5):
    client.create_or_update(wish(f"page-{number}"))
query = client.create_individual_enrollment_query(QuerySpecification(query="SELECT * FROM enrollments"), 2)
first = query.next()
print(len(first), query.has_next, first[0].registration_id < first[1].registration_id)
""",
    )
    assert lines == ["2 True True"]


def test_enrollments_are_made_in_bulk_and_each_refusal_is_named(cloud: Cloud) -> None:
    lines = run(
        cloud,
        """
result = client.run_bulk_operation(BulkEnrollmentOperation(mode="create", enrollments=[wish("bulk-1"), wish("bulk-2")]))
print(result.is_successful, len(result.errors))
result = client.run_bulk_operation(BulkEnrollmentOperation(mode="create", enrollments=[wish("bulk-2"), wish("bulk-3")]))
print(result.is_successful, [(e.registration_id, e.error_code) for e in result.errors])
""",
    )
    assert lines == ["True 0", "False [('bulk-2', 409201)]"]


def test_a_service_call_with_a_wrong_key_is_refused_and_explained(cloud: Cloud) -> None:
    wrong = f"HostName={cloud.host};SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=AAAA"
    environment = cloud.azure_device().environment(PROVISIONING_CONNECTION_STRING=wrong)
    done = run_python(ENROLLMENTS + "client.get_individual_enrollment('x')", environment)
    assert "401" in done.stderr
    assert cloud.refusals()[0]["code"] == "sas.signature_mismatch"


REGISTRY = """
import os
from azure.iot.hub import IoTHubRegistryManager
registry = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
"""


def test_the_registry_creates_lists_updates_and_deletes_devices(cloud: Cloud) -> None:
    script = """
made = registry.create_device_with_x509("registry-1", "A" * 64, "B" * 64, "enabled")
print(made.authentication.type, made.authentication.x509_thumbprint.primary_thumbprint == "A" * 64)
changed = registry.update_device_with_x509("registry-1", made.etag, "C" * 64, "B" * 64, "disabled")
print(changed.status, changed.generation_id == made.generation_id)
print("registry-1" in [d.device_id for d in registry.get_devices()])
print(registry.get_device("registry-1").connection_state)
try:
    registry.create_device_with_x509("registry-1", "A" * 64, "B" * 64, "enabled")
except Exception as error:
    print(error)
registry.delete_device("registry-1")
try:
    registry.get_device("registry-1")
except Exception as error:
    print(error)
print(registry.get_service_statistics is not None, registry.get_device_registry_statistics().total_device_count >= 0)
"""
    done = run_python(REGISTRY + script, cloud.environment())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == ["selfSigned True", "disabled True", "True", "Disconnected"]
    assert "Conflict" in lines[4]
    assert "Not Found" in lines[5] or "404" in lines[5]


def test_a_disabled_device_loses_its_connection_and_may_not_come_back(cloud: Cloud) -> None:
    device = cloud.azure_device()
    script = """
import asyncio, os, sys
from azure.iot.device import X509
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.hub import IoTHubRegistryManager

async def main():
    x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    name = os.environ["DPS_X509_REGISTRATION_ID"]
    dps = ProvisioningDeviceClient.create_from_x509_certificate(
        os.environ["PROVISIONING_HOST"], name, os.environ["PROVISIONING_IDSCOPE"], x509)
    state = (await dps.register()).registration_state
    device = IoTHubDeviceClient.create_from_x509_certificate(x509, state.assigned_hub, name, connection_retry=False)
    dropped, loop = asyncio.Event(), asyncio.get_running_loop()
    device.on_connection_state_change = lambda: device.connected or loop.call_soon_threadsafe(dropped.set)
    await device.connect()
    registry = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
    known = registry.get_device(name)
    thumbprint = known.authentication.x509_thumbprint.primary_thumbprint
    registry.update_device_with_x509(name, known.etag, thumbprint, None, "disabled")
    await asyncio.wait_for(dropped.wait(), 10)
    try:
        await device.connect()
    except Exception as error:
        print(type(error).__name__)
    await device.shutdown()

asyncio.run(main())
"""
    done = run_python(script, device.environment())
    assert done.stdout.splitlines() == ["CredentialError"], done.stderr
    assert device.why()["code"] == "iothub.device_disabled"


def test_a_device_switched_off_at_the_command_line_is_cut_off_and_switched_on_comes_back(
    server: RunningServer, cloud: Cloud
) -> None:
    device = cloud.azure_device("switch-1", at="hub")
    script = """
import asyncio, os
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device import X509

async def main():
    x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
    host, name = os.environ["HOSTNAME"], os.environ["DEVICE_ID"]
    device = IoTHubDeviceClient.create_from_x509_certificate(
        x509, host, name, auto_connect=False, connection_retry=False
    )
    loop, dropped = asyncio.get_running_loop(), asyncio.Event()
    device.on_connection_state_change = lambda: device.connected or loop.call_soon_threadsafe(dropped.set)
    await device.connect()
    os.system("birthmark hub device disable switch-1 --json")
    await asyncio.wait_for(dropped.wait(), 10)
    try:
        await device.connect()
    except Exception as error:
        print(type(error).__name__, flush=True)
    os.system("birthmark hub device enable switch-1 --json")
    await device.connect()
    print(device.connected)
    await device.shutdown()

asyncio.run(main())
"""
    tools = f"{Path(BIRTHMARK).parent}:{os.environ['PATH']}"
    done = run_python(script, device.environment(BIRTHMARK_DATA=str(server.data), PATH=tools))
    first, refused, second, connected = done.stdout.splitlines()
    assert [json.loads(line)["status"] for line in (first, second)] == ["disabled", "enabled"]
    assert (refused, connected) == ("CredentialError", "True")
    again = server.rows("hub", "device", "enable", device.name)
    assert again == [json.loads(second)]


def test_the_registry_says_when_a_device_was_seen_last(server: RunningServer, cloud: Cloud) -> None:
    device, environment = cloud.azure_device("last-seen-1"), cloud.environment()
    files = ["--cert", device.certificate_file, "--key", device.key_file]
    server.run("device", "register", *files, **environment)
    script = (
        'device = registry.get_device("last-seen-1"); print(device.connection_state, device.last_activity_time.year)'
    )
    assert run_python(REGISTRY + script, environment).stdout == "Disconnected 1\n"
    server.run("device", "send", "hello", *files, **environment)
    state, year = run_python(REGISTRY + script, environment).stdout.split()
    assert (state, int(year) > 2000) == ("Disconnected", True)


def test_the_sdks_initial_twin_is_what_the_devices_twin_begins_with(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "twin-begins-1")
    script = f"""
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import AttestationMechanism, IndividualEnrollment, InitialTwin
service = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
pem = open({str(device.certificate_file)!r}).read()
attestation = AttestationMechanism.create_with_x509_client_certs(pem)
twin = InitialTwin.create(tags={{"site": "osaka"}}, desired_properties={{"interval": 30}})
made = service.create_or_update(IndividualEnrollment.create("twin-begins-1", attestation, initial_twin=twin))
print(made.initial_twin.tags, made.initial_twin.desired_properties)
"""
    environment = server.cloud.environment()
    told = run_python(REGISTRY + script, environment)
    assert told.stdout == "{'site': 'osaka'} {'interval': 30}\n", told.stderr
    files = ["--cert", str(device.certificate_file), "--key", str(device.key_file)]
    server.run("device", "register", *files, **environment)
    script = 'twin = registry.get_twin("twin-begins-1"); print(twin.tags, twin.properties.desired["interval"])'
    assert run_python(REGISTRY + script, environment).stdout == "{'site': 'osaka'} 30\n"


def test_a_device_is_enrolled_by_a_key_in_a_private_file_and_registers_by_it(
    server: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "board-7.key"
    line = ["device", "enroll", "board-7", "--symmetric-key", str(file)]
    assert server.rows(*line, "--dry-run")[0]["outcome"] == "would create"
    assert not file.exists()
    told = server.run(*line)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() not in told.stdout + told.stderr
    assert "cli.file_exists" in server.attempt(*line).stderr
    nowhere = server.attempt("device", "enroll", "board-8", "--symmetric-key", str(tmp_path / "none" / "k"))
    assert (nowhere.returncode, "board-8" in str(server.rows("device", "ls"))) == (2, False)
    script = f"""
import os
from azure.iot.device import ProvisioningDeviceClient
key = open({str(file)!r}).read().strip()
dps = ProvisioningDeviceClient.create_from_symmetric_key(
    os.environ["PROVISIONING_HOST"], "board-7", os.environ["PROVISIONING_IDSCOPE"], key)
print(dps.register().status)
"""
    assert run_python(script, server.cloud.environment()).stdout == "assigned\n"
    again = server.rows(*line[:-1], str(tmp_path / "again.key"))[0]
    assert again["outcome"] == "unchanged"
    assert (tmp_path / "again.key").read_text() == file.read_text()


def test_an_update_of_a_device_with_a_key_leaves_its_key_and_what_somebody_set(
    server: RunningServer, tmp_path: Path
) -> None:
    line = ["device", "enroll", "board-8", "--symmetric-key"]
    server.run(*line, str(tmp_path / "first.key"))
    script = """
import os
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import AttestationMechanism, InitialTwin, ReprovisionPolicy
service = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
record = service.get_individual_enrollment("board-8")
"""
    change = """
keys = service.get_individual_enrollment_attestation_mechanism("board-8").symmetric_key
record.attestation = AttestationMechanism(type="symmetricKey", symmetric_key=keys)
record.device_id, record.initial_twin = "pump-8", InitialTwin.create(tags={"site": "osaka"})
record.reprovision_policy = ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=False)
service.create_or_update(record)
"""
    done = run_python(script + change, server.cloud.environment())
    assert done.returncode == 0, done.stderr
    server.run(*line, str(tmp_path / "second.key"), "--edge", "--update")
    assert (tmp_path / "second.key").read_text() == (tmp_path / "first.key").read_text()
    look = "print(record.device_id, record.capabilities.iot_edge, record.reprovision_policy.migrate_device_data)"
    assert run_python(script + look, server.cloud.environment()).stdout == "pump-8 True False\n"
