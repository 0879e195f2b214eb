"""A device that its enrollment sends to another hub: it takes its twin along, or begins anew, by Azure's own SDKs."""

import json

import pytest

from support.azure.clients import run_python
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

SCRIPT = """
import base64, hmac, os, sys, time
from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties
from provisioningserviceclient import ProvisioningServiceClient, ProvisioningServiceError
from provisioningserviceclient.models import *
dps = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
name, keeps = os.environ["NAME"], os.environ["KEEPS"] == "yes"
key = base64.b64encode(b"k" * 32).decode()
hosts = [os.environ["PROVISIONING_HOST"], "second.example"]
first = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])

def enroll(host):
    keys = SymmetricKeyAttestation(primary_key=key, secondary_key=key)
    mechanism = AttestationMechanism(type="symmetricKey", symmetric_key=keys)
    wish = IndividualEnrollment.create(registration_id=name, attestation=mechanism, iot_hubs=[host])
    wish.allocation_policy = "static"
    wish.reprovision_policy = ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=keeps)
    wish.initial_twin = InitialTwin.create(tags={"site": 1})
    try:
        wish.etag = dps.get_individual_enrollment(name).etag
    except ProvisioningServiceError:
        pass
    dps.create_or_update(wish)

def register():
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        os.environ["PROVISIONING_HOST"], name, os.environ["PROVISIONING_IDSCOPE"], key)
    return client.register().registration_state

def device(host, **more):
    text = f"HostName={host};DeviceId={name};SharedAccessKey={key};GatewayHostName={hosts[0]}"
    return IoTHubDeviceClient.create_from_connection_string(text, **more)

def until(condition, what):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"never: {what}")

enroll(hosts[0])
print(register().assigned_hub == hosts[0])
client = device(hosts[0], connection_retry=False)
client.connect()
client.patch_twin_reported_properties({"mode": "slow"})
first.update_twin(name, Twin(tags={"site": 7}, properties=TwinProperties(desired={"speed": 3})), "*")
enroll(hosts[1])
moved = register()
print(moved.assigned_hub, moved.sub_status)
until(lambda: not client.connected, "dropped at the first hub")
try:
    client.connect()
except Exception as error:
    print(type(error).__name__)
client.shutdown()
there = device(hosts[1])
there.connect()
twin = there.get_twin()
print(twin["reported"].get("mode"), twin["desired"].get("speed"))
print(register().assigned_hub, [one.device_id for one in first.get_devices() if one.device_id == name])
there.shutdown()
"""


@pytest.fixture(scope="module")
def two(server: RunningServer) -> RunningServer:
    """A server with a second hub, linked to its provisioning service. Devices reach it through the first one's name."""
    server.run("hub", "create", "second", "--host", "second.example")
    server.run("dps", "link", "second")
    return server


@pytest.mark.parametrize("keeps", [True, False])
def test_a_device_takes_its_twin_along_or_begins_anew_and_is_dropped_where_it_was(
    two: RunningServer, keeps: bool
) -> None:
    name = f"moves-{keeps}".lower()
    done = run_python(SCRIPT, two.cloud.environment(NAME=name, KEEPS="yes" if keeps else "no"))
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines() == [
        "True",
        f"second.example {'deviceDataMigrated' if keeps else 'deviceDataReset'}",
        "CredentialError",
        "slow 3" if keeps else "None None",
        "second.example []",
    ]
    twin = json.loads(two.run("hub", "twin", name, "--hub", "second", "--json").stdout)
    assert twin["tags"] == {"site": 7 if keeps else 1}
