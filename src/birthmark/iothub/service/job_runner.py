"""Runner of scheduled jobs: starts them, selects their devices, and drives each device to its end.

The leader runs it while the server runs, woken by changes and by deadlines. The rows contain the progress; each commit
requires them to be as read. So a device ends in exactly one state, also after a crash or with another worker:

- a twin update and the state of its device are one commit;
- a method's device is marked before the call. If its worker dies, the device fails, as the method may have run.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, UnavailableError
from birthmark.iothub import job_store
from birthmark.iothub.domain_events import HubJobChanged
from birthmark.iothub.model import Hub, HubJob, HubJobDevice, HubJobDeviceStatus, HubJobStatus, HubJobType, parse_name
from birthmark.iothub.ports import DeviceCalls
from birthmark.iothub.rules import scheduled_jobs as rules
from birthmark.iothub.rules.tier_throttles_and_quotas import Allowance
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.iothub.service.queries import HubQueries
from birthmark.iothub.service.scheduled_jobs import HubJobs, changing
from birthmark.iothub.service.twins import Twins
from birthmark.iothub.wire.scheduled_jobs import method_of
from birthmark.late_reference import Ref
from birthmark.net.fair_scheduler import Backlog
from birthmark.store import Changes, Database, to_micros
from birthmark.supervised_tasks import Leads, always, cancel_and_wait, note

LOOK_S = 1.0
"""Interval of checks for leadership and due work."""
MAX_IN_FLIGHT = 200
"""Maximum number of devices of a job at a time."""
_AGAIN_S = 1.0
_TRIM_EVERY_S = 3600.0
_MAX_CALL = timedelta(seconds=660)
"""Time after which a method call has certainly ended."""
_EVERY = 2**62
NAME = "scheduled jobs"
Key = tuple[str, str]
NumberOf = Callable[[BirthmarkError], tuple[int, str, int]]
"""Returns status, name and number of an error, as clients of the hub know it."""
_CUT = "504101", "GatewayTimeout: the time window of the job ended before the device responded; the method may have run"
_LATE = "504101", "GatewayTimeout: the time window of the job ended before its turn"
_LOST = "500001", "ServerError: the server was stopped during the call; the method may have run"


@dataclass(frozen=True, slots=True)
class JobSurroundings:
    """What a runner needs of connected devices. `holder` identifies this worker; `is_alone` means there is no other."""

    devices: DeviceCalls
    number_of: NumberOf
    holder: str
    is_alone: bool


@dataclass(slots=True, eq=False)
class _Drive:
    """A job that this worker drives, and its devices in flight."""

    key: Key
    is_stirred: bool = False
    """Whether the job may have changed since it was read."""
    in_flight: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def owner(self) -> str:
        return f"jobs of hub {self.key[0]}"


class HubJobRunner:
    """Runs the scheduled jobs of all hubs; `leads` returns whether this worker does."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hubs: Hubs,
        jobs: HubJobs,
        *,
        queries: HubQueries,
        twins: Twins,
        leads: Leads = always,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hubs = hubs
        self._jobs = jobs
        self._queries = queries
        self._twins = twins
        self._around: Ref[JobSurroundings] = Ref()
        self._work = asyncio.Event()
        self._driven: dict[Key, tuple[_Drive, asyncio.Task[None]]] = {}
        self._paces: dict[str, tuple[float, Allowance]] = {}
        self._trimmed_at: float | None = None
        self.leads = leads

    def begin(self, around: JobSurroundings) -> None:
        """Set the surroundings, before the runner starts."""
        self._around.fill(around)

    def wake(self, changed: HubJobChanged) -> None:
        """Process a changed job at once."""
        if (known := self._driven.get((changed.hub, changed.job_id))) is not None:
            known[0].is_stirred = True
        self._work.set()

    async def keep_running(self) -> None:
        """Run jobs while the server runs."""
        if self._around().is_alone:
            await self.free_held("")  # no call of an earlier process is in progress
        try:
            while True:
                self._work.clear()
                if await self.leads():
                    await self.step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._work.wait()
        finally:
            await self.stop()
            with contextlib.suppress(BirthmarkError):  # the next start repeats it
                await self.free_held(self._around().holder)

    async def step(self) -> None:
        """Start the jobs that are due, and drive those that have started."""
        after = ""
        while rows := await self._database.all(job_store.OPEN_HUBS, after=after):
            for row in rows:
                await self._step_hub(row["hub"])
            after = rows[-1]["hub"]
        now = self._clock.monotonic()
        if self._trimmed_at is None or now - self._trimmed_at >= _TRIM_EVERY_S:
            self._trimmed_at = now
            await self.trim()

    async def stop(self) -> None:
        """Stop driving jobs; each continues from its rows."""
        await cancel_and_wait(*(task for _, task in self._driven.values()))
        self._driven.clear()

    async def _step_hub(self, hub: str) -> None:
        started = [job_store.JOBS.of(row) for row in await self._database.all(job_store.STARTED, hub=hub)]
        running = sum(one.status is HubJobStatus.RUNNING for one in started)
        room = rules.most_running(self._hubs.editions.get(hub)) - running
        now = self._clock.now()
        for row in await self._database.all(job_store.WAITING, hub=hub, limit=room) if room > 0 else ():
            job = job_store.JOBS.of(row)
            if job.starts_at <= now:
                with contextlib.suppress(ChangedMeanwhileError):  # cancelled: the next step sees it
                    made = rules.start_job(job, now)
                    await self._database.commit(changing(job, made))
                    started.append(made)
        for job in started:
            self._start_drive((job.hub, job.job_id))

    def _start_drive(self, key: Key) -> None:
        if key in self._driven:
            return
        drive = _Drive(key)
        task = asyncio.get_running_loop().create_task(self._drive_supervised(drive))
        self._driven[key] = drive, task

    async def _drive_supervised(self, drive: _Drive) -> None:
        try:
            await Backlog.running().account_steps(self._drive(drive), drive)
        except Exception as error:  # noqa: BLE001 - any error: the next step drives it again
            note(NAME, error)
            await asyncio.sleep(_AGAIN_S)
        finally:
            await cancel_and_wait(*drive.in_flight)
            self._driven.pop(drive.key, None)
            self._work.set()

    async def _drive(self, drive: _Drive) -> None:
        """Drive a job until it is closed, or this worker no longer leads."""
        while await self.leads():
            drive.is_stirred = False
            row = await self._database.one(job_store.GET, hub=drive.key[0], job_id=drive.key[1])
            if row is None or not row["is_open"]:
                break
            job = job_store.JOBS.of(row)
            hub = next((one for one in self._hubs.all() if one.name == job.hub), None)
            if hub is None:
                break  # deleted; or created on another worker and not known here yet
            if job.status is HubJobStatus.RUNNING and self._left_s(job) > 0:
                await (self._work_on(drive, hub, job) if job.is_selected else self._select(drive, hub, job))
            elif job.status is HubJobStatus.RUNNING and not job.is_selected:
                reason = "The time window ended before the devices were selected"
                await self._database.commit(changing(job, rules.fail_job(job, reason, self._clock.now())))
            else:
                await self._end_pending(job)
                await self._wait_for(drive)
            if await self._close(drive, job):
                break
        await self._wait_for(drive)

    def _left_s(self, job: HubJob) -> float:
        """Return the rest of a job's time window in seconds."""
        return (rules.ends_at(job) - self._clock.now()).total_seconds()

    # ---- selection

    async def _select(self, drive: _Drive, hub: Hub, job: HubJob) -> None:
        """Add the devices that a job's condition selects, page by page."""
        try:
            async for names, is_last in self._selected(hub, job):
                job = await self._add(job, names, is_last=is_last)
                if drive.is_stirred or self._left_s(job) <= 0 or not await self.leads():
                    return
        except rules.HubJobEndedError:
            return
        except BirthmarkError as error:
            if isinstance(error, ChangedMeanwhileError):
                raise
            made = rules.fail_job(job, str(error), self._clock.now())
            await self._database.commit(changing(job, made))

    async def _selected(self, hub: Hub, job: HubJob) -> AsyncIterator[tuple[Sequence[str], bool]]:
        query = rules.selection(job.condition)
        source, names = self._queries.sources[query.collection], list[str]()
        async for one in source.find_matches(
            hub, query.where, job.reached, _EVERY, self._around().devices, is_bounded=False
        ):
            names.append(one.key)
            if len(names) == job_store.EACH:
                yield names, False
                names = []
        yield names, True

    async def _add(self, job: HubJob, names: Sequence[str], *, is_last: bool) -> HubJob:
        now, reached = self._clock.now(), names[-1] if names else job.reached
        changes = Changes().run(
            job_store.REACHED,
            expect=1,
            otherwise=self._ended(job),
            **job_store.key_of(job),
            key_reached=job.reached,
            reached=reached,
            is_selected=int(is_last),
            more=len(names),
        )
        for name in names:
            device_id, _ = parse_name(name)
            pending = HubJobDeviceStatus.PENDING
            one = HubJobDevice(job.hub, job.job_id, name, device_id, job.type, pending, now, now)
            changes.run(job_store.ADD_DEVICE, **job_store.JOB_DEVICES.row(one))
        await self._database.commit(changes)
        return replace(job, reached=reached, is_selected=is_last, total=job.total + len(names))

    # ---- devices

    async def _work_on(self, drive: _Drive, hub: Hub, job: HubJob) -> None:
        """Begin the pending devices of a job at the pace of its hub, and wait until they are done."""
        after, asked = "", {"hub": job.hub, "job_id": job.job_id}
        while rows := await self._database.all(job_store.PENDING, after=after, **asked):
            for row in rows:
                if not await self._has_turn(drive, job):
                    return
                one = job_store.JOB_DEVICES.of(row)
                task = asyncio.get_running_loop().create_task(self._device_supervised(drive, hub, job, one))
                drive.in_flight.add(task)
                task.add_done_callback(drive.in_flight.discard)
            after = rows[-1]["name"]
            if not await self.leads():
                return
        await self._wait_for(drive, job)

    async def _has_turn(self, drive: _Drive, job: HubJob) -> bool:
        """Wait for a place and the pace of the hub; return False if the job ended before."""
        while not drive.is_stirred and (left_s := self._left_s(job)) > 0:
            if len(drive.in_flight) >= MAX_IN_FLIGHT:
                until = min(left_s, LOOK_S)
                await asyncio.wait(drive.in_flight, timeout=until, return_when=asyncio.FIRST_COMPLETED)
                continue
            if not (wait_s := self._wait_s(job.hub)):
                return True
            await asyncio.sleep(min(wait_s, left_s, LOOK_S))
        return False

    def _wait_s(self, hub: str) -> float:
        """Take a device operation of a hub's tier; return the wait if there is none."""
        per_s = rules.devices_per_s(self._hubs.editions.get(hub))
        if per_s is None:
            self._paces.pop(hub, None)
            return 0.0
        known = self._paces.get(hub)
        if known is None or known[0] != per_s:
            known = self._paces[hub] = per_s, Allowance(max(1.0, per_s), per_s)
        if not (wait_s := known[1].wait_s(1, self._clock.monotonic())):
            known[1].take(1)
        return wait_s

    async def _wait_for(self, drive: _Drive, job: HubJob | None = None) -> None:
        """Wait for the devices in flight; for those of a `job` only until it may have changed."""
        while drive.in_flight and (job is None or (not drive.is_stirred and self._left_s(job) > 0)):
            await asyncio.wait(drive.in_flight, timeout=LOOK_S)

    async def _device_supervised(self, drive: _Drive, hub: Hub, job: HubJob, one: HubJobDevice) -> None:
        """Process a device; if the job was cancelled, leave it as it is."""
        try:
            work = self._call if job.type is HubJobType.METHOD else self._update
            await Backlog.running().account_steps(work(hub, job, one), drive)
        except (rules.HubJobEndedError, ChangedMeanwhileError):
            drive.is_stirred = True
        except Exception as error:  # noqa: BLE001 - any error: the device is still pending, or found running later
            note(NAME, error)
            drive.is_stirred = True
            await asyncio.sleep(_AGAIN_S)

    async def _update(self, hub: Hub, job: HubJob, one: HubJobDevice) -> None:
        """Update a twin and complete its device in one commit."""
        content = json.loads(job.content)

        def along() -> Changes:
            made = rules.complete_device(one, None, self._clock.now())
            return self._changed(job, one, made, if_running=True, succeeded=1)

        try:
            await self._twins.desire(hub, one.name, content, "*", replaces=False, actor=job.actor, along=along)
        except (rules.HubJobEndedError, ChangedMeanwhileError, UnavailableError):
            raise  # the device is still pending
        except BirthmarkError as error:
            made = rules.fail_device(one, *self._told(error), self._clock.now())
            await self._database.commit(self._changed(job, one, made, if_running=True, failed=1))

    async def _call(self, hub: Hub, job: HubJob, one: HubJobDevice) -> None:
        """Mark a device, call its method once, and store the outcome."""
        around = self._around()
        begun = rules.begin_device(one, around.holder, self._clock.now())
        await self._database.commit(self._changed(job, one, begun, if_running=True, running=1))
        outcome, problem = None, _CUT
        try:
            async with asyncio.timeout(max(0.0, self._left_s(job))):
                status, payload = await around.devices.call(hub, one.name, method_of(json.loads(job.content)))
            outcome = json.dumps({"status": status, "payload": payload})
        except TimeoutError:
            pass
        except BirthmarkError as error:
            problem = self._told(error)
        now = self._clock.now()
        if outcome is not None:
            made = rules.complete_device(begun, outcome, now)
            changes = self._changed(job, begun, made, running=-1, succeeded=1)
        else:
            changes = self._changed(job, begun, rules.fail_device(begun, *problem, now), running=-1, failed=1)
        await self._database.commit(changes)

    def _told(self, error: BirthmarkError) -> tuple[str, str]:
        """Return the code and the description of a device's failure."""
        _, name, number = self._around().number_of(error)
        return str(number), f"{name}: {error}"

    def _changed(
        self, job: HubJob, one: HubJobDevice, made: HubJobDevice, *, if_running: bool = False, **counts: int
    ) -> Changes:
        """Return the change of a device that is as read; `if_running` requires that its job goes on."""
        count = job_store.COUNT_IF_RUNNING if if_running else job_store.COUNT
        ended, row = partial(self._ended, job), job_store.JOB_DEVICES.row(made)
        names = ("status", "updated_at", "started_at", "ended_at", "holder", "outcome", "error_code", "error")
        key = {**job_store.key_of(one), "key_name": one.name, "key_status": one.status.value}
        counted = {**job_store.key_of(job), **job_store.counted(**counts)}
        changes = Changes().run(count, expect=1, otherwise=ended, **counted)
        values = {name: row[name] for name in names}
        return changes.run(job_store.CHANGE_DEVICE, expect=1, otherwise=ended, **key, **values)

    def _ended(self, job: HubJob) -> BirthmarkError:
        return rules.HubJobEndedError(hub=job.hub, job_id=job.job_id, status="changed")

    # ---- end

    async def _end_pending(self, job: HubJob) -> None:
        """End the devices that have not begun: failed after the time window, else canceled."""
        is_late = job.status is HubJobStatus.RUNNING
        status = HubJobDeviceStatus.FAILED if is_late else HubJobDeviceStatus.CANCELED
        code, reason = _LATE if is_late else (None, None)
        asked: dict[str, Any] = {"hub": job.hub, "job_id": job.job_id, "after": ""}
        while rows := await self._database.all(job_store.PENDING, **asked):
            now = to_micros(self._clock.now())
            values = {"status": status.value, "updated_at": now, "ended_at": now, "error_code": code, "error": reason}
            counts = job_store.counted(failed=len(rows)) if is_late else job_store.counted(canceled=len(rows))
            key, otherwise = job_store.key_of(job), partial(self._ended, job)
            # The row of the job first, as in every change of a device: two workers then do not deadlock.
            changes = Changes().run(job_store.COUNT, expect=1, otherwise=otherwise, **key, **counts)
            last = rows[-1]["name"]
            changes.run(job_store.END_PENDING, expect=len(rows), otherwise=otherwise, key_last=last, **key, **values)
            try:
                await self._database.commit(changes)
            except rules.HubJobEndedError:  # a device in flight was faster
                await asyncio.sleep(0)

    async def _close(self, drive: _Drive, job: HubJob) -> bool:
        """End a job whose devices are all done; return whether it has ended."""
        row = await self._database.one(job_store.GET, hub=job.hub, job_id=job.job_id)
        if row is None:
            return True
        job = job_store.JOBS.of(row)
        is_over = job.is_selected or job.status is not HubJobStatus.RUNNING
        if not is_over or job.pending or drive.in_flight:
            return False
        if job.running:  # of a worker that is gone, or that led before this one
            until = to_micros(self._clock.now() - _MAX_CALL)
            asked: dict[str, Any] = {"hub": job.hub, "job_id": job.job_id, "until": until}
            await self._fail_lost(await self._database.all(job_store.RUNNING_SINCE, **asked))
            await asyncio.sleep(_AGAIN_S)
            return False
        made = job_store.JOBS.row(rules.close_job(job, self._clock.now()))
        values = {name: made[name] for name in ("status", "started_at", "ended_at", "reason", "is_open", "revision")}
        key = {**job_store.key_of(job), "key_revision": job.revision}
        try:
            await self._database.commit(Changes().run(job_store.CLOSE, expect=1, **key, **values))
        except ChangedMeanwhileError:
            return False
        return True

    async def free_held(self, holder: str) -> None:
        """Fail the devices whose call was in progress at a worker that no longer exists; empty for any worker."""
        while rows := await self._database.all(job_store.HELD, holder=holder):
            if not await self._fail_lost(rows):
                return

    async def _fail_lost(self, rows: Sequence[Any]) -> int:
        """Fail devices that were found running; return how many were still."""
        done = 0
        for row in rows:
            one = job_store.JOB_DEVICES.of(row)
            made = rules.fail_device(one, *_LOST, self._clock.now())
            job = await self._jobs.get(one.hub, one.job_id)
            with contextlib.suppress(rules.HubJobEndedError):
                await self._database.commit(self._changed(job, one, made, running=-1, failed=1))
                done += 1
        return done

    async def trim(self) -> None:
        """Delete the jobs that ended 30 days ago, with their devices."""
        until = to_micros(self._clock.now() - rules.HISTORY)
        while rows := await self._database.all(job_store.ENDED, until=until):
            for row in rows:
                key: dict[str, Any] = {"hub": row["hub"], "job_id": row["job_id"]}
                while some := await self._database.all(job_store.SOME_OF_JOB, **key):
                    await self._database.commit(Changes().run(job_store.DELETE_DEVICES, last=some[-1]["name"], **key))
                await self._database.commit(Changes().run(job_store.DELETE, **key))
