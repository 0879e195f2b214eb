"""Modules by Azure's own SDKs on both ends: their identities, twins, methods and connections beside their device's."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from birthmark.testing.cloud import Cloud
from support.azure.clients import a_file_device, run_python
from support.azure.sas_tokens import make_sas
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

BOTH = """
import base64, json, os, sys, time
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse
name = os.environ["DEVICE"]
key, other = (base64.b64encode(letter * 32).decode() for letter in (b"k", b"m"))
text = os.environ["IOTHUB_CONNECTION_STRING"]
service = IoTHubRegistryManager.from_connection_string(text)
host = dict(part.split("=", 1) for part in text.split(";"))["HostName"].split(":")[0]

def of_module(module, key=other, **more):
    text = f"HostName={host};DeviceId={name};ModuleId={module};SharedAccessKey={key}"
    return IoTHubModuleClient.create_from_connection_string(text, connection_retry_interval=1, **more)

def refused(act):
    try:
        act()
    except Exception as error:
        return getattr(getattr(error, "response", None), "status_code", type(error).__name__)
    return "no"

def until(condition, what):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"never: {what}")
"""


def run(cloud: Cloud, name: str, body: str, **more: str) -> list[str]:
    done = run_python(BOTH + body, cloud.environment(DEVICE=name, **more))
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_modules_are_made_read_changed_and_removed(cloud: Cloud) -> None:
    assert run(
        cloud,
        "mod-registry",
        """
service.create_device_with_sas(name, key, key, "enabled")
made = service.create_module_with_sas(name, "camera", "me", other, other)
print(made.device_id, made.module_id, made.managed_by, made.authentication.symmetric_key.primary_key == other)
print(refused(lambda: service.create_module_with_sas(name, "camera", "me", other, other)))
service.create_module_with_x509(name, "door", "me", "AB" * 20, "CD" * 32)
print([one.module_id for one in service.get_modules(name)])
print(service.get_module(name, "door").authentication.x509_thumbprint.secondary_thumbprint == "CD" * 32)
changed = service.update_module_with_sas(name, "camera", "you", made.etag, key, other)
print(changed.managed_by, changed.authentication.symmetric_key.primary_key == key, changed.etag != made.etag)
print(refused(lambda: service.update_module_with_sas(name, "camera", "you", made.etag, key, other)))
service.update_module_with_x509(name, "door", "me", "*", "EF" * 20, "EF" * 20)
service.delete_module(name, "door")
print(refused(lambda: service.get_module(name, "door")), [one.module_id for one in service.get_modules(name)])
print(refused(lambda: service.create_module_with_sas("mod-nobody", "camera", "", other, other)))
service.delete_device(name)
print(refused(lambda: service.get_module(name, "camera")), refused(lambda: service.get_modules(name)))
service.create_device_with_sas(name, key, key, "enabled")
print(service.get_modules(name))
""",
    ) == [
        "mod-registry camera me True",
        "409",
        "['camera', 'door']",
        "True",
        "you True True",
        "412",
        "404 ['camera']",
        "404",
        "404 404",
        "[]",
    ]


def test_a_module_sends_is_called_and_has_a_twin_of_its_own(cloud: Cloud) -> None:
    out = run(
        cloud,
        "mod-life",
        """
service.create_device_with_sas(name, key, key, "enabled")
service.create_module_with_sas(name, "camera", "", other, other)
client = of_module("camera")
patches = []
client.on_twin_desired_properties_patch_received = patches.append
client.on_method_request_received = lambda request: client.send_method_response(
    MethodResponse.create_from_method_request(request, 207, {"heard": request.payload}))
