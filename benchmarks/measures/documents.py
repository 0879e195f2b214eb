"""P18 to P20: documents and methods. Each change is durable before its answer, and counted in the database."""

import json
import sqlite3
import ssl
import threading
import time
from http.client import HTTPSConnection
from itertools import count
from typing import Any, ClassVar

import peers
from askers import Ask, Asker, ask, message
from crowd import open_client
from rig import Rig, cpu_us_each
from swarm import Broker, Publishers, connect

from birthmark.auth.connection_strings import parse_connection_string
from measures.fan_out import registered_at_aws
from measures.ingest import CONNECTIONS, enrolled
from measures.measure import Measure, Sample
from support.azure.sas_tokens import make_sas

CALLS = 200


class _Documents(Measure):
    """A hundred clients change a document each, one change at a time."""

    unit, peer = "us", "mosquitto's QoS 1 publish"
    gate, aim = 8.0, 5.0
    rounds: ClassVar[int] = 30
    versions: ClassVar[str]
    """What counts the changes in the database."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        other = rig.once("mosquitto", peers.mosquitto)
        self._peer_pid = other.pid
        self._theirs = rig.once(
            "publishers to mosquitto",
            lambda rig: Publishers(Broker(other.address, other.port), rig.once("devices that publish", enrolled)),
        )
        self._askers, self._ask = self._ready()
        self._runs = count(1)
        ask(self._askers, 1, self._ask)  # which makes the documents

    def _ready(self) -> tuple[list[Asker], Ask]:
        raise NotImplementedError

    def round(self) -> Sample:
        run, before = next(self._runs), self._written()
        ours = cpu_us_each(
            self._rig.server.pid,
            lambda: ask(self._askers, self.rounds, lambda number, n: self._ask(number, run * self.rounds + n)),
        )
        written = self._written() - before
        assert written == self.rounds * CONNECTIONS, f"{written} changes are in the database"
        return Sample(ours, cpu_us_each(self._peer_pid, lambda: self._theirs.publish(1, 100)))

    def _written(self) -> int:
        with sqlite3.connect(f"file:{self._rig.server.data}/birthmark.db?mode=ro", uri=True) as database:
            return int(database.execute(self.versions).fetchone()[0])


class TwinPatch(_Documents):
    """Reported properties over MQTT, as the device SDKs send them."""

    name, title = "P18", "patch of reported properties, durable, 100 devices"
    versions = "SELECT coalesce(sum(version), 0) FROM hub_twins"

    def _ready(self) -> tuple[list[Asker], Ask]:
        rig = self._rig
        broker = Broker(rig.server.address, 8883, rig.server.endpoints["iothub"]["host"])
        devices = rig.devices(CONNECTIONS, "twin")
        rig.enroll_at_hub(devices)
        askers = [Asker(connect(broker, one), [("$iothub/twin/res/#", 0)], b"/res/204/") for one in devices]
        return askers, lambda _, n: message(
            f"$iothub/twin/PATCH/properties/reported/?$rid={n}", json.dumps({"counter": n, "ok": True}).encode(), 0
        )


class ShadowUpdate(_Documents):
    """The reported state of a classic shadow over MQTT, as the device SDKs send it."""

    name, title = "P19", "update of a shadow, durable, 100 things"
    versions = "SELECT coalesce(sum(version), 0) FROM aws_shadows"

    def _ready(self) -> tuple[list[Asker], Ask]:
        rig = self._rig
        broker, device = Broker(rig.server.address, 8883), rig.once("device of AWS", registered_at_aws)
        askers = [
            Asker(
                open_client(broker, device, f"shadow-{number}", clean=True),
                [(f"$aws/things/shadow-{number}/shadow/update/{what}", 1) for what in ("accepted", "rejected")],
                b"/accepted",
            )
            for number in range(CONNECTIONS)
        ]
        return askers, lambda number, n: message(
            f"$aws/things/shadow-{number}/shadow/update",
            json.dumps({"state": {"reported": {"counter": n, "ok": True}}}).encode(),
            1,
        )


class MethodCall(Measure):
    """From a service's REST request to the device and back; one caller, one device, nothing else to do."""

    name, title, peer = "P20", "direct method by REST and back", "a budget of 700 us"
    unit, gate, aim = "us", 1.0, 0.8

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        hub = rig.server.endpoints["iothub"]
        device = rig.devices(1, "method")[0]
        rig.enroll_at_hub([device])
        self._name = device.name
        sock = connect(Broker(rig.server.address, 8883, hub["host"]), device)
        threading.Thread(target=answer_methods, args=(sock,), daemon=True).start()
        parts = parse_connection_string(hub["service_connection_string"])
        token = make_sas(parts.host, parts.key, int(time.time()) + 3600, parts.policy)
        context = ssl.create_default_context(cafile=rig.server.endpoints["trust_bundle"])
        context.check_hostname = False
        self._rest = HTTPSConnection(rig.server.address, hub["https_port"], context=context)
        self._headers = {"Authorization": token, "Content-Type": "application/json", "Host": parts.host}

    def round(self) -> Sample:
        self._rest.close()  # that of the round before has been idle for too long
        return Sample(cpu_us_each(self._rig.server.pid, self._call), 700.0)

    def _call(self) -> int:
        body = json.dumps({"methodName": "add", "payload": {"a": 1}, "responseTimeoutInSeconds": 10})
        for _ in range(CALLS):
            self._rest.request("POST", f"/twins/{self._name}/methods?api-version=2021-04-12", body, self._headers)
            answer = self._rest.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
            assert found == {"status": 200, "payload": {"sum": 3}}, found
        return CALLS


def answer_methods(sock: ssl.SSLSocket) -> None:
    """Answer every method at once."""
    asker = Asker(sock, [("$iothub/methods/POST/#", 0)], b"$iothub/methods/POST/")
    sock.settimeout(None)
    while True:
        packet = sock.recv(65536)
        if not packet:
            return
        request = packet.partition(b"$rid=")[2].partition(b"{")[0].decode()
        asker.sock.send(message(f"$iothub/methods/res/200/?$rid={request}", b'{"sum": 3}', 0))
