"""What a device does about a job at AWS, and how it ends: decided by its name, the job and the try alone."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

_OUT_OF = 1 << 32


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    """A job that was begun."""

    job_id: str
    number: int


@dataclass(frozen=True, slots=True)
class JobMessage:
    """What a message on a topic of a thing's jobs means."""

    begun: SimulatedJob | None = None
    is_news: bool = False
    """There is something to begin."""
    ended: bool = False
    refused: str = ""


def fails(name: str, work: SimulatedJob, share: float) -> bool:
    """Say whether this try fails: so many of many do, and the same ones in every run."""
    rolled = hashlib.blake2b(f"{name} {work.job_id} {work.number}".encode(), digest_size=4).digest()
    return int.from_bytes(rolled, "big") < share * _OUT_OF


def said(topic: str, payload: bytes) -> JobMessage:
    """Return what a message means; one that is none of ours means nothing."""
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
    """Return what a device says at the end of a try, and whether it failed."""
    is_bad = fails(name, work, share)
    told = {
        "status": "FAILED" if is_bad else "SUCCEEDED",
        "executionNumber": work.number,
        "statusDetails": {"why": "as it was told to" if is_bad else "done"},
    }
    return json.dumps(told).encode(), is_bad
