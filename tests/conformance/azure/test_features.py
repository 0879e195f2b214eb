"""Twins, direct methods and messages to devices, by Azure's own SDKs on both ends, also through a cut line.

The device speaks MQTT, or MQTT in WebSockets.
"""

import json

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python

pytestmark = pytest.mark.system

DEVICE = """
import base64, json, os, socket, sys, time
import requests
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from azure.iot.hub.sastoken import SasToken
from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse
name = os.environ["DEVICE"]
key = base64.b64encode(b"k" * 32).decode()
text = os.environ["IOTHUB_CONNECTION_STRING"]
service = IoTHubRegistryManager.from_connection_string(text)
service.create_device_with_sas(name, key, key, "enabled")
parts = dict(part.split("=", 1) for part in text.split(";"))
host = parts["HostName"].split(":")[0]
client = IoTHubDeviceClient.create_from_connection_string(
    f"HostName={host};DeviceId={name};SharedAccessKey={key}",
    connection_retry_interval=1,
    websockets=os.environ["TRANSPORT"] == "websocket",
)
client.connect()

def rest(method, path, body=b"", **headers):
    token = str(SasToken(parts["HostName"], parts["SharedAccessKey"], parts["SharedAccessKeyName"]))
    headers["Authorization"] = token
    return requests.request(method, f"https://{parts['HostName']}{path}?api-version=2021-04-12", data=body,
                            headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=20)

def until(condition, what):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"never: {what}")

changes = []
client.on_connection_state_change = lambda: changes.append(client.connected)

def cut():
    before = len(changes)
    stage = client._mqtt_pipeline._pipeline
    while not hasattr(stage, "transport"):
        stage = stage.next
    line = socket.socket(fileno=os.dup(stage.transport._mqtt_client._sock.fileno()))
    line.shutdown(socket.SHUT_RDWR)
    line.close()
    until(lambda: len(changes) >= before + 2 and client.connected, "connected again")
"""


def run(cloud: Cloud, name: str, script: str, transport: str = "mqtt") -> str:
    environment = cloud.environment(DEVICE=name, TRANSPORT=transport)
    done = run_python(DEVICE + script + "\nclient.shutdown()\n", environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_a_device_reads_its_twin_reports_and_hears_what_is_desired(cloud: Cloud, transport: str) -> None:
    script = """
assert client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}, client.get_twin()
client.patch_twin_reported_properties({"firmware": {"version": "1.0"}, "gone": 1})
client.patch_twin_reported_properties({"firmware": {"build": 7}, "gone": None})
patches = []
client.on_twin_desired_properties_patch_received = patches.append
twin = service.get_twin(name)
assert twin.properties.reported["firmware"] == {"version": "1.0", "build": 7}, twin
assert twin.properties.reported["$version"] == 3, twin
service.update_twin(name, Twin(properties=TwinProperties(desired={"interval": 5}), tags={"site": "a"}), twin.etag)
until(lambda: patches, "a patch")
assert patches == [{"interval": 5, "$version": 2}], patches
cut()
service.update_twin(name, Twin(properties=TwinProperties(desired={"interval": 6, "on": True})), "*")
until(lambda: len(patches) > 1, "a patch after the cut")
assert patches[1:] == [{"interval": 6, "on": True, "$version": 3}], patches
assert client.get_twin()["desired"] == {"interval": 6, "on": True, "$version": 3}
shown = service.get_twin(name)
assert shown.tags == {"site": "a"}, shown
assert shown.properties.desired["$metadata"]["interval"]["$lastUpdatedVersion"] == 3, shown
try:
    service.update_twin(name, Twin(tags={"site": "b"}), twin.etag)
except Exception as error:
    print(type(error).__name__, getattr(getattr(error, "response", None), "status_code", ""))
service.replace_twin(name, Twin(properties=TwinProperties(desired={"only": 1})), "*")
until(lambda: len(patches) > 2, "a patch of a replacement")
assert patches[2] == {"interval": None, "on": None, "only": 1, "$version": 4}, patches
"""
    assert "412" in run(cloud, f"twin-{transport}", script, transport)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"a": "x" * 4097}, "a string that is too long"),
        ({f"k{n}": "x" * 4000 for n in range(9)}, "too large"),
        ({"a.b": 1}, "a name that is not allowed"),
        ({"a": [None]}, "null inside of an array"),
        ({"a": 2**53}, "out of range"),
    ],
)
def test_a_report_that_is_not_allowed_is_refused_and_recorded(
    cloud: Cloud, patch: dict[str, object], says: str
) -> None:
    name = f"twin-bad-{abs(hash(says))}"
    script = f"""
try:
    client.patch_twin_reported_properties(json.loads({json.dumps(json.dumps(patch))}))
except Exception as error:
    print("refused")
client.send_message(Message("still here"))
"""
    assert run(cloud, name, script) == "refused\n"
    assert says in cloud.why(name)["cause"]
    assert cloud.messages(name)[-1]["body"] == "still here"


