"""The journal of an enrollment: what became of each device, one JSON object a line, for whoever keeps records.

Before a device is written the way back is kept, so that a run that is killed can be taken back like any other.

The first line says what the file is and to which target, account and scope it belongs; another file, or the journal of
another target, is never written to. It tells how far a run came that was cut off. It never stands in for the target:
what is on record there, only the target says.
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
from birthmark.fleet.target import Change, EnrollmentTarget, Note, TargetOutcome, WayBack
from birthmark.flock import take
from birthmark.text_files import copy_of, plain_text, to_plain_lines, utf_16_of

FORMAT = "birthmark-enroll-journal/1"
COMPLETE, TAKEN_BACK = "complete", "taken back"
_MAX_HEADER_BYTES = 4096
_PATIENCE = 3
_NOTHING = b" \t\r\n\0\x1a"
"""What editors and programs of Windows leave in a file that says nothing."""
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
"""After a write that was begun: one whose answer is lost and that an SDK repeats is told as refused, or as there."""


class NoJournalError(InvalidRequestError):
    """The file is not a journal."""

    code = "enroll.no_journal"
    message = "{path} is not a journal"
    cause = "{path} is not a journal of `birthmark device`, and files of other programs are not changed."
    fix = "Use a file that does not exist yet: `{again} --journal {copy}.journal`"
    again: str = "?"
    path: Path

    @property
    def copy(self) -> Path:
        return copy_of(self.path)


class JournalChangedError(InvalidRequestError):
    """The journal was saved in another encoding."""

    code = "enroll.journal_changed"
    message = "The journal {path} was saved by an editor"
    cause = "{path} is a journal with another encoding ({form}); journals are UTF-8."
    fix = "Convert it to UTF-8 under another name: `{command}`; then use that file: `{again} --journal {copy}`"
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
    cause = "Another run is writing to {path}; a journal can belong to only one run at a time."
    fix = "Wait until it ends, or use another journal: `{again} --journal {path}.second`"
    again: str = "?"
    path: Path


@dataclass(frozen=True, slots=True)
class JournalOutcome:
    """What became of one device, and the refusal where it was refused."""

    device_id: str
    thumbprint: str | None
    done: TargetOutcome
    refusal: BirthmarkError | None = None
    difference: tuple[Change, ...] = ()
    """What was changed, or would be, of the record that was there."""

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
    """A file of outcomes that belongs to one target; without a path it keeps nothing.

    `again` is the command without its journal, for a refusal to name another.
    """

    def __init__(self, path: Path | None, target: str, again: str = "?") -> None:
        self._path = path
        self._target = target
        self._again = again
        self._head = ""
        """What is written before the first row of this run: so one that writes nothing changes nothing."""
        self.ending: str | None = COMPLETE
        """What its last line will say where nothing goes wrong."""
        self._lock, self._syncing = threading.Lock(), threading.Lock()
        self._rows = self._synced = 0
        self.before = 0
        """How many outcomes a run wrote that never came to its end."""
        self.moved: set[str] = set()
        """Devices that were retired where they came from, since: to take them back would leave them nowhere."""

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
            else:  # what stands before without an outcome was a killed run's
                after_cut = "" if self._check(self._path) else "\n"
                self._head = after_cut + _line({"run": "another"})
            self._file = opened.enter_context(self._path.open("a", encoding="utf-8"))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._path is None:
            return
        with naming(self._path), self._opened:
            if kind is None and self.ending is not None:
                self._write({"end": self.ending})
            self._sync()

    def begin(self, device_id: str, way: WayBack) -> None:
        """Keep how a device is taken back that is about to be written; nothing, where it was not. For any thread."""
        if self._path is not None:
            self.moved.discard(device_id)
            self._write({"begun": device_id, "way_back": way})
            self._sync()  # a machine that loses its power knows the way back of all that it wrote

    def settle(self, device_id: str) -> None:
        """Keep that a device is here for good."""
        if self._path is not None and device_id not in self.moved:
            self._write({"moved": device_id})
            self._sync()
            self.moved.add(device_id)

    def written(self) -> Iterator[tuple[str, WayBack]]:
        """Yield what was written and not yet taken back, the latest first: also what a kill left without an outcome."""
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
        """Keep an outcome, also over a kill."""
        if self._path is not None and outcome.done in KEPT:
            self._write(outcome.as_row())

    def _write(self, row: dict[str, Any]) -> None:
        with self._lock, naming(self._path):
            self._file.write(self._head + _line(row))
            self._head = ""
            self._file.flush()
            self._rows += 1

    def _sync(self) -> None:
        """Return when all that was written so far is on the disk; who comes meanwhile shares the next sync."""
        wanted = self._rows
        with self._syncing, naming(self._path):
            if self._synced < wanted and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                rows = self._rows
                os.fdatasync(self._file.fileno())
                self._synced = rows

    def _check(self, path: Path) -> bool:
        """Say whether its last line is whole. Raise for what is no journal, another target's, or was changed since.

        A line that cannot be read is one that a kill cut off: the last, or that before which another run began.
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
        """Know again who moved, until it is put on record once more."""
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
    """Return why nothing is done with a journal that has a line which no run wrote so: what it says is not known."""
    form = f"line {line} is no JSON of a run"
    error = JournalChangedError(path=path, command="", copy=path, form=form, again=again)
    fix = "Name the file that the run wrote, or an untouched copy; each run's own, if two were joined: `ls -l {}`"
    fix = fix.format(shlex.quote(str(path.parent)))
    cause = f"{path} was changed since it was written: {form}."
    error.quote(message=f"The journal {path} was changed", cause=cause, fix=fix)
    return error


def _refusal(path: Path, head: bytes, again: str) -> BirthmarkError:
    """Return why what begins so is not read as a journal."""
    text = plain_text(head[: len(head) // 2 * 2]).replace(b"\r", b"\n").lstrip(b"\n")
    if _object(text.partition(b"\n")[0]).get("format") == FORMAT:
        command, copy = to_plain_lines(path, head)
        codec = utf_16_of(head)
        form = codec[: len("utf-16")].upper() if codec else "other line ends, or a byte order mark"
        return JournalChangedError(path=path, command=command, copy=copy, form=form, again=again)
    return (NoJournalOfRunError if _is_undo(again) else NoJournalError)(path=path, again=again)


class NoteWriter:
    """Hands notes on, and knows whether there was one: whether writing has begun."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self.has_begun = False

    def __call__(self, device_id: str, way: WayBack) -> None:
        self.has_begun = True
        self._note(device_id, way)

    def may_repeat(self, target: EnrollmentTarget) -> bool:
        """Say whether a device may be asked for once more in this run: the way back is of what was there before.

        Of several writes some may be done: that is for the next run, which keeps the ways of both.
        """
        return target.writes_at_once or not self.has_begun


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Let the system's refusal of a file that is open say which it was, as of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and path is not None:
            error.filename = str(path)
        raise


def _written(file: BinaryIO) -> "array[int]":
    """Return where the ways back stand, and where each was gone; none of what was taken back to the end."""
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
        elif "run" in row:  # that a run was killed before it heard does not mean that nothing was made
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
        return {}  # the line a kill cut off
    return found if isinstance(found, dict) else {}


def refused(device_id: str, thumbprint: str | None, error: BirthmarkError, again: str) -> JournalOutcome:
    """Return the outcome of a refusal; `again` is the command that its fix may ask to run once more."""
    error.add_facts(again=again)
    return JournalOutcome(device_id, thumbprint, TargetOutcome.REFUSED, error)
