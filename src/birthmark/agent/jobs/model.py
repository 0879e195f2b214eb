"""What jobs may be, and what came of one, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from birthmark.untrusted_text import printable

MAX_CHARS = 1024
_LINE_END = " | "
_CUT = "… "


def bounded(details: Mapping[str, str]) -> dict[str, str]:
    """Return details as they are taken, in one line each; the end of what is too long is cut, and empty ones go."""
    made = {name: printable(_in_one_line(value)) for name, value in details.items()}
    return {name: value[:MAX_CHARS] for name, value in made.items() if value}


def tail(output: bytes | bytearray) -> str:
    """Return the end of what a program said, as one detail: why it failed stands there."""
    text = printable(_in_one_line(output.decode(errors="replace")))
    return text if len(text) <= MAX_CHARS else _CUT + text[len(_CUT) - MAX_CHARS :]


def _in_one_line(text: str) -> str:
    return _LINE_END.join(line for one in text.splitlines() if (line := one.strip()))


@dataclass(frozen=True, slots=True)
class RunCommand:
    """`[jobs.run.NAME]`: a program with its fixed arguments, and those that a job may add."""

    words: tuple[str, ...]
    arguments: frozenset[str] = frozenset()
    timeout_s: int = 600
    is_run_again: bool = False
    """Whether it is begun again where the agent was killed in the middle of it."""


@dataclass(frozen=True, slots=True)
class ReplaceableFile:
    """`[jobs.replace.NAME]`: a file that jobs may replace, and the beginnings of the URLs that it may come from."""

    path: Path
    urls: tuple[str, ...]
    max_bytes: int = 256 * 1024 * 1024
    timeout_s: int = 3600


class RestartProof(StrEnum):
    """What has to have started anew before a restart counts as done."""

    DEVICE = "device"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class RestartCommand:
    """`[jobs.restart]`: the command that restarts the device, and within how long that has to have happened."""

    words: tuple[str, ...]
    within_s: int = 300
    proof: RestartProof = RestartProof.DEVICE


@dataclass(frozen=True, slots=True)
class JobSettings:
    """`[jobs]`: all that a job may ask for."""

    run: Mapping[str, RunCommand] = field(default_factory=dict)
    replace: Mapping[str, ReplaceableFile] = field(default_factory=dict)
    restart: RestartCommand | None = None
    may_renew: bool = False


@dataclass(frozen=True, slots=True)
class RunAction:
    """Run a command."""

    name: str
    command: RunCommand
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplaceAction:
    """Replace a file by what is at `url`, if its digest is `sha256` (32 bytes in hex)."""

    name: str
    place: ReplaceableFile
    url: str = field(repr=False)  # it may be signed
    sha256: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class RestartAction:
    """Restart the device."""

    command: RestartCommand


@dataclass(frozen=True, slots=True)
class RenewAction:
    """Renew the device's certificate."""


Wanted: TypeAlias = RunAction | ReplaceAction | RestartAction | RenewAction


class JobExecutionStatus(StrEnum):
    """How an execution stands, in AWS's words."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What came of a job; `details` are what its operators read."""

    status: JobExecutionStatus
    details: Mapping[str, str] = field(default_factory=dict)


class JobRejectedError(ValueError):
    """A job is not within what the configuration allows. No refusal of ours: the cloud is told, and nobody else."""


class JobFailedError(Exception):
    """A job was begun and came to nothing; the text is the reason, `details` are more. The cloud is told."""

    def __init__(self, reason: str, **details: str) -> None:
        super().__init__(reason)
        self.details = details


class JobCutError(Exception):
    """It may go on after a look at the job as it is now: the line was cut, or the URL is over."""
