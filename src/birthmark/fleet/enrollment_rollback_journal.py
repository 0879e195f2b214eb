"""Journal of an enrollment: the outcome of each device, one JSON object per line.

The rollback entry is stored before a device is written, so that an interrupted run can be undone like any other.

The first line identifies the format, the target, account and scope; another file, or another target's journal, is never
written. The journal shows the progress of an interrupted run. Only the target itself determines the records there.
"""

import codecs
import json
import os
import shlex
import stat
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError
from birthmark.fleet.enrollment_target import Change, EnrollmentTarget, Note, TargetOutcome, WayBack
from birthmark.flock import take
from birthmark.text_file_encodings import copy_of, plain_text, to_plain_lines, utf_16_of

FORMAT = "birthmark-enroll-journal/1"
COMPLETE, TAKEN_BACK = "complete", "taken back"
_MAX_HEADER_BYTES = 4096
_PATIENCE = 3
_NOTHING = b" \t\r\n\0\x1a"
"""Bytes that editors and Windows programs leave in an empty file."""
KEPT = frozenset(
    {
        TargetOutcome.CREATED,
        TargetOutcome.UPDATED,
        TargetOutcome.UNCHANGED,
        TargetOutcome.REFUSED,
        TargetOutcome.TAKEN_BACK,
        TargetOutcome.GONE,
    }
)
_UNDONE = (TargetOutcome.TAKEN_BACK.value, TargetOutcome.GONE.value)
_MAY_BE_WRITTEN = frozenset(
    {
        TargetOutcome.CREATED.value,
        TargetOutcome.UPDATED.value,
        TargetOutcome.UNCHANGED.value,
        TargetOutcome.REFUSED.value,
    }
)
"""Outcomes after a started write that may have succeeded.

After a lost response, an SDK's retry reports a refusal or an existing record.
"""


class NoJournalError(InvalidRequestError):
    """The file is not a journal."""

    code = "enroll.no_journal"
    message = "{path} is not a journal"
    cause = "{path} is not a journal of `birthmark device`, which does not change files of other programs."
    fix = "Use a file that does not exist yet: `{again} --journal {copy}.journal`"
    again: str = "?"
    path: Path

    @property
    def copy(self) -> Path:
        return copy_of(self.path)


class JournalChangedError(InvalidRequestError):
    """The journal was saved in another encoding."""

    code = "enroll.journal_changed"
    message = "An editor saved the journal {path} in another encoding"
    cause = "The journal {path} has another encoding ({form}); a journal must be UTF-8."
    fix = (
        "Convert the journal to UTF-8 under another name: `{command}`. Then use the converted file: `{again} "
        "--journal {copy}`"
    )
    again: str = "?"
    command: str
    copy: Path
    form: str
    path: Path


class NoJournalOfRunError(NoJournalError):
    """The file to undo is not a journal."""

    code = "enroll.no_journal_of_run"
    message = "{path} is not the journal of a run"
    cause = "{path} does not start like a journal of `birthmark device`, so it cannot be undone."
    fix = "Use the journal of the run, or an unmodified copy. List the files: `ls -l {directory}`"

    @property
    def directory(self) -> Path:
        return self.path.parent


class OtherTargetsJournalError(ConflictError):
    """The journal belongs to another target."""

    code = "enroll.journal_of_another_target"
    cause = "{path} is the journal of {belongs_to}; this run is for {target}."
    fix = "{advice}: `{command}`"
    advice: str = "Give each target its own"
    belongs_to: str
    command: str
    path: Path
    target: str


class JournalInUseError(ConflictError):
    """Another run uses the journal."""

    code = "enroll.journal_in_use"
    cause = "Another process is writing to {path}, but a journal can belong to only one run at a time."
    fix = "Wait until the other run ends, or use another journal: `{again} --journal {path}.second`"
    again: str = "?"
    path: Path