client.connect()
message = Message("from the module")
message.custom_properties["lens"] = "wide"
client.send_message(message)
client.patch_twin_reported_properties({"zoom": 3})
twin = service.get_module_twin(name, "camera")
print(twin.device_id, twin.module_id, twin.properties.reported["zoom"], twin.connection_state)
print(service.get_twin(name).properties.reported.get("zoom"), service.get_twin(name).connection_state)
wanted = Twin(tags={"side": "left"}, properties=TwinProperties(desired={"fps": 30}))
service.update_module_twin(name, "camera", wanted, twin.etag)
until(lambda: any("fps" in patch for patch in patches), "a patch")
print(patches[-1]["fps"], client.get_twin()["desired"]["fps"], service.get_module_twin(name, "camera").tags)
service.replace_module_twin(name, "camera", Twin(properties=TwinProperties(desired={"fps": 5})), "*")
print(service.get_module_twin(name, "camera").tags, service.get_twin(name).tags)
look = CloudToDeviceMethod(method_name="look", payload={"at": "sky"})
called = service.invoke_device_module_method(name, "camera", look)
print(called.status, called.payload)
print(refused(lambda: service.invoke_device_method(name, look)))
client.shutdown()
""",
    )
    assert out == [
        "mod-life camera 3 Connected",
        "None Disconnected",
        "30 30 {'side': 'left'}",
        "{} {}",
        "207 {'heard': {'at': 'sky'}}",
        "404",
    ]
    (row,) = cloud.messages("mod-life")
    assert (row["device"], row["body"], row["properties"]) == ("mod-life", "from the module", {"lens": "wide"})
    assert row["system"]["iothub-connection-module-id"] == "camera"


def test_a_module_sends_by_an_output(cloud: Cloud) -> None:
    run(
        cloud,
        "mod-output",
        """
service.create_device_with_sas(name, key, key, "enabled")
service.create_module_with_sas(name, "camera", "", other, other)
client = of_module("camera")
message = Message("a cat")
message.custom_properties["lens"] = "wide/narrow"
client.send_message_to_output(message, "seen")
client.shutdown()
""",
    )
    (row,) = cloud.messages("mod-output")
    assert (row["body"], row["properties"]) == ("a cat", {"lens": "wide/narrow"})
    assert row["system"]["iothub-outputname"] == "seen"


def test_a_module_stays_when_its_devices_connection_is_taken_over_and_goes_when_its_device_may_not(
    cloud: Cloud,
) -> None:
    assert run(
        cloud,
        "mod-beside",
        """
device = service.create_device_with_sas(name, key, key, "enabled")
service.create_module_with_sas(name, "camera", "", other, other)
ends = []
module = of_module("camera", auto_connect=False, connection_retry=False)
module.on_connection_state_change = lambda: ends.append(module.connected)
module.connect()
text = f"HostName={host};DeviceId={name};SharedAccessKey={key}"
first, second = (IoTHubDeviceClient.create_from_connection_string(text, connection_retry=False) for _ in range(2))
first.connect()
second.connect()
until(lambda: not first.connected, "taken over")
module.send_message("still here")
print(module.connected)
service.update_device_with_sas(name, device.etag, key, key, "disabled")
until(lambda: not module.connected, "the module's end")
print(refused(module.connect))
service.update_device_with_sas(name, "*", key, key, "enabled")
module.connect()
print(module.connected)
service.delete_device(name)
until(lambda: not module.connected, "the module's end")
print(refused(module.connect))
for client in (module, first, second):
    client.shutdown()
""",
    ) == ["True", "CredentialError", "True", "CredentialError"]


def test_a_module_proves_itself_by_a_certificate(cloud: Cloud, tmp_path: Path) -> None:
    files = a_file_device(tmp_path, "mod-x509", common_name="whatever")
    assert run(
        cloud,
        "mod-x509",
        """
from azure.iot.device import X509
service.create_device_with_sas(name, key, key, "enabled")
service.create_module_with_x509(name, "door", "", os.environ["THUMBPRINT"], os.environ["THUMBPRINT"])
x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
client = IoTHubModuleClient.create_from_x509_certificate(x509, host, name, "door")
client.connect()
client.send_message("by certificate")
print(client.connected)
client.shutdown()
other_one = IoTHubModuleClient.create_from_x509_certificate(x509, host, name, "window")
print(refused(other_one.connect))
other_one.shutdown()
""",
        THUMBPRINT=files.holder.certificate.thumbprint.hex(),
        X509_CERT_FILE=str(files.certificate_file),
        X509_KEY_FILE=str(files.key_file),
    ) == ["True", "CredentialError"]


def test_a_module_speaks_for_itself_alone(cloud: Cloud) -> None:
    """Not for its device, nor for a module beside it, whatever it calls itself or writes to."""
    assert run(
        cloud,
        "mod-itself",
        """
import ssl
from urllib.parse import quote
import paho.mqtt.client as paho
sys.path.insert(0, os.environ["TESTS"])
from support.azure.sas_tokens import make_sas
service.create_device_with_sas(name, key, key, "enabled")
for module in ("camera", "door"):
    service.create_module_with_sas(name, module, "", *[other if module == "camera" else key] * 2)

