"""What people reported of Azure IoT in public: each thread's situation at the wire, and what comes of it here.

Each test names its thread; docs/explanation/test-coverage.md has the threads and those that found a fault.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.testing.cloud import AzureDevice, Cloud
from support.aws.clients import until
from support.azure.sas_tokens import make_sas

pytestmark = pytest.mark.system
NUMBERS = count(1)
VERSION = "api-version=2021-04-12"


class Device:
    """paho 3.1.1 by the documented topics, as firmware without an SDK does it; it does not connect again."""

    def __init__(self, device: AzureDevice) -> None:
        self.name = device.name
        self.heard: list[tuple[str, bytes]] = []
        self.closed, self._acked, answered = threading.Event(), threading.Event(), threading.Event()
        self.client = paho.Client(device.name, reconnect_on_failure=False)
        self.client.username_pw_set(f"{device.cloud.host}/{device.name}/?{VERSION}")
        context = ssl.create_default_context(cafile=device.cloud.ca_file)
        context.load_cert_chain(device.certificate_file, device.key_file)
        self.client.tls_set_context(context)
        self.client.on_connect = lambda *_: answered.set()
        self.client.on_disconnect = lambda *_: self.closed.set()
        self.client.on_subscribe = lambda *_: self._acked.set()
        self.client.on_message = lambda _c, _d, message: self.heard.append((message.topic, message.payload))
        self.client.connect(device.cloud.host, 8883)
        self.client.loop_start()
        assert answered.wait(20)

    def subscribe(self, topic: str) -> None:
        self._acked.clear()
        self.client.subscribe(topic, 0)
        assert self._acked.wait(20)

    def report(self, patch: bytes) -> tuple[int, str]:
        """Patch the reported properties; return the status and the body."""
        rid = next(NUMBERS)
        self.subscribe("$iothub/twin/res/#")
        self.client.publish(f"$iothub/twin/PATCH/properties/reported/?$rid={rid}", patch)
        until(lambda: any(f"$rid={rid}" in topic for topic, _ in self.heard))
        topic, payload = self.heard.pop()
        return int(topic.split("/")[3]), payload.decode()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Service:
    """The REST API of the hub or of DPS, as curl would ask it."""

    def __init__(self, cloud: Cloud, connection_string: str) -> None:
        self._cloud, self._parts = cloud, parse_connection_string(connection_string)

    def __call__(self, method: str, path: str, body: Any = None, version: str = VERSION, **headers: str) -> Any:
        token = make_sas(self._parts.host, self._parts.key, int(time.time()) + 600, self._parts.policy)
        url = f"https://{self._parts.host}{path}?{version}"
        sent = {"Authorization": token} | {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, url, json=body, headers=sent, verify=self._cloud.ca_file, timeout=60)


@pytest.fixture
def hub(cloud: Cloud) -> Service:
    return Service(cloud, cloud.hub_connection_string)


@pytest.fixture
def dps(cloud: Cloud) -> Service:
    return Service(cloud, cloud.provisioning_connection_string)


@pytest.fixture
def device(cloud: Cloud) -> Iterator[Device]:
    made = Device(cloud.azure_device(at="hub"))
    yield made
    made.close()


def deep(levels: int) -> Any:
    return {"a": deep(levels - 1)} if levels else 1


def test_azure_docs_22112_a_report_is_answered_by_204_and_its_version(device: Device) -> None:
    device.subscribe("$iothub/twin/res/#")
    device.client.publish("$iothub/twin/PATCH/properties/reported/?$rid=x1", b'{"a": 1}')
    until(lambda: bool(device.heard))
    assert device.heard == [("$iothub/twin/res/204/?$rid=x1&$version=2", b"")]


def test_azure_docs_41919_a_twin_is_ten_objects_deep_and_no_more(device: Device) -> None:
    assert device.report(json.dumps(deep(10)).encode())[0] == 204
    assert device.report(json.dumps(deep(12)).encode())[0] == 400


def test_azure_docs_45003_a_twin_has_hundreds_of_properties(device: Device, hub: Service) -> None:
    many = {f"key{number}": {"value": number} for number in range(300)}
    assert device.report(json.dumps(many).encode())[0] == 204
    reported = hub("GET", f"/twins/{device.name}").json()["properties"]["reported"]
    assert len([name for name in reported if name.startswith("key")]) == 300


def test_csharp_162_a_value_of_570_bytes_is_kept_and_one_of_5000_refused(device: Device) -> None:
    assert device.report(json.dumps({"a": "x" * 570}).encode())[0] == 204
    status, body = device.report(json.dumps({"a": "x" * 5000}).encode())
    assert (status, json.loads(body)["errorCode"]) == (400, 400004)
    assert not device.closed.is_set()


def test_csharp_340_a_reported_array_is_kept(device: Device, hub: Service) -> None:
    assert device.report(b'{"collection": [{"Id": 1}]}')[0] == 204
    reported = hub("GET", f"/twins/{device.name}").json()["properties"]["reported"]
    assert reported["collection"] == [{"Id": 1}]


def test_java_1530_a_report_for_another_version_of_the_twin_is_not_taken(device: Device) -> None:
    assert device.report(b'{"a": 1}')[0] == 204
    device.client.publish("$iothub/twin/PATCH/properties/reported/?$rid=x2&$version=1", b'{"a": 2}')
    until(lambda: bool(device.heard))
    assert device.heard[0][0].startswith("$iothub/twin/res/412/?$rid=x2")


def test_sdk_node_606_a_twin_is_not_patched_for_another_etag(device: Device, hub: Service) -> None:
    told = hub("PATCH", f"/twins/{device.name}", {"tags": {"site": "7"}}, If_Match='"xyz"')
    assert (told.status_code, told.headers["x-ms-error-code"]) == (412, "412001")


@pytest.mark.parametrize("patch", [b'{"a.b": 1}', b'{"a b": 1}', b'{"$a": 1}', b"[1]", b"{"])
def test_sdk_node_587_what_is_no_report_is_refused(device: Device, patch: bytes) -> None:
    assert device.report(patch)[0] == 400


def test_azure_docs_93606_a_topic_that_the_hub_has_not_closes_the_connection(device: Device) -> None:
    device.client.publish(f"devices/{device.name}/messages/", b"1", qos=1)
    assert device.closed.wait(20)


def test_azure_docs_4608_a_message_of_qos_2_closes_the_connection(device: Device) -> None:
    device.client.publish(f"devices/{device.name}/messages/events/", b"1", qos=2)
    assert device.closed.wait(20)


def test_azure_docs_4608_a_retained_message_is_telemetry_with_a_property(cloud: Cloud) -> None:
    identity = cloud.azure_device(at="hub")
    device = Device(identity)
    device.client.publish(f"devices/{device.name}/messages/events/", b"1", qos=1, retain=True).wait_for_publish(20)
    (row,) = identity.messages(at_least=1)
    device.close()
    assert row["properties"] == {"mqtt-retain": "true"}


def test_cli_extension_54_a_method_of_a_device_that_is_away_is_not_found(hub: Service, cloud: Cloud) -> None:
    name = cloud.azure_device(at="hub").name
    told = hub("POST", f"/twins/{name}/methods", {"methodName": "reboot"})
    assert (told.status_code, told.headers["x-ms-error-code"]) == (404, "404103")


@pytest.mark.parametrize("version", ["api-version=2016-11-14", VERSION])
def test_java_85_and_iotedge_98_a_method_says_its_wait_by_the_name_of_2016(
    device: Device, hub: Service, version: str
) -> None:
    device.subscribe("$iothub/methods/POST/#")
    device.client.on_message = lambda client, _data, asked: client.publish(
        f"$iothub/methods/res/200/?$rid={asked.topic.partition('$rid=')[2]}", b'{"done": true}'
    )
    body = {"methodName": "setDelay", "timeoutInSeconds": 10, "payload": {"ms": 1}}
    told = hub("POST", f"/twins/{device.name}/methods", body, version)
    assert (told.status_code, told.json()) == (200, {"status": 200, "payload": {"done": True}})


def test_cli_extensions_750_a_twin_is_patched_by_the_service_with_any_etag(device: Device, hub: Service) -> None:
    patch = {"properties": {"desired": {"interval": 5}}, "tags": {"site": "7"}}
    told = hub("PATCH", f"/twins/{device.name}", patch, If_Match="*")
    assert (told.status_code, told.json()["tags"]) == (200, {"site": "7"})
    told = hub("PATCH", f"/twins/{device.name}", {"tags": {"site": None}})
    assert (told.status_code, told.json().get("tags", {})) == (200, {})


def an_enrollment(**more: Any) -> dict[str, Any]:
    return {"registrationId": f"report-{next(NUMBERS)}", "attestation": {"type": "symmetricKey"}} | more


Put = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def put(dps: Service) -> Put:
    def enroll(**more: Any) -> tuple[int, dict[str, Any]]:
        document = an_enrollment(**more)
        told = dps("PUT", f"/enrollments/{document['registrationId']}", document, "api-version=2021-10-01")
        return told.status_code, told.json()

    return enroll


@pytest.mark.parametrize("policy", ["Hashed", "HASHED", "hashed"])
def test_sdk_for_python_35368_an_allocation_policy_is_read_in_any_case(put: Put, cloud: Cloud, policy: str) -> None:
    status, told = put(allocationPolicy=policy, iotHubs=[cloud.host])
    assert (status, told["allocationPolicy"]) == (200, "hashed")


def test_sdk_for_python_35368_hubs_without_a_policy_are_refused(put: Put, cloud: Cloud) -> None:
    status, told = put(iotHubs=[cloud.host])
    assert (status, told["errorCode"]) == (400, 400004)
    assert "allocationPolicy must be specified when iotHubs are specified" in told["message"]


def test_azure_docs_57082_what_is_not_there_says_whether_it_is_an_enrollment_or_a_registration(dps: Service) -> None:
    version = "api-version=2021-10-01"
    for place, code in (("enrollments", 404201), ("enrollmentGroups", 404201), ("registrations", 404202)):
        told = dps("GET", f"/{place}/nobody", version=version)
        assert (told.status_code, told.json()["errorCode"]) == (404, code)
