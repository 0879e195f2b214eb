"""Job loop: fetch the next job, execute it, report the outcome, and repeat.

Work continues while disconnected; the outcome is reported over the next connection. One agent acts on a thing's jobs. A
job in progress without a local record was started by a previous agent and has failed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from birthmark import supervised_tasks
from birthmark.agent.jobs.document_parser import parse_document
from birthmark.agent.jobs.execution_state_file import JobRecord, JobStep, forget, read_record, write_record
from birthmark.agent.jobs.file_update import Fetch
from birthmark.agent.jobs.model import (
    JobCutError,
    JobExecutionStatus,
    JobOutcome,
    JobRejectedError,
    JobSettings,
    bounded,
)
from birthmark.agent.jobs.resumable_executor import INTERRUPTED, JobExecutor, describe_job
from birthmark.awsiot.client import ThingClient
from birthmark.awsiot.client.jobs import (
    IN_PROGRESS,
    QUEUED,
    DocumentUnreadableError,
    Execution,
    JobRefusedError,
    ThingJobs,
)
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError

log = logging.getLogger(__name__)

Tell = Callable[[str, dict[str, object]], None]
_LOOK_S = 600.0  # a notification may be lost
_PAUSE_S = 30.0
_AGAIN_S = 1.0
_LONGEST_PAUSE_S = 300.0
_MAX_TELLS = 4
_CHANGED = frozenset({"ResourceNotFound", "TerminalStateReached", "InvalidStateTransition", "VersionMismatch"})


@dataclass(slots=True)
class JobAgent:
    """Acts on the jobs of one thing; the connection owner passes it to `connected`."""

    settings: JobSettings
    file: Path
    boot: str
    clock: Clock
    entropy: Entropy
    fetch: Fetch
    renew: Callable[[], Awaitable[None]]
    mark: Callable[[], str | None]
    tell: Tell
    pause_s: float = _PAUSE_S
    _client: ThingClient | None = field(default=None, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _agent: str = field(default="", init=False)
    _work: asyncio.Task[JobOutcome] | None = field(default=None, init=False)
    _seen: tuple[object, ...] = field(default=(), init=False)
    _repeats: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._agent = self._token()

    def connected(self, client: ThingClient) -> None:
        """Continue over this connection."""
        self._client = client
        self._news.set()

    async def run(self) -> None:
        """Process jobs until cancelled."""
        if self._client is not None:  # left over by an earlier error
            self._news.set()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._serve_connection()
        finally:
            await supervised_tasks.cancel_and_wait(self._work)

    async def _serve_connection(self) -> None:
        """Process jobs over the current connection until it is lost."""
        client = self._client
        while client is not None and not self._news.is_set():
            jobs = ThingJobs(client.mqtt, client.host, client.thing, self._token)
            listening = asyncio.create_task(jobs.listen())
            working = asyncio.create_task(self._serve(jobs))
            try:
                await asyncio.wait({listening, working}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done() and isinstance(listening.exception(), BirthmarkError):  # the connection ended
                    return
                (listening if listening.done() else working).result()
            except (BirthmarkError, JobRefusedError) as error:
                reason = error.explain_cause() if isinstance(error, BirthmarkError) else str(error)
                self.tell("jobs not served", {"cause": reason, "again_in_s": self.pause_s})
            finally:
                await supervised_tasks.cancel_and_wait(listening, working)
            await self._pause(self.pause_s)

    async def _serve(self, jobs: ThingJobs) -> None:
        await jobs.open()
        while True:
            record = read_record(self.file)
            if record is not None and record.step is JobStep.DONE:
                await self._report(jobs, record)
                continue
            try:
                execution = await jobs.next()
            except DocumentUnreadableError:
                execution = await jobs.next_without_document()
            if execution is None:
                await self._forget_unclaimed(record)
                await jobs.wait_for_notification(_LOOK_S)
                continue
            await self._wait_on_repeat(execution)
            await self._take(jobs, execution, record)

    async def _forget_unclaimed(self, record: JobRecord | None) -> None:
        """Delete the record of a job that was cancelled or timed out."""
        if self._work is not None:
            await asyncio.wait({self._work})
            self._work = None
        if record is not None:
            self._forgotten(record.job_id, "it was canceled or timed out")

    async def _wait_on_repeat(self, execution: Execution) -> None:
        """Wait if a job that was just handled is returned unchanged, which indicates a service fault."""
        seen = (execution.job_id, execution.execution_number, execution.queued_at, execution.version_number)
        self._repeats = self._repeats + 1 if seen == self._seen else 0
        self._seen = seen
        if self._repeats:
            await asyncio.sleep(min(_LONGEST_PAUSE_S, _AGAIN_S * 2.0 ** min(self._repeats, 10)))

    # ---- single job

    async def _take(self, jobs: ThingJobs, execution: Execution, record: JobRecord | None) -> None:
        is_known = record is not None and _is_of(record, execution)
        if record is not None and record.step is JobStep.BEGUN and execution.status == QUEUED:
            is_known = False  # same name, created in the same second
        if not is_known:
            await self._forget_unclaimed(record)
            record = None
        if self._work is None:
            try:
                doing = await self._begin_job(jobs, execution, record)
            except JobRejectedError as error:
                status = JobExecutionStatus.FAILED if is_known else JobExecutionStatus.REJECTED
                await self._report_outcome(jobs, execution, JobOutcome(status, bounded({"reason": str(error)})))
                return
            if doing is None:
                return
            self._work = asyncio.create_task(doing.work())
        await asyncio.wait({self._work})
        work, self._work = self._work, None
        try:
            outcome = work.result()
        except JobCutError:
            self._seen = ()  # deliberately check again
            await asyncio.sleep(_AGAIN_S)
            return
        written = read_record(self.file)
        if written is None or written.step is not JobStep.DONE:  # the record write failed
            await self._report_outcome(jobs, execution, outcome)

    async def _begin_job(self, jobs: ThingJobs, execution: Execution, record: JobRecord | None) -> JobExecutor | None:
        """Start or resume a job; None if it must not run. Raise `JobRejectedError`."""
        if record is None and execution.status == IN_PROGRESS:
            await self._report_outcome(jobs, execution, JobOutcome(JobExecutionStatus.FAILED, {"reason": INTERRUPTED}))
            return None
        wanted = parse_document(bytes(execution.job_document), self.settings)
        if record is None:
            record = JobRecord(
                execution.job_id, execution.execution_number, execution.queued_at, describe_job(wanted), boot=self.boot
            )
            try:
                write_record(self.file, record)
            except BirthmarkError as error:  # start no job that a restart would not find in the record
                outcome = JobOutcome(
                    JobExecutionStatus.FAILED, bounded({"reason": error.explain_cause(), "code": error.code})
                )
                await self._report_outcome(jobs, execution, outcome)
                return None
        if execution.status == QUEUED and not await self._update_status(
            jobs, execution, JobExecutionStatus.IN_PROGRESS, {}
        ):
            self._forgotten(record.job_id, "another agent runs it, or it has ended")
            return None
        self.tell("job begun", {"id": record.job_id, "what": record.what})
        return JobExecutor(
            wanted,
            record,
            self.file,
            self.boot,
            self._agent,
            self.clock,
            self.fetch,
            self.renew,
            self.mark,
        )

    async def _report(self, jobs: ThingJobs, record: JobRecord) -> None:
        """Report the outcome; delete the record once it is delivered or no longer expected."""
        await self._say(jobs, record, JobOutcome(JobExecutionStatus(record.status), record.details))
        forget(self.file)

    async def _report_outcome(self, jobs: ThingJobs, execution: Execution, outcome: JobOutcome) -> None:
        """Report the outcome of a job without a recorded outcome."""
        of = JobRecord(execution.job_id, execution.execution_number, execution.queued_at, "")
        await self._say(jobs, of, outcome)
        if read_record(self.file) is not None:
            forget(self.file)

    async def _say(self, jobs: ThingJobs, record: JobRecord, outcome: JobOutcome) -> None:
        for _ in range(_MAX_TELLS):
            known = await jobs.describe_execution(record.job_id, record.number)
            if known is None or not known.is_pending or not _is_of(record, known):
                break
            if await self._update_status(jobs, known, outcome.status, outcome.details):
                break
        self.tell("job done", {"id": record.job_id, "status": outcome.status.value, **outcome.details})

    async def _update_status(
        self, jobs: ThingJobs, execution: Execution, status: JobExecutionStatus, details: Mapping[str, str]
    ) -> bool:
        """Update the status; False if the execution is over or was changed concurrently."""
        try:
            await jobs.update(execution, status.value, details)
        except JobRefusedError as error:
            log.info("job.not_updated", extra={"job_id": execution.job_id, "reason": str(error)})
            if error.code not in _CHANGED:
                raise
            return False
        return True

    def _forgotten(self, job_id: str, why: str) -> None:
        self.tell("job forgotten", {"id": job_id, "cause": why})
        forget(self.file)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    def _token(self) -> str:
        return self.entropy.token(12).hex()


def _is_of(record: JobRecord, execution: Execution) -> bool:
    known = (execution.job_id, execution.execution_number, execution.queued_at)
    return (record.job_id, record.number, record.queued_at) == known
