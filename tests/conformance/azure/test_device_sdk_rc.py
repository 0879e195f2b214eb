"""The release candidate of Azure's device SDK for Python, unmodified, next to the release that all other tests run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud

pytestmark = pytest.mark.system
PLACE = Path(__file__).parents[3] / ".venv" / "azure-device-rc"

SCRIPT = """
import os, queue
from importlib.metadata import version
from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient, X509
x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
name = os.environ["DPS_X509_REGISTRATION_ID"]
dps = ProvisioningDeviceClient.create_from_x509_certificate(
    os.environ["PROVISIONING_HOST"], name, os.environ["PROVISIONING_IDSCOPE"], x509)
state = dps.register().registration_state
client = IoTHubDeviceClient.create_from_x509_certificate(x509, state.assigned_hub, state.device_id)
got = queue.Queue()
client.on_message_received = got.put
client.connect()
client.send_message("from the candidate")
desired, message = client.get_twin()["desired"], got.get(timeout=20)
print(version("azure-iot-device"), desired["$version"], message.data.decode(), flush=True)
client.shutdown()
"""


def test_the_release_candidate_registers_sends_and_receives(cloud: Cloud) -> None:
    device = cloud.azure_device()
    environment = device.environment(PYTHONPATH=str(PLACE), PATH=os.environ["PATH"])
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        cloud.messages(device.name, at_least=1)
        cloud.birthmark("hub", "c2d", device.name, "hello")
        said, problem = running.communicate(timeout=60)
    assert said == "2.15.0rc1 1 hello\n", problem
