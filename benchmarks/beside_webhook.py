"""Measure how long a PUBACK takes while a webhook is told of a great many events, beside one that tells nothing.

    .venv/bin/python benchmarks/beside_webhook.py [--events N] [--rounds N]

The events are rows of the audit trail that nobody was told of yet; a receiver on the last core takes them as fast as
they come. Ten devices publish by QoS 1, one message in flight each, on the last core too: what a PUBACK takes is what
the server's one thread has for it. Rounds with and without are told apart by pausing the webhook.
"""

import argparse
import http.server
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Sequence

from rig import CLIENT_CORE, Device, Rig, a_rig
from swarm import PAYLOAD, Broker, connect

from birthmark.events.merged_event_feed import parse_place
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish
from support.server.servers import RunningServer, free_address

DEVICES, MESSAGES = 10, 1500
_PUBACK_BYTES = 4
_OUTBOUND = "[outbound]\nallow = ['127.0.0.0/8']\n"
_COPY = """
INSERT INTO audit (chain, seq, at, actor, action, subject, detail, digest)
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
SELECT chain, seq + n, at, 'user:bench', 'iothub.device_put', 'pump-' || n, '{"hub":"birthmark"}', digest
FROM numbers, (SELECT * FROM audit ORDER BY seq DESC LIMIT 1)
"""


class Taking(http.server.BaseHTTPRequestHandler):
    """Takes what it is told."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def take(address: str, port: int) -> None:
    """Take what comes there, on the last core."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    http.server.ThreadingHTTPServer((address, port), Taking).serve_forever()


def latencies(broker: Broker, devices: Sequence[Device]) -> list[float]:
    """Return how many ms each PUBACK took: the devices take turns, each with one message on its way."""
    sockets = [(connect(broker, device), f"devices/{device.name}/messages/events/") for device in devices]
    took = []
    for number in range(MESSAGES):
        sock, topic = sockets[number % len(sockets)]
        message = codec.encode(Publish(topic, PAYLOAD, 1, packet_id=1))
        began = time.perf_counter()
        sock.sendall(message)
        assert len(sock.recv(_PUBACK_BYTES)) == _PUBACK_BYTES
        took.append((time.perf_counter() - began) * 1000)
    for sock, _ in sockets:
        sock.close()
    return sorted(took)


def fill(server: RunningServer, events: int) -> None:
    """Put events behind the last one: nobody is told of those that were there."""
    with sqlite3.connect(server.data / "birthmark.db") as database:
        database.execute(_COPY, (events,))
        database.execute("UPDATE audit_heads SET seq = (SELECT max(seq) FROM audit)")
    database.close()


def told(server: RunningServer) -> int:
    """Return up to which event the receiver was told."""
    with sqlite3.connect(f"file:{server.data}/birthmark.db?mode=ro", uri=True) as database:
        (places,) = database.execute("SELECT places FROM webhooks").fetchone()
    database.close()
    return sum(parse_place(places).values())


def a_server(rig: Rig, hook: str) -> RunningServer:
    """Start a server whose webhook waits."""
    server = rig.a_server("beside", more=_OUTBOUND)
    server.run("webhook", "create", "bench", hook)
    server.run("webhook", "pause", "bench")
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    address, port = free_address(), 8085
    receiver = multiprocessing.Process(target=take, args=(address, port), daemon=True)
    receiver.start()
    with a_rig() as rig:
        server = a_server(rig, f"http://{address}:{port}/")
        server.stop()
        fill(server, given.events)
        server.start()
        devices = rig.devices(DEVICES, "beside")
        rig.enroll_at_hub(devices, server)
        broker = Broker(server.address, 8883, server.endpoints["iothub"]["host"])
        print("events/s   PUBACK p50, p99, longest in ms: with the webhook | without")
        for _ in range(given.rounds):
            without = latencies(broker, devices)
            server.run("webhook", "resume", "bench")
            before, began = told(server), time.perf_counter()
            beside = latencies(broker, devices)
            pace = (told(server) - before) / (time.perf_counter() - began)
            server.run("webhook", "pause", "bench")
            print(f"{pace:8.0f}   {_of(beside)} | {_of(without)}")
    receiver.terminate()


def _of(took: Sequence[float]) -> str:
    return f"{took[len(took) // 2]:6.2f} {took[len(took) * 99 // 100]:6.2f} {took[-1]:6.2f}"


if __name__ == "__main__":
    main()
