"""Scheduled jobs of hubs: create, read, list and cancel. `job_runner` starts and drives them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from birthmark.clock_and_entropy import Clock
from birthmark.documents.queries import Condition
from birthmark.documents.query_evaluator import fits
from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub import job_store, store
from birthmark.iothub.domain_events import HubJobChanged
from birthmark.iothub.model import QUEUED, Hub, HubJob, HubJobDevice, HubJobStatus
from birthmark.iothub.ports import DevicePresence
from birthmark.iothub.rules import scheduled_jobs as rules
from birthmark.iothub.rules.twin_query_plans import values_of
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.iothub.service.twin_search import EACH, MAX_READ, MAX_S, QueryTooBroadError
from birthmark.iothub.wire.scheduled_jobs import JobOrder, job_device_json
from birthmark.net.fair_scheduler import yield_turn
from birthmark.store import Changes, Database, Statement, retry_on_conflict, to_micros

_EVER = 2**62


class HubJobs:
    """Scheduled jobs of all hubs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def now(self) -> datetime:
        """Return the time that decides whether a job is due."""
        return self._clock.now()

    async def create(self, hub: Hub, job_id: str, order: JobOrder, *, actor: str) -> HubJob:
        """Create a job. Raise `HubJobExistsError`, `TooManyHubJobsError` or the errors of `rules.create_job`."""
        made = rules.create_job(hub.name, job_id, order, actor, self._clock.now())
        row = await self._database.one(job_store.COUNT_OPEN, hub=hub.name)
        if row is not None and row["count"] >= rules.MAX_OPEN:
            raise rules.TooManyHubJobsError(hub=hub.name)
        exists = rules.HubJobExistsError(hub=hub.name, job_id=job_id)
        gone = UnknownHubError(host=hub.name)
        changes = Changes().run(store.HUB_IS_THERE, expect=1, otherwise=gone, key_name=hub.name)
        changes.run(job_store.ADD, expect=1, otherwise=exists, **job_store.JOBS.row(made))
        changes.audit(actor, "iothub.job_create", job_id, hub=hub.name, type=made.type.value, condition=made.condition)
        await self._database.commit(changes.event(HubJobChanged(hub.name, job_id)))
        return made

    async def get(self, hub: str, job_id: str) -> HubJob:
        """Return a job. Raise `UnknownHubJobError`."""
        row = await self._database.one(job_store.GET, hub=hub, job_id=job_id)
        if row is None:
            raise rules.UnknownHubJobError(hub=hub, job_id=job_id)
        return job_store.JOBS.of(row)

    async def cancel(self, hub: Hub, job_id: str, *, actor: str) -> HubJob:
        """Cancel a job; devices that have begun end by themselves. Raise `HubJobEndedError`, `UnknownHubJobError`."""

        async def decide() -> HubJob:
            job = await self.get(hub.name, job_id)
            made = rules.cancel_job(job, self._clock.now())
            changes = changing(job, made).audit(actor, "iothub.job_cancel", job_id, hub=hub.name)
            await self._database.commit(changes.event(HubJobChanged(hub.name, job_id)))
            return made

        return await retry_on_conflict(decide)

    async def page(
        self, hub: Hub, *, job_type: str = "", status: str = "", after: str = "", limit: int = 100
    ) -> Sequence[HubJob]:
        """Return the next jobs by ID; one with a type or a status only if it is given."""
        now = to_micros(self._clock.now())
        is_waiting = status in {QUEUED, HubJobStatus.SCHEDULED}
        asked: dict[str, Any] = {
            "hub": hub.name,
            "type": job_type,
            "status": HubJobStatus.SCHEDULED.value if is_waiting else status,
            "starts_after": now if status == HubJobStatus.SCHEDULED else -_EVER,
            "starts_until": now if status == QUEUED else _EVER,
            "after": after,
            "limit": limit,
        }
        return [job_store.JOBS.of(row) for row in await self._database.all(job_store.PAGE, **asked)]

    async def failed(self, hub: Hub, job_id: str, *, after: str = "", limit: int = 100) -> Sequence[HubJobDevice]:
        """Return the next failed devices of a job by name."""
        asked: dict[str, Any] = {"hub": hub.name, "job_id": job_id, "after": after, "limit": limit}
        return [job_store.JOB_DEVICES.of(row) for row in await self._database.all(job_store.FAILED_OF_JOB, **asked)]


def changing(job: HubJob, made: HubJob) -> Changes:
    """Return the change of a job's state, on condition that it is as read."""
    row = job_store.JOBS.row(made)
    values = {name: row[name] for name in ("status", "started_at", "ended_at", "reason", "is_open", "revision")}
    conflict = ChangedMeanwhileError(what="The job")
    key = {**job_store.key_of(job), "key_revision": job.revision}
    return Changes().run(job_store.CHANGE, expect=1, otherwise=conflict, **key, **values)


class JobDeviceMatch:
    """A device in a job, found by a query."""

    __slots__ = ("_one",)

    def __init__(self, one: HubJobDevice) -> None:
        self._one = one

    @property
    def key(self) -> str:
        return f"{self._one.job_id}/{self._one.name}"

    @property
    def size(self) -> int:
        return len(self._one.outcome or "") + len(self._one.error or "")

    def document(self, *, is_whole: bool) -> dict[str, Any]:
        """Return the row of the device."""
        del is_whole
        return job_device_json(self._one)


class JobDeviceSource:
    """Source of queries of `devices.jobs`: the devices in a hub's jobs, by job and name."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def find_matches(
        self,
        hub: Hub,
        condition: Condition | None,
        after: str,
        wanted: int,
        presence: DevicePresence,
        *,
        is_bounded: bool = True,
    ) -> AsyncIterator[JobDeviceMatch]:
        """Yield matches; implements `TwinSource`."""
        del presence
        statement, values = _plan(condition)
        count, read, began = 0, 0, self._clock.monotonic()
        after_job, _, after_name = after.partition("/")
        while count <= wanted:
            if is_bounded and (read >= MAX_READ or self._clock.monotonic() - began > MAX_S):
                raise QueryTooBroadError(limit=read, detail="no index finds fewer; add devices.jobs.jobId = '…'")
            asked: dict[str, Any] = {"hub": hub.name, "after_job": after_job, "after_name": after_name, "limit": EACH}
            rows = await self._database.all(statement, **asked, **values)
            for row in rows:
                one = JobDeviceMatch(job_store.JOB_DEVICES.of(row))
                if condition is None or fits(condition, one.document(is_whole=True)):
                    count += 1
                    yield one
                await yield_turn()
            if len(rows) < EACH:
                return
            read += len(rows)
            after_job, after_name = rows[-1]["job_id"], rows[-1]["name"]

    async def load_extras(
        self, hub: Hub, matches: Sequence[Any], extras: frozenset[str], presence: DevicePresence
    ) -> None:
        """Do nothing: a row has all fields."""


def _plan(condition: Condition | None) -> tuple[Statement, dict[str, Any]]:
    """Return the read with the most selective index for a condition."""
    required = values_of(condition)
    names = {"job_id": "jobId", "status": "status"} if "jobId" in required else {"device_id": "deviceId"}
    values = {column: required[name] for column, name in names.items() if name in required}
    return job_store.DEVICES_PAGES[tuple(values)], values
