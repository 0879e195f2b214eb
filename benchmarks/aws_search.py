"""Searches among many things of AWS IoT by indexed terms, and how fast the index is built, on SQLite.

python benchmarks/aws_search.py [THINGS]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from birthmark.awsiot.model import Account, Thing, ThingName
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.store import registry
from birthmark.awsiot.wire.index_query import SearchIndex, parse_query
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.store import Changes, Database, open_database

BATCH, ROUNDS = 2000, 100
QUERIES = (
    "thingName:thing-0012345",
    "attributes.serial:s12345",
    "attributes.site:7 AND attributes.serial:s1234*",
    "attributes.site:7",
    "attributes.site:7 AND thingTypeName:pump AND NOT attributes.line:1",
    "attributes.site:7 OR attributes.site:8",
    "attributes.load:[500 TO 500.5]",
    "thingName:thing-00123*",
    "thingTypeName:pump",
    "*",
)


async def fill(database: Database, number: int) -> None:
    """Put things on record."""
    now = datetime.now(UTC)
    for first in range(0, number, BATCH):
        changes = Changes()
        for one in range(first, min(first + BATCH, number)):
            attributes = {"serial": f"s{one}", "site": str(one % 1000), "line": str(one % 7), "load": str(one / 100)}
            thing = Thing(ThingName(f"thing-{one:07}"), f"id-{one}", "pump", attributes, None, 1, now)
            changes.run(registry.ADD_THING, **registry.THINGS.row(thing))
        await database.commit(changes)


async def main(number: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        clock = SystemClock()
        path = Path(directory) / "birthmark.db"
        database = await open_database(f"sqlite:///{path}", clock)
        account = Account("000000000000", "us-east-1", "localhost")
        aws = AwsIot(account, database, clock, SystemEntropy(), lambda: None)  # type: ignore[arg-type,return-value]  # nothing is signed
        await aws.load()
        await fill(database, number)
        began = time.perf_counter()
        await aws.index.configure({"thingIndexingMode": "REGISTRY"}, None, actor="benchmark")
        await aws.index.wait_until_built()
        took = time.perf_counter() - began
        print(f"{number} things indexed in {took:.1f} s: {number / took:.0f}/s; {path.stat().st_size / 1e6:.0f} MB")
        for text in QUERIES:
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                page = await aws.index.search(SearchIndex.THINGS, parse_query(text), "", 100)
                times.append((time.perf_counter() - began) * 1000)
            p50, p95 = statistics.median(times), sorted(times)[int(ROUNDS * 0.95)]
            print(f"{text:70} {len(page.items):4} found  p50 {p50:6.2f} ms  p95 {p95:6.2f} ms")
        await aws.index.stop()
        await aws.keys.stop()
        await database.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
