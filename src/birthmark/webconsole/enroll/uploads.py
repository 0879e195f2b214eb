"""Uploads as files below the data directory: owner, rows, and results of each.

| file | |
|---|---|
| about.json | owner, time, service and kind; never changed |
| state.json | progress of the check or the run, for the page |
| rows.jsonl | the content of each row, with its certificate |
| looked.jsonl | the expected result of each row |
| run.jsonl | the journal: a line at the start of a run, one for each row, one at its end |
| lock | held during a check or a run |
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from birthmark import atomic_files, flock
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import NotFoundError, ThrottledError
from birthmark.untrusted_json_and_text import decode_json
from birthmark.webconsole.enroll.limits import KEPT, KEPT_DONE, MOST_DROPS, MOST_OF_ONE

_ID = re.compile("[0-9a-f]{24}")
_ID_BYTES = 12
_WAIT_S = 60


class DropGoneError(NotFoundError):
    """The list does not exist, or belongs to another user."""

    code = "console.drop_gone"
    message = "The list is no longer available"
    cause = "The uploaded list has expired: the server keeps lists for an hour and results for a day."
    fix = "Upload the files again. This does not change enrolled devices."
    for_a_person = "the files are on the user's machine"


class TooManyDropsError(ThrottledError):
    """The maximum number of lists is reached."""

    code = "console.too_many_drops"
    cause = "The server stores {count} uploaded lists, which is the limit."
    fix = "Delete an unused list, or wait an hour until previewed lists expire."
    for_a_person = "only the user who uploaded the lists can delete them"
    count: int


@dataclass(frozen=True, slots=True)
class UploadState:
    """Progress of an upload. `phase` is reading, read, running, cut off, stopped, complete or failed."""

    phase: str
    done: int = 0
    total: int = 0
    counts: Mapping[str, int] | None = None
    problem: Mapping[str, Any] | None = None

    @property
    def is_busy(self) -> bool:
        return self.phase in {"reading", "running"}


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def about(self) -> Mapping[str, Any]:
        """Return its metadata."""
        try:
            found: Mapping[str, Any] = decode_json((self.path / "about.json").read_bytes())
        except (OSError, ValueError) as error:
            raise DropGoneError from error
        return found

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def state(self) -> UploadState:
        """Return its progress, also after the worker process was killed."""
        try:
            found = UploadState(**decode_json((self.path / "state.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            found = UploadState("reading")
        if not found.is_busy or flock.is_locked(self.lock):
            return found
        if found.phase == "reading":
            return UploadState("failed", found.done, found.total)
        counts = Counter(row["outcome"] for row in self.outcomes())
        return UploadState("cut off", counts.total(), found.total, dict(counts))

    def keep_state(self, state: UploadState) -> None:
        """Write its progress."""
        told = {"phase": state.phase, "done": state.done, "total": state.total}
        told |= {"counts": dict(state.counts or {}), "problem": state.problem}
        atomic_files.replace(self.path / "state.json", json.dumps(told).encode())

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of one of its files, without a truncated last line."""
        with suppress(FileNotFoundError), (self.path / name).open("rb") as file:
            for line in file:
                with suppress(ValueError):
                    yield decode_json(line)

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Yield the results of the last run's rows."""
        found: list[dict[str, Any]] = []
        for line in self.lines("run.jsonl"):
            if "begun" in line:
                found.clear()
            elif "outcome" in line:
                found.append(line)
        yield from found

    def page(self, outcome: str, begin: int, size: int) -> tuple[Sequence[dict[str, Any]], bool]:
        """Return rows with their expected or actual results, and whether more follow."""
        became = {line["place"]: line for line in self.outcomes()}
        found: list[dict[str, Any]] = []
        for row in self.lines("looked.jsonl"):
            one = row | became.get(row["place"], {})
            if one["place"] <= begin or (outcome and one["outcome"] != outcome):
                continue
            if len(found) == size:
                return found, True
            found.append(one)
        return found, False

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Uploads:
    """All uploads."""

    directory: Path
    entropy: Entropy

    def of(self, user: str, drop_id: str) -> Upload:
        """Return an upload of a user. Raise `DropGoneError`."""
        drop = Upload(self.directory / drop_id)
        if _ID.fullmatch(drop_id) is None or drop.about.get("user") != user:
            raise DropGoneError
        return drop

    def every(self, user: str | None = None) -> Sequence[Upload]:
        """Return the uploads of a user, or all, latest first."""
        found: list[tuple[str, Upload]] = []
        for one in sorted(self.directory.glob("*")) if self.directory.is_dir() else ():
            with suppress(DropGoneError):
                about = Upload(one).about
                if user is None or about.get("user") == user:
                    found.append((str(about.get("at", "")), Upload(one)))
        return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def create_directory(self, user: str, now: datetime) -> Path:
        """Return a new directory, after deleting expired ones. Raise `TooManyDropsError`."""
        self.sweep(now)
        own = self.every(user)
        busy = sum(1 for one in own if one.state().is_busy)
        if busy >= MOST_OF_ONE:
            raise TooManyDropsError(count=busy, retry_after_s=_WAIT_S)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        count = sum(1 for _ in self.directory.iterdir())
        if count - len(self._in_the_way(own)) >= MOST_DROPS:
            raise TooManyDropsError(count=count, retry_after_s=_WAIT_S)
        path = self.directory / self.entropy.token(_ID_BYTES).hex()
        path.mkdir(mode=0o700)
        (path / "files").mkdir(mode=0o700)
        return path

    def remove_superseded(self, user: str) -> None:
        """Delete the user's lists that were only checked, and the oldest of the others, after a complete new upload."""
        for one in self._in_the_way(self.every(user)):
            one.remove()

    def _in_the_way(self, own: Sequence[Upload]) -> Sequence[Upload]:
        quiet = [one for one in own if not one.state().is_busy]
        return [one for at, one in enumerate(quiet) if at >= MOST_OF_ONE - 1 or not (one.path / "run.jsonl").exists()]

    def sweep(self, now: datetime) -> None:
        """Delete expired uploads."""
        for path in list(self.directory.glob("*")) if self.directory.is_dir() else ():
            try:
                age = now.timestamp() - max(path.stat().st_mtime, *(one.stat().st_mtime for one in path.iterdir()))
            except (OSError, TypeError):
                continue
            kept = KEPT_DONE if (path / "run.jsonl").exists() else KEPT
            if age > kept.total_seconds() and not flock.is_locked(path / "lock"):
                shutil.rmtree(path, ignore_errors=True)
