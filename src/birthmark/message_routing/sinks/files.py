"""Files below a folder: a new file per message (as an object store), or lines appended to a file.

A file is written next to its destination and moved there, so that readers never see a partial file.
"""

import errno
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from birthmark.atomic_files import LEAST_FREE
from birthmark.errors import BirthmarkError
from birthmark.message_routing.delivery_model import Delivery
from birthmark.message_routing.sinks.errors import AddressInvalidError, NotTakenError
from birthmark.supervised_tasks import run_in_thread
from birthmark.untrusted_json_and_text import reason_of

MOST_FILES = 100_000
"""Maximum number of files and folders below the buckets folder, for all rules and routes."""
_COUNT_AGAIN_MICROS = 60_000_000
_NO_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
Place = Callable[[Delivery], Path]
"""Returns the path of a delivery.

Raise a `BirthmarkError` that `is_final` for an invalid path, or one outside the folder.
"""


class FolderQuota:
    """Limits on device data in a folder: number of files and folders, and disk usage."""

    def __init__(self, root: Path, micros: Callable[[], int], limit: int = MOST_FILES) -> None:
        self._root, self._most, self._micros = root, limit, micros
        self._count, self._counted = limit, 0
        self._counted_at = 0

    def check(self) -> NotTakenError | None:
        """Return the error if the quota is used up. Call it before creating folders."""
        self._root.mkdir(parents=True, exist_ok=True)
        if not has_room(self._root):
            return NotTakenError(receiver="the folder", reason="its disk is nearly full")
        if self._count >= self._most:
            self._count_again()
        if self._count >= self._most:
            return NotTakenError(receiver="the folder", reason=f"it has {self._most} files and folders")
        return None

    def note(self, path: Path) -> None:
        """Count a new file; its new parent folders are included at the next full count."""
        if not path.exists():
            self._count += len(path.relative_to(self._root).parts) if path.is_relative_to(self._root) else 1

    def _count_again(self) -> None:
        """Recount the files, at most once a minute while the quota is exceeded."""
        now = self._micros()
        if self._counted >= self._most and 0 <= now - self._counted_at < _COUNT_AGAIN_MICROS:
            return
        self._count = 0
        for _, folders, files in os.walk(self._root):
            self._count += len(folders) + len(files)
            if self._count >= self._most:
                break
        self._counted, self._counted_at = self._count, now


class FileSink:
    """Writes each message to its own file and replaces an existing file."""

    is_quick = False  # a slow disk must not delay other rules

    def __init__(self, place: Place, room: FolderQuota) -> None:
        self._place, self._room = place, room
        self._numbers = count()

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        return await run_in_thread(lambda: [self._put(letter) for letter in deliveries])

    def _put(self, delivery: Delivery) -> BirthmarkError | None:
        try:
            if (full := self._room.check()) is not None:
                return full
            path = self._place(delivery)
            self._room.note(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            beside_it = path.with_name(f".{path.name[:100]}.{os.getpid()}.{next(self._numbers)}")
            try:
                with beside_it.open("wb") as file:
                    file.write(delivery.body)
                    file.flush()
                    os.fsync(file.fileno())
                beside_it.replace(path)
            finally:
                beside_it.unlink(missing_ok=True)
        except BirthmarkError as error:
            return error
        except OSError as error:
            return _write_error(error)
        return None


class LineSink:
    """Appends messages to files, each followed by its address's `separator`."""

    is_quick = False  # a slow disk must not delay other rules

    def __init__(self, place: Place, room: FolderQuota) -> None:
        self._place, self._room = place, room

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        return await run_in_thread(lambda: self._add(deliveries))

    def _add(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        by_path: dict[Path, list[int]] = {}
        results: list[BirthmarkError | None] = [None] * len(deliveries)
        for number, letter in enumerate(deliveries):
            try:
                if (full := self._room.check()) is not None:
                    results[number] = full
                    continue
                by_path.setdefault(self._place(letter), []).append(number)
            except BirthmarkError as error:
                results[number] = error
        for path, numbers in by_path.items():
            text = b"".join(
                deliveries[one].body + deliveries[one].address.get("separator", "").encode() for one in numbers
            )
            self._room.note(path)
            problem = _append(path, text)
            for one in numbers:
                results[one] = problem
        return results


def _append(path: Path, text: bytes) -> BirthmarkError | None:
    """Append to a file; return the error or None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _write_error(error)
    return None


def _write_error(error: OSError) -> BirthmarkError:
    """Return the error of a failed write; it is permanent for an invalid name, which may contain device data."""
    if error.errno in _NO_FILE:
        return AddressInvalidError(receiver="the folder", reason=reason_of(error))
    return NotTakenError(receiver="the folder", reason=reason_of(error))


def has_room(folder: Path) -> bool:
    """Return whether a folder's disk has space for device data: blocks, and inodes where they are limited."""
    told = os.statvfs(folder)
    return told.f_bavail >= told.f_blocks * LEAST_FREE and told.f_favail >= told.f_files * LEAST_FREE
