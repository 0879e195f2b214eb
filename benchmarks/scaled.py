"""Two workers beside one, and beside a server that is alone, on the same PostgreSQL and NATS.

    python benchmarks/scaled.py [NAME…] [--rounds 7]      without names it writes benchmarks/results/scaled.json

Each worker has 100 connections. For each operation it prints the processor's time in us: of all workers, of the
busiest process of them, of PostgreSQL and of NATS, each the minimum of the rounds; then what one costs with two
workers beside one (`cost`), and how much more two can do by their busiest process (`capacity`).
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from installations import Installation, Spent, installed
from measures.registration import register
from measures.renewal import Renewing, ask
from rig import CLIENT_CORE, a_rig, cpu_s, each
from swarm import Broker, visit

from support.services.nats_server import a_nats
from support.services.postgres import PostgresServer

RESULT = Path(__file__).parent / "results" / "scaled.json"
_SETTLE_S = 0.3
_TICKS = os.sysconf("SC_CLK_TCK")


def connects(one: Installation) -> Callable[[], int]:
    devices = one.rig.devices(2 * one.count, one.fresh("connect"))
    one.rig.enroll_at_hub(devices)
    broker = Broker(one.server.address, 8883, one.server.endpoints["iothub"]["host"])
    return lambda: each(lambda device: visit(broker, device), devices)


def registrations(one: Installation) -> Callable[[], int]:
    devices = one.rig.devices(one.count, one.fresh("register"))
    return lambda: each(lambda device: register(one.server, device), devices)


def renewals(one: Installation) -> Callable[[], int]:
    return lambda: each(lambda device: _renewed(one, device), one.renewing)


def _renewed(one: Installation, device: Renewing) -> None:
    answer = ask(one.rig, device.context, "simplereenroll", device.csr)
    assert len(answer) > 400, answer


def one_in_flight(one: Installation) -> Callable[[], int]:
    return lambda: one.publishers.publish(1, 60)


def ten_in_flight(one: Installation) -> Callable[[], int]:
    return lambda: one.publishers.publish(10, 30)


MEASURES: Mapping[str, Callable[[Installation], Callable[[], int]]] = {
    "P2": registrations,
    "P3": connects,
    "P4": one_in_flight,
    "P5": ten_in_flight,
    "P8": renewals,
}


def _of_postgres(server: PostgresServer) -> float:
    """Return seconds of the first process, of what it has waited for, and of what runs below it."""
    first = int((server.home / "data" / "postmaster.pid").read_text().split()[0])
    total = (
        cpu_s(first) + sum(map(int, Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[13:15])) / _TICKS
    )
    children = subprocess.run(["pgrep", "-P", str(first)], capture_output=True, text=True, check=True).stdout.split()
    for pid in children:
        with contextlib.suppress(OSError):
            total += cpu_s(int(pid))
    return total


def _asked(server: PostgresServer, sql: str) -> int:
    command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, server.url]
    return int(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout or 0))


def _log_bytes(server: PostgresServer) -> int:
    return _asked(server, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")


def spent(one: Installation, work: Callable[[], int]) -> Spent:
    found = one.processes()
    pids = [pid for name, pid in found.items() if name != "nats"]
    log = _log_bytes(one.postgres)
    before = [cpu_s(pid) for pid in pids], _of_postgres(one.postgres), cpu_s(one.nats)
    count = work()
    time.sleep(_SETTLE_S)
    each_of = [cpu_s(pid) - was for pid, was in zip(pids, before[0], strict=True)]
    of_postgres, of_nats = _of_postgres(one.postgres) - before[1], cpu_s(one.nats) - before[2]
    micros = (seconds / count * 1e6 for seconds in (sum(each_of), max(each_of), of_postgres, of_nats))
    return Spent(*micros, (_log_bytes(one.postgres) - log) / count)


def least(rows: list[Spent], part: str) -> float:
    """Return the minimum of the rounds: what others on the machine do only adds to it."""
    return min(getattr(row, part) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*MEASURES, []], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    names, rows = given.names or list(MEASURES), list[dict[str, object]]()
    with a_rig() as rig, a_nats() as bus, contextlib.ExitStack() as stack:
        nats = int(subprocess.run(["pgrep", "-n", "nats-server"], capture_output=True, text=True, check=True).stdout)
        there = [
            stack.enter_context(installed(name, count, rig, bus, nats))
            for name, count in (("alone", 0), ("one", 1), ("two", 2))
        ]
        for number in range(given.rounds):
            for name in names:
                for one in there:
                    one.spent.setdefault(name, []).append(found := spent(one, MEASURES[name](one)))
                    print(f"{number + 1}/{given.rounds} {name} {one.name} {found}", file=sys.stderr)
        for name in names:
            alone, single, two = (one.spent[name] for one in there)
            row: dict[str, object] = {"measure": name}
            for one in there:
                parts = ("workers", "busiest", "postgres", "nats", "log")
                row[one.name] = {part: round(least(one.spent[name], part), 1) for part in parts}
            row["cost"] = round(least(two, "workers") / least(single, "workers"), 2)
            row["capacity"] = round(least(single, "busiest") / least(two, "busiest"), 2)
            row["bus"] = round(least(single, "workers") / least(alone, "workers"), 2)
            print(json.dumps(row), flush=True)
            rows.append(row)
    if not given.names:
        RESULT.write_text(json.dumps({"rows": rows, "rounds": given.rounds}, indent=1) + "\n")


if __name__ == "__main__":
    os.sched_setaffinity(0, {CLIENT_CORE})
    main()