def connects(client_id, user, resource, signed_by):
    answers, ended = [], []
    client = paho.Client(client_id)
    client.on_connect = lambda _c, _u, _f, code: answers.append(code)
    client.on_disconnect = lambda *_: ended.append(True)
    client.tls_set_context(ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]))
    client.username_pw_set(f"{host}/{user}/?api-version=2021-04-12",
                           make_sas(resource, base64.b64decode(signed_by), int(time.time()) + 600))
    client.connect(host, 8883)
    client.loop_start()
    until(lambda: answers, "an answer")
    return client, answers[0], ended

of_camera = f"{host}/devices/{name}/modules/camera"
for client_id, user, resource in (
    (name, name, of_camera),
    (f"{name}/door", f"{name}/door", of_camera),
    (f"{name}/door", f"{name}/door", f"{host}/devices/{name}/modules/door"),
    (name, f"{name}/camera", of_camera),
    (f"{name}/door", f"{name}/camera", of_camera),
    (f"{name}/camera", f"{name}/camera", f"{host}/devices/{name}/modules/door"),
    (f"{name}/camera", f"{name}/camera", of_camera),
):
    client, code, _ = connects(client_id, user, resource, base64.b64encode(b"m" * 32).decode())
    print(code, end=" ")
    client.loop_stop()
for topic in (f"devices/{name}/messages/events/", f"devices/{name}/modules/door/messages/events/"):
    client, code, ended = connects(f"{name}/camera", f"{name}/camera", of_camera, other)
    client.publish(topic, "of another", 1)
    until(lambda: ended, "closed")
    print(code, end=" ")
    client.loop_stop()
client, code, ended = connects(f"{name}/camera", f"{name}/camera", of_camera, other)
granted = []
client.on_subscribe = lambda _c, _u, _m, codes: granted.append(codes)
client.subscribe([(f"devices/{name}/modules/camera/inputs/#", 1), ("$iothub/methods/POST/#", 1)])
until(lambda: granted, "granted")
print(granted[0])
client.subscribe(f"devices/{name}/messages/devicebound/#", 1)
until(lambda: ended, "closed")
client.loop_stop()
""",
        TESTS=str(Path(__file__).parents[2]),
    ) == ["5 5 5 2 2 5 0 0 0 (1, 1)"]


def rest(  # noqa: PLR0917 - a request's parts
    cloud: Cloud, method: str, path: str, key: bytes, resource: str, body: Any = None
) -> requests.Response:
    host = cloud.host
    headers = {"Authorization": make_sas(f"{host}/{resource}", key, int(time.time()) + 30), "If-Match": "*"}
    if body is not None and method == "PUT" and "new" in path:
        del headers["If-Match"]
    url = f"https://{host}:{cloud.endpoints['iothub']['https_port']}{path}?api-version=2017-11-08-preview"
    return requests.request(method, url, json=body, headers=headers, verify=cloud.ca_file, timeout=20)


def test_the_device_of_an_edge_runtime_keeps_its_own_modules(cloud: Cloud) -> None:
    """As IoT Edge's identity service does: by the device's own token, in lower case and without a policy."""
    made = run(
        cloud,
        "mod-edge",
        """
service.create_device_with_sas(name, key, key, "enabled", iot_edge=True)
print([(one.module_id, one.managed_by) for one in service.get_modules(name)])
service.create_device_with_sas("mod-plain", key, key, "enabled")
""",
    )
    assert made == ["[('$edgeAgent', 'iotEdge'), ('$edgeHub', 'iotEdge')]"]
    key, own = b"k" * 32, "devices/mod-edge"
    listed = rest(cloud, "GET", "/devices/mod-edge/modules", key, own)
    assert (listed.status_code, [one["moduleId"] for one in listed.json()]) == (200, ["$edgeAgent", "$edgeHub"])
    wanted = {"moduleId": "new", "deviceId": "mod-edge", "managedBy": "iotEdge", "authentication": {"type": "sas"}}
    new = rest(cloud, "PUT", "/devices/mod-edge/modules/new", key, own, wanted)
    assert (new.status_code, new.json()["managedBy"]) == (200, "iotEdge")
    fresh = base64.b64encode(b"f" * 32).decode()
    keys = {"type": "sas", "symmetricKey": {"primaryKey": fresh, "secondaryKey": fresh}}
    agent = {"moduleId": "$edgeAgent", "deviceId": "mod-edge", "authentication": keys}
    changed = rest(cloud, "PUT", "/devices/mod-edge/modules/$edgeAgent", key, own, agent)
    assert (changed.status_code, changed.json()["authentication"]["symmetricKey"]["primaryKey"]) == (200, fresh)
    assert rest(cloud, "DELETE", "/devices/mod-edge/modules/new", key, own).status_code == 204
    foreign, nobodys = (rest(cloud, "GET", f"/devices/{one}/modules", key, own) for one in ("mod-plain", "mod-none"))
    assert (foreign.status_code, nobodys.status_code) == (401, 401)
    assert foreign.json()["Message"] == nobodys.json()["Message"]


def test_a_module_sends_over_https_too(server: RunningServer, cloud: Cloud) -> None:
    server.run("hub", "device", "create", "mod-https")
    made = json.loads(server.run("hub", "module", "create", "mod-https", "camera", "--json").stdout)
    key, path = base64.b64decode(made["primary_key"]), "/devices/mod-https/modules/camera/messages/events"
    sent = rest(cloud, "POST", path, key, "devices/mod-https/modules/camera", {"by": "https"})
    assert sent.status_code == 204, sent.text
    (row,) = cloud.messages("mod-https")
    assert (json.loads(row["body"]), row["system"]["iothub-connection-module-id"]) == ({"by": "https"}, "camera")
    assert rest(cloud, "POST", path, b"another", "devices/mod-https/modules/camera", {}).status_code == 401


def test_a_device_has_fifty_modules_and_no_more(cloud: Cloud) -> None:
    assert run(
        cloud,
        "mod-many",
        """
