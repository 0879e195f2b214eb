"""`birthmark serve --only`, and ports that are off: beside a program that takes the others for itself."""

import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from paho.mqtt import client as paho

from support.azure.clients import a_file_device
from support.azure.raw_back_end import BackEndRefusedError, RawBackEnd
from support.pki.est_curl import enroll_by_curl
from support.server.servers import RunningServer, a_new_server, a_server

pytestmark = pytest.mark.system


def is_open(server: RunningServer, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((server.address, port)) == 0


def test_est_alone_leaves_the_ports_of_mqtt_and_https_to_others(tmp_path: Path) -> None:
    with a_server(tmp_path, 'only = ["est"]\n') as server:
        assert [port for port in (8883, 8443, 443, 8085) if is_open(server, port)] == [8085]
        assert [server.endpoints[name] for name in ("dps", "iothub", "aws")] == [None, None, None]
        assert server.endpoints["est"]["url"] == f"https://{server.address}:8085/.well-known/est"


def test_est_alone_is_served_beside_a_program_that_has_the_clouds_ports(tmp_path: Path) -> None:
    beside = 'only = ["est"]\n[ports]\nest = 8086\nhealth = 8081\n'
    (tmp_path / "est").mkdir()
    with a_new_server(tmp_path) as edge, a_server(tmp_path / "est", beside, address=edge.address) as server:
        assert enroll_by_curl(server, tmp_path, "edge-1").subject_cn == "edge-1"


def test_the_configuration_of_a_device_names_the_dps_that_is_told(tmp_path: Path) -> None:
    with a_server(tmp_path, 'only = ["est"]\n') as server:
        named = ("env", "--format", "aziot", "--registration-id", "edge-1")
        printed = server.run(*named, "--id-scope", "0ne00ABCDEF").stdout
        assert 'global_endpoint = "https://global.azure-devices-provisioning.net"' in printed
        assert 'id_scope = "0ne00ABCDEF"' in printed
        assert "trust_bundle_cert" not in printed
        assert "--id-scope" in server.attempt(*named).stderr


def test_a_port_that_is_0_is_off(tmp_path: Path) -> None:
    with a_server(tmp_path, "[ports]\nmqtt = 0\nhttps_also = 0\nest = 0\n") as server:
        assert [port for port in (8883, 8443, 443, 8085) if is_open(server, port)] == [8443]
        assert server.endpoints["est"]["url"] == f"https://{server.address}:8443/.well-known/est"


def test_a_client_of_a_service_that_is_not_served_is_told_so_and_why_has_it(tmp_path: Path) -> None:
    with a_server(tmp_path, 'only = ["est", "aws"]\n') as server:
        client = paho.Client(client_id="device-1", protocol=paho.MQTTv311)
        client.username_pw_set("0ne00ABCDEF/registrations/device-1/api-version=2019-03-31")
        client.tls_set_context(ssl.create_default_context(cafile=server.endpoints["trust_bundle"]))
        codes: list[int] = []
        client.on_connect = lambda *told: codes.append(told[3])
        client.connect(server.address, 8883)
        while not codes:
            client.loop(0.1)
        assert codes == [3]  # server unavailable
        assert server.why("operator.not_served")


def test_a_service_that_is_not_served_is_not_managed_either(tmp_path: Path) -> None:
    with a_server(tmp_path, 'only = ["est", "dps"]\n') as server:
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        at = f"https://{server.address}:8443/subscriptions/any/providers/Microsoft.Devices"
        statuses = []
        for kind in ("IotHubs", "provisioningServices"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{at}/{kind}?api-version=2022-12-12", context=context, timeout=10)
            statuses.append(caught.value.code)
            caught.value.close()
        assert statuses == [501, 401]


def upgraded(server: RunningServer, subprotocol: str) -> str:
    """Return the status line for a WebSocket at the path of Azure's SDKs."""
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    with (
        socket.create_connection((server.address, 8443), 10) as raw,
        context.wrap_socket(raw, server_hostname=server.endpoints["dps"]["host"]) as line,
    ):
        fields = {
            "Host": server.endpoints["dps"]["host"],
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": subprotocol,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        line.sendall(f"GET /$iothub/websocket HTTP/1.1\r\n{head}\r\n".encode())
        return line.recv(1000).decode().partition("\r\n")[0]


def test_dps_alone_is_served_over_amqp_and_over_websocket(tmp_path: Path) -> None:
    with a_server(tmp_path, 'only = ["est", "dps"]\n') as server:
        device = a_file_device(tmp_path, "pump-1")
        server.run("device", "enroll", "--cert", str(device.certificate_file))
        dps, trusted = server.endpoints["dps"], server.endpoints["trust_bundle"]
        files = device.certificate_file, device.key_file
        with RawBackEnd(server.address, trusted, f"Endpoint=sb://{dps['host']}/", identity=files) as client:
            client.attach(f"{dps['id_scope']}/registrations/pump-1")
        client = RawBackEnd(server.address, trusted, f"Endpoint=sb://{dps['host']}/")
        with client, pytest.raises(BackEndRefusedError):
            client.attach("$cbs")
        assert server.why("operator.not_served")
        assert ["101" in upgraded(server, name) for name in ("AMQPWSB10", "mqtt")] == [True, True]
