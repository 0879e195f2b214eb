"""What the device was told to do and how far it is, in one file: read after a restart, before anything is begun.

It is written, durably, before each step that cannot be taken back: the job is taken, it is begun, this came of it. An
execution is known by job, number and the time at which it was queued: one of the same name that was made later is
another.
"""

import contextlib
from enum import StrEnum
from pathlib import Path

import msgspec

from birthmark.agent.paths import remove_file, write_file
from birthmark.untrusted_text import decode_json

_MAX_BYTES = 64 * 1024


class JobStep(StrEnum):
    """How far a job is."""

    TAKEN = "taken"
    BEGUN = "begun"
    DONE = "done"


class JobRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One execution of a job. `deadline` is by the machine's monotonic clock, which counts within one boot."""

    job_id: str
    number: int
    queued_at: int
    what: str
    step: JobStep = JobStep.TAKEN
    attempts: int = 0
    boot: str = ""
    agent: str = ""
    """Which run of the agent has begun it; what it started carries this in its environment."""
    deadline: float = 0.0
    mark: str | None = None
    """The certificate there was before a renewal."""
    status: str = ""
    details: dict[str, str] = {}


def read_record(path: Path) -> JobRecord | None:
    """Return what there is; a file that is missing or damaged counts as none."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), path.open("rb") as file:
        return decode_json(file.read(_MAX_BYTES), JobRecord)
    return None


def write_record(path: Path, record: JobRecord) -> None:
    """Write it down; it is on disk on return. Raise `StateNotWritableError`."""
    write_file(path, msgspec.json.encode(record))


def forget(path: Path) -> None:
    """Forget it. Raise `StateNotWritableError`."""
    remove_file(path)
