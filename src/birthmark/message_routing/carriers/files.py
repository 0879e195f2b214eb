"""Files below a folder: a new one for each letter (it stands for an object store), or lines added to one.

A file is written beside its place and moved there, so that nobody ever reads half of one.
"""

import errno
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from birthmark.atomic_files import LEAST_FREE
from birthmark.errors import BirthmarkError
from birthmark.message_routing.carriers.errors import AddressInvalidError, NotTakenError
from birthmark.message_routing.deliveries import Delivery
from birthmark.supervised_tasks import beside
from birthmark.untrusted_text import reason_of

MOST_FILES = 100_000
"""So many files and folders are below the folder of buckets, for all rules and routes."""
_COUNT_AGAIN_MICROS = 60_000_000
_NO_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
Place = Callable[[Delivery], Path]
"""Says where a letter goes. Raise a `BirthmarkError` that `is_final` for what leads nowhere, or out of the folder."""


class FolderQuota:
    """How many files and folders may be below a folder, and how full its disk may be, of what devices send."""

    def __init__(self, root: Path, micros: Callable[[], int], most: int = MOST_FILES) -> None:
        self._root, self._most, self._micros = root, most, micros
        self._count, self._counted = most, 0
        self._counted_at = 0

    def check(self) -> NotTakenError | None:
        """Return why no more is written. Call it before any folder is made."""
        self._root.mkdir(parents=True, exist_ok=True)
        if not has_room(self._root):
            return NotTakenError(receiver="the folder", reason="its disk is nearly full")
        if self._count >= self._most:
            self._count_again()
        if self._count >= self._most:
            return NotTakenError(receiver="the folder", reason=f"it has {self._most} files and folders")
        return None

    def note(self, path: Path) -> None:
        """Count a file that is about to be made; folders above it that were there are found out by the next count."""
        if not path.exists():
            self._count += len(path.relative_to(self._root).parts) if path.is_relative_to(self._root) else 1

    def _count_again(self) -> None:
        """Look how many there are, at most once a minute while there are too many."""
        now = self._micros()
        if self._counted >= self._most and 0 <= now - self._counted_at < _COUNT_AGAIN_MICROS:
            return
        self._count = 0
        for _, folders, files in os.walk(self._root):
            self._count += len(folders) + len(files)
            if self._count >= self._most:
                break
        self._counted, self._counted_at = self._count, now


class FileCarrier:
    """Puts each letter in a file of its own; what was there is replaced."""

    is_quick = False  # a slow disk keeps no other rule waiting

    def __init__(self, place: Place, room: FolderQuota) -> None:
        self._place, self._room = place, room
        self._numbers = count()

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        return await beside(lambda: [self._put(letter) for letter in letters])

    def _put(self, letter: Delivery) -> BirthmarkError | None:
        try:
            if (full := self._room.check()) is not None:
                return full
            path = self._place(letter)
            self._room.note(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside_it = path.with_name(f".{path.name[:100]}.{os.getpid()}.{next(self._numbers)}")
            try:
                with beside_it.open("wb") as file:
                    file.write(letter.body)
                    file.flush()
                    os.fsync(file.fileno())
                beside_it.replace(path)
            finally:
                beside_it.unlink(missing_ok=True)
        except BirthmarkError as error:
            return error
        except OSError as error:
            return _why(error)
        return None


class LineCarrier:
    """Adds letters to files, each followed by its address's `separator`."""

    is_quick = False  # a slow disk keeps no other rule waiting

    def __init__(self, place: Place, room: FolderQuota) -> None:
        self._place, self._room = place, room

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        return await beside(lambda: self._add(letters))

    def _add(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        by_path: dict[Path, list[int]] = {}
        results: list[BirthmarkError | None] = [None] * len(letters)
        for number, letter in enumerate(letters):
            try:
                if (full := self._room.check()) is not None:
                    results[number] = full
                    continue
                by_path.setdefault(self._place(letter), []).append(number)
            except BirthmarkError as error:
                results[number] = error
        for path, numbers in by_path.items():
            text = b"".join(letters[one].body + letters[one].address.get("separator", "").encode() for one in numbers)
            self._room.note(path)
            problem = _added(path, text)
            for one in numbers:
                results[one] = problem
        return results


def _added(path: Path, text: bytes) -> BirthmarkError | None:
    """Add to a file; return why that could not be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _why(error)
    return None


def _why(error: OSError) -> BirthmarkError:
    """Return why nothing was written: for good where the name, which a device may have a part in, is none."""
    if error.errno in _NO_FILE:
        return AddressInvalidError(receiver="the folder", reason=reason_of(error))
    return NotTakenError(receiver="the folder", reason=reason_of(error))


def has_room(folder: Path) -> bool:
    """Say whether a folder's disk has room for what devices send: blocks, and files where their number is bounded."""
    told = os.statvfs(folder)
    return told.f_bavail >= told.f_blocks * LEAST_FREE and told.f_favail >= told.f_files * LEAST_FREE
