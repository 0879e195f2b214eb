"""Digital twins (IoT Plug and Play), by Azure's own SDKs on both ends."""

import json

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python

pytestmark = pytest.mark.system

BEGIN = """
import base64, json, os, sys, threading
from azure.iot.hub import DigitalTwinClient, IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin
from azure.iot.device import IoTHubDeviceClient, MethodResponse
from msrest.exceptions import HttpOperationError
name, text = os.environ["DEVICE"], os.environ["IOTHUB_CONNECTION_STRING"]
registry = IoTHubRegistryManager.from_connection_string(text)
key = base64.b64encode(b"k" * 32).decode()
registry.create_device_with_sas(name, key, key, "enabled")
host = dict(part.split("=", 1) for part in text.split(";"))["HostName"].split(":")[0]
device = IoTHubDeviceClient.create_from_connection_string(
    f"HostName={host};DeviceId={name};SharedAccessKey={key}", product_info=os.environ["MODEL"])
device.connect()
digital = DigitalTwinClient.from_connection_string(text)
def told(call):
    try:
        call()
        return "done"
    except HttpOperationError as error:
        return f"{error.response.status_code} {error.response.json()['Message']}"
"""
MODEL = "dtmi:com:example:TemperatureController;1"


def said(cloud: Cloud, name: str, script: str, model: str = MODEL) -> list[str]:
    done = run_python(BEGIN + script + "\ndevice.shutdown()\n", cloud.environment(DEVICE=name, MODEL=model))
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_a_digital_twin_is_patched_and_the_device_hears_it_and_acknowledges(cloud: Cloud) -> None:
    first, heard, last = said(
        cloud,
        "digital-1",
        """
heard, came = [], threading.Event()
def on_patch(patch):
    heard.append(patch)
    came.set()
device.on_twin_desired_properties_patch_received = on_patch
device.patch_twin_reported_properties({"serialNumber": "a-1", "thermostat1": {"__t": "c", "max": 25.3}})
print(json.dumps(digital.get_digital_twin(name)))
digital.update_digital_twin(name, [
    {"op": "add", "path": "/thermostat1/targetTemperature", "value": 21.8},
    {"op": "add", "path": "/fanSpeed", "value": 2}])
came.wait(10)
print(json.dumps(heard))
version = heard[0]["$version"]
device.patch_twin_reported_properties({
    "fanSpeed": {"value": 2, "ac": 200, "av": version, "ad": "done"},
    "thermostat1": {"__t": "c", "targetTemperature": {"value": 21.8, "ac": 200, "av": version}}})
print(json.dumps(digital.get_digital_twin(name)))
""",
    )
    before = json.loads(first)
    assert (before["$dtId"], before["serialNumber"], before["$metadata"]["$model"]) == ("digital-1", "a-1", MODEL)
    (patch,) = json.loads(heard)
    assert patch == {
        "thermostat1": {"__t": "c", "targetTemperature": 21.8},
        "fanSpeed": 2,
        "$version": patch["$version"],
    }
    after = json.loads(last)
    assert (after["fanSpeed"], after["thermostat1"]["targetTemperature"]) == (2, 21.8)
    about = after["thermostat1"]["$metadata"]["targetTemperature"]
    assert (about["desiredValue"], about["desiredVersion"], about["ackVersion"], about["ackCode"]) == (
        21.8,
        patch["$version"],
        patch["$version"],
        200,
    )
    assert after["$metadata"]["fanSpeed"]["ackDescription"] == "done"


def test_commands_of_the_root_and_of_a_component_reach_the_device_as_methods(cloud: Cloud) -> None:
    assert said(
        cloud,
        "digital-2",
        """
def on_method(call):
    answer = {"name": call.name, "got": call.payload}
    device.send_method_response(MethodResponse.create_from_method_request(call, 207, answer))
device.on_method_request_received = on_method
print(json.dumps(digital.invoke_command(name, "reboot", {"delay": 3}, 5, 10)))
print(json.dumps(digital.invoke_component_command(name, "thermostat1", "getMaxMinReport", "2026-11-01", 5, 10)))
raw = digital.protocol.digital_twin.invoke_root_level_command(name, "reboot", 1, raw=True)
print(raw.headers["x-ms-command-statuscode"])
""",
    ) == [
        '{"name": "reboot", "got": {"delay": 3}}',
        '{"name": "thermostat1*getMaxMinReport", "got": "2026-11-01"}',
        "207",
    ]


def test_what_is_no_patch_and_a_twin_that_changed_are_told_apart(cloud: Cloud) -> None:
    wrong, stale, away, timed = said(
        cloud,
        "digital-3",
        """
print(told(lambda: digital.update_digital_twin(name, [{"op": "add", "path": "/a", "value": [1]}])))
etag = digital.protocol.digital_twin.get_digital_twin(name, raw=True).headers["ETag"]
digital.update_digital_twin(name, [{"op": "add", "path": "/a", "value": 1}], etag)
print(told(lambda: digital.update_digital_twin(name, [{"op": "add", "path": "/a", "value": 2}], etag)))
print(told(lambda: digital.get_digital_twin("nobody-here")))
print(told(lambda: digital.invoke_command(name, "reboot", {}, 0, 1)))
""",
    )
    assert wrong.startswith("400 ErrorCode:ArgumentInvalid;The patch is not valid: operation 0 contains an array")
    assert stale.startswith("412 ErrorCode:PreconditionFailed")
    assert away.startswith("404 ErrorCode:DeviceNotFound")
    assert timed.startswith("400 ErrorCode:ArgumentInvalid")


def test_the_model_is_in_the_twin_and_twins_are_found_by_it(cloud: Cloud) -> None:
    model = "dtmi:com:example:Digital4;7"
    assert said(
        cloud,
        "digital-4",
        """
def model():
    return registry.protocol.devices.get_twin(name, raw=True).response.json()["modelId"]
print(model())
query = QuerySpecification(query=f"SELECT * FROM devices WHERE modelId = '{os.environ['MODEL']}'")
print([one.device_id for one in registry.query_iot_hub(query, None, 5).items])
registry.update_twin(name, Twin(tags={"site": 1}), "*")
print(model())
""",
        model,
    ) == [model, "['digital-4']", model]
