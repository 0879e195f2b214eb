"""Job executions: device updates, cancellations by operators, and notifications to devices.

A device is notified when its list of pending executions or its next execution changes. The notifying worker claims the
notification with a conditional write first. No notification is therefore sent twice, even after a crash. The leader
sends those that a failed worker left.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from birthmark.awsiot.model import PENDING, Account, ExecutionStatus, FailureReason, Job, JobExecution
from birthmark.awsiot.ports import TopicPublisher
from birthmark.awsiot.rules import job_executions as rules
from birthmark.awsiot.rules.job_document_placeholders import LIFETIME_S, may_have_files, substitute_parameters
from birthmark.awsiot.service.base import AccountService, Announcer
from birthmark.awsiot.service.job_documents_and_s3_files import JobFiles
from birthmark.awsiot.store import jobs as store
from birthmark.awsiot.wire import jobs as wire
from birthmark.awsiot.wire.jobs import settings_of
from birthmark.broker.keyed_lock import KeyedLock, until_done
from birthmark.broker.model import BrokerMessage
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database, retry_on_conflict, to_micros
from birthmark.store.database import Row
from birthmark.store.pagination import Page, page_of

NEXT = "$next"
_ATTEMPTS = 8
_MAX_JOBS = 256
_OWED_US = 2_000_000  # the sender sends at once, unless it died


def topic_of(thing: str, rest: str) -> str:
    """Return a jobs topic of a thing."""
    return f"$aws/things/{thing}/jobs/{rest}"


class JobExecutions(AccountService):
    """The executions of all jobs."""

    def __init__(
        self,
        account: Account,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        files: JobFiles,
        *,
        announcer: Announcer,
        audience: Callable[[], TopicPublisher],
    ) -> None:
        super().__init__(database, clock, entropy)
        self.account = account
        self.announcer, self.audience = announcer, audience
        self.files = files
        self._turns: KeyedLock[str] = KeyedLock()
        self._jobs: dict[str, tuple[tuple[int, int], Job]] = {}

    # ---- device requests

    async def pending(self, thing: str) -> Sequence[JobExecution]:
        """Return the first 100 pending executions of a thing, the next one first."""
        rows = await self.database.all(store.PENDING_OF, thing=thing, limit=store.MAX_PENDING)
        return [store.EXECUTIONS.of(row) for row in rows]

    async def next(self, thing: str) -> JobExecution | None:
        """Return a thing's current or next execution."""
        row = await self.database.one(store.PENDING_OF, thing=thing, limit=1)
        return None if row is None else store.EXECUTIONS.of(row)

    async def describe_execution(self, thing: str, job_id: str, number: int | None) -> JobExecution | None:
        """Return a pending execution by job, or the next one; None if none is next.

        Raise `UnknownExecutionError`, `ExecutionOverError`.
        """
        if job_id == NEXT:
            return await self.next(thing)
        known = await self.get(job_id, thing, number)
        if known.status not in PENDING:
            raise rules.ExecutionOverError(job=job_id, thing=thing, status=known.status.value)
        return known

    async def start_next(
        self, thing: str, details: Mapping[str, str] | None, step: int | None
    ) -> tuple[JobExecution, Job] | None:
        """Start a thing's next execution or return the current one; None if there is none.

        The caller must respond to the device, then call `notify`.
        """

        async def decide() -> tuple[JobExecution, Job] | None:
            if (row := await self.database.one(store.NEXT_OF, thing=thing)) is None:
                return None
            known, job = store.EXECUTIONS.of(row), await self._job_of(row)
            made = rules.apply_start_next(known, details, step, job, self.clock.now())
            if made != known:  # still the next job: no notification
                await self._commit(known, made, is_owed=False)
            return made, job

        return await retry_on_conflict(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)

    async def update(self, thing: str, job_id: str, update: wire.DeviceUpdate) -> tuple[JobExecution, Job]:
        """Apply a device's update and return the resulting execution. Raise the errors of `rules.updated`.

        The caller must respond to the device, then call `notify`.
        """

        async def decide() -> tuple[JobExecution, Job]:
            if (row := await self.database.one(store.ONE_OF, job_id=job_id, thing=thing)) is None:
                raise rules.UnknownExecutionError(job=job_id[:64], thing=thing[:128])
            known, job, now = store.EXECUTIONS.of(row), await self._job_of(row), self.clock.now()
            made = rules.apply_device_update(known, update, job, now)
            is_next = _is_begun(known, made) and (await self.next(thing)) == known  # still next: no notification
            await self._commit(known, rules.next_attempt(made, job, now), is_owed=not is_next)
            return made, job

        made, job = await retry_on_conflict(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
        if made.status not in PENDING:
            await self.announce(made)
        return made, job

    async def document(self, job: Job, thing: str, *, to_person: bool = False) -> str:
        """Return a job's document as delivered to a thing now; for a user, who could keep it, without URLs."""
        text = wire.compact(substitute_parameters(job.document, job.parameters) if job.parameters else job.document)
        if to_person or not may_have_files(text):  # usual case, and a rollout sends many
            return text
        config = settings_of(job.settings).presigned_url_config
        lifetime = LIFETIME_S if config is None or config.expires_in_sec is None else config.expires_in_sec
        return await self.files.fill_document(text, thing, lifetime)

    # ---- operator requests

    async def job(self, job_id: str) -> Job:
        """Return a job. Raise `UnknownJobError`."""
        if (row := await self.database.one(store.GET_JOB, job_id=job_id)) is None:
            raise rules.UnknownJobError(job=job_id[:64])
        return store.JOBS.of(row)

    async def _job_of(self, row: Row) -> Job:
        """Return the job of an execution row, cached by revision."""
        which = row["its_beginning"], row["its_revision"]
        known = self._jobs.get(row["job_id"])
        if known is not None and known[0] == which:
            return known[1]
        job = await self.job(row["job_id"])
        if len(self._jobs) >= _MAX_JOBS:
            self._jobs.clear()
        self._jobs[job.job_id] = (to_micros(job.created_at), job.revision), job
        return job

    async def get(self, job_id: str, thing: str, number: int | None = None) -> JobExecution:
        """Return an execution in any state. Raise `UnknownExecutionError`."""
        if (row := await self.database.one(store.GET_EXECUTION, job_id=job_id, thing=thing)) is None:
            raise rules.UnknownExecutionError(job=job_id[:64], thing=thing[:128])
        known = store.EXECUTIONS.of(row)
        rules.check_number(known, number)
        return known

    async def of_job(self, job_id: str, status: str, after: str, size: int) -> Page[JobExecution]:
        """Return the executions of a job in order of their things. Raise `UnknownJobError`."""
        await self.job(job_id)
        rows = await self.database.all(
            store.EXECUTIONS_OF_JOB, job_id=job_id, status=status, after=after, limit=size + 1
        )
        found = [store.EXECUTIONS.of(row) for row in rows]
        return page_of(found, size, [one.thing for one in found])

    async def of_thing(self, thing: str, status: str, after: str, size: int, *, job_id: str = "") -> Page[JobExecution]:
        """Return a thing's executions in order of their jobs, or that of one job."""
        asked: dict[str, Any] = {"thing": thing, "status": status, "job_id": job_id}
        rows = await self.database.all(store.EXECUTIONS_OF_THING, after=after, limit=size + 1, **asked)
        found = [store.EXECUTIONS.of(row) for row in rows]
        return page_of(found, size, [one.job_id for one in found])

    async def counts(self, job_id: str) -> Mapping[ExecutionStatus, int]:
        """Return the number of a job's executions by status."""
        rows = await self.database.read_in_background(store.COUNTS, job_id=job_id)
        return {ExecutionStatus(row["status"]): row["count"] for row in rows}

    async def reasons(self, job_id: str, limit: int) -> Sequence[FailureReason]:
        """Return the failure reasons of a job, most frequent first. Raise `UnknownJobError`."""
        await self.job(job_id)
        rows = await self.database.read_in_background(store.REASONS, job_id=job_id, limit=limit)
        return [
            FailureReason(ExecutionStatus(row["status"]), json.loads(row["details"]), row["count"], row["thing"])
            for row in rows
        ]

    async def cancel(
        self,
        job_id: str,
        thing: str,
        expected: int | None,
        details: Mapping[str, str] | None,
        *,
        force: bool,
        actor: str,
    ) -> None:
        """Cancel an execution; one in progress only with force. Raise the errors of `rules.canceled`."""

        async def decide() -> JobExecution:
            known = await self.get(job_id, thing)
            made = rules.cancel_execution(known, expected, details, self.clock.now(), force=force)
            changes = self.changing(known, made)
            await self.database.commit(changes.audit(actor, "awsiot.job_execution_cancel", job_id, thing=thing))
            return made

        made = await retry_on_conflict(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
        await self.notify([thing])
        await self.announce(made)

    async def delete(self, job_id: str, thing: str, number: int, *, force: bool, actor: str) -> None:
        """Delete an execution; an unfinished one only with force. Raise `ExecutionStateError`."""

        async def decide() -> JobExecution:
            known = await self.get(job_id, thing, number)
            if known.status in PENDING and not force:
                raise rules.ExecutionStateError(job=job_id, thing=thing, status=known.status.value, wanted="deleted")
            changes = self.removing(known).audit(actor, "awsiot.job_execution_delete", job_id, thing=thing)
            await self.database.commit(changes)
            return known

        known = await retry_on_conflict(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
        await self.notify([thing])
        await self.announce(known, "deleted")

    # ---- changes by other services

    def changing(self, execution: JobExecution, changed: JobExecution, *, is_owed: bool = True) -> Changes:
        """Return the writes that change an execution, conditional on its state; queues a notification."""
        row = store.EXECUTIONS.row(changed)
        seen: dict[str, Any] = {"job_id": execution.job_id, "thing": execution.thing}
        seen |= {"number": execution.number, "version": execution.version}
        del row["job_id"], row["thing"]
        changes = Changes().run(store.CHANGE_EXECUTION, expect=1, **row, **{f"key_{name}": seen[name] for name in seen})
        return self.queue_notification(changes, execution.thing) if is_owed else changes

    def removing(self, execution: JobExecution) -> Changes:
        """Return the writes that delete an execution, conditional on its state."""
        seen: dict[str, Any] = {"number": execution.number, "version": execution.version}
        changes = Changes().run(
            store.DELETE_EXECUTION, expect=1, job_id=execution.job_id, thing=execution.thing, **seen
        )
        return self.queue_notification(changes, execution.thing)

    def queue_notification(self, changes: Changes, thing: str) -> Changes:
        """Queue a notification of a thing's pending executions; without subscribers, reset it for the next change."""
        if not self._is_heard(thing):
            return changes.run(store.FORGET, thing=thing)
        return changes.run(store.OWE, thing=thing, owed_at=self.clock.micros())

    def _is_heard(self, thing: str) -> bool:
        return any(self.audience().may_have_subscribers(topic_of(thing, rest)) for rest in ("notify", "notify-next"))

    async def _commit(self, execution: JobExecution, changed: JobExecution, *, is_owed: bool = True) -> None:
        is_same = execution.status is changed.status and execution.number == changed.number
        changes = self.changing(execution, changed, is_owed=is_owed and not is_same)
        if _is_begun(execution, changed):
            changes.run(store.JOB_GOES_ON, expect=1, key_job_id=execution.job_id)
        await self.database.commit(changes)

    # ---- telling

    def now_body(self, values: Mapping[str, Any], token: str | None = None) -> bytes:
        """Return a message body with the current time."""
        return wire.body(values, self.clock.now(), token)

    async def tell(self, topic: str, body: bytes) -> None:
        """Publish to permitted subscribers; return once the messages are stored."""
        await (await self._hand_on([(topic, body)]))

    async def _hand_on(self, told: Sequence[tuple[str, bytes]]) -> asyncio.Future[None]:
        safe, done = until_done()
        if (
            waiting := self.audience().publish([BrokerMessage(topic, body, 1) for topic, body in told], done)
        ) is not None:
            await waiting
        return safe

    async def notify(self, things: Iterable[str]) -> None:
        """Send things their queued notifications, many at once."""
        await self._notify_each([thing for thing in things if self._is_heard(thing)])

    async def _notify_each(self, things: Iterable[str]) -> None:
        results = await asyncio.gather(*map(self._notify, things), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _notify(self, thing: str) -> None:
        async with self._turns.lock(thing):
            told = await retry_on_conflict(
                lambda: self._claim_notifications(thing), after=ChangedMeanwhileError, attempts=_ATTEMPTS
            )
            if told:
                await (await self._hand_on(told))

    async def _claim_notifications(self, thing: str) -> Sequence[tuple[str, bytes]]:
        """Claim a thing's notifications and return them; none if it is up to date."""
        if (row := await self.database.one(store.NOTICE, thing=thing)) is None:
            return ()
        pending = await self.pending(thing)
        first = pending[0] if pending else None
        listed, following = _digest(pending), "" if first is None else _name(first)
        changes = Changes().run(
            store.TELL,
            expect=1,
            key_thing=thing,
            key_revision=row["revision"],
            owed_at=None,
            listed=listed,
            next=following,
            revision=row["revision"] + 1,
        )
        told: list[tuple[str, bytes]] = []
        if listed != row["listed"] and self.audience().may_have_subscribers(topic := topic_of(thing, "notify")):
            lists = {name: some for name, some in wire.lists(pending, ("IN_PROGRESS", "QUEUED")).items() if some}
            told.append((topic, self.now_body({"jobs": lists})))
        if following != row["next"] and self.audience().may_have_subscribers(topic := topic_of(thing, "notify-next")):
            whole: dict[str, Any] = {}
            if first is not None:
                job = await self.job(first.job_id)
                document = await self.document(job, thing)
                whole = {"execution": wire.execution(first, document, self.clock.now())}
            told.append((topic, self.now_body(whole)))
        await self.database.commit(changes)
        return told

    async def send_overdue_notifications(self) -> None:
        """Send the notifications that another worker left and those that are overdue."""
        rows = await self.database.all(store.OWED, before=self.clock.micros() - _OWED_US)
        with contextlib.suppress(ChangedMeanwhileError, rules.UnknownJobError):  # the next run retries them
            await self._notify_each([row["thing"] for row in rows])

    async def announce(self, execution: JobExecution, event: str = "") -> None:
        """Announce a finished execution."""
        event = event or execution.status.value.lower()
        await self.announcer.tell(
            "JOB_EXECUTION",
            f"jobExecution/{execution.job_id}/{event}",
            eventType="JOB_EXECUTION",
            operation=event,
            jobId=execution.job_id,
            thingArn=self.account.arn("thing", execution.thing),
            status=execution.status.value,
            statusDetails=dict(execution.details),
            executionNumber=execution.number,
        )


def _is_begun(execution: JobExecution, changed: JobExecution) -> bool:
    return execution.status is ExecutionStatus.QUEUED and changed.status is ExecutionStatus.IN_PROGRESS


def _name(execution: JobExecution) -> str:
    return f"{execution.job_id}#{execution.number}"


def _digest(pending: Sequence[JobExecution]) -> str:
    """Return the digest of a list; empty for an empty list."""
    names = sorted(map(_name, pending))
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""
