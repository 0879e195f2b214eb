"""Files of the blob storage: random names below one folder, complete and synced before anything refers to them."""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from birthmark.atomic_files import LEAST_FREE, sync_directory
from birthmark.blob_storage.crc64 import Crc64
from birthmark.blob_storage.rules import BlobSegment
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import UnavailableError
from birthmark.supervised_tasks import run_in_thread
from birthmark.untrusted_json_and_text import reason_of

FOLDER = "files"
"""Default folder below the data directory; backups do not contain it."""
PIECE_BYTES = 256 * 1024
COPY_BYTES, _COPY_COUNT = 8 * 1024 * 1024, 500
_NAME = re.compile(r"[0-9a-f]{32}")
_LOOK_AT_DISK_BYTES = 8 * 1024 * 1024


class StorageUnavailableError(UnavailableError):
    """The folder of the blob storage cannot be used."""

    code = "blob_storage.unavailable"
    message = "The file storage is not available"
    cause = "The folder {folder} for files of devices cannot be used: {reason}."
    fix = "Free disk space, or correct the folder's owner. To show its disk: `df -h {folder}`"
    folder: Path
    reason: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is complete and synced."""

    name: str
    size: int
    md5: bytes = b""
    crc64: bytes = b""


class FileStore:
    """Files below `root`, two letters of their names deep. Several machines must share the folder."""

    def __init__(self, root: Path, clock: Clock, entropy: Entropy) -> None:
        self.root = root
        self._clock = clock
        self._entropy = entropy
        self._copying = asyncio.Lock()

    def path(self, name: str) -> Path:
        """Return the path of a file by its name from the database."""
        assert _NAME.fullmatch(name)  # noqa: S101 - names are ours
        return self.root / name[:2] / name

    async def write(
        self,
        pieces: AsyncIterator[bytes],
        *,
        with_crc64: bool = False,
        admit: Callable[[int], None] = lambda _size: None,
    ) -> StoredFile:
        """Write a stream to a new file; `admit` raises for the size of a piece. Raise `StorageUnavailableError`."""
        writer = await run_in_thread(lambda: _FileWriter(self, self._entropy.token(16).hex(), with_crc64=with_crc64))
        try:
            waiting: list[bytes] = []
            size = 0
            async for piece in pieces:
                admit(len(piece))
                waiting.append(piece)
                if (size := size + len(piece)) >= PIECE_BYTES:
                    await run_in_thread(partial(writer.add, b"".join(waiting)))
                    waiting, size = [], 0
            await run_in_thread(partial(writer.add, b"".join(waiting)))
            return await run_in_thread(writer.finish)
        except BaseException:
            await asyncio.shield(run_in_thread(writer.discard))
            raise

    async def join(self, segments: Sequence[BlobSegment]) -> StoredFile:
        """Write parts of files to a new file. Raise `FileNotFoundError`, `StorageUnavailableError`.

        Files are copied in turns, one at a time: a short request may copy gigabytes, and half of the disk's time
        remains for others.
        """
        writer = await run_in_thread(lambda: _FileWriter(self, self._entropy.token(16).hex(), has_digests=False))
        try:
            for part in _parts(segments):
                async with self._copying:
                    began = self._clock.monotonic()
                    await run_in_thread(partial(writer.copy, part))
                    await asyncio.sleep(self._clock.monotonic() - began)
            return await run_in_thread(writer.finish)
        except BaseException:
            await asyncio.shield(run_in_thread(writer.discard))
            raise

    async def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raise `FileNotFoundError`."""
        return await run_in_thread(lambda: self.path(name).open("rb"))

    async def remove(self, names: Sequence[str]) -> None:
        """Remove files, if they exist."""

        def remove() -> None:
            for name in names:
                self.path(name).unlink(missing_ok=True)

        if names:
            await run_in_thread(remove)

    async def remove_orphans(
        self, older_than: float, known: Callable[[Sequence[str]], Awaitable[frozenset[str]]], page: int
    ) -> int:
        """Remove files that no row refers to, last modified before a time in seconds; return their number."""
        count = 0
        pages = self._old_names(older_than, page)
        while names := await run_in_thread(lambda: next(pages, [])):
            orphans = sorted({*names} - await known(names))
            await self.remove(orphans)
            count += len(orphans)
        return count

    def _old_names(self, older_than: float, page: int) -> Iterator[list[str]]:
        found: list[str] = []
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                try:
                    is_old = path.lstat().st_mtime < older_than
                except FileNotFoundError:
                    continue
                if is_old and _NAME.fullmatch(name) and path == self.path(name):
                    found.append(name)
                if len(found) == page:
                    yield found
                    found = []
        if found:
            yield found