@dataclass(frozen=True, slots=True)
class JournalOutcome:
    """Outcome of a device, with its refusal if any."""

    device_id: str
    thumbprint: str | None
    done: TargetOutcome
    refusal: BirthmarkError | None = None
    difference: tuple[Change, ...] = ()
    """Changes of the existing record, made or planned."""

    def as_row(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        row: dict[str, Any] = {"device": self.device_id, "thumbprint": self.thumbprint, "outcome": self.done.value}
        if self.difference:
            row["difference"] = [change._asdict() for change in self.difference]
        if (error := self.refusal) is not None:
            row |= {"code": error.code, "message": str(error)}
            row |= {"cause": error.explain_cause(), "fix": error.explain_fix()}
        return row


class Journal:
    """A file of outcomes for one target; without a path, outcomes are not stored.

    `again` is the command without its journal, for a refusal that suggests another one.
    """

    def __init__(self, path: Path | None, target: str, again: str = "?") -> None:
        self._path = path
        self._target = target
        self._again = again
        self._head = ""
        """Text before the first row of this run, so that a run without rows leaves the file unchanged."""
        self.ending: str | None = COMPLETE
        """Last line of a successful run."""
        self._lock, self._syncing = threading.Lock(), threading.Lock()
        self._rows = self._synced = 0
        self.before = 0
        """Number of outcomes of a run that never ended."""
        self.moved: set[str] = set()
        """Devices that were retired at their source since: an undo would leave them without access anywhere."""

    def __enter__(self) -> Self:
        if self._path is None:
            return self
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            if (lock := take(self._path, patience=_PATIENCE)) is None:
                raise JournalInUseError(path=self._path, again=self._again)
            opened.callback(os.close, lock)
            if self._path.stat().st_size == 0:
                if _is_undo(self._again):
                    raise NoJournalOfRunError(path=self._path, again=self._again)
                self._head = _line({"format": FORMAT, "target": self._target})
            else:  # earlier entries without an outcome are a killed run's
                after_cut = "" if self._check(self._path) else "\n"
                self._head = after_cut + _line({"run": "another"})
            self._file = opened.enter_context(self._path.open("a", encoding="utf-8"))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._path is None:
            return
        with add_path_to_errors(self._path), self._opened:
            if kind is None and self.ending is not None:
                self._write({"end": self.ending})
            self._sync()

    def begin(self, device_id: str, way: WayBack) -> None:
        """Store the rollback entry of a device about to be written; an empty one if it was not. Thread-safe."""
        if self._path is not None:
            self.moved.discard(device_id)
            self._write({"begun": device_id, "way_back": way})
            self._sync()  # after a power failure the undo data of all writes exists

    def settle(self, device_id: str) -> None:
        """Record that a device has been retired at its source."""
        if self._path is not None and device_id not in self.moved:
            self._write({"moved": device_id})
            self._sync()
            self.moved.add(device_id)

    def list_undoable_writes(self) -> Iterator[tuple[str, WayBack]]:
        """Yield writes that were not undone, latest first, including those without an outcome after a crash."""
        if self._path is None:
            return
        undone = Counter[str]()
        with self._path.open("rb") as file:
            for offset in reversed(_written(file)):
                file.seek(offset)
                row = _object(file.readline())
                if "outcome" in row:
                    undone[row["device"]] += 1
                elif undone[row["begun"]]:
                    undone[row["begun"]] -= 1
                else:
                    yield row["begun"], row["way_back"]

    def add(self, outcome: JournalOutcome) -> None:
        """Store an outcome durably."""
        if self._path is not None and outcome.done in KEPT:
            self._write(outcome.as_row())

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock, add_path_to_errors(self._path):
            self._file.write(self._head + _line(row))
            self._head = ""
            self._file.flush()
            self._rows += 1

    def _sync(self) -> None:
        """Return when all lines so far are on disk; concurrent callers share the next sync."""
        wanted = self._rows
        with self._syncing, add_path_to_errors(self._path):
            if self._synced < wanted and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                rows = self._rows
                os.fdatasync(self._file.fileno())
                self._synced = rows

    def _check(self, path: Path) -> bool:
        """Return whether its last line is complete. Raise for no journal, another target's, or a modified file.

        An unreadable line was truncated by a crash: the last one, or the one before the start of another run.
        """
        with path.open("rb") as file:
            line = b"\n"
            header = _object(file.readline(_MAX_HEADER_BYTES))
            if header.get("format") != FORMAT:
                file.seek(0)
                raise _refusal(path, file.read(_MAX_HEADER_BYTES), self._again)
            if header.get("target") != self._target:
                belongs_to = str(header.get("target"))
                another = f"{self._again} --journal {shlex.quote(f'{path}.other')}"
                facts: dict[str, Any] = {"belongs_to": belongs_to, "target": self._target, "path": path}
                raise OtherTargetsJournalError(command=another, **facts)
            cut = 0
            for number, line in enumerate(file, 2):
                if not line.strip(_NOTHING):
                    continue
                row = _object(line)
                if cut and "run" not in row:
                    raise _changed(path, cut, self._again)
                cut = 0 if row else number
                self.before = 0 if "end" in row else self.before + ("outcome" in row)
                self._hear(row)
            if cut and line.rstrip(_NOTHING).endswith(b"}"):
                raise _changed(path, cut, self._again)
        return line.endswith(b"\n")

    def _hear(self, row: dict[str, Any]) -> None:
        """Track retired devices from a row, until they are enrolled again."""
        if "moved" in row:
            self.moved.add(str(row["moved"]))
        elif "begun" in row:
            self.moved.discard(str(row["begun"]))
        elif row.get("end") == TAKEN_BACK:
            self.moved.clear()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _is_undo(again: str) -> bool:
    return "--undo" in again.split()


def _changed(path: Path, line: int, again: str) -> JournalChangedError:
    """Return the error for a journal with a line that no run wrote, whose meaning is unknown."""
    form = f"line {line} is not a JSON record of a run"
    error = JournalChangedError(path=path, command="", copy=path, form=form, again=again)
    fix = "Name the file that the run wrote, or an untouched copy; each run's own, if two were joined: `ls -l {}`"
    fix = fix.format(shlex.quote(str(path.parent)))
    cause = f"{path} was changed since it was written: {form}."
    error.quote(message=f"The journal {path} was changed", cause=cause, fix=fix)
    return error


def _refusal(path: Path, head: bytes, again: str) -> BirthmarkError:
    """Return the refusal for a file that does not start like a journal."""
    text = plain_text(head[: len(head) // 2 * 2]).replace(b"\r", b"\n").lstrip(b"\n")
    if _object(text.partition(b"\n")[0]).get("format") == FORMAT:
        command, copy = to_plain_lines(path, head)
        codec = utf_16_of(head)
        form = codec[: len("utf-16")].upper() if codec else "other line endings, or a byte order mark"
        return JournalChangedError(path=path, command=command, copy=copy, form=form, again=again)
    return (NoJournalOfRunError if _is_undo(again) else NoJournalError)(path=path, again=again)


class NoteWriter:
    """Forwards notes, and knows whether one was written, that is, whether writing has begun."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self.has_begun = False

    def __call__(self, device_id: str, way: WayBack) -> None:
        self.has_begun = True
        self._note(device_id, way)

    def may_repeat(self, target: EnrollmentTarget) -> bool:
        """Return whether a device may be retried in this run: the rollback entry describes the state before it.

        After several writes, some may have succeeded; the next run retries them, and its journal keeps both rollback
        entries.
        """
        return target.is_atomic or not self.has_begun


@contextmanager
def add_path_to_errors(path: Path | None) -> Iterator[None]:
    """Add the path of an open file to a system error, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and path is not None:
            error.filename = str(path)
        raise


def _written(file: BinaryIO) -> "array[int]":
    """Return the file offsets of rollback entries and of undo rows; none for completely undone runs."""
    found, begun, at = array("Q"), dict[str, int](), 0
    for line in file:
        row = _object(line)
        if isinstance(row.get("begun"), str) and isinstance(row.get("way_back"), dict):
            begun[row["begun"]] = at
            if not row["way_back"]:
                del begun[row["begun"]]
        elif str(row.get("outcome")) in _MAY_BE_WRITTEN:
            if (place := begun.pop(str(row.get("device")), None)) is not None:
                found.append(place)
        elif row.get("outcome") in _UNDONE and isinstance(row.get("device"), str):
            found.append(at)
        elif "outcome" in row:
            begun.pop(str(row.get("device")), None)
        elif "run" in row:  # a killed run may have created it before the reply arrived
            found.extend(begun.values())
            begun = {}
        elif row.get("end") == TAKEN_BACK:
            found, begun = array("Q"), {}
        at += len(line)
    found.extend(begun.values())
    return found


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
    except ValueError:
        return {}  # cut off by a kill
    return found if isinstance(found, dict) else {}


def refused(device_id: str, thumbprint: str | None, error: BirthmarkError, again: str) -> JournalOutcome:
    """Return the outcome of a refusal; `again` is the command that its fix may suggest to repeat."""
    error.add_facts(again=again)
    return JournalOutcome(device_id, thumbprint, TargetOutcome.REFUSED, error)
