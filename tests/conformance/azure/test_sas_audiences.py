"""A token's audience as .NET and IoT Edge write it, each id encoded by itself, and as the other SDKs do."""

import json
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from urllib.parse import quote

import paho.mqtt.client as paho
import pytest
import requests

from birthmark.testing.cloud import Cloud
from support.azure.sas_tokens import make_sas

pytestmark = pytest.mark.system

Encode = Callable[[str], str]
BOTH = pytest.mark.parametrize("encoded", [str, lambda name: quote(name, safe="")], ids=["by the whole", "by itself"])


def soon() -> int:
    return int(time.time()) + 600


def connack_of(cloud: Cloud, name: str, token: str) -> int:
    """Return what CONNACK says to a device or module that comes with this token."""
    client, codes, heard = paho.Client(name), list[int](), threading.Event()
    client.username_pw_set(f"{cloud.host}/{name}/?api-version=2021-04-12", token)
    client.tls_set_context(ssl.create_default_context(cafile=cloud.ca_file))

    def answered(_client: object, _data: object, _flags: object, code: int) -> None:
        codes.append(code)
        heard.set()

    client.on_connect = answered
    client.connect(cloud.host, 8883)
    client.loop_start()
    assert heard.wait(20)
    client.disconnect()
    client.loop_stop()
    return codes[0]


def sent(cloud: Cloud, path: str, token: str) -> int:
    url = f"https://{cloud.host}:{cloud.endpoints['iothub']['https_port']}/{path}?api-version=2021-04-12"
    return requests.post(url, b"x", headers={"Authorization": token}, verify=cloud.ca_file, timeout=20).status_code


def device_key(cloud: Cloud, device_id: str) -> bytes:
    """Make a device, or one of IoT Edge, and return its key."""
    return b64decode(
        json.loads(cloud.birthmark("hub", "device", "create", device_id, "--edge", "--json"))["primary_key"]
    )


@BOTH
@pytest.mark.parametrize("device_id", ["00:11:22:aa:bb", "n@m.et", "100%", "it's,1"])
def test_a_device_connects_and_sends_with_either_form_of_the_audience(
    cloud: Cloud, encoded: Encode, device_id: str, request: pytest.FixtureRequest
) -> None:
    device_id = f"{device_id}{len(request.node.name)}"
    key = device_key(cloud, device_id)
    token = make_sas(f"{cloud.host}/devices/{encoded(device_id)}", key, soon())
    assert connack_of(cloud, device_id, token) == 0
    assert sent(cloud, f"devices/{quote(device_id)}/messages/events", token) == 204


@BOTH
@pytest.mark.parametrize("module_id", ["$edgeAgent", "$edgeHub", "cam:1"])
def test_a_module_connects_and_sends_with_either_form_of_the_audience(
    cloud: Cloud, encoded: Encode, module_id: str, request: pytest.FixtureRequest
) -> None:
    device_id = f"gateway-{len(request.node.name)}-{module_id.strip('$:1')}"
    device_key(cloud, device_id)
    if module_id == "cam:1":
        cloud.birthmark("hub", "module", "create", device_id, module_id)
    key = b64decode(json.loads(cloud.birthmark("hub", "module", "key", device_id, module_id, "--json"))["primary_key"])
    token = make_sas(f"{cloud.host}/devices/{device_id}/modules/{encoded(module_id)}", key, soon())
    assert connack_of(cloud, f"{device_id}/{module_id}", token) == 0
    assert sent(cloud, f"devices/{device_id}/modules/{quote(module_id)}/messages/events", token) == 204


