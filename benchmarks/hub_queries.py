"""Queries among many twins of a hub: a page by an indexed tag, by ranges and conditions, and the first page of all.

python benchmarks/hub_queries.py [sqlite] [postgresql] [--twins N] [--devices N]

Each line has the whole answer and beside it its floor: what the engine alone takes for the rows of that page. Of
`--devices` those beyond the first have no twin, so that the hub is as large as hubs become.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.documents import DocumentSection, merged
from birthmark.iothub import store, twin_index_store
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, DeviceId, Hub, Twin
from birthmark.iothub.ports import UNSEEN, SeenAt
from birthmark.iothub.rules.twin_query_plans import plan, read_query
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.twin_search import QueryTooBroadError
from birthmark.store import Changes, Database, open_database
from support.services.postgres import a_postgres_server

BATCH, ROUNDS, PAGE, TOO_LONG_MS = 2000, 50, 100, 300
WHERES = (
    "",
    "WHERE deviceId = 'd-0012345'",
    "WHERE tags.serial = 's12345'",
    "WHERE tags.site = 7",
    "WHERE tags.site = 7 AND properties.reported.load > 500",
    "WHERE tags.site IN [7, 8, 9] AND tags.line != 3",
    "WHERE properties.reported.load >= 500 AND properties.reported.load < 500.5",
    "WHERE starts_with(tags.serial, 's1234')",
    "WHERE tags.kind = 'pump'",
    "WHERE NOT is_defined(tags.serial)",
)


class Nobody:
    """Nobody is connected."""

    async def seen(self, _hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        return [UNSEEN] * len(device_ids)

    async def connected(self, _hub: str) -> int:
        return 0

    async def connected_ids(self, _hub: str, _most: int) -> Sequence[str] | None:
        return ()


def _twin(number: int) -> dict[str, Any]:
    tags = {"serial": f"s{number}", "site": number % 1000, "line": number % 7, "kind": "pump"}
    desired = {"interval": 5, "mode": {"night": True}}
    reported = {"load": number / 100, "firmware": {"version": f"1.{number % 9}.0", "at": number}, "on": True}
    sections = (merged(DocumentSection(), values, 1) for values in (desired, reported))
    twin = Twin("main", DeviceId(f"d-{number:07}"), tags, *sections)
    named = {"hub": twin.hub, "device_id": twin.device_id, "version": 1, "updated_at": 1}
    return {**named, "body": store.twin_body(twin)}


async def fill(database: Database, first: int, last: int, *, has_twins: bool) -> None:
    """Put devices on record."""
    now, sas = datetime.now(UTC), DeviceAuthentication(AuthenticationType.SAS, primary_key=b"k" * 32)
    for begin in range(first, last, BATCH):
        changes = Changes()
        for number in range(begin, min(begin + BATCH, last)):
            named = DeviceId(f"d-{number:07}")
            device = Device("main", named, "1", "etag", True, None, sas, False, now, now)  # noqa: FBT003 - as on record
            changes.run(store.ADD_DEVICE, **store.device_row(device))
            if has_twins:
                changes.run(store.ADD_TWIN, **_twin(number))
        await database.commit(changes)


async def page_of(iothub: IotHub, hub: Hub, where: str) -> tuple[list[float], str]:
    """Return how many milliseconds the first page takes, and what came of it."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        try:
            answer = await iothub.queries.answer(hub, f"SELECT * FROM devices {where}", None, PAGE, Nobody())
            found = f"{len(answer.rows)} found"
        except QueryTooBroadError:
            found = "too broad"
        times.append((time.perf_counter() - began) * 1000)
        if times[0] > TOO_LONG_MS:  # once is enough
            break
    return sorted(times), found


async def floor_of(iothub: IotHub, database: Database, hub: Hub, where: str) -> float:
    """Return how many milliseconds the engine takes for the candidates of one page."""
    leaves = await iothub.queries.finding.leaves(
        hub, plan(read_query(f"SELECT * FROM devices {where}").where), Nobody()
    )
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await database.all(twin_index_store.next_of(hub.name, leaves, (), "", PAGE + 1))
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


async def show(iothub: IotHub, database: Database, hub: Hub) -> None:
    for where in WHERES:
        times, found = await page_of(iothub, hub, where)
        floor, p95 = await floor_of(iothub, database, hub, where), times[int(len(times) * 0.95)]
        print(
            f"{where or '*':80} {found:>10}  p50 {statistics.median(times):8.2f} ms  p95 {p95:8.2f}  floor {floor:6.2f}"
        )


def _size_of(file: Path | None) -> int:
    return 0 if file is None else file.stat().st_size


async def measure(url: str, file: Path | None, arguments: argparse.Namespace) -> None:
    database = await open_database(url, SystemClock())
    iothub = IotHub.of(database, SystemClock(), SystemEntropy())
    hub = await iothub.hubs.create("main", "hub.example", actor="benchmark")
    await fill(database, 0, arguments.twins, has_twins=True)
    before = _size_of(file)
    began = time.perf_counter()
    await iothub.index.index_all()
    took = time.perf_counter() - began
    size = "" if file is None else f"; {(_size_of(file) - before) / arguments.twins:.0f} bytes a twin"
    print(f"{arguments.twins} twins indexed in {took:.1f} s: {arguments.twins / took:.0f}/s{size}")
    await show(iothub, database, hub)
    if arguments.devices > arguments.twins:
        await fill(database, arguments.twins, arguments.devices, has_twins=False)
        print(f"{arguments.devices} devices, {arguments.twins} with a twin:")
        await show(iothub, database, hub)
    await database.close()


def main(arguments: argparse.Namespace) -> None:
    for engine in arguments.engines or ["sqlite"]:
        print(engine)
        if engine == "sqlite":
            with tempfile.TemporaryDirectory() as directory:
                file = Path(directory) / "birthmark.db"
                asyncio.run(measure(f"sqlite:///{file}", file, arguments))
        else:
            with a_postgres_server() as server:
                asyncio.run(measure(server.url, None, arguments))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", choices=["sqlite", "postgresql", []])
    parser.add_argument("--twins", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=0)
    main(parser.parse_args())
