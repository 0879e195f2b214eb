"""What the SDKs ask for and this hub does not serve: its own error, a row in `why`, and the rest goes on."""

import json
import ssl
import urllib.error
import urllib.request

import pytest

from azure_clients import run_python
from servers import RunningServer

pytestmark = pytest.mark.system

DEVICE = """
import base64, os, sys
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.device import IoTHubDeviceClient, Message
name = sys.argv[1] if len(sys.argv) > 1 else os.environ["DEVICE"]
key = base64.b64encode(b"k" * 32).decode()
text = os.environ["IOTHUB_CONNECTION_STRING"]
IoTHubRegistryManager.from_connection_string(text).create_device_with_sas(name, key, key, "enabled")
host = text.split("HostName=")[1].split(";")[0].split(":")[0]
client = IoTHubDeviceClient.create_from_connection_string(f"HostName={host};DeviceId={name};SharedAccessKey={key}")
client.connect()
"""
TEN_MESSAGES = """
for number in range(10):
    client.send_message(Message(str(number)))
print("connected" if client.connected else "lost")
client.shutdown()
"""


def test_get_twin_is_an_error_and_ten_messages_follow_on_the_same_connection(server: RunningServer) -> None:
    script = (
        DEVICE
        + """
lost = []
client.on_connection_state_change = lambda: lost.append(client.connected)
try:
    client.get_twin()
except Exception as error:
    print(type(error).__name__, error)
else:
    sys.exit("a twin was served")
try:
    client.patch_twin_reported_properties({"a": 1})
except Exception as error:
    print(type(error).__name__)
"""
        + TEN_MESSAGES.replace("client.shutdown()", "print('changes', lost)\nclient.shutdown()")
    )
    done = run_python(script, {**server.environment, "DEVICE": "asks-for-twin"})
    assert done.returncode == 0, done.stderr
    assert "connected\nchanges []\n" in done.stdout, done.stdout
    assert len(server.rows("hub", "messages", "asks-for-twin")) == 10
    rows = server.rows("why", "asks-for-twin")
    assert [row["code"] for row in rows] == ["iothub.feature_not_served"] * 2


def test_a_handler_of_methods_leaves_telemetry_alone(server: RunningServer) -> None:
    script = DEVICE + "client.on_method_request_received = lambda request: None\n" + TEN_MESSAGES
    done = run_python(script, {**server.environment, "DEVICE": "handles-methods"})
    assert done.returncode == 0, done.stderr
    assert len(server.rows("hub", "messages", "handles-methods")) == 10
    assert server.why("handles-methods")["code"] == "iothub.feature_not_served"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/twins/d"),
        ("PATCH", "/twins/d/modules/m"),
        ("POST", "/twins/d/methods"),
        ("POST", "/devices/query"),
        ("POST", "/devices"),
        ("PATCH", "/devices/d"),
        ("GET", "/devices/d/modules"),
        ("POST", "/devices/d/messages/events"),
        ("GET", "/jobs/v2/query"),
        ("GET", "/configurations"),
        ("GET", "/statistics/service"),
        ("GET", "/messages/serviceBound/feedback"),
    ],
)
def test_a_path_that_is_not_served_says_so_in_the_hubs_own_form_and_is_recorded(
    server: RunningServer, method: str, path: str
) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    url = f"https://{server.address}:8443{path}?api-version=2021-04-12"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, b"{}", method=method), context=context, timeout=10)
    assert caught.value.code == 501
    body = json.loads(caught.value.read())
    assert body["Message"].startswith("ErrorCode:NotImplemented;")
    assert caught.value.headers["iothub-errorcode"] == "NotImplemented"
    assert server.why(body["ExceptionMessage"].removeprefix("Tracking ID:"))["code"] == "iothub.operation_not_served"


def test_the_list_of_devices_has_a_path_with_a_slash_too(server: RunningServer) -> None:
    script = """
import os
from azure.iot.hub import IoTHubRegistryManager
manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
import requests
from azure.iot.hub.sastoken import SasToken
text = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))
token = str(SasToken(text["HostName"], text["SharedAccessKey"], text["SharedAccessKeyName"]))
answer = requests.get(f"https://{text['HostName']}/devices/", headers={"Authorization": token}, timeout=10)
print(answer.status_code, type(answer.json()).__name__)
"""
    done = run_python(script, dict(server.environment))
    assert done.stdout.strip() == "200 list", done.stderr + done.stdout
