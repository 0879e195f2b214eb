"""What it costs, and takes, when a request reaches one worker and whom it concerns is connected to another.

    python benchmarks/across.py [NAME…] [--rounds 12]      without names it writes benchmarks/results/across.json

Two workers on PostgreSQL and NATS, and a server that is alone on the same engines. For each operation it prints the
processor's time of all workers in us, the minimum of the rounds: alone, of two workers where both ends are at the same
(`same`) and at two (`across`). Then how long a connection lives on, in ms, when its certificate is made inactive.
"""

import argparse
import contextlib
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar

import boto3
from askers import Asker
from botocore.config import Config
from crowd import Crowd, Sink, open_client
from installations import Installation, installed
from measures.documents import answer_methods
from measures.fan_out import registered_at_aws
from rig import CLIENT_CORE, Device, a_rig, cpu_s
from swarm import Broker, connect

from birthmark.auth.connection_strings import parse_connection_string
from support.azure.sas_tokens import make_sas
from support.services.nats_server import a_nats

RESULT = Path(__file__).parent / "results" / "across.json"
CALLS, LETTERS, PUBLISHERS, MESSAGES, REVOCATIONS = 200, 100, 50, 60, 40
_SETTLE_S, _TRIES, _PATIENCE_S = 0.3, 64, 30
_T = TypeVar("_T")
Places = tuple[int, ...]


def worker_of(sock: Any, pids: Places) -> int:
    """Return which of the processes has the other end of a connection of this machine."""
    address, port = sock.getsockname()[:2]
    wanted = f"{_hex(*sock.getpeername()[:2])} {_hex(address, port)}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(row[9] for row in rows if f"{row[1]} {row[2]}" == wanted)
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(link.readlink()) == f"socket:[{inode}]":
                    return pid
    raise LookupError(f"no worker has the connection from {address}:{port}")


def _hex(address: str, port: int) -> str:
    first, second, third, fourth = (int(part) for part in address.split("."))
    return f"{fourth:02X}{third:02X}{second:02X}{first:02X}:{port:04X}"


def at(pid: int, pids: Places, make: Callable[[], _T], sock_of: Callable[[_T], Any]) -> _T:
    """Connect until it is this worker that has the connection; the others are closed."""
    for _ in range(_TRIES):
        made = make()
        if worker_of(sock_of(made), pids) == pid:
            return made
        sock_of(made).close()
    raise LookupError(f"none of {_TRIES} connections came to the worker {pid}")


@dataclass
class Pair:
    """An installation, the worker that is asked and the one whom it concerns."""

    one: Installation
    aws: Device
    pids: Places
    asked: int
    concerned: int

    def spent_us(self, work: Callable[[], int]) -> float:
        before = sum(map(cpu_s, self.pids))
        count = work()
        time.sleep(_SETTLE_S)
        return (sum(map(cpu_s, self.pids)) - before) / count * 1e6


def service(pair: Pair) -> tuple[HTTPSConnection, dict[str, str]]:
    """Return a service's connection to the worker that is asked, and its headers."""
    one = pair.one
    hub = one.server.endpoints["iothub"]
    parts = parse_connection_string(hub["service_connection_string"])
    token = make_sas(parts.host, parts.key, int(time.time()) + 3600, parts.policy)

    def opened() -> HTTPSConnection:
        made = HTTPSConnection(one.server.address, hub["https_port"], context=_trusting(one))
        made.connect()
        return made

    rest = at(pair.asked, pair.pids, opened, lambda made: made.sock)
    return rest, {"Authorization": token, "Content-Type": "application/json", "Host": parts.host}


def _trusting(one: Installation) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=one.server.endpoints["trust_bundle"])
    context.check_hostname = False
    return context


def device(pair: Pair) -> tuple[Device, ssl.SSLSocket]:
    """Return a device of the hub that is connected to the worker it is to be at."""
    one = pair.one
    made = one.rig.devices(1, one.fresh("across"))[0]
    one.rig.enroll_at_hub([made])
    broker = Broker(one.server.address, 8883, one.server.endpoints["iothub"]["host"])
    return made, at(pair.concerned, pair.pids, lambda: connect(broker, made), lambda sock: sock)


def methods(pair: Pair) -> Callable[[], int]:
    (named, sock), (rest, headers) = device(pair), service(pair)
    threading.Thread(target=answer_methods, args=(sock,), daemon=True).start()
    body = json.dumps({"methodName": "add", "payload": {"a": 1, "b": 2}, "responseTimeoutInSeconds": 10})

    def call() -> int:
        for _ in range(CALLS):
            rest.request("POST", f"/twins/{named.name}/methods?api-version=2021-04-12", body, headers)
            answer = rest.getresponse()
            found = json.loads(answer.read())
            assert found == {"status": 200, "payload": {"sum": 3}}, found
        return CALLS

    return call


