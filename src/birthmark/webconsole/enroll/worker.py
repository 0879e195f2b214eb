"""The look at a list and its run, in the background: a slice at a time, so that others are served, and to be stopped.

Both go by the operator interface, in the name and with the rights of who asked: who signs out, or may no more, ends it.
"""

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any

from birthmark import flock
from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, ForbiddenError, UnauthenticatedError, UnavailableError
from birthmark.operator_api.api_router import told as problem_of
from birthmark.operator_api.enrollment import MOST_AT_ONCE as MOST_ASKED
from birthmark.operator_api.enrollment import EnrollmentResult
from birthmark.operator_api.in_process_client import ApiOperation, InProcessClient, SignedInUser
from birthmark.supervised_tasks import beside, told
from birthmark.webconsole.enroll.limits import MOST_AT_ONCE, PAUSE_S
from birthmark.webconsole.enroll.multipart import UploadedFile
from birthmark.webconsole.enroll.parser import Row, rows_of, sort
from birthmark.webconsole.enroll.uploads import Upload, UploadState

_SLICE, _TOLD_EVERY, _A_MOMENT_S = 10, 50, 5.0
_ENDS = (ForbiddenError, UnauthenticatedError, UnavailableError)
"""What is no word on one device."""
Check = Callable[[], SignedInUser]
"""Returns who asks, as long as that one may. Raise `SessionEndedError`."""


