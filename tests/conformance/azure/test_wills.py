"""A device's last will at its hub, by clients that are killed: paho and mosquitto."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azure_clients import Device, a_file_device
from servers import RunningServer, a_server

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


def a_device_of_the_hub(server: RunningServer, directory: Path, name: str) -> Device:
    device = a_file_device(directory, name)
    server.run("hub", "device", "create", name, "--cert", str(device.certificate_file))
    return device


def connected(server: RunningServer, device: Device) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    client = subprocess.Popen(
        [sys.executable, "-c", PAHO], env=device.environment(server), stdin=pipe, stdout=pipe, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "0\n"
    return client


def told_by(server: RunningServer, name: str) -> list[dict[str, Any]]:
    """Return a device's messages as soon as there are any."""
    for _ in range(100):
        if rows := server.rows("hub", "messages", name):
            return rows
        time.sleep(0.05)
    return []


def test_a_device_that_dies_tells_its_will_and_one_that_says_goodbye_does_not(
    server: RunningServer, tmp_path: Path
) -> None:
    device = a_device_of_the_hub(server, tmp_path, "will-paho")
    polite = connected(server, device)
    polite.communicate("bye\n", timeout=10)
    assert server.rows("hub", "messages", "will-paho") == []

    dying = connected(server, device)
    dying.kill()
    dying.communicate(timeout=10)
    (row,) = told_by(server, "will-paho")
    assert (row["body"], row["system"]) == ("gone", {"content-type": "text/plain"})
    assert row["properties"] == {"site": "a", "iothub-MessageType": "Will", "mqtt-retain": "true"}


def test_a_device_that_is_taken_over_tells_its_will(server: RunningServer, tmp_path: Path) -> None:
    device = a_device_of_the_hub(server, tmp_path, "will-twice")
    first = connected(server, device)
    second = connected(server, device)
    assert [row["body"] for row in told_by(server, "will-twice")][:1] == ["gone"]
    for client in (first, second):
        client.kill()
        client.communicate(timeout=10)


def test_mosquittos_client_is_refused_a_will_that_is_no_telemetry(server: RunningServer, tmp_path: Path) -> None:
    device = a_device_of_the_hub(server, tmp_path, "will-away")
    host = server.endpoints["iothub"]["host"]
    done = subprocess.run(
        [
            *("mosquitto_pub", "-h", host, "-p", "8883", "-i", device.name, "-V", "311", "-q", "1"),
            *("-u", f"{host}/{device.name}/?api-version=2021-04-12", "--cafile", server.endpoints["trust_bundle"]),
            *("--cert", str(device.certificate_file), "--key", str(device.key_file)),
            *("--will-topic", "devices/another/messages/events/", "--will-payload", "gone"),
            *("-t", f"devices/{device.name}/messages/events/", "-m", "hello"),
        ],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 5, done.stderr  # not authorized
    explained = server.why(device.name)
    assert explained["code"] == "iothub.will_invalid"
    assert "devices/another/messages/events/" in explained["cause"]
    assert server.rows("hub", "messages", device.name) == []


@pytest.mark.parametrize("ends", [RunningServer.stop, RunningServer.kill])
def test_a_server_that_ends_owes_nobody_a_will(tmp_path: Path, ends: Callable[[RunningServer], object]) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = a_device_of_the_hub(server, tmp_path, "will-owed")
        client = connected(server, device)
        client.send_signal(signal.SIGSTOP)  # it does not come back before the server does
        ends(server)
        server.start()
        rows = told_by(server, "will-owed")
        client.kill()
        client.communicate(timeout=10)
        assert [row["body"] for row in rows] == ["gone"]
