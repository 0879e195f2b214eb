"""What the caller of a direct method gets where a device answers with what is no JSON, as firmware by hand does."""

import ssl
import threading
import time
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.sas_tokens import make_sas

pytestmark = pytest.mark.system


def listening(device: AzureDevice, answer: bytes) -> paho.Client:
    """Return a device that answers every method with these bytes."""
    client, ready = paho.Client(device.name), threading.Event()
    client.username_pw_set(f"{device.cloud.host}/{device.name}/?api-version=2021-04-12")
    context = ssl.create_default_context(cafile=device.cloud.ca_file)
    context.load_cert_chain(device.certificate_file, device.key_file)
    client.tls_set_context(context)
    client.on_connect = lambda *_: client.subscribe("$iothub/methods/POST/#")
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _c, _d, asked: client.publish(
        f"$iothub/methods/res/200/?$rid={asked.topic.partition('$rid=')[2]}", answer
    )
    client.connect(device.cloud.host, 8883)
    client.loop_start()
    assert ready.wait(20)
    return client


def called(cloud: Cloud, name: str) -> requests.Response:
    service = parse_connection_string(cloud.hub_connection_string)
    token = make_sas(cloud.host, service.key, int(time.time()) + 600, service.policy)
    body: Any = {"methodName": "getLog", "responseTimeoutInSeconds": 20}
    url = f"https://{service.host}/twins/{name}/methods?api-version=2021-04-12"
    return requests.post(url, json=body, headers={"Authorization": token}, verify=cloud.ca_file, timeout=30)


@pytest.mark.parametrize(
    "answer", [b"{'filename': 'logs.zip'}", b'{"a": 1}\0', b"\xff"], ids=["quotes", "NUL", "bytes"]
)
def test_an_answer_that_is_no_json_is_a_bad_gateway_and_no_timeout(cloud: Cloud, answer: bytes) -> None:
    device = cloud.azure_device(at="hub")
    client = listening(device, answer)
    told = called(cloud, device.name)
    client.loop_stop()
    assert (told.status_code, told.headers["x-ms-error-code"]) == (502, "502101")
    assert told.json()["Message"].startswith("ErrorCode:InvalidResponseWhileProxying;")
    assert device.why()["code"] == "iothub.method_answer_invalid"
