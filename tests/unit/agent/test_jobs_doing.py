"""A job from each step at which an agent may be killed: what the next agent makes of it."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from birthmark.agent.jobs.execution_state_file import JobRecord, JobStep, read_record
from birthmark.agent.jobs.model import (
    MAX_CHARS,
    JobExecutionStatus,
    JobOutcome,
    RenewAction,
    RestartAction,
    RestartCommand,
    RestartProof,
    RunAction,
    RunCommand,
    Wanted,
    bounded,
    tail,
)
from birthmark.agent.jobs.resumable_executor import JobExecutor
from birthmark.device_transports.openssl.resumable_download import Begin, DownloadResponse, Take
from birthmark.errors import UnavailableError
from support.fakes import FakeClock


async def nothing(_url: str, _offset: int, _begin: Begin, _take: Take, _timeout_s: float) -> DownloadResponse:
    raise AssertionError


@dataclass
class Machine:
    """A device: its boots, its runs of the agent, its certificate, and what its commands have written."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    boot: str = "boot-1"
    agent: str = "agent-1"
    mark: str = "old"
    renewals: int = 0
    is_failing: bool = False

    async def renew(self) -> None:
        self.renewals += 1
        if self.is_failing:
            raise UnavailableError
        self.mark = "new"

    def script(self, text: str) -> tuple[str]:
        path = self.directory / "script"
        path.write_text(f"#!/bin/sh\necho ran >> {self.directory}/log\n{text}\n")
        path.chmod(0o700)
        return (str(path),)

    @property
    def runs(self) -> int:
        log = self.directory / "log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    @property
    def file(self) -> Path:
        return self.directory / "job.json"

    async def does(self, wanted: Wanted, record: JobRecord | None = None) -> JobOutcome:
        given = record or JobRecord("j", 1, 0, "test", boot=self.boot)
        return await JobExecutor(
            wanted, given, self.file, self.boot, self.agent, self.clock, nothing, self.renew, lambda: self.mark
        ).work()

    def begun(self, **more: object) -> JobRecord:
        return JobRecord("j", 1, 0, "test", JobStep.BEGUN, 1, self.boot, self.agent, **more)  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def a_run(words: tuple[str, ...], *, again: bool = False) -> RunAction:
    return RunAction("test", RunCommand(words, is_run_again=again), ())


def a_restart(words: tuple[str, ...], proof: RestartProof = RestartProof.DEVICE, within_s: int = 1) -> RestartAction:
    return RestartAction(RestartCommand(words, within_s, proof))


async def test_what_came_of_it_is_on_disk_before_it_is_told(machine: Machine) -> None:
    outcome = await machine.does(a_run(machine.script("echo done")))
    assert outcome == JobOutcome(JobExecutionStatus.SUCCEEDED, {"exit": "0", "output": "done"})
    record = read_record(machine.file)
    assert record is not None
    assert (record.step, record.status, record.details) == (JobStep.DONE, "SUCCEEDED", outcome.details)
    assert stat.S_IMODE(machine.file.stat().st_mode) == 0o600


async def test_nothing_is_begun_that_cannot_be_written_down(machine: Machine) -> None:
    machine.file.mkdir()
    outcome = await machine.does(a_run(machine.script("")))
    assert (outcome.status, outcome.details["code"], machine.runs) == (
        JobExecutionStatus.FAILED,
        "agent.state_not_writable",
        0,
    )


async def test_a_script_that_was_begun_is_interrupted(machine: Machine) -> None:
    outcome = await machine.does(a_run(machine.script("")), machine.begun())
    assert (outcome.details["reason"].partition(":")[0], machine.runs) == ("interrupted", 0)


async def test_a_script_that_may_be_run_again_is_but_not_for_ever(machine: Machine) -> None:
    run = a_run(machine.script(""), again=True)
    assert (await machine.does(run, machine.begun())).status is JobExecutionStatus.SUCCEEDED
    often = JobRecord("j", 1, 0, "test", JobStep.BEGUN, 20)
    assert "never finished" in (await machine.does(run, often)).details["reason"]
    assert machine.runs == 1


async def test_a_script_has_no_secrets_of_the_agents_in_its_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "x")
    outcome = await machine.does(a_run(("/usr/bin/env",)))
    names = {one.partition("=")[0] for one in outcome.details["output"].split(" | ")}
    assert names == {"PATH", "LANG", "BIRTHMARK_JOB_ID", "BIRTHMARK_JOB_RUN"}