@BOTH
def test_a_device_registers_with_either_form_of_the_audience(cloud: Cloud, encoded: Encode) -> None:
    name = f"aa:bb:{len(encoded(':'))}"
    file = cloud.data.parent / f"{len(encoded(':'))}.key"
    cloud.birthmark("device", "enroll", name, "--symmetric-key", str(file))
    token = make_sas(
        f"{cloud.id_scope}/registrations/{encoded(name)}", b64decode(file.read_text()), soon(), "registration"
    )
    url = f"https://{cloud.host}:{cloud.endpoints['dps']['https_port']}/{cloud.id_scope}/registrations/{name}/register"
    headers = {"Authorization": token}
    answer = requests.put(url, json={"registrationId": name}, headers=headers, verify=cloud.ca_file, timeout=20)
    assert answer.status_code == 202


@BOTH
def test_a_service_calls_with_either_form_of_the_audience(cloud: Cloud, encoded: Encode) -> None:
    parts = dict(part.split("=", 1) for part in cloud.hub_connection_string.split(";"))
    resource = f"{cloud.host}/twins/{encoded('$edge:1')}"
    token = make_sas(resource, b64decode(parts["SharedAccessKey"]), soon(), parts["SharedAccessKeyName"])
    url = f"https://{parts['HostName']}/twins/%24edge%3A1"
    assert requests.get(url, headers={"Authorization": token}, verify=cloud.ca_file, timeout=20).status_code == 404


def test_a_token_for_the_endpoint_alone_is_used_there_and_opens_no_connection(cloud: Cloud) -> None:
    key, path = device_key(cloud, "sr-1"), "devices/sr-1/messages/events"
    token = make_sas(f"{cloud.host}/{path}", key, soon())
    assert sent(cloud, path, token) == 204
    assert connack_of(cloud, "sr-1", token) == 5
    assert cloud.why("sr-1")["code"] == "sas.wrong_resource"


def policy_token(cloud: Cloud, policy: str, resource: str) -> str:
    told = json.loads(cloud.birthmark("hub", "policy", "show", policy, "--json"))
    return make_sas(resource, b64decode(told["primary_key"]), soon(), policy)


@pytest.mark.parametrize("policy", ["iothubowner", "device"])
def test_a_token_of_a_policy_with_device_connect_connects_and_sends(cloud: Cloud, policy: str) -> None:
    device_key(cloud, f"by-{policy}")
    for resource in (cloud.host, f"{cloud.host}/devices/by-{policy}"):
        token = policy_token(cloud, policy, resource)
        assert connack_of(cloud, f"by-{policy}", token) == 0
        assert sent(cloud, f"devices/by-{policy}/messages/events", token) == 204


@pytest.mark.parametrize("policy", ["service", "registryRead", "registryReadWrite"])
def test_a_token_of_another_policy_connects_no_device(cloud: Cloud, policy: str) -> None:
    device_key(cloud, f"by-{policy}")
    assert connack_of(cloud, f"by-{policy}", policy_token(cloud, policy, cloud.host)) == 5
    assert cloud.why(f"by-{policy}")["code"] == "iothub.policy_refused"


def test_a_device_with_a_certificate_is_connected_by_no_policy(cloud: Cloud) -> None:
    device = cloud.azure_device(at="hub")
    assert connack_of(cloud, device.name, policy_token(cloud, "device", cloud.host)) == 5
    assert device.why()["code"] == "iothub.no_credentials"


def test_a_rotated_policy_key_ends_the_connections_of_its_tokens(cloud: Cloud) -> None:
    device_key(cloud, "rotated")
    client, connected, ended = paho.Client("rotated"), threading.Event(), threading.Event()
    client.username_pw_set(f"{cloud.host}/rotated/?api-version=2021-04-12", policy_token(cloud, "device", cloud.host))
    client.tls_set_context(ssl.create_default_context(cafile=cloud.ca_file))
    client.on_connect = lambda *_: connected.set()
    client.on_disconnect = lambda *_: ended.set()
    client.connect(cloud.host, 8883)
    client.loop_start()
    assert connected.wait(20)
    cloud.birthmark("hub", "policy", "rotate", "device", "primary")
    assert ended.wait(20)
    client.loop_stop()
