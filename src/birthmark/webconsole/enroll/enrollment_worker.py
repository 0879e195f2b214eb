"""Check and run of a list in the background: in time slices, and stoppable.

Both use the operator interface with the user's identity and permissions: signing out, or losing the permission, ends
them.
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
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ForbiddenError, UnauthenticatedError, UnavailableError
from birthmark.operator_api.api_router import told as problem_of
from birthmark.operator_api.device_enrollment_by_certificate import MOST_AT_ONCE as MOST_ASKED
from birthmark.operator_api.device_enrollment_by_certificate import EnrollmentResult
from birthmark.operator_api.page_api_client import ApiOperation, InProcessClient, SignedInUser
from birthmark.supervised_tasks import run_in_thread, told
from birthmark.webconsole.enroll.limits import MOST_AT_ONCE, PAUSE_S
from birthmark.webconsole.enroll.multipart import UploadedFile
from birthmark.webconsole.enroll.parser import Row, rows_of, sort
from birthmark.webconsole.enroll.uploads import Upload, UploadState

_SLICE, _TOLD_EVERY, _A_MOMENT_S = 10, 50, 5.0
_ENDS = (ForbiddenError, UnauthenticatedError, UnavailableError)
"""Errors that are not specific to a device."""
Check = Callable[[], SignedInUser]
"""Returns the user if the session and permission are still valid. Raise `SessionEndedError`."""


@dataclass(slots=True)
class EnrollmentWork:
    """Background work on lists in this process."""

    inside: InProcessClient
    clock: Clock
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE), init=False)

    def look(self, drop: Upload, files: Sequence[UploadedFile], check: Check) -> bool:
        """Start a check; return False if the list is already being processed."""
        return self._begin(drop, lambda: self._look(drop, files, check), "reading")

    def run(self, drop: Upload, check: Check) -> bool:
        """Start to enroll the valid rows; return False if the list is already being processed."""
        with suppress(FileNotFoundError):
            (drop.path / "stop").unlink()
        return self._begin(drop, lambda: self._run(drop, check), "running")

    def stop(self, drop: Upload) -> None:
        """Stop a run after its current row, in any process."""
        (drop.path / "stop").touch(0o600)

    def later(self, after: timedelta, work: Callable[[], None]) -> None:
        """Run work in a thread shortly after a delay."""

        def begin() -> None:
            self._keep(told("console.later", run_in_thread(work)))

        asyncio.get_running_loop().call_later(after.total_seconds() + _A_MOMENT_S, begin)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, drop: Upload, work: Callable[[], Coroutine[Any, Any, UploadState]], phase: str) -> bool:
        lock = flock.take(drop.lock, patience=1)
        if lock is None:
            return False
        before = drop.state()
        drop.keep_state(UploadState(phase, 0, before.total))

        async def alone() -> None:
            try:
                async with self._turns:
                    ended = await work()
                drop.keep_state(ended)  # last: who sees it may start the next work at once
            except asyncio.CancelledError:
                raise  # server shutdown: the files keep the progress
            except Exception:
                now = drop.state()
                over = "stopped" if phase == "running" else "failed"
                drop.keep_state(UploadState(over, now.done, now.total, now.counts, now.problem))
                raise
            finally:
                os.close(lock)

        self._keep(told(f"console.{phase}", alone()))
        return True

    async def _look(self, drop: Upload, files: Sequence[UploadedFile], check: Check) -> UploadState:
        counts: Counter[str] = Counter()
        place = drop.about["dps"]
        try:
            dropped = await run_in_thread(lambda: sort(files))
            rows = rows_of(dropped, self.clock.now(), (drop.path / "stop").exists)
            with _opened(drop.path / "rows.jsonl") as kept, _opened(drop.path / "looked.jsonl") as looked:
                async for several in _slices(rows):
                    for row, became in zip(several, await self._preview_rows(place, several, check()), strict=True):
                        counts[became["outcome"]] += 1
                        _write(kept, row)
                        light = {name: value for name, value in row.items() if name != "pem"}
                        _write(looked, {**light, **became})
                    if counts.total() % _TOLD_EVERY == 0:
                        await _keep_state(drop, UploadState("reading", counts.total(), 0, counts))
                    await asyncio.sleep(PAUSE_S)
        except BirthmarkError as error:
            return UploadState("failed", counts.total(), counts.total(), counts, problem_of(error))
        else:
            return UploadState("read", counts.total(), counts.total(), counts)
        finally:
            await run_in_thread(lambda: shutil.rmtree(drop.path / "files", ignore_errors=True))

    async def _preview_rows(
        self, target: str, rows: Sequence[Row], caller: SignedInUser
    ) -> Sequence[Mapping[str, Any]]:
        """Return the expected result of each row."""
        asked = [row for row in rows if row["pem"] is not None]
        devices = [{"certificate": row["pem"], "device_id": _name_of(row)} for row in asked]
        told_of: dict[int, Mapping[str, Any]] = {}
        for at in range(0, len(asked), MOST_ASKED):
            body = {"devices": devices[at : at + MOST_ASKED]}
            found = await self.inside.read(caller, "/dps/{name}/enrollments/check", body, target)
            told_of |= {row["place"]: one for row, one in zip(asked[at:], found, strict=False)}
        refused = {"outcome": EnrollmentResult.REFUSED.value}
        return [{"problem": None, **told_of[row["place"]]} if row["place"] in told_of else refused for row in rows]

    async def _run(self, drop: Upload, check: Check) -> UploadState:
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
            await run_in_thread(lambda: os.fsync(journal.fileno()))
        return UploadState(phase, counts.total(), total, counts, problem)

    async def _one(self, target: str, row: Row, caller: SignedInUser) -> Mapping[str, Any]:
        if row["pem"] is None:
            return {"outcome": EnrollmentResult.REFUSED.value, "problem": row["problem"]}
        body = {"certificate": row["pem"], "device_id": _name_of(row)}
        try:
            done = await self.inside.do(caller, ApiOperation("POST", "/dps/{name}/enrollments", (target,), body))
        except _ENDS:
            raise
        except BirthmarkError as error:
            return {"outcome": EnrollmentResult.REFUSED.value, "problem": problem_of(error)}
        return {"outcome": done["outcome"], "problem": None}


def _name_of(row: Row) -> str | None:
    """Return the device name if the entry has one; the entry's board data may contain another name."""
    return row["device"] if row["says"] else None


async def _slices(rows: Iterator[Row]) -> AsyncIterator[Sequence[Row]]:
    """Yield batches of rows, each read in a thread."""
    while several := await run_in_thread(lambda: list(islice(rows, _SLICE))):
        yield several


async def _each(rows: Iterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    while several := await run_in_thread(lambda: list(islice(rows, _SLICE))):
        for one in several:
            yield one


async def _keep_state(drop: Upload, state: UploadState) -> None:
    """Write the progress without blocking the event loop."""
    await run_in_thread(lambda: drop.keep_state(state))


def _opened(path: Path) -> IO[bytes]:
    """Open a file for appending, unbuffered, so that each line is passed to the system when it is written."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(opened, "ab", buffering=0)


def _write(file: IO[bytes], row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row).encode() + b"\n")