from concurrent.futures import ThreadPoolExecutor
service.create_device_with_sas(name, key, key, "enabled")
with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(
        lambda number: refused(lambda: service.create_module_with_sas(name, f"m{number}", "", key, key)), range(53)))
print(sorted(map(str, answers))[:4], len(service.get_modules(name)))
""",
    ) == ["['403', '403', '403', 'no'] 50"]


def test_modules_are_kept_from_the_command_line(server: RunningServer) -> None:
    server.run("hub", "device", "create", "mod-cli", "--edge")
    made = json.loads(server.run("hub", "module", "create", "mod-cli", "camera", "--json").stdout)
    assert (made["device"], made["module"], bool(made["primary_key"])) == ("mod-cli", "camera", True)
    rows = server.rows("hub", "module", "ls", "mod-cli")
    assert [(one["module"], one["state"]) for one in rows] == [
        ("$edgeAgent", "disconnected"),
        ("$edgeHub", "disconnected"),
        ("camera", "disconnected"),
    ]
    twin = json.loads(server.run("hub", "twin", "mod-cli/camera", "--desired", '{"fps": 3}', "--json").stdout)
    assert (twin["moduleId"], twin["properties"]["desired"]["fps"]) == ("camera", 3)
    server.run("hub", "module", "rm", "mod-cli", "camera", "--yes")
    assert len(server.rows("hub", "module", "ls", "mod-cli")) == 2


def test_a_configuration_is_applied_to_an_edge_device_and_its_modules(cloud: Cloud) -> None:
    assert run(
        cloud,
        "mod-content",
        """
from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import ConfigurationContent
manager = IoTHubConfigurationManager.from_connection_string(text)
service.create_device_with_sas(name, key, key, "enabled", iot_edge=True)
agent = {"schemaVersion": "1.1", "modules": {"camera": {"type": "docker"}}}

def content(**modules):
    return ConfigurationContent(modules_content=modules)

manager.apply_configuration_on_edge_device(name, content(**{
    "$edgeAgent": {"properties.desired": agent},
    "$edgeHub": {"properties.desired": {"routes": {"up": "FROM /* INTO $upstream"}}},
    "camera": {"properties.desired": {"fps": 30, "lens": "wide"}},
}))
print([one.module_id for one in service.get_modules(name)])
client = of_module("camera", key=service.get_module(name, "camera").authentication.symmetric_key.primary_key)
patches = []
client.on_twin_desired_properties_patch_received = patches.append
client.connect()
print(client.get_twin()["desired"]["fps"])
manager.apply_configuration_on_edge_device(name, content(camera={"properties.desired": {"fps": 5}}))
until(lambda: any(patch.get("fps") == 5 for patch in patches), "a patch")
print({one: patches[-1][one] for one in sorted(patches[-1]) if one != "$version"})
manager.apply_configuration_on_edge_device(name, content(camera={"properties.desired.a.b": 1}))
desired = service.get_module_twin(name, "camera").properties.desired
print(desired["fps"], desired["a"], service.get_module_twin(name, "$edgeAgent").properties.desired["modules"])
client.shutdown()
service.create_device_with_sas("mod-no-content", key, key, "enabled")
print(refused(lambda: manager.apply_configuration_on_edge_device("mod-no-content", content(camera={}))))
print(refused(lambda: manager.apply_configuration_on_edge_device(name, content(camera={"tags": {}}))))
only_device = ConfigurationContent(device_content={"properties.desired.interval": 7})
manager.apply_configuration_on_edge_device("mod-no-content", only_device)
print(service.get_twin("mod-no-content").properties.desired["interval"])
""",
    ) == [
        "['$edgeAgent', '$edgeHub', 'camera']",
        "30",
        "{'fps': 5, 'lens': None}",
        "5 {'b': 1} {'camera': {'type': 'docker'}}",
        "400",
        "400",
        "7",
    ]


def test_devices_and_modules_are_made_changed_and_removed_in_bulk(cloud: Cloud) -> None:
    refusals = [
        ("bulk-2", None, "PreconditionFailed"),
        ("bulk-6", None, "PreconditionFailed"),
        ("bulk-9", None, "PreconditionFailed"),
        ("bulk-10", None, "ArgumentInvalid"),
        ("bulk-none", None, "DeviceNotFound"),
        ("bulk-none", "camera", "DeviceNotFound"),
    ]
    assert run(
        cloud,
        "bulk",
        """
