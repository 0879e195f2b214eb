"""Two workers whose database is away for a while: for both, and then for one of them."""

import base64
import contextlib
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import requests

from birthmark.auth.connection_strings import parse_connection_string
from support.azure.sas_tokens import make_sas
from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer, a_server
from support.server.workers_of import below
from support.services.postgres import a_postgres_server

pytestmark = pytest.mark.system
_BACKENDS = "SELECT pid, client_port FROM pg_stat_activity WHERE client_port > 0"
_KEY = b"k" * 32
_NAMES = [f"d-{number}" for number in range(12)]


class Device:
    """A device of a hub over MQTT, which notes each end of its connection."""

    def __init__(self, server: RunningServer, host: str, name: str) -> None:
        self.name, self.ends, self.acknowledged = name, 0, 0
        self._client = mqtt.Client(client_id=name, protocol=mqtt.MQTTv311)
        password = make_sas(f"{host}/devices/{name}", _KEY, int(time.time()) + 3600)
        self._client.username_pw_set(f"{host}/{name}/?api-version=2021-04-12", password)
        self._client.tls_set_context(ssl.create_default_context(cafile=server.endpoints["trust_bundle"]))
        self._client.on_disconnect = self._ended
        self._client.on_publish = self._published
        self._client.connect(host, 8883, keepalive=600)
        self._client.loop_start()

    def send(self) -> None:
        self._client.publish(f"devices/{self.name}/messages/events/", b"{}", qos=1)

    def stop(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _ended(self, *_: object) -> None:
        self.ends += 1

    def _published(self, *_: object) -> None:
        self.acknowledged += 1


@contextlib.contextmanager
def devices_of(server: RunningServer) -> Iterator[Sequence[Device]]:
    """Connect devices, half of them to each worker or so."""
    known = parse_connection_string(server.environment["IOTHUB_CONNECTION_STRING"])
    host, key = known.host.partition(":")[0], base64.b64encode(_KEY).decode()
    proof = {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
    url = f"https://{host}:{server.endpoints['iothub']['https_port']}/devices?api-version=2021-10-01"
    headers = {"Authorization": make_sas(host, known.key, int(time.time()) + 3600, "iothubowner")}
    body: list[Any] = [{"id": name, "importMode": "create", "authentication": proof} for name in _NAMES]
    made = requests.post(url, json=body, headers=headers, verify=server.endpoints["trust_bundle"], timeout=20)
    assert made.ok, made.text
    devices = [Device(server, host, name) for name in _NAMES]
    try:
        yield devices
    finally:
        for one in devices:
            one.stop()


def test_an_outage_of_the_database_ends_no_connection_and_no_worker(tmp_path: Path) -> None:
    with (
        a_postgres_server() as postgres,
        a_server(tmp_path, f'database = "{postgres.url}"\nworkers = 2\n', is_warm=False) as server,
        devices_of(server) as devices,
    ):
        for count, (mode, away_s) in enumerate([("fast", 1.5), ("immediate", 1.5), ("fast", 8.0)], 1):
            postgres.stop(mode)
            for one in devices:
                one.send()
            time.sleep(away_s)
            postgres.start()
            until_workers_are_ready(server)
            end = time.monotonic() + 20
            while [one.acknowledged for one in devices] != [count] * len(devices) and time.monotonic() < end:
                time.sleep(0.05)
            assert [(one.ends, one.acknowledged) for one in devices] == [(0, count)] * len(devices)
        assert "worker.dead" not in server.log()


def test_a_worker_that_alone_lost_the_database_ends_and_its_devices_connect_again(tmp_path: Path) -> None:
    with (
        a_postgres_server() as postgres,
        a_server(tmp_path, f'database = "{postgres.url}"\nworkers = 2\n', is_warm=False) as server,
        devices_of(server) as devices,
    ):
        backends = backends_of(below(server)["worker 2"], postgres.url)
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            for one in devices:
                one.send()
            until(lambda: "worker.fell" in server.log())
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
        assert "worker.killed" in server.log(), "the other worker declared it dead"
        until(lambda: [one.acknowledged for one in devices] == [1] * len(devices))
        assert 0 < len([one for one in devices if one.ends]) < len(devices)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def backends_of(pid: int, url: str) -> Sequence[int]:
    """Return the processes of PostgreSQL that serve a process."""
    ports = set(re.findall(rf":(\d+) +\S+ +users:.*pid={pid},", _output("ss", "--tcp", "--numeric", "--processes")))
    rows = _output("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", _BACKENDS, url).split()
    found = [int(backend) for backend, port in (row.split("|") for row in rows) if port in ports]
    assert found
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
