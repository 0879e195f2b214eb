"""A hub with scheduled jobs on a real database of either engine, and devices that respond to methods as a test says."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from birthmark.iothub import job_store
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.model import Hub, HubJob, HubJobDevice, HubJobType
from birthmark.iothub.rules.direct_methods import DeviceNotOnlineError
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.job_runner import JobSurroundings
from birthmark.iothub.wire import MethodCall
from birthmark.iothub.wire.scheduled_jobs import JobOrder
from support.azure.query_world import Connected, World, a_world
from support.fakes import FakeClock

METHOD = {
    "methodName": "look",
    "payload": None,
    "responseTimeoutInSeconds": 30,
    "connectTimeoutInSeconds": 0,
}


@dataclass
class Fleet(Connected):
    """Devices that respond to methods; `calls` counts the calls of each."""

    calls: Counter[str] = field(default_factory=Counter)
    responds: Callable[[str], Awaitable[tuple[int, Any]]] | None = None

    async def call(self, hub: Hub, device_id: str, call: MethodCall) -> tuple[int, Any]:
        del hub
        if device_id not in self.names:
            raise DeviceNotOnlineError(device_id=device_id)
        self.calls[device_id] += 1
        if self.responds is not None:
            return await self.responds(device_id)
        return 200, {"heard": call.method_name}


@dataclass
class JobWorld(World):
    fleet: Fleet = field(default_factory=Fleet)
    clock: FakeClock = field(default_factory=FakeClock)

    async def devices(self, *names: str) -> None:
        for name in names:
            await self.has(name, {"site": "north"})

    async def create(
        self, job_id: str, condition: str = "*", *, method: bool = False, max_s: int = 60, **more: Any
    ) -> HubJob:
        kind = HubJobType.METHOD if method else HubJobType.TWIN
        content = METHOD if method else {"properties": {"desired": {"fan": 1}}, "etag": "*"}
        order = JobOrder(kind, condition, content, more.get("starts_at"), max_s)
        return await self.iothub.jobs.create(self.hub, job_id, order, actor="test")

    async def job(self, job_id: str) -> HubJob:
        return await self.iothub.jobs.get(self.hub.name, job_id)

    async def reached(self, job_id: str, succeeded: int) -> None:
        """Wait until this many devices of a job have succeeded."""
        async with asyncio.timeout(10):
            while (await self.job(job_id)).succeeded < succeeded:
                await asyncio.sleep(0.01)

    async def ended(self, job_id: str) -> HubJob:
        """Run jobs until one is closed."""
        async with asyncio.timeout(20):
            while (job := await self.job(job_id)).is_open:
                await self.iothub.job_runner.step()
                await asyncio.sleep(0.01)
        return job

    async def rows(self, job_id: str) -> dict[str, HubJobDevice]:
        asked: dict[str, Any] = {"hub": self.hub.name, "job_id": job_id, "after_job": "", "after_name": ""}
        rows = await self.database.all(job_store.DEVICES_PAGES["job_id",], limit=1000, **asked)
        return {row["name"]: job_store.JOB_DEVICES.of(row) for row in rows}

    async def outcomes(self, job_id: str) -> dict[str, str]:
        """Return the status of each device, with the code of its error."""
        rows = await self.rows(job_id)
        return {name: " ".join(filter(None, (one.status, one.error_code))) for name, one in rows.items()}


def begun(iothub: IotHub, fleet: Fleet, holder: str = "mqtt", *, is_alone: bool = True) -> None:
    """Give the runner of a worker its devices."""
    iothub.job_runner.begin(JobSurroundings(fleet, http_error, holder, is_alone))


@contextlib.asynccontextmanager
async def a_job_world(database_url: str) -> AsyncIterator[JobWorld]:
    async with a_world(database_url) as known:
        world = JobWorld(known.iothub, known.hub, known.database, clock=known.clock)
        begun(world.iothub, world.fleet)
        try:
            yield world
        finally:
            await world.iothub.job_runner.stop()