from azure.iot.hub.models import *
from azure.iot.hub.protocol.models import ExportImportDevice, PropertyContainer

def bulk(*items):
    done = service.bulk_create_or_update_devices(list(items))
    errors = [(one.device_id, one.module_id, one.error_code) for one in done.errors]
    return done.is_successful, errors, done.warnings

def item(number, mode, **more):
    return ExportImportDevice(id=f"bulk-{number}", import_mode=mode, **more)

sas = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key=key, secondary_key=other))
first = [item(n, "create", status="enabled", authentication=sas, tags={"row": n},
              properties=PropertyContainer(desired={"n": n})) for n in range(100)]
print(bulk(*first))
print(service.get_twin("bulk-42").tags, service.get_twin("bulk-42").properties.desired["n"])
print(service.get_device("bulk-7").authentication.symmetric_key.secondary_key == other)
again = bulk(*first[:2], item("new", "create", status="disabled"))
print(again)
etag, twin = service.get_device("bulk-1").etag, service.get_twin("bulk-1").etag
print(bulk(
    item(1, "updateIfMatchETag", e_tag=etag, status="disabled", authentication=sas),
    item(2, "updateIfMatchETag", e_tag=etag, status="disabled", authentication=sas),
    item(3, "update", status="disabled", status_reason="spare", authentication=sas),
    item(4, "updateTwin", tags={"row": "four"}),
    item(5, "updateTwinIfMatchETag", twin_etag=twin, tags={"row": "five"}),
    item(6, "updateTwinIfMatchETag", twin_etag="old", tags={"row": "six"}),
    item(8, "delete"),
    item(9, "deleteIfMatchETag", e_tag="old"),
    item(10, "updateIfMatchETag", authentication=sas),
    item("none", "delete"),
    item(11, "create", module_id="camera", authentication=sas, tags={"of": "module"}),
    item("none", "create", module_id="camera", authentication=sas),
))
print([service.get_device(f"bulk-{n}").status for n in (1, 2, 3)], service.get_device("bulk-3").status_reason)
print([service.get_twin(f"bulk-{n}").tags["row"] for n in (4, 5, 6)])
print(refused(lambda: service.get_device("bulk-8")), service.get_module_twin("bulk-11", "camera").tags)
print(bulk(item(20, "delete"), item(20, "update", status="enabled")))
for items in ([item(n, "delete") for n in range(101)], [item(1, "upsert")]):
    print(service.bulk_create_or_update_devices(items).is_successful, service.get_device("bulk-1").status)
statistics = service.get_device_registry_statistics()
print(statistics.disabled_device_count >= 3, service.get_service_statistics().connected_device_count >= 0)
""",
    ) == [
        "(True, [], [])",
        "{'row': 42} 42",
        "True",
        "(False, [('bulk-0', None, 'DeviceAlreadyExists'), ('bulk-1', None, 'DeviceAlreadyExists')], [])",
        f"(False, {refusals}, [])",
        "['disabled', 'enabled', 'disabled'] spare",
        "['four', 'five', 6]",
        "404 {'of': 'module'}",
        "(False, [('bulk-20', None, 'ArgumentInvalid'), ('bulk-20', None, 'ArgumentInvalid')], [])",
        "None disabled",
        "None disabled",
        "True True",
    ]
