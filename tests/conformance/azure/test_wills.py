"""A device's last will at its hub, by clients that are killed: paho and mosquitto."""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.aws.clients import until
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system

PAHO = """
import os, ssl, sys, threading
import paho.mqtt.client as paho
name, host = os.environ["DPS_X509_REGISTRATION_ID"], os.environ["PROVISIONING_HOST"]
client = paho.Client(name, clean_session=False)
client.username_pw_set(f"{host}/{name}/?api-version=2021-04-12")
client.tls_set(os.environ["SSL_CERT_FILE"], os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
client.will_set(f"devices/{name}/messages/events/%24.ct=text%2Fplain&site=a", "gone", qos=1, retain=True)
answered = threading.Event()
client.on_connect = lambda client, data, flags, code: (print(code, flush=True), answered.set())
client.connect(host, 8883)
client.loop_start()
answered.wait(10)
if sys.stdin.readline():
    client.disconnect()
client.loop_stop()
"""


def connected(environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    client = subprocess.Popen([sys.executable, "-c", PAHO], env=environment, stdin=pipe, stdout=pipe, text=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "0\n"
    return client


def end(client: "subprocess.Popen[str]", word: str | None = None) -> None:
    """End it: by a word, or killed."""
    if word is None:
        client.kill()
    client.communicate(word, timeout=10)


@pytest.fixture
def device(birthmark_cloud: Cloud) -> AzureDevice:
    return birthmark_cloud.azure_device(at="hub")


def test_a_device_that_dies_tells_its_will_and_one_that_says_goodbye_does_not(device: AzureDevice) -> None:
    end(connected(device.environment()), "bye\n")
    assert device.messages() == []

    end(connected(device.environment()))
    (row,) = device.messages(at_least=1)
    assert (row["body"], row["system"]) == ("gone", {"content-type": "text/plain"})
    assert row["properties"] == {"site": "a", "iothub-MessageType": "Will", "mqtt-retain": "true"}


def test_a_device_that_is_taken_over_tells_its_will(device: AzureDevice) -> None:
    clients = [connected(device.environment()) for _ in range(2)]
    assert [row["body"] for row in device.messages(at_least=1)][:1] == ["gone"]
    for client in clients:
        end(client)


def test_mosquittos_client_is_refused_a_will_that_is_no_telemetry(device: AzureDevice) -> None:
    host = device.cloud.host
    done = device.cloud.run(
        *("mosquitto_pub", "-h", host, "-p", "8883", "-i", device.name, "-V", "311", "-q", "1"),
        *("-u", f"{host}/{device.name}/?api-version=2021-04-12", "--cafile", device.cloud.ca_file),
        *("--cert", device.certificate_file, "--key", device.key_file),
        *("--will-topic", "devices/another/messages/events/", "--will-payload", "gone"),
        *("-t", f"devices/{device.name}/messages/events/", "-m", "hello"),
    )
    assert done.returncode == 5, done.stderr  # not authorized
    assert "devices/another/messages/events/" in device.why("iothub.will_invalid")["cause"]
    assert device.messages() == []


@pytest.mark.parametrize("ends", [RunningServer.stop, RunningServer.kill])
def test_a_server_that_ends_owes_nobody_a_will(tmp_path: Path, ends: Callable[[RunningServer], object]) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = server.cloud.azure_device("will-owed", at="hub")
        client = connected(device.environment())
        client.send_signal(signal.SIGSTOP)  # it does not come back before the server does
        ends(server)
        server.start()
        until(lambda: server.rows("hub", "messages", "will-owed"))
        end(client)
        assert [row["body"] for row in server.rows("hub", "messages", "will-owed")] == ["gone"]