async def test_a_script_that_writes_without_end_is_kept_in_little_memory_and_its_end_is_told(machine: Machine) -> None:
    outcome = await machine.does(a_run(machine.script("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end")))
    assert outcome.details["output"].endswith("x | the end")
    assert len(outcome.details["output"]) == MAX_CHARS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "\ufeff#!/bin/sh\necho ran\n",
            "it begins with a byte order mark, as on Windows; it must be UTF-8 without one",
        ),
        ("#!/bin/sh\r\necho ran\r\n", "its lines end with CR LF, as on Windows; they must end with LF"),
        ("#!/opt/none\necho ran\n", "its first line names the interpreter /opt/none, which does not exist"),
    ],
)
async def test_a_script_whose_first_line_names_no_program_is_told(machine: Machine, text: str, reason: str) -> None:
    words = machine.script("")
    Path(words[0]).write_bytes(text.encode())
    outcome = await machine.does(a_run(words))
    assert outcome.details["reason"] == f"{words[0]} cannot be run: {reason}"


async def test_a_signal_that_ends_a_script_is_told(machine: Machine) -> None:
    assert (await machine.does(a_run(machine.script("kill -9 $$")))).details["reason"] == "signal 9 ended it"


async def test_what_a_script_leaves_in_the_background_holds_nothing_up(machine: Machine) -> None:
    outcome = await machine.does(a_run(machine.script(f"sleep 30 & echo $! > {machine.directory}/pid")))
    assert outcome.status is JobExecutionStatus.SUCCEEDED
    os.kill(int((machine.directory / "pid").read_text()), 9)


async def test_a_restart_is_over_when_the_machine_has_another_boot(machine: Machine) -> None:
    record, machine.boot = machine.begun(), "boot-2"
    assert (await machine.does(a_restart(machine.script("")), record)).status is JobExecutionStatus.SUCCEEDED
    assert machine.runs == 0


async def test_another_run_of_the_agent_is_no_restart_of_the_machine(machine: Machine) -> None:
    record, machine.agent = machine.begun(), "agent-2"
    outcome = await machine.does(a_restart(machine.script("")), record)
    assert (outcome.status, machine.runs) == (JobExecutionStatus.FAILED, 0)
    assert (
        await machine.does(a_restart(machine.script(""), RestartProof.AGENT), record)
    ).status is JobExecutionStatus.SUCCEEDED


async def test_a_machine_that_tells_of_no_boots_has_restarted_with_its_agent(machine: Machine) -> None:
    machine.boot = ""
    record, machine.agent = machine.begun(), "agent-2"
    assert (await machine.does(a_restart(machine.script("")), record)).status is JobExecutionStatus.SUCCEEDED


async def test_a_restart_that_the_machine_refuses_has_failed(machine: Machine) -> None:
    outcome = await machine.does(a_restart(machine.script("echo not now; exit 1"), within_s=300))
    assert outcome == JobOutcome(JobExecutionStatus.FAILED, {"reason": "exit code 1", "output": "not now"})


async def test_a_restart_command_that_is_stopped_with_all_else_is_no_failure_of_it(machine: Machine) -> None:
    outcome = await machine.does(a_restart(machine.script("kill $$")))
    assert "did not restart within 1 s" in outcome.details["reason"]


async def test_a_renewal_that_was_done_before_the_agent_was_killed_is_not_done_twice(machine: Machine) -> None:
    record, machine.mark = machine.begun(mark="old"), "new"
    assert await machine.does(RenewAction(), record) == JobOutcome(JobExecutionStatus.SUCCEEDED, {"thumbprint": "new"})
    assert machine.renewals == 0


async def test_a_renewal_that_was_not_done_is(machine: Machine) -> None:
    assert (await machine.does(RenewAction(), machine.begun(mark="old"))).details == {"thumbprint": "new"}
    assert machine.renewals == 1


async def test_a_renewal_that_is_refused_is_told_with_its_code(machine: Machine) -> None:
    machine.is_failing = True
    outcome = await machine.does(RenewAction())
    assert (outcome.status, outcome.details["code"]) == (JobExecutionStatus.FAILED, UnavailableError.code)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"job_id": 1}', b"[" * 50_000])
def test_a_record_that_is_damaged_is_none(machine: Machine, damage: bytes) -> None:
    machine.file.write_bytes(damage)
    assert read_record(machine.file) is None


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred\x00", "\u2028", "x" * 5000, "\ud800", "ein é 🙂"])
def test_details_are_within_the_bounds_of_aws(text: str) -> None:
    made = bounded({"reason": text, "empty": "", "blank": "\n"})
    said = tail(text.encode(errors="surrogatepass"))
    for value in (*made.values(), said):
        assert len(value) <= MAX_CHARS
        assert value.isprintable()
    assert all(made.values())
