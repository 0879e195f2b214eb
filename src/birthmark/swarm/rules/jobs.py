"""AWS job execution of a device: its outcome depends only on device name, job and attempt."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

_OUT_OF = 1 << 32


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    """A job in progress."""

    job_id: str
    number: int


@dataclass(frozen=True, slots=True)
class JobMessage:
    """Meaning of a message on a thing's job topics."""

    begun: SimulatedJob | None = None
    is_news: bool = False
    """Whether a job can be started."""
    ended: bool = False
    refused: str = ""


def fails(name: str, work: SimulatedJob, share: float) -> bool:
    """Return whether this attempt fails: a fixed share of devices, the same in every run."""
    rolled = hashlib.blake2b(f"{name} {work.job_id} {work.number}".encode(), digest_size=4).digest()
    return int.from_bytes(rolled, "big") < share * _OUT_OF


def parse_job_message(topic: str, payload: bytes) -> JobMessage:
    """Return the meaning of a message; empty for unrelated messages."""
    try:
        told = json.loads(payload)
    except ValueError:
        return JobMessage()
    execution: Any = told.get("execution") if isinstance(told, dict) else None
    if topic.endswith("/notify-next"):
        return JobMessage(is_news=bool(execution))
    if topic.endswith("/start-next/accepted"):
        return JobMessage(begun=SimulatedJob(execution["jobId"], execution["executionNumber"]) if execution else None)
    if topic.endswith("/update/accepted"):
        return JobMessage(ended=True)
    return JobMessage(refused=str(told.get("code", ""))) if topic.endswith("/rejected") else JobMessage()


def ending(name: str, work: SimulatedJob, share: float) -> tuple[bytes, bool]:
    """Return the message that ends an attempt, and whether it failed."""
    is_bad = fails(name, work, share)
    told = {
        "status": "FAILED" if is_bad else "SUCCEEDED",
        "executionNumber": work.number,
        "statusDetails": {"why": "as it was told to" if is_bad else "done"},
    }
    return json.dumps(told).encode(), is_bad
