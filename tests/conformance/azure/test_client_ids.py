"""The client id of MQTT is the device's name at DPS and at its hub (MQTT support of both), by paho, unmodified."""

import contextlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import requests

from birthmark.dps.connections import MAX_OF_ONE
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, PingReq
from birthmark.testing.cloud import AzureDevice, Cloud
from support.server.scaled import for_one

pytestmark = pytest.mark.system
IDENTIFIER_REJECTED = 2


def code_of(device: AzureDevice, client_id: str, username: str) -> int:
    """Return what CONNACK says to a device that takes this client id."""
    return connack_code(device.cloud, (device.certificate_file, device.key_file), client_id, username)


def connack_code(cloud: Cloud, files: tuple[str, str], client_id: str, username: str) -> int:
    """Return what CONNACK says to a client with this certificate and key."""
    client, codes, heard = paho.Client(client_id), list[int](), threading.Event()
    client.username_pw_set(username)
    context = ssl.create_default_context(cafile=cloud.ca_file)
    context.load_cert_chain(*files)
    client.tls_set_context(context)

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


def test_a_hub_takes_the_device_id_alone(cloud: Cloud) -> None:
    device = cloud.azure_device("named-1", at="hub")
    user = f"{device.identity.hub_host}/named-1/?api-version=2021-04-12"
    assert code_of(device, "another-one", user) == IDENTIFIER_REJECTED
    assert device.why()["code"] == "iothub.client_id_mismatch"
    assert code_of(device, "named-1", user) == 0


OLD_TAILS = [
    "/api-version=2016-11-14",
    "/api-version=2018-06-30&DeviceClientType=iothubclient%2f1.2.1%20(native%3b%20Linux%3b%20x86_64)",
    "/api-version=2016-11-14/DeviceClientType=Microsoft.Azure.Devices.Client/1.2.2",
    "/DeviceClientType=azure-iot-device%2F1.1.2&api-version=2016-11-14",
    "/?api-version=2018-06-30",
    "/",
    "",
]


def test_a_device_connects_with_every_form_of_the_user_name_since_2016(cloud: Cloud) -> None:
    device = cloud.azure_device("named-5", at="hub")
    user = f"{device.identity.hub_host}/named-5"
    assert {tail: code_of(device, "named-5", user + tail) for tail in OLD_TAILS} == dict.fromkeys(OLD_TAILS, 0)


def test_a_module_connects_with_every_form_of_the_user_name_since_2016(cloud: Cloud) -> None:
    device = cloud.azure_device("named-6", at="hub")
    cloud.birthmark("hub", "module", "create", "named-6", "camera", "--cert", str(device.certificate_file))
    user = f"{device.identity.hub_host}/named-6/camera"
    assert {tail: code_of(device, "named-6/camera", user + tail) for tail in OLD_TAILS} == dict.fromkeys(OLD_TAILS, 0)


def test_a_user_name_without_the_slash_before_its_parameters_is_explained_as_iot_hubs(cloud: Cloud) -> None:
    device = cloud.azure_device("named-7", at="hub")
    assert code_of(device, "named-7", f"{device.identity.hub_host}/named-7?api-version=2021-04-12") != 0
    assert cloud.why(device)["code"] == "iothub.username_invalid"


def test_dps_takes_the_registration_id_alone_in_any_letter_case(cloud: Cloud) -> None:
    device = cloud.azure_device("named-2")
    user = f"{cloud.id_scope}/registrations/named-2/api-version=2019-03-31&ClientVersion=x"
    assert code_of(device, "another-one", user) == IDENTIFIER_REJECTED
    assert device.why()["code"] == "dps.client_id_mismatch"
    assert code_of(device, "named-2", user) == 0
    assert code_of(device, "Named-2", user) == 0


def test_each_answer_over_https_says_which_request_it_is_of(cloud: Cloud) -> None:
    device = cloud.azure_device("named-3")
    base = f"https://{cloud.host}:8443/{cloud.id_scope}/registrations/named-3"
    files = device.certificate_file, device.key_file
    ids = set()
    for status, path in ((202, "/register"), (202, "/register"), (400, "/register?body=none")):
        body = {"registrationId": "named-3"} if status == requests.codes.accepted else ["none"]
        url = base + path
        answer = requests.put(url, json=body, cert=files, verify=cloud.ca_file, timeout=20)
        assert answer.status_code == status
        ids.add(answer.headers["x-ms-request-id"])
    assert len(ids) == 3


@for_one
def test_a_device_that_connects_to_dps_again_and_again_keeps_a_few_connections(cloud: Cloud) -> None:
    device = cloud.azure_device("named-4")
    user = f"{cloud.id_scope}/registrations/named-4/api-version=2019-03-31&ClientVersion=x"
    context = ssl.create_default_context(cafile=cloud.ca_file)
    context.load_cert_chain(device.certificate_file, device.key_file)
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(MAX_OF_ONE + 2):
            raw = stack.enter_context(socket.create_connection((cloud.host, 8883), 20))
            line = stack.enter_context(context.wrap_socket(raw, server_hostname=cloud.host))
            line.sendall(codec.encode(Connect("named-4", username=user, keep_alive_s=600)))
            assert line.recv(4) == b"\x20\x02\x00\x00"
            lines.append(line)
        assert [line.recv(1) for line in lines[:2]] == [b"", b""]
        lines[-1].sendall(codec.encode(PingReq()))
        assert lines[-1].recv(2) == b"\xd0\x00"


@pytest.mark.parametrize("extension", ["extendedKeyUsage=serverAuth", "keyUsage=critical,keyCertSign"])
def test_a_hub_asks_no_purpose_of_a_certificate_whose_thumbprint_it_has(
    cloud: Cloud, tmp_path: Path, extension: str
) -> None:
    name = f"odd-{extension.partition('=')[0].lower()}"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "odd.key", "-noenc"]
    made = ["openssl", "req", "-x509", *key, "-subj", f"/CN={name}", "-days", "1", "-out", "odd.pem"]
    subprocess.run([*made, "-addext", extension], cwd=tmp_path, check=True, capture_output=True)
    cloud.birthmark("hub", "device", "create", name, "--cert", str(tmp_path / "odd.pem"))
    files = str(tmp_path / "odd.pem"), str(tmp_path / "odd.key")
    user = f"{cloud.endpoints['iothub']['host']}/{name}/?api-version=2021-04-12"
    assert connack_code(cloud, files, name, user) == 0
