"""Measure commits: how many a second, and what a change costs us and PostgreSQL, by the size of a batch.

    .venv/bin/python benchmarks/commits.py [sqlite] [postgresql] [--seconds N]

A full change is an insert, an upsert, a conditional update, an audit row and an event; a small one is an upsert alone.
A batch is what is handed in together and waited for: commits one after the other are batches of 1.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from birthmark.audit.signed_heads import AuditKey
from birthmark.clock_and_entropy import SystemClock
from birthmark.iothub.domain_events import DeviceChanged
from birthmark.store import Changes, open_database
from support.services.postgres import a_postgres_server
from support.store.store_table import ADD, BUMP, PUT, make_table

SIZES = (1, 10, 100)
_TICKS = os.sysconf("SC_CLK_TCK")


def full(n: int) -> Changes:
    """Return a change as an operation makes it."""
    changes = Changes().run(ADD, id=f"r{n}", n=n).run(PUT, id=f"u{n % 50}", n=n)
    changes.run(BUMP, expect=1, key_id=f"r{n}", key_n=n, n=n + 1)
    return changes.audit("operator", "bench.did", f"r{n}", n=n).event(DeviceChanged("hub", f"r{n}"))


def small(n: int) -> Changes:
    """Return the least change there is."""
    return Changes().run(PUT, id=f"s{n % 1000}", n=n)


def cpu_of(server: int) -> float:
    """Return the processor time in seconds of a PostgreSQL server's processes, those that have ended too."""
    total = 0
    if not server:
        return 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if server in {int(stat.parent.name), int(fields[1])}:
                total += sum(map(int, fields[11:15] if int(stat.parent.name) == server else fields[11:13]))
    return total / _TICKS


async def measure(url: str, server: int, seconds: float) -> None:
    database = await open_database(url, SystemClock(), signer=AuditKey("bench"))
    await make_table(database)
    number = 0
    kinds: dict[str, Callable[[int], Changes]] = {"full": full, "small": small}
    for name, make in kinds.items():
        for size in SIZES:
            for _ in range(5):  # what is met first is prepared first
                number += 1
                await database.commit(make(number))
            begun, ours, theirs, batches = time.perf_counter(), time.process_time(), cpu_of(server), 0
            while time.perf_counter() - begun < seconds:
                await asyncio.gather(*(database.submit(make(number + one)) for one in range(1, size + 1)))
                number, batches = number + size, batches + 1
            took, changes = time.perf_counter() - begun, batches * size
            costs = [1e6 * cost / changes for cost in (time.process_time() - ours, cpu_of(server) - theirs)]
            print(
                f"{name:5} {size:4} a batch  {batches / took:7.0f} commits/s  {changes / took:8.0f} changes/s  "
                f"{costs[0]:6.1f} us ours  {costs[1]:6.1f} us PostgreSQL's"
            )
    await database.close()


@contextlib.contextmanager
def an_engine(name: str) -> Iterator[tuple[str, int]]:
    """Run one; yields its URL and the process of its server, 0 for none."""
    if name == "postgresql":
        with a_postgres_server() as server:
            yield server.url, int((server.home / "data" / "postmaster.pid").read_text().split()[0])
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite:///{directory}/bench.db", 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    for engine in arguments.engines:
        print(engine)
        with an_engine(engine) as (url, server):
            asyncio.run(measure(url, server, arguments.seconds))


if __name__ == "__main__":
    main()