def letters(pair: Pair) -> Callable[[], int]:
    (named, sock), (rest, headers) = device(pair), service(pair)
    asker = Asker(sock, [(f"devices/{named.name}/messages/devicebound/#", 1)], b"/devicebound/")

    def send() -> int:
        for _ in range(LETTERS):
            rest.request("POST", f"/devices/{named.name}/messages/devicebound?api-version=2021-04-12", "{}", headers)
            answer = rest.getresponse()
            text = answer.read()
            assert answer.status in {200, 201, 204}, (answer.status, text)
            until = time.monotonic() + _PATIENCE_S
            while not asker.take():
                assert time.monotonic() < until, "a message to the device did not come"
        return LETTERS

    return send


def live(pair: Pair) -> Callable[[], int]:
    broker, tag = Broker(pair.one.server.address, 8883), pair.one.fresh("live")
    sink = at(
        pair.concerned, pair.pids, lambda: Sink(broker, pair.aws, f"{tag}-sink", f"{tag}/+", clean=True), _sock_of
    )
    crowd = Crowd(
        broker,
        [pair.aws] * PUBLISHERS,
        tag,
        lambda name: at(pair.asked, pair.pids, lambda: open_client(broker, pair.aws, name, clean=True), lambda s: s),
    )
    return lambda: crowd.publish(1, MESSAGES, [sink], tag)


def _sock_of(sink: Sink) -> ssl.SSLSocket:
    return sink.sock


MEASURES = {"method": methods, "message to a device": letters, "live message": live}


def revocations(pair: Pair) -> list[float]:
    """Return how many ms after the request a connection at the other worker ends, for each of some."""
    one, found = pair.one, list[float]()
    aws = one.server.endpoints["aws"]
    client = boto3.client(
        "iot",
        endpoint_url=aws["endpoint_url"],
        region_name=aws["region"],
        aws_access_key_id=aws["access_key_id"],
        aws_secret_access_key=aws["secret_access_key"],
        verify=one.server.endpoints["trust_bundle"],
        config=Config(retries={"max_attempts": 1}),
    )
    broker = Broker(one.server.address, 8883)
    for number in range(REVOCATIONS):
        sock = at(
            pair.concerned,
            pair.pids,
            lambda number=number: open_client(broker, pair.aws, f"revoked-{number}", clean=True),
            lambda sock: sock,
        )
        sock.settimeout(_PATIENCE_S)
        began = time.perf_counter()
        client.update_certificate(certificateId=pair.aws.thumbprint, newStatus="INACTIVE")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while sock.recv(64):
                pass
        found.append((time.perf_counter() - began) * 1000)
        client.update_certificate(certificateId=pair.aws.thumbprint, newStatus="ACTIVE")
    return sorted(found)


def _pairs(alone: Installation, two: Installation) -> dict[str, Pair]:
    (only,) = alone.processes().values()
    pids = tuple(pid for name, pid in two.processes().items() if name != "nats")
    here, there = pids
    of_alone, of_two = (registered_at_aws(one.rig, one.server) for one in (alone, two))
    return {
        "alone": Pair(alone, of_alone, (only,), only, only),
        "same": Pair(two, of_two, pids, here, here),
        "across": Pair(two, of_two, pids, here, there),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of what to measure: without one, all")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_args()
    with a_rig() as rig, a_nats() as bus, contextlib.ExitStack() as stack:
        nats = int(subprocess.run(["pgrep", "-n", "nats-server"], capture_output=True, text=True, check=True).stdout)
        made = [stack.enter_context(installed(name, n, rig, bus, nats)) for name, n in (("alone", 0), ("two", 2))]
        pairs = _pairs(*made)
        rows: dict[str, dict[str, float]] = {}
        for name, measure in MEASURES.items():
            if given.names and name not in given.names:
                continue
            works = {kind: measure(pair) for kind, pair in pairs.items()}
            spent = [{kind: pairs[kind].spent_us(work) for kind, work in works.items()} for _ in range(given.rounds)]
            rows[name] = {kind: round(min(one[kind] for one in spent), 1) for kind in works}
            print(json.dumps({"measure": name} | rows[name]), flush=True)
        waits = revocations(pairs["across"])
        rows["revocation, ms"] = {"p50": round(waits[len(waits) // 2], 1), "most": round(waits[-1], 1)}
        print(json.dumps({"measure": "revocation, ms"} | rows["revocation, ms"]), flush=True)
    if not given.names:
        RESULT.write_text(json.dumps({"rows": rows, "rounds": given.rounds}, indent=1) + "\n")


if __name__ == "__main__":
    os.sched_setaffinity(0, {CLIENT_CORE})
    main()
