"""P21 to P23: a server with 100,000 stored sessions, a filter each, beside one with none."""

import sqlite3
import ssl
import time
from itertools import count
from pathlib import Path

from crowd import open_client
from rig import Device, Rig, cpu_s, cpu_us_each
from swarm import PAYLOAD, Broker

from birthmark.broker.rules.filter_shape_index import shape_of
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish, Subscribe
from measures.fan_out import registered_at_aws
from measures.measure import Measure, Sample
from support.server.servers import RunningServer

SESSIONS = 100_000
TOPICS = 2_000
_AT_ONCE = 50  # in one record
_FILTERS = ("site/{}", "site/{}/+", "site/+/{}/#", "line/{}/state/+/value")


class _Stored(Measure):
    """Both servers; the rows are copies of what one client made."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._full, self._device = rig.once("server with stored sessions", _filled)
        self._empty = rig.once("server without stored sessions", _warmed)


class StartWithSessions(_Stored):
    """CPU time of the process until it says that it is ready."""

    name, title, peer = "P21", "start with 100,000 stored sessions", "a budget of 2 s"
    unit, gate, aim = "ms", 1.0, 0.7

    def round(self) -> Sample:
        self._full.stop()
        self._full.start()
        return Sample(cpu_s(self._full.pid) * 1e3, 2000.0)


class MemoryWithSessions(_Stored):
    """Resident memory after the start, and after messages to topics of all kinds."""

    name, title, peer = "P22", "memory with 100,000 stored sessions", "the same with none"
    unit, gate, aim = "MiB", 1.1, 1.05

    def round(self) -> Sample:
        return Sample(_resident_mib(self._full.pid), _resident_mib(self._empty.pid))


class Matching(_Stored):
    """What a message costs more that goes to a topic nobody has asked about before, and to nobody."""

    name, title, peer = "P23", "looking up a topic among 100,000 stored sessions", "a budget of 30 us"
    unit, gate, aim = "us", 1.0, 0.7

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self._runs = count()

    def round(self) -> Sample:
        run = next(self._runs)
        sock = open_client(Broker(self._full.address, 8883), self._device, "bench-matching", clean=True)
        _publish(sock, ["site/warm"] * TOPICS)
        known = cpu_us_each(self._full.pid, lambda: _publish(sock, ["site/known"] * TOPICS))
        new = cpu_us_each(self._full.pid, lambda: _publish(sock, [f"site/{run}x/{n}" for n in range(TOPICS)]))
        sock.close()
        return Sample(new - known, 30.0)


def _publish(sock: ssl.SSLSocket, topics: list[str]) -> int:
    for at in range(0, len(topics), _AT_ONCE):
        some = topics[at : at + _AT_ONCE]
        sock.sendall(b"".join(codec.encode(Publish(topic, PAYLOAD, 1, packet_id=n)) for n, topic in enumerate(some, 1)))
        left = 4 * len(some)
        while left:
            data = sock.recv(left)
            assert data, "the server closed the connection"
            left -= len(data)
    return len(topics)


def _warmed(rig: Rig) -> RunningServer:
    server = rig.a_server("data-no-sessions")
    time.sleep(1)
    return server


def _filled(rig: Rig) -> tuple[RunningServer, Device]:
    """Start a server whose database has the sessions; return it and a device that it knows."""
    server = rig.a_server("data-sessions")
    device = registered_at_aws(rig, server)
    sock = open_client(Broker(server.address, 8883), device, "bench-stored", clean=False)
    sock.sendall(codec.encode(Subscribe(1, (("site/0", 1),))))
    assert sock.recv(64)[0] == 0x90
    sock.close()
    time.sleep(1)
    server.stop()
    with sqlite3.connect(server.data / "birthmark.db") as database:
        for table in ("sessions", "subscriptions"):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            (known,) = database.execute(f"SELECT * FROM {table}").fetchall()
            rows = (_copy(dict(zip(names, known, strict=True)), number) for number in range(1, SESSIONS))
            places = ", ".join(f":{name}" for name in names)
            database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
    database.close()
    return server.start(), device


def _copy(row: dict[str, object], number: int) -> dict[str, object]:
    row["client"] = f"stored-{number:06}"
    if "filter" in row:
        row["filter"] = _FILTERS[number % len(_FILTERS)].format(number)
        row["shape"] = shape_of(str(row["filter"]))
    return row


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024