def _parts(segments: Sequence[BlobSegment]) -> Iterator[Sequence[BlobSegment]]:
    """Yield the segments in parts of at most `COPY_BYTES` and `_COPY_COUNT` segments."""
    part: list[BlobSegment] = []
    room = COPY_BYTES
    for segment in segments:
        one = segment
        while one.size > room:
            yield [*part, replace(one, size=room)]
            one, part, room = replace(one, offset=one.offset + room, size=one.size - room), [], COPY_BYTES
        part.append(one)
        room -= one.size
        if len(part) == _COPY_COUNT:
            yield part
            part, room = [], COPY_BYTES
    if part:
        yield part


class _FileWriter:
    """Writes one file in a thread; every method may block."""

    def __init__(self, files: FileStore, name: str, *, has_digests: bool = True, with_crc64: bool = False) -> None:
        self._files = files
        self._root, self._path, self._name = files.root, files.path(name), name
        self._md5 = hashlib.md5(usedforsecurity=False) if has_digests else None
        self._crc64 = Crc64() if with_crc64 else None
        self._size = self._looked_at = 0
        try:
            self._check_disk()
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        except OSError as error:
            raise self._unavailable(error) from error

    def add(self, data: bytes) -> None:
        """Append data. Raise `StorageUnavailableError`."""
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._unavailable(error) from error
        if self._md5 is not None:
            self._md5.update(data)
        if self._crc64 is not None:
            self._crc64.update(data)
        self._size += len(data)
        if self._size - self._looked_at >= _LOOK_AT_DISK_BYTES:
            self._looked_at = self._size
            self._check_disk()

    def copy(self, segments: Sequence[BlobSegment]) -> None:
        """Append parts of other files, and sync them. Raise `FileNotFoundError` if one is shorter."""
        for one in segments:
            with self._files.path(one.file).open("rb") as source:
                source.seek(one.offset)
                rest = one.size
                while rest:
                    data = source.read(min(rest, 4 * PIECE_BYTES))
                    if not data:
                        raise FileNotFoundError(source.name)
                    self.add(data)
                    rest -= len(data)
        try:
            os.fdatasync(self._file.fileno())
        except OSError as error:
            raise self._unavailable(error) from error

    def finish(self) -> StoredFile:
        """Sync the file and its name. Raise `StorageUnavailableError`."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            sync_directory(self._path.parent)
            sync_directory(self._root)
        except OSError as error:
            raise self._unavailable(error) from error
        md5 = b"" if self._md5 is None else self._md5.digest()
        return StoredFile(self._name, self._size, md5, b"" if self._crc64 is None else self._crc64.digest())

    def discard(self) -> None:
        """Remove the file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _check_disk(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk = os.statvfs(self._root)
        if disk.f_bavail < disk.f_blocks * LEAST_FREE or disk.f_favail < disk.f_files * LEAST_FREE:
            raise StorageUnavailableError(folder=self._root, reason="its disk is nearly full")

    def _unavailable(self, error: OSError) -> StorageUnavailableError:
        return StorageUnavailableError(folder=self._root, reason=reason_of(error))
