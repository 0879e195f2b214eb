"""Measure how long it takes to find devices by the beginning of a word, with many on record.

    .venv/bin/python benchmarks/finding.py [sqlite] [postgresql] [--devices N] [--looks N]

Names are of a plant, a kind and a number (`north-pump-0000001`); the beginning of one of the three is looked for,
of one letter or of all but the last, a page of 100. Times are those of a look by itself, with all in memory.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Changes, Database, device_name_prefix_index, open_database
from support.services.postgres import a_postgres_server

_PLANTS = ("north", "south", "harbor", "mill", "quarry", "summit", "lake", "bridge")
_KINDS = ("pump", "valve", "meter", "gate", "drive", "probe")
_PAGE, _AT_ONCE = 100, 500
_PLACE = "hub/birthmark"


def name_of(number: int) -> str:
    """Return the name of a device."""
    return f"{_PLANTS[number % len(_PLANTS)]}-{_KINDS[number // 7 % len(_KINDS)]}-{number:07}"


def beginnings(devices: int, looks: int) -> Iterator[str]:
    """Yield what is looked for."""
    chance = random.Random(1)
    for _ in range(looks):
        word = chance.choice(name_of(chance.randrange(devices)).split("-"))
        yield word[: chance.choice((1, len(word) - 1, len(word)))]


async def look(database: Database, begin: str) -> int:
    """Find a page of devices; return how many there are."""
    rows = await database.all(
        device_name_prefix_index.FIND,
        place=_PLACE,
        limit=_PAGE,
        **device_name_prefix_index.range_of(device_name_prefix_index.folded(begin)),
    )
    return len(rows)


async def measure(url: str, devices: int, looks: int) -> None:
    """Put devices on record, look for some, and say how long it took."""
    database = await open_database(url, SystemClock())
    began = time.perf_counter()
    for first in range(0, devices, _AT_ONCE):
        changes = Changes()
        for number in range(first, min(devices, first + _AT_ONCE)):
            changes.merge(device_name_prefix_index.found(_PLACE, name_of(number)))
        await database.commit(changes)
    filled = time.perf_counter() - began
    times = []
    for begin in beginnings(devices, looks):
        began = time.perf_counter()
        assert await look(database, begin) > 0, begin
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    of_all = f"{times[len(times) // 2]:.2f} ms, p99 {times[len(times) * 99 // 100]:.2f} ms, longest {times[-1]:.2f} ms"
    print(f"{url.partition(':')[0]:10} {devices:,} devices, {filled / devices * 1e6:.0f} us each; a look {of_all}")
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--devices", type=int, default=1_000_000)
    parser.add_argument("--looks", type=int, default=5000)
    given = parser.parse_args()
    if "sqlite" in given.engines:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(measure(f"sqlite:///{directory}/x.db", given.devices, given.looks))
    if "postgresql" in given.engines:
        with a_postgres_server() as server:
            asyncio.run(measure(server.url, given.devices, given.looks))


if __name__ == "__main__":
    main()
