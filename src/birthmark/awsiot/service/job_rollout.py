"""Job rollout: creates executions at the job's rate, times them out, cancels them, and completes jobs.

The leader runs it while the server runs. The rows contain the progress, and each batch is committed on the condition
that no other worker advanced. After a crash, or on another worker, the rollout therefore continues where it stopped and
creates no execution twice.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from birthmark.awsiot.model import ExecutionStatus, Job, JobExecution, JobStatus, JobTarget
from birthmark.awsiot.rules import job_executions as pace
from birthmark.awsiot.rules import job_executions as rules
from birthmark.awsiot.rules import job_schedule
from birthmark.awsiot.service.jobs import JobService
from birthmark.awsiot.store import jobs as store
from birthmark.awsiot.wire.jobs import JobConfiguration, settings_of
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ChangedMeanwhileError
from birthmark.net.fair_scheduler import Slices
from birthmark.store import Changes, Database
from birthmark.supervised_tasks import Leads, always

LOOK_S = 1.0
PORTION = 250
_PORTIONS = 20
"""Maximum number of consecutive batches per job before other jobs get their turn."""
_AGAIN_S = 60.0
"""Interval of group checks for continuous jobs without a change notification."""
_OVER = "The end time was reached"
_ABORTED = "The abort criteria were met: too many executions failed"


class Rollout:
    """Processes the due work of all jobs; `leads` returns whether this worker does."""

    def __init__(self, database: Database, clock: Clock, jobs: JobService, leads: Leads = always) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs
        self._executions = jobs.executions
        self._looked_at: float | None = None
        self._changed = True
        self.leads = leads

    def registry_changed(self, _event: object = None) -> None:
        """Check the groups of continuous jobs in the next step, as things may have joined."""
        self._changed = True

    async def keep_running(self) -> None:
        """Process due work while the server runs."""
        while True:
            self._jobs.work.clear()
            if await self.leads():
                await self.step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._jobs.work.wait()

    async def step(self) -> None:
        """Process the work that is due now."""
        now = self._clock.monotonic()
        is_fresh = self._changed or self._looked_at is None or now - self._looked_at >= _AGAIN_S
        if is_fresh:
            self._changed, self._looked_at = False, now
        await self._time_out()
        await self._begin_scheduled()
        after, slices = "", Slices(1)
        while rows := await self._database.all(store.ACTIVE, after=after, limit=PORTION):
            for row in rows:
                await slices.step()
                with contextlib.suppress(ChangedMeanwhileError, rules.UnknownJobError):  # the next step has its state
                    await self._go_on(store.JOBS.of(row), looks_again=is_fresh)
            after = rows[-1]["job_id"]
        for row in await self._database.all(store.BEHIND):
            with contextlib.suppress(ChangedMeanwhileError):
                await self._follow(store.JOBS.of(row))
        await self._executions.send_overdue_notifications()

    async def _begin_scheduled(self) -> None:
        """Start the scheduled jobs that are due."""
        after = ""
        while rows := await self._database.all(store.SCHEDULED, after=after, limit=PORTION):
            for row in rows:
                job, now = store.JOBS.of(row), self._clock.now()
                starts = job_schedule.starts_at(settings_of(job.settings))
                if starts is None or starts <= now:
                    made = replace(job, status=JobStatus.IN_PROGRESS, rolled_at=now)
                    with contextlib.suppress(ChangedMeanwhileError):  # the next step has its state
                        await self._database.commit(self._jobs.changing(job, made))
            after = rows[-1]["job_id"]

    # ---- job in progress

    async def _go_on(self, job: Job, *, looks_again: bool) -> None:
        settings, now = settings_of(job.settings), self._clock.now()
        counts = await self._counts(job, settings)
        if rules.should_abort(settings, counts):
            await self._cancel(job, _ABORTED, "aborted", force=False)
            return
        if job_schedule.is_over(settings, now):
            await self._end(job, settings)
            return
        if looks_again and job.is_continuous:
            await self._remove_left(job)
        succeeded = counts.get(ExecutionStatus.SUCCEEDED, 0)
        targets = await self._jobs.targets(job.job_id)
        goes_out = job.paused_at is None and job_schedule.may_go_out(settings, now)
        for _ in range(_PORTIONS if goes_out else 0):
            rate = pace.rate_of(settings.job_executions_rollout_config, job.rolled, succeeded)
            since = job.rolled_at if job.rolled else self._first(job, rate)
            number, since = pace.due(rate, since, self._clock.now(), PORTION)
            fitting = [one for one in targets if not one.is_done or (looks_again and job.is_continuous)]
            if not number or not fitting:
                break
            job, target = await self._roll(job, fitting[0], number, since)
            targets = [target if one.target == target.target else one for one in targets]
            if job.is_continuous and target.is_done:
                targets = [one for one in targets if one is not target]
        if not job.is_continuous and all(one.is_done for one in targets):
            await self._complete(job)

    async def _end(self, job: Job, settings: JobConfiguration) -> None:
        """Apply the end behavior of an expired job: stop its rollout, optionally cancel its executions."""
        behavior = None if settings.scheduling_config is None else settings.scheduling_config.end_behavior
        if behavior in {"CANCEL", "FORCE_CANCEL"}:
            await self._cancel(job, _OVER, "end time", force=behavior == "FORCE_CANCEL")
        else:
            await self._complete(job)

    async def _cancel(self, job: Job, comment: str, reason: str, *, force: bool) -> None:
        made = self._jobs.canceled(job, None, comment, force=force)
        changes = self._jobs.changing(job, made).audit("server", "awsiot.job_cancel", job.job_id, reason=reason)
        await self._database.commit(changes)
        await self._jobs.announce(made, "canceled")

    def _first(self, job: Job, rate: int | None) -> datetime:
        """Return the start of the rate calculation, so that the first execution is due at once."""
        return job.rolled_at if rate is None else min(job.rolled_at, self._clock.now()) - pace.MINUTE / rate

    async def _counts(self, job: Job, settings: JobConfiguration) -> dict[ExecutionStatus, int]:
        """Return the number of executions by status, if the settings depend on it."""
        rollout = settings.job_executions_rollout_config
        if settings.abort_config is None and (rollout is None or rollout.exponential_rate is None):
            return {}
        return dict(await self._executions.counts(job.job_id))

    async def _roll(self, job: Job, target: JobTarget, number: int, since: datetime) -> tuple[Job, JobTarget]:
        """Create executions for the next things of a target; return the progress of job and target."""
        things, made_target = await self._next_things(job, target, number)
        again = await self._rejoined(job, target, number - len(things))
        if len(things) + len(again) >= number:
            made_target = replace(made_target, is_done=made_target.is_done and target.target.startswith("thing/"))
        now = self._clock.now()
        is_more = bool(things or again)
        rolled = job.rolled + len(things) + len(again)
        made = replace(job, rolled=rolled, rolled_at=since if is_more else job.rolled_at)
        changes = self._jobs.changing(job, made) if is_more else self._seen(job)
        for thing in things:
            changes.run(store.ADD_EXECUTION, **store.EXECUTIONS.row(rules.create_first_execution(job, thing, now)))
            self._executions.queue_notification(changes, thing)
        for known in again:
            changes.merge(self._executions.changing(known, rules.create_rejoined_execution(known, now)))
        if made_target != target:
            seen: dict[str, Any] = {"key_job_id": target.job_id, "key_target": target.target}
            changes.run(store.REACHED, reached=made_target.after, done=int(made_target.is_done), **seen)
        if is_more or made_target != target:
            await self._database.commit(changes)
        await self._executions.notify([*things, *(known.thing for known in again)])
        return (replace(made, revision=job.revision + 1) if is_more else job), made_target

    async def _rejoined(self, job: Job, target: JobTarget, number: int) -> Sequence[JobExecution]:
        """Return ended executions of things that rejoined a continuous job's group; they get new ones."""
        kind, _, name = target.target.partition("/")
        if kind != "thinggroup" or not job.is_continuous or number < 1:
            return ()
        rows = await self._database.read_in_background(
            store.REJOINED_IN_GROUP, job_id=job.job_id, thing_group=name, limit=number
        )
        return [store.EXECUTIONS.of(row) for row in rows]

    async def _remove_left(self, job: Job) -> None:
        """Remove the queued executions of things that left the target groups of a continuous job."""
        for _ in range(_PORTIONS):
            rows = await self._database.read_in_background(store.LEFT_TARGETS, job_id=job.job_id)
            known = [store.EXECUTIONS.of(row) for row in rows]
            now = self._clock.now()
            made = [
                (one.thing, self._executions.changing(one, rules.remove_queued_execution(one, now)), one)
                for one in known
            ]
            await self._each(made)
            if len(known) < PORTION:
                return

    def _seen(self, job: Job) -> Changes:
        """Return a write guard that requires the job to be unchanged."""
        return Changes().run(store.JOB_IS_SAME, expect=1, key_job_id=job.job_id, key_revision=job.revision)

    async def _next_things(self, job: Job, target: JobTarget, number: int) -> tuple[Sequence[str], JobTarget]:
        kind, _, name = target.target.partition("/")
        if kind == "thing":
            return [name], replace(target, is_done=True)
        after = "" if target.is_done else target.after  # new members may be anywhere in the order
        rows = await self._database.read_in_background(
            store.NEW_IN_GROUP, job_id=job.job_id, thing_group=name, after=after, limit=number
        )
        things = [str(row["thing"]) for row in rows]
        return things, replace(target, after=things[-1] if things else target.after, is_done=len(things) < number)

    async def _complete(self, job: Job) -> None:
        if await self._database.one(store.ONE_PENDING, job_id=job.job_id) is not None:
            return
        seen: dict[str, Any] = {"key_job_id": job.job_id, "key_revision": job.revision}
        await self._database.commit(Changes().run(store.COMPLETE, expect=1, updated_at=self._clock.micros(), **seen))
        await self._jobs.announce(replace(job, status=JobStatus.COMPLETED), "completed")

    # ---- ended or deleted job

    async def _follow(self, job: Job) -> None:
        """Cancel or delete the executions of a job, then delete the job itself."""
        if job.status is JobStatus.DELETING:
            await self._take_away(job)
            return
        await self._take_back(job, ExecutionStatus.QUEUED)
        if job.force_canceled:
            await self._take_back(job, ExecutionStatus.IN_PROGRESS)

    async def _take_back(self, job: Job, status: ExecutionStatus) -> None:
        for _ in range(_PORTIONS):
            rows = await self._database.all(store.OF_STATUS, job_id=job.job_id, status=status.value)
            if not rows:
                return
            now, done = self._clock.now(), []
            for row in rows:
                known = store.EXECUTIONS.of(row)
                made = rules.cancel_execution(known, None, None, now, force=True)
                done.append((known.thing, self._executions.changing(known, made), made))
            for made in await self._each(done):
                await self._executions.announce(made)

    async def _take_away(self, job: Job) -> None:
        for _ in range(_PORTIONS):
            rows = await self._database.all(store.ANY_OF_JOB, job_id=job.job_id)
            if not rows:
                changes = Changes().run(store.DELETE_JOB, expect=1, job_id=job.job_id)
                await self._database.commit(changes.run(store.DELETE_TARGETS, job_id=job.job_id))
                await self._jobs.announce(job, "deleted")
                return
            known = [store.EXECUTIONS.of(row) for row in rows]
            await self._each([(one.thing, self._executions.removing(one), one) for one in known])

    # ---- time

    async def _time_out(self) -> None:
        """Time out overdue executions; queue the retries that their jobs allow."""
        for _ in range(_PORTIONS):
            rows = await self._database.all(store.OVERDUE, now=self._clock.micros())
            if not rows:
                return
            now, done = self._clock.now(), []
            for row in rows:
                known = store.EXECUTIONS.of(row)
                over = rules.ended(known, ExecutionStatus.TIMED_OUT, now, details=known.details)
                with contextlib.suppress(rules.UnknownJobError):  # just deleted, with all executions
                    made = rules.next_attempt(over, await self._executions.job(known.job_id), now)
                    done.append((known.thing, self._executions.changing(known, made), over))
            for over in await self._each(done):
                await self._executions.announce(over)

    async def _each(self, done: Sequence[tuple[str, Changes, JobExecution]]) -> Sequence[JobExecution]:
        """Commit all changes separately and concurrently; a conflict with one device does not delay the others."""
        waiting = [self._database.submit(changes) for _, changes, _ in done]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ChangedMeanwhileError):
                raise result
        kept = [(thing, made) for (thing, _, made), result in zip(done, results, strict=True) if result is None]
        await self._executions.notify([thing for thing, _ in kept])
        return [made for _, made in kept]
