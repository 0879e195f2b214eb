"""What else Azure's service SDKs ask for: feedback of messages, groups and registrations, singly and in pages."""

import base64
import os

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


def run(cloud: Cloud, body: str) -> list[str]:
    done = run_python(body, cloud.environment())
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_feedback_of_messages_is_received_completed_and_abandoned(
    birthmark_cloud: Cloud, server: RunningServer
) -> None:
    """The feedback of a hub is that of all its devices."""
    birthmark_cloud.azure_device("fed-back", at="hub")
    for text in ("first", "second"):
        server.run("hub", "c2d", "fed-back", text, "--feedback", "full")
    server.run("hub", "c2d", "fed-back", "--purge")
    assert run(
        birthmark_cloud,
        """
import os
from azure.iot.hub import IoTHubHttpRuntimeManager
manager = IoTHubHttpRuntimeManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
manager.receive_feedback_notification()
raw = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True)
lock = raw.response.headers["ETag"].strip('"')
print(raw.response.json()[0]["statusCode"], raw.response.json()[0]["deviceId"])
manager.abandon_feedback_notification(lock)
again = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True)
print(again.response.json()[0]["originalMessageId"] == raw.response.json()[0]["originalMessageId"])
manager.complete_feedback_notification(again.response.headers["ETag"].strip('"'))
left = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True)
print(left.response.status_code)
""",
    ) == ["Purged fed-back", "True", "204"]


def test_groups_and_registrations_are_read_listed_and_removed(cloud: Cloud) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    assert run(
        cloud,
        f"""
import base64, hmac, os
from azure.iot.device import ProvisioningDeviceClient
from provisioningserviceclient import ProvisioningServiceClient, ProvisioningServiceError
from provisioningserviceclient.models import *
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
keys = SymmetricKeyAttestation(primary_key={key!r}, secondary_key={key!r})
mechanism = AttestationMechanism(type="symmetricKey", symmetric_key=keys)
for number in range(3):
    client.create_or_update(EnrollmentGroup.create(enrollment_group_id=f"listed-{{number}}", attestation=mechanism))
group = client.get_enrollment_group("listed-0")
print(group.enrollment_group_id, group.provisioning_status)
for name in ("in-group-1", "in-group-2"):
    own = base64.b64encode(hmac.digest(base64.b64decode({key!r}), name.encode(), "sha256")).decode()
    ProvisioningDeviceClient.create_from_symmetric_key(
        os.environ["PROVISIONING_HOST"], name, os.environ["PROVISIONING_IDSCOPE"], own).register()
state = client.get_registration_state("in-group-1")
print(state.registration_id, state.status, state.substatus)
groups = client.create_enrollment_group_query(QuerySpecification(query="SELECT * FROM enrollmentGroups"), 2)
pages = [groups.next()]
while groups.has_next:
    pages.append(groups.next())
found = {{one.enrollment_group_id for page in pages for one in page}}
print(len(pages[0]), found >= {{f"listed-{{n}}" for n in range(3)}})

def refused(act):
    try:
        act()
    except ProvisioningServiceError as error:
        return str(error)[-15:].strip()

client.delete_registration_state_by_param("in-group-1", state.etag)
print(refused(lambda: client.get_registration_state("in-group-1")))
client.delete_enrollment_group_by_param("listed-1")
print(refused(lambda: client.get_enrollment_group("listed-1")))
client.create_or_update(IndividualEnrollment.create(registration_id="by-param", attestation=mechanism))
print(refused(lambda: client.delete_individual_enrollment_by_param("by-param", "of another")))
client.delete_individual_enrollment_by_param("by-param", client.get_individual_enrollment("by-param").etag)
print(refused(lambda: client.get_individual_enrollment("by-param")))
""",
    ) == [
        "listed-0 enabled",
        "in-group-1 assigned initialAssignment",
        "2 True",
        "404 - Not Found",
        "404 - Not Found",
        "ondition Failed",
        "404 - Not Found",
    ]
