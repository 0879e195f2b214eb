"""State of the current job in one file, read after a restart before any action.

It is durably written before each irreversible step: job accepted, job started, result. An execution is identified by
job, number, and queue time. A later job of the same name is a different execution.
"""

import contextlib
from enum import StrEnum
from pathlib import Path

import msgspec

from birthmark.agent.state_directory import remove_file, write_file
from birthmark.untrusted_json_and_text import decode_json

_MAX_BYTES = 64 * 1024


class JobStep(StrEnum):
    """Progress of a job."""

    TAKEN = "taken"
    BEGUN = "begun"
    DONE = "done"


class JobRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One execution of a job. `deadline` is in the machine's monotonic clock, valid within one boot."""

    job_id: str
    number: int
    queued_at: int
    what: str
    step: JobStep = JobStep.TAKEN
    attempts: int = 0
    boot: str = ""
    agent: str = ""
    """ID of the agent run that started it; its child processes carry the ID in their environment."""
    deadline: float = 0.0
    mark: str | None = None
    """Thumbprint of the certificate before a renewal."""
    status: str = ""
    details: dict[str, str] = {}


def read_record(path: Path) -> JobRecord | None:
    """Return the record; None if the file is missing or damaged."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), path.open("rb") as file:
        return decode_json(file.read(_MAX_BYTES), JobRecord)
    return None


def write_record(path: Path, record: JobRecord) -> None:
    """Write the job record; it is on disk on return. Raise `StateNotWritableError`."""
    write_file(path, msgspec.json.encode(record))


def forget(path: Path) -> None:
    """Delete the record. Raise `StateNotWritableError`."""
    remove_file(path)