def test_a_device_answers_methods_also_after_a_cut_line(cloud: Cloud, transport: str) -> None:
    script = """
def answer(request):
    said = {"did": request.name, "with": request.payload}
    client.send_method_response(MethodResponse.create_from_method_request(request, 200, said))
client.on_method_request_received = answer
def call(method, payload=None, **more):
    return service.invoke_device_method(name, CloudToDeviceMethod(method_name=method, payload=payload, **more))
hello = json.dumps({"methodName": "hello"})
until(lambda: rest("POST", f"/twins/{name}/methods", hello).status_code == 200, "answered")
done = call("reboot", {"delay": 3}, response_timeout_in_seconds=10)
assert (done.status, done.payload) == (200, {"did": "reboot", "with": {"delay": 3}}), done
cut()
done = call("again", "text", response_timeout_in_seconds=10, connect_timeout_in_seconds=10)
assert (done.status, done.payload) == (200, {"did": "again", "with": "text"}), done
client.on_method_request_received = lambda request: None
silent = rest("POST", f"/twins/{name}/methods", json.dumps({"methodName": "silent", "responseTimeoutInSeconds": 5}))
print(silent.status_code, silent.headers["iothub-errorcode"])
client.disconnect()
began = time.time()
away = rest("POST", f"/twins/{name}/methods", json.dumps({"methodName": "away"}))
print(away.status_code, away.headers["iothub-errorcode"], time.time() - began < 1)
began = time.time()
late = rest("POST", f"/twins/{name}/methods", json.dumps({"methodName": "late", "connectTimeoutInSeconds": 2}))
print(late.status_code, 2 <= time.time() - began < 4)
"""
    said = run(cloud, f"method-{transport}", script, transport).splitlines()
    assert said == ["504 GatewayTimeout", "404 DeviceNotOnline True", "404 True"]


def test_a_message_reaches_its_device_with_the_expiry_that_it_was_sent_with(cloud: Cloud, transport: str) -> None:
    script = """
got = []
client.on_message_received = got.append
at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
assert rest("POST", f"/devices/{name}/messages/deviceBound", b"soon", iothub_expiry=at).status_code == 201
until(lambda: got, "a message")
print(got[0].expiry_time_utc == at.replace("Z", ".0000000Z"))
"""
    assert run(cloud, f"expiry-{transport}", script, transport) == "True\n"


def test_messages_wait_for_a_device_and_their_end_is_told(cloud: Cloud, transport: str) -> None:
    script = """
got = []
client.on_message_received = got.append
path = f"/devices/{name}/messages/deviceBound"
def send(text, **headers):
    answer = rest("POST", path, text.encode(), **headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["messageId"]
more = {"IoTHub_MessageId": "m-1", "iothub_contenttype": "text/plain", "iothub_app_Alarm": "on & off"}
send("one", iothub_ack="full", **more)
until(lambda: got, "a message")
assert (got[0].data, got[0].message_id, got[0].content_type) == (b"one", "m-1", "text/plain"), vars(got[0])
assert got[0].custom_properties == {"alarm": "on & off"}, got[0].custom_properties
assert got[0].expiry_time_utc is None
client.disconnect()
for text in ("two", "three"):
    send(text)
assert service.get_device(name).connection_state == "Disconnected"
client.connect()
until(lambda: len(got) == 3, "those that waited")
assert [one.data for one in got[1:]] == [b"two", b"three"], got
cut()
send("four")
until(lambda: len(got) == 4, "one after the cut")
told = rest("GET", "/messages/serviceBound/feedback")
record = told.json()[0]
print(record["originalMessageId"], record["statusCode"], record["deviceId"])
lock = told.headers["ETag"].strip('"')
assert rest("POST", f"/messages/serviceBound/feedback/{lock}/abandon").status_code == 204
lock = rest("GET", "/messages/serviceBound/feedback").headers["ETag"].strip('"')
assert rest("DELETE", f"/messages/serviceBound/feedback/{lock}").status_code == 204
assert rest("GET", "/messages/serviceBound/feedback").status_code == 204
client.disconnect()
for number in range(50):
    send(str(number))
full = rest("POST", path, b"one more")
print(full.status_code, full.headers["iothub-errorcode"])
print(rest("DELETE", f"/devices/{name}/commands").json()["totalMessagesPurged"])
print(rest("POST", path, b"x", iothub_ack="loud").status_code, rest("POST", path, b"x" * 65537).status_code)
"""
    name = f"mail-{transport}"
    said = run(cloud, name, script, transport).splitlines()
    assert said == [f"m-1 Success {name}", "403 DeviceMaximumQueueDepthExceeded", "50", "400 400"]
