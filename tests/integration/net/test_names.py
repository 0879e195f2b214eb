"""`why` finds a refusal under the names a person has: a client id, also of MQTT 5; the device id of a bad token."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import LEVEL_5, Connect
from support.floods.unauthenticated import read_all, tls
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
KEY = base64.b64encode(b"k" * 32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("names")) as running:
        yield running


def connect(server: RunningServer, packet: Connect) -> bytes:
    engine = MqttEngine(MqttRole.CLIENT)
    engine.send(packet)
    with tls(server, 8883) as sock:
        sock.sendall(engine.data_to_send())
        return read_all(sock)


def token(resource: str, key: bytes = KEY, expiry: int | None = None) -> str:
    at = str(expiry or int(time.time()) + 3600)
    text = quote(resource, safe="")
    signature = hmac.digest(base64.b64decode(key), f"{text}\n{at}".encode(), hashlib.sha256)
    return f"SharedAccessSignature sr={text}&sig={quote(base64.b64encode(signature), safe='')}&se={at}"


def test_a_client_id_of_mqtt_5_is_a_name(server: RunningServer) -> None:
    connect(server, Connect("five-1", username="0neX/registrations/five-1/api-version=2019-03-31", level=LEVEL_5))
    assert server.why("five-1")["code"] == "mqtt.version_unsupported"


def test_a_client_id_of_mqtt_3_1_1_is_a_name(server: RunningServer) -> None:
    connect(server, Connect("three-1", username="0neX/registrations/reg-1/api-version=2019-03-31"))
    told = server.why("three-1")
    assert told["code"] == "dps.unknown_scope"
    assert f'`id_scope = "{server.endpoints["dps"]["id_scope"]}"`' in told["fix"]


@pytest.mark.parametrize(
    ("mistake", "code"),
    [
        ("another key", "sas."),
        ("expired", "sas."),
        ("another device", "sas."),
        ("no signature", "sas."),
        ("no token", "iothub.no_credentials"),
        ("no device", "iothub.unknown_device"),
    ],
)
def test_each_mistake_with_a_token_is_found_under_the_device_id(server: RunningServer, mistake: str, code: str) -> None:
    host, device = server.endpoints["iothub"]["host"], f"sas-{mistake.replace(' ', '-')}"
    if mistake != "no device":
        _put_device(server, device)
    resource = f"{host}/devices/{device}"
    password = {
        "another key": token(resource, base64.b64encode(b"z" * 32)),
        "expired": token(resource, expiry=1_600_000_000),
        "another device": token(f"{host}/devices/other"),
        "no signature": "SharedAccessSignature sr=x&se=1",
        "no token": "",
        "no device": token(resource),
    }[mistake]
    answer = connect(
        server,
        Connect(
            "some-client",
            username=f"{host}/{device}/?api-version=2021-04-12",
            password=password.encode() or None,
        ),
    )
    assert answer[:2] == b"\x20\x02"
    assert server.why(device)["code"].startswith(code)


def _put_device(server: RunningServer, device: str) -> None:
    import json
    import ssl
    import urllib.request

    text = dict(part.split("=", 1) for part in server.endpoints["iothub"]["service_connection_string"].split(";"))
    sas = token(text["HostName"], text["SharedAccessKey"].encode()) + f"&skn={text['SharedAccessKeyName']}"
    body = {
        "deviceId": device,
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY.decode(), "secondaryKey": KEY.decode()}},
    }
    call = urllib.request.Request(
        f"https://{text['HostName']}/devices/{device}?api-version=2021-04-12",
        json.dumps(body).encode(),
        {"Authorization": sas, "Content-Type": "application/json"},
        method="PUT",
    )
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    with urllib.request.urlopen(call, context=context, timeout=10) as answer:
        assert answer.status == 200
