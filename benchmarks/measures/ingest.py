"""P4, P4n, P5, P5r, P6: telemetry of QoS 1 from 100 connections, acknowledged by our server when it is durable."""

import sqlite3
from collections.abc import Callable
from typing import ClassVar

import peers
from rig import Device, Rig, cpu_us_each
from swarm import Broker, Publishers

from measures.measure import Measure, Sample

CONNECTIONS = 100


class _Ingest(Measure):
    """`in_flight` messages leave a device in one record; the next come when all are acknowledged."""

    unit = "us"
    in_flight: ClassVar[int]
    each: ClassVar[bool] = False
    """Each message has a record of its own."""
    rounds: ClassVar[int]
    start: ClassVar[Callable[[Rig], peers.Peer]]

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        other = rig.once(self.peer, type(self).start)
        self._pid, self._peer_pid = rig.server.pid, other.pid
        self._ours = rig.once("publishers", _at_hub)
        self._theirs = rig.once(
            f"publishers to {self.peer}",
            lambda rig: Publishers(Broker(other.address, other.port), rig.once("devices that publish", enrolled)),
        )

    def round(self) -> Sample:
        before = _written(self._rig)
        ours = cpu_us_each(self._pid, lambda: self._ours.publish(self.in_flight, self.rounds, each=self.each))
        written = _written(self._rig) - before
        sent = self.rounds * CONNECTIONS * self.in_flight
        assert written == sent, f"{sent} messages were acknowledged, {written} are in the database"
        return Sample(
            ours, cpu_us_each(self._peer_pid, lambda: self._theirs.publish(self.in_flight, self.rounds, each=self.each))
        )


class IngestOneInFlight(_Ingest):
    """Beside mosquitto, which keeps nothing."""

    name, title, peer = "P4", "durable ingest, 100 connections, 1 in flight", "mosquitto"
    gate, aim = 2.0, 1.5
    in_flight, rounds, start = 1, 150, staticmethod(peers.mosquitto)


class IngestBesideDurable(_Ingest):
    """Beside the broker that keeps what it acknowledges, too."""

    name, title, peer = "P4n", "the same, 1 in flight, both on disk", "NATS with MQTT"
    gate, aim = 0.7, 0.5
    in_flight, rounds, start = 1, 40, staticmethod(peers.nats)


class IngestTenInFlight(_Ingest):
    """Beside mosquitto, which keeps nothing."""

    name, title, peer = "P5", "durable ingest, 100 connections, 10 in flight", "mosquitto"
    gate, aim = 0.6, 0.35
    in_flight, rounds, start = 10, 60, staticmethod(peers.mosquitto)


class IngestRecordEach(_Ingest):
    """As most SDKs send."""

    name, title, peer = "P5r", "the same, 10 in flight, a record each", "mosquitto"
    gate, aim = 1.2, 0.9
    in_flight, rounds, each, start = 10, 40, True, staticmethod(peers.mosquitto)


class AgainstPythonOne(_Ingest):
    """Beside the broker in Python, which keeps nothing."""

    name, title, peer = "P6.1", "the same against amqtt, 1 in flight", "amqtt"
    gate, aim = 0.33, 0.25
    in_flight, rounds, start = 1, 60, staticmethod(peers.amqtt)


class AgainstPythonTen(_Ingest):
    """Beside the broker in Python, which keeps nothing."""

    name, title, peer = "P6.10", "the same against amqtt, 10 in flight", "amqtt"
    gate, aim = 0.10, 0.07
    in_flight, rounds, start = 10, 20, staticmethod(peers.amqtt)


def enrolled(rig: Rig) -> list[Device]:
    devices = rig.devices(CONNECTIONS, "publisher")
    rig.enroll_at_hub(devices)
    return devices


def _at_hub(rig: Rig) -> Publishers:
    broker = Broker(rig.server.address, 8883, rig.server.endpoints["iothub"]["host"])
    return Publishers(broker, rig.once("devices that publish", enrolled))


def _written(rig: Rig) -> int:
    with sqlite3.connect(f"file:{rig.server.data}/birthmark.db?mode=ro", uri=True) as database:
        return int(database.execute("SELECT coalesce(sum(count), 0) FROM segments").fetchone()[0])
