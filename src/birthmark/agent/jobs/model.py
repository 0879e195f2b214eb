"""Job actions and outcomes as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from birthmark.untrusted_json_and_text import printable

MAX_CHARS = 1024
_LINE_END = " | "
_CUT = "… "


def bounded(details: Mapping[str, str]) -> dict[str, str]:
    """Return details as the service accepts them: one line each, truncated, without empty values."""
    made = {name: printable(_in_one_line(value)) for name, value in details.items()}
    return {name: value[:MAX_CHARS] for name, value in made.items() if value}


def tail(output: bytes | bytearray) -> str:
    """Return the end of a program's output as one detail; it usually contains the error."""
    text = printable(_in_one_line(output.decode(errors="replace")))
    return text if len(text) <= MAX_CHARS else _CUT + text[len(_CUT) - MAX_CHARS :]


def _in_one_line(text: str) -> str:
    return _LINE_END.join(line for one in text.splitlines() if (line := one.strip()))


@dataclass(frozen=True, slots=True)
class RunCommand:
    """`[jobs.run.NAME]`: a program with fixed arguments and those that a job may add."""

    words: tuple[str, ...]
    arguments: frozenset[str] = frozenset()
    timeout_s: int = 600
    is_run_again: bool = False
    """Whether the command runs again after the agent was killed during it."""


@dataclass(frozen=True, slots=True)
class ReplaceableFile:
    """`[jobs.replace.NAME]`: a file that jobs may replace, and the allowed URL prefixes."""

    path: Path
    urls: tuple[str, ...]
    max_bytes: int = 256 * 1024 * 1024
    timeout_s: int = 3600


class RestartProof(StrEnum):
    """What must have restarted for a restart job to succeed."""

    DEVICE = "device"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class RestartCommand:
    """`[jobs.restart]`: the command that restarts the device, and the time limit for the restart."""

    words: tuple[str, ...]
    within_s: int = 300
    proof: RestartProof = RestartProof.DEVICE


@dataclass(frozen=True, slots=True)
class JobSettings:
    """`[jobs]`: all actions that jobs may request."""

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
    """Replace a file with the content of `url` if its digest is `sha256` (32 bytes in hex)."""

    name: str
    place: ReplaceableFile
    url: str = field(repr=False)  # may be signed
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
    """Status of an execution, as named by AWS."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """Outcome of a job; `details` are for its operators."""

    status: JobExecutionStatus
    details: Mapping[str, str] = field(default_factory=dict)


class JobRejectedError(ValueError):
    """The configuration does not allow the job. Reported to the cloud only."""


class JobFailedError(Exception):
    """A started job failed; the text is the reason, with further `details`. Reported to the cloud."""

    def __init__(self, reason: str, **details: str) -> None:
        super().__init__(reason)
        self.details = details


class JobCutError(Exception):
    """The job may continue after it is fetched again: the connection broke, or the URL expired."""
