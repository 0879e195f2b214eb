"""Job executor: performs a job from its recorded step; irreversible steps are recorded first.

| killed during | then |
|---|---|
| `run` | FAILED, "interrupted"; or run again if the configuration permits it |
| `replace` | resumes the download |
| `restart` | SUCCEEDED after the device has restarted; the command never runs twice |
| `renew` | SUCCEEDED if the certificate has changed; otherwise it is renewed |
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from birthmark import supervised_tasks
from birthmark.agent.jobs import command_runner
from birthmark.agent.jobs.execution_state_file import JobRecord, JobStep, write_record
from birthmark.agent.jobs.file_update import Fetch, FileUpdate
from birthmark.agent.jobs.model import (
    JobCutError,
    JobExecutionStatus,
    JobFailedError,
    JobOutcome,
    RenewAction,
    ReplaceAction,
    RestartAction,
    RestartProof,
    RunAction,
    Wanted,
    bounded,
)
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError

INTERRUPTED = "interrupted: the agent or the device stopped in the middle of it"
_MAX_ATTEMPTS = 20
"""Maximum number of starts of a repeatable command, which may itself end the agent each time."""


def describe_job(wanted: Wanted) -> str:
    """Return a short description of the requested action."""
    match wanted:
        case RunAction():
            return f"run {wanted.name}"
        case ReplaceAction():
            return f"replace {wanted.name}"
        case RestartAction():
            return "restart"
        case RenewAction():
            return "renew"


@dataclass(slots=True)
class JobExecutor:
    """A job in progress; `record` is its progress, which is also on disk."""

    wanted: Wanted
    record: JobRecord
    file: Path
    boot: str
    agent: str
    clock: Clock
    fetch: Fetch
    renew: Callable[[], Awaitable[None]]
    mark: Callable[[], str | None]

    async def work(self) -> JobOutcome:
        """Execute the job, record its outcome, and return it.

        Raise `JobCutError` if the job must be fetched again.
        """
        try:
            outcome = JobOutcome(JobExecutionStatus.SUCCEEDED, bounded(await self._done()))
        except JobCutError:
            raise
        except JobFailedError as error:
            outcome = JobOutcome(JobExecutionStatus.FAILED, bounded({"reason": str(error), **error.details}))
        except BirthmarkError as error:
            outcome = JobOutcome(
                JobExecutionStatus.FAILED, bounded({"reason": error.explain_cause(), "code": error.code})
            )
        try:
            self._write(step=JobStep.DONE, status=outcome.status.value, details=dict(outcome.details))
        except BirthmarkError as error:  # report it anyway; a restart reports it as interrupted
            details = {**outcome.details, "record": error.explain_cause()}
            return JobOutcome(outcome.status, bounded(details))
        return outcome

    async def _done(self) -> dict[str, str]:
        match self.wanted:
            case RunAction():
                return await self._run(self.wanted)
            case ReplaceAction():
                self._begin()
                return await FileUpdate(self.wanted, self.fetch).work()
            case RestartAction():
                return await self._restart(self.wanted)
            case RenewAction():
                return await self._renew()

    async def _run(self, action: RunAction) -> dict[str, str]:
        if self._is_begun:
            await supervised_tasks.run_in_thread(partial(command_runner.end_left, self.record.agent))
            if not action.command.is_run_again:
                raise JobFailedError(INTERRUPTED)
        self._begin()
        ended = await self._command((*action.command.words, *action.arguments), action.command.timeout_s)
        if ended.code:
            raise _failed(ended)
        return {"exit": "0", "output": ended.output}

    async def _command(self, words: tuple[str, ...], timeout_s: float) -> command_runner.CommandResult:
        return await command_runner.run(words, self.record.job_id, self.record.agent, timeout_s)

    async def _restart(self, action: RestartAction) -> dict[str, str]:
        within_s, proof = action.command.within_s, action.command.proof
        if self._is_begun:
            is_anew = self.record.agent != self.agent if proof is RestartProof.AGENT else self.record.boot != self.boot
            if is_anew or not self.boot:  # without a boot ID, use the agent's start
                return {"step": f"the {proof.value} has restarted"}
        else:
            self._begin(deadline=self.clock.monotonic() + within_s)
            ended = await self._command(action.command.words, within_s)
            if ended.code > 0:  # a signal is expected: the restart may stop this command first
                raise _failed(ended)
        await asyncio.sleep(max(0.0, self.record.deadline - self.clock.monotonic()))
        raise JobFailedError(f"the {proof.value} did not restart within {within_s} s")

    async def _renew(self) -> dict[str, str]:
        if self._is_begun and self.record.mark != self.mark():
            return {"thumbprint": self.mark() or ""}
        self._begin(mark=self.mark())
        await self.renew()
        return {"thumbprint": self.mark() or ""}

    # ---- job record

    @property
    def _is_begun(self) -> bool:
        return self.record.step is JobStep.BEGUN

    def _begin(self, **facts: object) -> None:
        if self.record.attempts >= _MAX_ATTEMPTS:
            raise JobFailedError(f"it was started {_MAX_ATTEMPTS} times and never finished")
        self._write(step=JobStep.BEGUN, attempts=self.record.attempts + 1, boot=self.boot, agent=self.agent, **facts)

    def _write(self, **changes: object) -> None:
        changed = replace(self.record, **changes)
        write_record(self.file, changed)
        self.record = changed


def _failed(ended: command_runner.CommandResult) -> JobFailedError:
    reason = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code} ended it"
    return JobFailedError(reason, output=ended.output)
