"""Custom allocation, by Azure's own SDKs: an enrollment names a webhook, and a device gets the hub that it chooses."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.azure.clients import run_python
from support.server.servers import RunningServer
from support.services.webhook_server import WebhookServer

pytestmark = pytest.mark.system

ENROLL = """
import base64, os, sys
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import *
dps = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
key = base64.b64encode(b"k" * 32).decode()
keys = SymmetricKeyAttestation(primary_key=key, secondary_key=key)
hook = CustomAllocationDefinition(webhook_url=os.environ["HOOK"], api_version="2021-10-01")
made = dps.create_or_update(IndividualEnrollment(
    registration_id=os.environ["NAME"], attestation=AttestationMechanism(type="symmetricKey", symmetric_key=keys),
    allocation_policy="custom", custom_allocation_definition=hook))
kept = dps.get_individual_enrollment(made.registration_id)
print(kept.allocation_policy, kept.custom_allocation_definition.webhook_url == os.environ["HOOK"],
      kept.custom_allocation_definition.api_version)
"""
REGISTER = """
import base64, json, os
from azure.iot.device import ProvisioningDeviceClient
client = ProvisioningDeviceClient.create_from_symmetric_key(
    os.environ["PROVISIONING_HOST"], os.environ["NAME"], os.environ["PROVISIONING_IDSCOPE"],
    base64.b64encode(b"k" * 32).decode(), websockets=os.environ["WAY"] == "websocket")
client.provisioning_payload = {"model": "P-100"}
try:
    state = client.register().registration_state
    print(state.assigned_hub, state.sub_status, state.response_payload)
except Exception as error:
    print(type(error).__name__, error.__cause__)
"""


@pytest.fixture(scope="module")
def webhook() -> Iterator[WebhookServer]:
    with WebhookServer() as server:
        yield server


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return '[outbound]\nallow = ["127.0.0.1/32"]\n'


@pytest.fixture(scope="module")
def two(server: RunningServer) -> RunningServer:
    """A server with a second hub that may ask programs on this machine."""
    server.run("hub", "create", "second", "--host", "second.example")
    server.run("dps", "link", "second")
    return server


def told(server: RunningServer, script: str, name: str, **more: str) -> str:
    done = run_python(script, server.cloud.environment(**{"NAME": name, "WAY": "mqtt", **more}))
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip()


@pytest.mark.parametrize("way", ["mqtt", "websocket"])
def test_the_webhook_hears_the_devices_payload_and_its_answer_reaches_the_device(
    two: RunningServer, webhook: WebhookServer, way: str
) -> None:
    name, asked = f"chosen-{way}", []

    def choose(request: dict[str, Any]) -> tuple[int, Any]:
        asked.append(request)
        return 200, {"iotHubHostName": request["linkedHubs"][-1], "payload": {"line": 3}}

    webhook.answers["/choose"] = choose
    hook = webhook.url("/choose?code=key")
    assert told(two, ENROLL, name, HOOK=hook) == "custom True 2021-10-01"
    hub, substatus, payload = told(two, REGISTER, name, WAY=way).split(" ", 2)
    assert (hub, substatus, json.loads(payload)) == ("second.example", "initialAssignment", {"line": 3})
    assert asked[0]["deviceRuntimeContext"]["payload"] == {"model": "P-100"}
    assert asked[0]["deviceRuntimeContext"]["symmetricKey"] == {}


def test_a_webhook_that_refuses_is_named_to_the_operator(two: RunningServer, webhook: WebhookServer) -> None:
    webhook.answers["/refuses"] = lambda _: (401, {})
    told(two, ENROLL, "refused", HOOK=webhook.url("/refuses?code=s3cret"))
    assert "400" in told(two, REGISTER, "refused")
    why = two.run("why", "refused").stdout
    assert "dps.allocation_unauthorized" in why
    assert "s3cret" not in why


def test_a_webhook_inside_is_refused_by_name_when_it_is_enrolled(two: RunningServer) -> None:
    done = run_python(ENROLL, two.cloud.environment(NAME="inside", HOOK="https://169.254.169.254/latest"))
    assert done.returncode != 0
    assert "customAllocationDefinition.webhookUrl" in done.stderr
