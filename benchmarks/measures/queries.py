"""P39, P40: a page of a hub's query: by an indexed tag among 100,000 twins, and the first one of 1,000,000 devices.

As long as whoever asks waits for it, in the server's own process, beside the 50 ms that it may take. What of that the
database takes for the same rows is told by `hub_queries.py`, with other conditions.
"""

import asyncio
import time

from hub_queries import Nobody, fill
from rig import Rig

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.iothub.service import IotHub
from birthmark.store import open_database
from measures.measure import Measure, Sample

TWINS, DEVICES, PAGES = 100_000, 1_000_000, 50
_BUDGET_MS = 50.0


class QueryByTag(Measure):
    """See the module."""

    name, title, peer = "P39", "page of a query by a tag, of 100,000 twins", "a budget of 50 ms"
    unit, gate, aim = "ms", 1.0, 0.2
    query, found, devices = "SELECT * FROM devices WHERE tags.site = 7", 100, TWINS

    def __init__(self, rig: Rig) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._begin(f"sqlite:///{rig.directory / self.name}.db"))

    async def _begin(self, url: str) -> None:
        database = await open_database(url, SystemClock())
        self._iothub = IotHub.of(database, SystemClock(), SystemEntropy())
        self._hub = await self._iothub.hubs.create("main", "hub.example", actor="benchmark")
        await fill(database, 0, TWINS, has_twins=True)
        await self._iothub.index.index_all()
        await fill(database, TWINS, self.devices, has_twins=False)

    def round(self) -> Sample:
        return Sample(self._runner.run(self._pages()), _BUDGET_MS)

    async def _pages(self) -> float:
        began = time.perf_counter()
        for _ in range(PAGES):
            answer = await self._iothub.queries.answer(self._hub, self.query, None, 100, Nobody())
            assert len(answer.rows) == self.found, len(answer.rows)
        return (time.perf_counter() - began) * 1000 / PAGES


class FirstPage(QueryByTag):
    """See the module."""

    name, title = "P40", "first page of all of 1,000,000 devices"
    query, devices = "SELECT * FROM devices", DEVICES
