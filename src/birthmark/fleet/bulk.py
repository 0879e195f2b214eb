"""Enroll many: bounded concurrency, every outcome in a journal, so that a killed run goes on where it was."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError, UnavailableError
from birthmark.fleet.target import DeviceWish, Done, EnrollmentTarget

_FINAL = {Done.CREATED, Done.UPDATED, Done.UNCHANGED}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one device."""

    device_id: str
    thumbprint: str | None
    done: Done
    code: str | None = None
    message: str | None = None
    fix: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        row: dict[str, Any] = {"device": self.device_id, "thumbprint": self.thumbprint, "outcome": self.done.value}
        if self.code:
            row |= {"code": self.code, "message": self.message, "fix": self.fix}
        return row


class Journal:
    """Outcomes of earlier runs and of this one, one JSON object a line."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.done: set[tuple[str, str | None]] = set()
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # the line a kill cut off
                if row.get("outcome") in _FINAL:
                    self.done.add((row["device"], row["thumbprint"]))

    def __enter__(self) -> Self:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, also over a kill."""
        if self._path is not None and outcome.done in {*_FINAL, Done.REFUSED}:
            self._file.write(json.dumps(outcome.as_row()) + "\n")
            self._file.flush()


def refused(device_id: str, thumbprint: str | None, error: BirthmarkError) -> Outcome:
    """Return the outcome of a refusal."""
    return Outcome(device_id, thumbprint, Done.REFUSED, error.code, error.message, error.explain_fix())


def enroll_all(
    target: EnrollmentTarget,
    wishes: Iterable[DeviceWish],
    journal: Journal,
    *,
    update: bool,
    dry_run: bool,
    workers: int = 8,
) -> Iterator[Outcome]:
    """Yield an outcome per wish as it is known. Raise what stops everything: no answer, or refused credentials."""

    def one(wish: DeviceWish) -> Outcome:
        thumbprint = wish.certificate.thumbprint.hex()
        if (wish.device_id, thumbprint) in journal.done and not dry_run:
            return Outcome(wish.device_id, thumbprint, Done.UNCHANGED)
        try:
            return Outcome(wish.device_id, thumbprint, target.enroll(wish, update=update, dry_run=dry_run))
        except (UnavailableError, UnauthenticatedError, ThrottledError):
            raise
        except BirthmarkError as error:
            return refused(wish.device_id, thumbprint, error)

    running: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(workers, thread_name_prefix="enroll") as pool:
        try:
            for wish in wishes:
                running.add(pool.submit(one, wish))
                if len(running) >= 2 * workers:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from _kept(finished, journal)
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from _kept(finished, journal)
        finally:
            for future in running:
                future.cancel()


def _kept(finished: Iterable[Future[Outcome]], journal: Journal) -> Iterator[Outcome]:
    for future in finished:
        outcome = future.result()
        journal.add(outcome)
        yield outcome