@dataclass(slots=True)
class EnrollmentWork:
    """What this process does to lists."""

    inside: InProcessClient
    clock: Clock
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE), init=False)

    def look(self, drop: Upload, files: Sequence[UploadedFile], check: Check) -> bool:
        """Begin to look what would happen; say whether nobody else is at it."""
        return self._begin(drop, lambda: self._look(drop, files, check), "reading")

    def run(self, drop: Upload, check: Check) -> bool:
        """Begin to put on record what can be; say whether nobody else is at it."""
        with suppress(FileNotFoundError):
            (drop.path / "stop").unlink()
        return self._begin(drop, lambda: self._run(drop, check), "running")

    def stop(self, drop: Upload) -> None:
        """Let a run end after the row that it is at, in whichever process."""
        (drop.path / "stop").touch(0o600)

    def later(self, after: timedelta, work: Callable[[], None]) -> None:
        """Do something in a thread a moment after some time."""

        def begin() -> None:
            self._keep(told("console.later", beside(work)))

        asyncio.get_running_loop().call_later(after.total_seconds() + _A_MOMENT_S, begin)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, drop: Upload, work: Callable[[], Any], phase: str) -> bool:
        lock = flock.take(drop.lock, patience=1)
        if lock is None:
            return False
        before = drop.state()
        drop.keep_state(UploadState(phase, 0, before.total))

        async def alone() -> None:
            try:
                async with self._turns:
                    await work()
            except asyncio.CancelledError:
                raise  # the server ends: what the files say is how far it came
            except Exception:
                now = drop.state()
                over = "stopped" if phase == "running" else "failed"
                drop.keep_state(UploadState(over, now.done, now.total, now.counts, now.problem))
                raise
            finally:
                os.close(lock)

        self._keep(told(f"console.{phase}", alone()))
        return True

    async def _look(self, drop: Upload, files: Sequence[UploadedFile], check: Check) -> None:
        counts: Counter[str] = Counter()
        place = drop.about["dps"]
        try:
            dropped = await beside(lambda: sort(files))
            rows = rows_of(dropped, self.clock.now(), (drop.path / "stop").exists)
            with _opened(drop.path / "rows.jsonl") as kept, _opened(drop.path / "looked.jsonl") as looked:
                async for several in _slices(rows):
                    for row, became in zip(several, await self._would(place, several, check()), strict=True):
                        counts[became["outcome"]] += 1
                        _write(kept, row)
                        light = {name: value for name, value in row.items() if name != "pem"}
                        _write(looked, {**light, **became})
                    if counts.total() % _TOLD_EVERY == 0:
                        await _keep_state(drop, UploadState("reading", counts.total(), 0, counts))
                    await asyncio.sleep(PAUSE_S)
        except BirthmarkError as error:
            drop.keep_state(UploadState("failed", counts.total(), counts.total(), counts, problem_of(error)))
        else:
            drop.keep_state(UploadState("read", counts.total(), counts.total(), counts))
        finally:
            await beside(lambda: shutil.rmtree(drop.path / "files", ignore_errors=True))

    async def _would(self, place: str, rows: Sequence[Row], who: SignedInUser) -> Sequence[Mapping[str, Any]]:
        """Return what would become of each."""
        asked = [row for row in rows if row["pem"] is not None]
        devices = [{"certificate": row["pem"], "device_id": _name_of(row)} for row in asked]
        told_of: dict[int, Mapping[str, Any]] = {}
        for at in range(0, len(asked), MOST_ASKED):
            body = {"devices": devices[at : at + MOST_ASKED]}
            found = await self.inside.read(who, "/dps/{name}/enrollments/check", body, place)
            told_of |= {row["place"]: one for row, one in zip(asked[at:], found, strict=False)}
        refused = {"outcome": EnrollmentResult.REFUSED.value}
        return [{"problem": None, **told_of[row["place"]]} if row["place"] in told_of else refused for row in rows]

    async def _run(self, drop: Upload, check: Check) -> None:
        counts: Counter[str] = Counter()
        looked = {row["place"]: row["outcome"] for row in drop.lines("looked.jsonl")}
        total, place, phase, problem = len(looked), drop.about["dps"], "complete", None
        with _opened(drop.path / "run.jsonl") as journal:
            _write(journal, {"begun": self.clock.now().isoformat(), "dps": place, "total": total})
            try:
                async for row in _each(drop.lines("rows.jsonl")):
                    if (drop.path / "stop").exists():
                        phase = "stopped"
                        break
                    done = await self._one(place, row, check())
                    counts[done["outcome"]] += 1
                    _write(journal, {"place": row["place"], "at": self.clock.now().isoformat(), **done})
                    if counts.total() % _TOLD_EVERY == 0:
                        await _keep_state(drop, UploadState("running", counts.total(), total, counts))
                    await asyncio.sleep(PAUSE_S)
            except _ENDS as error:
                phase, problem = "stopped", problem_of(error)
            _write(journal, {"end": phase})
            await beside(lambda: os.fsync(journal.fileno()))
        await _keep_state(drop, UploadState(phase, counts.total(), total, counts, problem))

    async def _one(self, place: str, row: Row, who: SignedInUser) -> Mapping[str, Any]:
        if row["pem"] is None:
            return {"outcome": EnrollmentResult.REFUSED.value, "problem": row["problem"]}
        body = {"certificate": row["pem"], "device_id": _name_of(row)}
        try:
            done = await self.inside.do(who, ApiOperation("POST", "/dps/{name}/enrollments", (place,), body))
        except _ENDS:
            raise
        except BirthmarkError as error:
            return {"outcome": EnrollmentResult.REFUSED.value, "problem": problem_of(error)}
        return {"outcome": done["outcome"], "problem": None}


def _name_of(row: Row) -> str | None:
    """Return what the device is called where that is told: what an entry says of its board may be another name."""
    return row["device"] if row["says"] else None


async def _slices(rows: Iterator[Row]) -> AsyncIterator[Sequence[Row]]:
    """Yield some rows at a time, each read in a thread."""
    while several := await beside(lambda: list(islice(rows, _SLICE))):
        yield several


async def _each(rows: Iterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    while several := await beside(lambda: list(islice(rows, _SLICE))):
        for one in several:
            yield one


async def _keep_state(drop: Upload, state: UploadState) -> None:
    """Say how far it is; the disk may take its time."""
    await beside(lambda: drop.keep_state(state))


def _opened(path: Path) -> IO[bytes]:
    """Open a file that is added to, of which every line is on its way to the disk when it is written."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(opened, "ab", buffering=0)


def _write(file: IO[bytes], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row).encode() + b"\n")
