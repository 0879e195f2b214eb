"""Jobs on things: what devices make of them, what operators take back, and what devices are told of it.

A device is told when the list of what is pending for it changed, and which is next when that changed: by whoever claims
the telling with a conditional write, before it is told. So nothing is told twice, by no worker and after no crash; what
a worker owed when it died the leading one tells a little later.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from birthmark.awsiot.model import PENDING, Account, ExecutionStatus, FailureReason, Job, JobExecution
from birthmark.awsiot.ports import TopicPublisher
from birthmark.awsiot.rules import jobs as rules
from birthmark.awsiot.rules.job_documents import LIFETIME_S, may_have_files, resolved
from birthmark.awsiot.service.base import AccountService, Announcer
from birthmark.awsiot.service.job_files import JobFiles
from birthmark.awsiot.store import jobs as store
from birthmark.awsiot.wire import jobs as wire
from birthmark.awsiot.wire.jobs import settings_of
from birthmark.broker.keyed_lock import KeyedLock, until_done
from birthmark.broker.model import BrokerMessage
from birthmark.clock import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database, decided_again, to_micros
from birthmark.store.database import Row
from birthmark.store.pagination import Page, page_of

NEXT = "$next"
_ATTEMPTS = 8
_MAX_JOBS = 256
_OWED_US = 2_000_000  # who owes it tells it at once, unless it died


def topic_of(thing: str, rest: str) -> str:
    """Return a topic of a thing's jobs."""
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

    # ---- what devices ask

    async def pending(self, thing: str) -> Sequence[JobExecution]:
        """Return what is pending for a thing, the next one first, the first hundred."""
        rows = await self.database.all(store.PENDING_OF, thing=thing, limit=store.MAX_PENDING)
        return [store.EXECUTIONS.of(row) for row in rows]

    async def next(self, thing: str) -> JobExecution | None:
        """Return the execution that a thing is on, or is to begin."""
        row = await self.database.one(store.PENDING_OF, thing=thing, limit=1)
        return None if row is None else store.EXECUTIONS.of(row)

    async def described(self, thing: str, job_id: str, number: int | None) -> JobExecution | None:
        """Return an execution that is pending, by its job or as the next one; None where nothing is next.

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
        """Begin the next execution of a thing, or return the one it is on; None where there is none.

        Whoever asked is to be answered, and then `notify`.
        """

        async def decide() -> tuple[JobExecution, Job] | None:
            if (row := await self.database.one(store.NEXT_OF, thing=thing)) is None:
                return None
            known, job = store.EXECUTIONS.of(row), await self._job_of(row)
            made = rules.started_next(known, details, step, job, self.clock.now())
            if made != known:  # it was the next one and stays so: nobody is to be told
                await self._commit(known, made, is_owed=False)
            return made, job

        return await decided_again(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)

    async def update(self, thing: str, job_id: str, update: wire.DeviceUpdate) -> tuple[JobExecution, Job]:
        """Let a device move its execution on; return it as the device left it. Raise as `rules.updated` does.

        Whoever asked is to be answered, and then `notify`.
        """

        async def decide() -> tuple[JobExecution, Job]:
            if (row := await self.database.one(store.ONE_OF, job_id=job_id, thing=thing)) is None:
                raise rules.UnknownExecutionError(job=job_id[:64], thing=thing[:128])
            known, job, now = store.EXECUTIONS.of(row), await self._job_of(row), self.clock.now()
            made = rules.updated(known, update, job, now)
            is_next = _is_begun(known, made) and (await self.next(thing)) == known  # it stays so: nobody is to be told
            await self._commit(known, rules.again(made, job, now), is_owed=not is_next)
            return made, job

        made, job = await decided_again(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
        if made.status not in PENDING:
            await self.announce(made)
        return made, job

    async def document(self, job: Job, thing: str, *, to_person: bool = False) -> str:
        """Return the document of a job as a thing gets it now; to a person, who would keep them, without its URLs."""
        text = wire.compact(resolved(job.document, job.parameters) if job.parameters else job.document)
        if to_person or not may_have_files(text):  # nearly always, and a rollout tells many
            return text
        config = settings_of(job.settings).presigned_url_config
        lifetime = LIFETIME_S if config is None or config.expires_in_sec is None else config.expires_in_sec
        return await self.files.filled(text, thing, lifetime)

    # ---- what operators ask

    async def job(self, job_id: str) -> Job:
        """Return a job. Raise `UnknownJobError`."""
        if (row := await self.database.one(store.GET_JOB, job_id=job_id)) is None:
            raise rules.UnknownJobError(job=job_id[:64])
        return store.JOBS.of(row)

    async def _job_of(self, row: Row) -> Job:
        """Return the job of an execution that was read: it is made of its row once for each time that it changes."""
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
        """Return an execution, whatever its state. Raise `UnknownExecutionError`."""
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
        """Return the executions of a thing in order of their jobs, or that of one job."""
        asked: dict[str, Any] = {"thing": thing, "status": status, "job_id": job_id}
        rows = await self.database.all(store.EXECUTIONS_OF_THING, after=after, limit=size + 1, **asked)
        found = [store.EXECUTIONS.of(row) for row in rows]
        return page_of(found, size, [one.job_id for one in found])

    async def counts(self, job_id: str) -> Mapping[ExecutionStatus, int]:
        """Return how many executions of a job are how far."""
        rows = await self.database.aside(store.COUNTS, job_id=job_id)
        return {ExecutionStatus(row["status"]): row["count"] for row in rows}

    async def reasons(self, job_id: str, most: int) -> Sequence[FailureReason]:
        """Return why a job failed on things, the most frequent first. Raise `UnknownJobError`."""
        await self.job(job_id)
        rows = await self.database.aside(store.REASONS, job_id=job_id, limit=most)
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
        """Cancel an execution; one on its way only by force. Raise as `rules.canceled` does."""

        async def decide() -> JobExecution:
            known = await self.get(job_id, thing)
            made = rules.canceled(known, expected, details, self.clock.now(), force=force)
            changes = self.changing(known, made)
            await self.database.commit(changes.audit(actor, "awsiot.job_execution_cancel", job_id, thing=thing))
            return made

        made = await decided_again(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
        await self.notify([thing])
        await self.announce(made)

    async def delete(self, job_id: str, thing: str, number: int, *, force: bool, actor: str) -> None:
        """Remove an execution; one that is not over only by force. Raise `ExecutionStateError`."""

        async def decide() -> JobExecution:
            known = await self.get(job_id, thing, number)
            if known.status in PENDING and not force:
                raise rules.ExecutionStateError(job=job_id, thing=thing, status=known.status.value, wanted="deleted")
            changes = self.removing(known).audit(actor, "awsiot.job_execution_delete", job_id, thing=thing)
            await self.database.commit(changes)
            return known

        known = await decided_again(decide, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
        await self.notify([thing])
        await self.announce(known, "deleted")

    # ---- what others do in turn

    def changing(self, known: JobExecution, made: JobExecution, *, is_owed: bool = True) -> Changes:
        """Return what makes an execution another, on the condition that it is as it was; the device is owed word."""
        row = store.EXECUTIONS.row(made)
        seen: dict[str, Any] = {"job_id": known.job_id, "thing": known.thing}
        seen |= {"number": known.number, "version": known.version}
        del row["job_id"], row["thing"]
        changes = Changes().run(store.CHANGE_EXECUTION, expect=1, **row, **{f"key_{name}": seen[name] for name in seen})
        return self.owing(changes, known.thing) if is_owed else changes

    def removing(self, known: JobExecution) -> Changes:
        """Return what takes an execution away, on the condition that it is as it was."""
        seen: dict[str, Any] = {"number": known.number, "version": known.version}
        changes = Changes().run(store.DELETE_EXECUTION, expect=1, job_id=known.job_id, thing=known.thing, **seen)
        return self.owing(changes, known.thing)

    def owing(self, changes: Changes, thing: str) -> Changes:
        """Let a thing be owed word of what is pending for it; where nobody hears it, let the next change be told."""
        if not self._is_heard(thing):
            return changes.run(store.FORGET, thing=thing)
        return changes.run(store.OWE, thing=thing, owed_at=self.clock.micros())

    def _is_heard(self, thing: str) -> bool:
        return any(self.audience().may_hear(topic_of(thing, rest)) for rest in ("notify", "notify-next"))

    async def _commit(self, known: JobExecution, made: JobExecution, *, is_owed: bool = True) -> None:
        is_same = known.status is made.status and known.number == made.number
        changes = self.changing(known, made, is_owed=is_owed and not is_same)
        if _is_begun(known, made):
            changes.run(store.JOB_GOES_ON, expect=1, key_job_id=known.job_id)
        await self.database.commit(changes)

    # ---- telling

    def now_body(self, told: Mapping[str, Any], token: str | None = None) -> bytes:
        """Return a message of this moment."""
        return wire.body(told, self.clock.now(), token)

    async def tell(self, topic: str, body: bytes) -> None:
        """Publish to whoever subscribed and may receive it; return when nobody misses it any more."""
        await (await self._hand_on([(topic, body)]))

    async def _hand_on(self, told: Sequence[tuple[str, bytes]]) -> asyncio.Future[None]:
        safe, done = until_done()
        if (
            waiting := self.audience().publish([BrokerMessage(topic, body, 1) for topic, body in told], done)
        ) is not None:
            await waiting
        return safe

    async def notify(self, things: Iterable[str]) -> None:
        """Tell things what changed in what is pending for them, if they are still owed it; many at once."""
        await self._notify_each([thing for thing in things if self._is_heard(thing)])

    async def _notify_each(self, things: Iterable[str]) -> None:
        results = await asyncio.gather(*map(self._notify, things), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _notify(self, thing: str) -> None:
        async with self._turns.alone_with(thing):
            told = await decided_again(lambda: self._claimed(thing), after=ChangedMeanwhileError, attempts=_ATTEMPTS)
            if told:
                await (await self._hand_on(told))

    async def _claimed(self, thing: str) -> Sequence[tuple[str, bytes]]:
        """Return what a thing is to be told, by us and nobody else; nothing where it knows."""
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
        if listed != row["listed"] and self.audience().may_hear(topic := topic_of(thing, "notify")):
            lists = {name: some for name, some in wire.lists(pending, ("IN_PROGRESS", "QUEUED")).items() if some}
            told.append((topic, self.now_body({"jobs": lists})))
        if following != row["next"] and self.audience().may_hear(topic := topic_of(thing, "notify-next")):
            whole: dict[str, Any] = {}
            if first is not None:
                job = await self.job(first.job_id)
                document = await self.document(job, thing)
                whole = {"execution": wire.execution(first, document, self.clock.now())}
            told.append((topic, self.now_body(whole)))
        await self.database.commit(changes)
        return told

    async def notify_owed(self) -> None:
        """Tell what another worker left owing, and what could not be told in time."""
        rows = await self.database.all(store.OWED, before=self.clock.micros() - _OWED_US)
        with contextlib.suppress(ChangedMeanwhileError, rules.UnknownJobError):  # the next look has them again
            await self._notify_each([row["thing"] for row in rows])

    async def announce(self, known: JobExecution, what: str = "") -> None:
        """Announce an execution that came to its end."""
        what = what or known.status.value.lower()
        await self.announcer.tell(
            "JOB_EXECUTION",
            f"jobExecution/{known.job_id}/{what}",
            eventType="JOB_EXECUTION",
            operation=what,
            jobId=known.job_id,
            thingArn=self.account.arn("thing", known.thing),
            status=known.status.value,
            statusDetails=dict(known.details),
            executionNumber=known.number,
        )


def _is_begun(known: JobExecution, made: JobExecution) -> bool:
    return known.status is ExecutionStatus.QUEUED and made.status is ExecutionStatus.IN_PROGRESS


def _name(known: JobExecution) -> str:
    return f"{known.job_id}#{known.number}"


def _digest(pending: Sequence[JobExecution]) -> str:
    """Return what stands for a list: nothing for one that is empty."""
    names = sorted(map(_name, pending))
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""
