"""File update: downloads a file, verifies its digest, and replaces the target atomically and durably.

Mode and owner are kept. A partial download is stored next to the target under a name that contains the expected digest,
and the next attempt resumes it. A broken connection, an expired URL, or a killed agent therefore loses nothing. The
target is replaced once the download is complete and its digest matches. A symbolic link as the target is neither
followed nor replaced.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO

from birthmark import atomic_files, supervised_tasks
from birthmark.agent.jobs.model import JobCutError, JobFailedError, ReplaceAction
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.resumable_download import Begin, DownloadResponse, Take, download
from birthmark.errors import BirthmarkError, UnauthenticatedError
from birthmark.untrusted_json_and_text import reason_of

_MODE = 0o600
_MAX_TRIES = 100
_LONGEST_PAUSE_S = 60.0
_READ_BYTES = 1024 * 1024
_OVER = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.GONE})
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

Fetch = Callable[[str, int, Begin, Take, float], Awaitable[DownloadResponse]]
Sleep = Callable[[float], Awaitable[None]]


def fetching(trust: Callable[[], ServerTrust]) -> Fetch:
    """Return a function that downloads from trusted servers."""

    async def fetch(url: str, offset: int, begin: Begin, take: Take, timeout_s: float) -> DownloadResponse:
        return await download(url, trust(), offset=offset, begin=begin, take=take, timeout_s=timeout_s)

    return fetch


@dataclass(slots=True)
class FileUpdate:
    """A file update in progress."""

    wanted: ReplaceAction
    fetch: Fetch
    sleep: Sleep = asyncio.sleep
    _file: IO[bytes] | None = field(default=None, init=False)
    _has: int = field(default=0, init=False)
    _came: int = field(default=0, init=False)
    """Bytes received from this URL."""

    async def work(self) -> dict[str, str]:
        """Update the file, and return details for the cloud. Raise `JobFailedError` or `JobCutError`."""
        path = self.wanted.place.path
        try:
            if await supervised_tasks.run_in_thread(self._is_there):
                await supervised_tasks.run_in_thread(partial(self._remove_partial_downloads, None))
                return {"bytes": str(path.stat().st_size), "step": "it was there already"}
            await supervised_tasks.run_in_thread(partial(self._remove_partial_downloads, self._part))
            async with asyncio.timeout(self.wanted.place.timeout_s):
                await self._download_verified()
            await supervised_tasks.run_in_thread(self._install_file)
        except TimeoutError as error:
            await supervised_tasks.run_in_thread(partial(self._remove_partial_downloads, None))
            raise JobFailedError(f"the download did not finish within {self.wanted.place.timeout_s} s") from error
        except JobFailedError:
            await supervised_tasks.run_in_thread(partial(self._remove_partial_downloads, None))
            raise
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                await supervised_tasks.run_in_thread(partial(self._remove_partial_downloads, None))
            raise JobFailedError(f"{path} cannot be replaced: {reason_of(error)}") from error
        return {"bytes": str(self._has)}

    # ---- received data

    @property
    def _part(self) -> Path:
        path = self.wanted.place.path
        return path.with_name(f".{path.name}.{self.wanted.sha256[:16]}.part")

    def _remove_partial_downloads(self, kept: Path | None) -> None:
        """Remove downloads of other jobs, or all of them."""
        path = self.wanted.place.path
        for left in path.parent.glob(f".{_escape_pattern(path.name)}.{'[0-9a-f]' * 16}.part"):
            if left != kept:
                with contextlib.suppress(OSError):
                    left.unlink()

    def _open(self) -> IO[bytes]:
        """Open the partial download to resume it. Raise `OSError`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._part, flags, _MODE)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                raise
            raise JobFailedError(f"{self._part} already exists") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            os.close(descriptor)
            raise JobFailedError(f"{self._part} already exists")
        file = os.fdopen(descriptor, "r+b")
        self._has = file.seek(0, os.SEEK_END)
        return file

    # ---- fetching

    async def _download_verified(self) -> None:
        """Download until complete and verified; if resumed parts do not match, restart the download."""
        whole_tries = 0
        for tries in range(_MAX_TRIES):
            self._file = await supervised_tasks.run_in_thread(self._open)
            try:
                resumed = self._has > 0
                try:
                    await self._download_remaining()
                except (BirthmarkError, _LaterError) as error:
                    if isinstance(error, UnauthenticatedError):  # not the intended server
                        raise JobFailedError(f"it cannot be downloaded: {error.explain_cause()}") from error
                    await self.sleep(min(_LONGEST_PAUSE_S, 2.0 ** min(tries, 10)))
                    continue
                if await supervised_tasks.run_in_thread(self._is_right):
                    return
                self._file.truncate(0)
            finally:
                await supervised_tasks.run_in_thread(self._file.close)
            whole_tries += not resumed
            if whole_tries:
                await supervised_tasks.run_in_thread(partial(self._remove_partial_downloads, None))
                raise JobFailedError("its digest differs from the job document's")
        raise JobFailedError(f"the connection was interrupted {_MAX_TRIES} times")

    async def _download_remaining(self) -> None:
        """Download the remaining bytes. Raise the errors of links if the transfer is interrupted."""
        url, place = self.wanted.url, self.wanted.place
        if self.wanted.size is not None and self._has == self.wanted.size:
            return
        sent = await self.fetch(url, self._has, self._begins, self._takes, place.timeout_s)
        if sent.status in _OVER and self._came:  # a signed URL expires; the job request returns a new one
            raise JobCutError
        if sent.status in _LATER:
            raise _LaterError
        if sent.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._has:
            return  # end of data: the digest shows whether it is complete
        if sent.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            moved = ", and redirects are not followed" if 300 <= sent.status < 400 else ""  # noqa: PLR2004 - 3xx
            raise JobFailedError(f"the server of the URL returned {sent.status}{moved}")

    def _begins(self, sent: DownloadResponse) -> bool:
        if sent.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            return False
        if sent.size is not None:
            self._check_size(sent.size)
        assert self._file is not None  # noqa: S101 (open while data arrives)
        if sent.status == HTTPStatus.OK or sent.offset != self._has:
            if sent.status == HTTPStatus.PARTIAL_CONTENT:
                raise JobFailedError(f"the server of the URL started at {sent.offset} instead of {self._has}")
            self._has = 0
            self._file.seek(0)
            self._file.truncate(0)
        return True

    def _takes(self, data: bytes) -> None:
        self._check_size(self._has + len(data))
        assert self._file is not None  # noqa: S101 (as above)
        self._file.write(data)
        self._has += len(data)
        self._came += len(data)

    def _check_size(self, size: int) -> None:
        wanted, most = self.wanted.size, self.wanted.place.max_bytes
        if size > most:
            raise JobFailedError(f"it has more than {most} bytes")
        if wanted is not None and size > wanted:
            raise JobFailedError(f"it is larger than the {wanted} bytes in the job document")

    # ---- target file

    def _is_right(self) -> bool:
        assert self._file is not None  # noqa: S101 (as above)
        self._file.flush()
        return _digest(self._file) == self.wanted.sha256

    def _is_there(self) -> bool:
        """Return whether the target already has the expected content, as after an agent that was killed at the end."""
        path = self.wanted.place.path
        if path.is_symlink():
            raise JobFailedError(f"{path} is a symbolic link, which is not followed")
        if not path.exists():
            return False
        if not path.is_file():
            raise JobFailedError(f"{path} is not a file")
        with path.open("rb") as file:
            return _digest(file) == self.wanted.sha256

    def _install_file(self) -> None:
        """Install the download; it is on disk before it is renamed."""
        path = self.wanted.place.path
        descriptor = os.open(self._part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if _digest(file) != self.wanted.sha256:  # another process wrote to it
                raise JobFailedError("its digest differs from the job document's")
            with contextlib.suppress(FileNotFoundError):
                before = path.lstat()
                if not stat.S_ISREG(before.st_mode):
                    raise JobFailedError(f"{path} is no longer a regular file")
                mine = os.fstat(descriptor)
                if (before.st_uid, before.st_gid) != (mine.st_uid, mine.st_gid):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
            atomic_files.move(self._part, path)


class _LaterError(Exception):
    """The server may answer later. Internal signal for a retry, never shown to users."""


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while data := file.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()


def _escape_pattern(name: str) -> str:
    """Return a name with pattern characters escaped."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
