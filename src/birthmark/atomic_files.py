"""Atomic file writes: a file is complete or absent, even after a kill or a power failure.

Data goes to a temporary file in the same directory and is on disk before the rename; the rename is on disk on return.
Symbolic links are not followed: the temporary file is new, and a rename replaces a link itself.

The temporary file is locked by its writer until the rename, so concurrent writers use separate files. An unlocked file
is a leftover of a killed run. On file systems without locks, only one writer is allowed at a time.
"""

import contextlib
import errno
import glob
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from birthmark import flock

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of link(2) on file systems without hard links (FAT, many shares)."""


def create(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create a file. Raise `FileExistsError`."""
    with create_incrementally(path, mode) as file:
        file.write(data)


@contextlib.contextmanager
def create_incrementally(path: Path, mode: int = 0o600, *, beside: Path | None = None) -> Iterator[IO[bytes]]:
    """Write a new file incrementally; `beside` overrides the temporary name.

    Raise `FileExistsError`.
    """
    with _open_temporary(beside or _building(path), mode, lambda building: _link_unique(building, path)) as file:
        yield file
    sync_directory(path.parent)


def replace(path: Path, data: bytes, mode: int = 0o600, *, owner: tuple[int, int] | None = None) -> None:
    """Replace or create a file; `owner` is the user and group if different from the current ones."""
    with replace_incrementally(path, mode, owner=owner) as file:
        file.write(data)


@contextlib.contextmanager
def replace_incrementally(
    path: Path, mode: int = 0o666, *, owner: tuple[int, int] | None = None
) -> Iterator[IO[bytes]]:
    """Write a file incrementally; it replaces the target at the end, or leaves it unchanged after an error."""
    with _open_temporary(_building(path), mode, lambda building: building.replace(path), owner) as file:
        yield file
    sync_directory(path.parent)


def has_content(path: Path, data: bytes, mode: int) -> bool:
    """Return whether a file owned by this user has this content and mode and is no symbolic link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return (
            is_ours
            and stat.S_IMODE(found.st_mode) == mode
            and found.st_size == len(data)
            and file.read(len(data) + 1) == data
        )


def put(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file atomically without a sync, for data that is easily regenerated."""
    with _open_temporary(_building(path), mode, lambda building: building.replace(path), is_synced=False) as file:
        file.write(data)


def move(source: Path, target: Path) -> None:
    """Rename within a directory, replacing the target."""
    source.replace(target)
    sync_directory(target.parent)


def backup_path(path: Path, ending: str = "old") -> Path:
    """Return an unused backup name: `.old`, then `.old-2` and so on."""
    names = (Path(f"{path}.{ending}{f'-{number}' if number > 1 else ''}") for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def link_backup(path: Path) -> Path | None:
    """Add a backup name for a file that will be replaced and return it; None for an empty file or a link."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        return None
    kept = backup_path(path)
    try:
        os.link(path, kept)
    except OSError:  # no hard link support
        path.rename(kept)
    return kept


def remove(path: Path) -> None:
    """Remove a file, if it exists, and the leftovers of an interrupted write."""
    there = [one for one in (path, _building(path)) if os.path.lexists(one)]
    path.unlink(missing_ok=True)
    _is_free(_building(path))
    if there:
        sync_directory(path.parent)


def clear(beside: Path) -> None:
    """Remove the leftovers of killed runs under this name and its numbered variants; skip files in use."""
    for one in beside.parent.glob(f"{beside.name}*"):
        _is_free(one)


def clear_directories(parent: Path, prefix: str) -> None:
    """Remove leftovers of `directory_beside` from killed runs; skip directories in use or of other users.

    Root treats the directory owner's files as its own: in another user's directory, it acts for that user.
    """
    owners = {os.geteuid()} | ({parent.stat().st_uid} if os.geteuid() == 0 else set())
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        with _locked(left) as is_ours:
            if is_ours and left.lstat().st_uid in owners:
                shutil.rmtree(left)


@contextlib.contextmanager
def private_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """Provide a new private directory; it is removed at the end unless it was renamed.

    It is locked during use. Unlocked leftovers of killed runs with the same prefix are removed first.
    """
    clear_directories(parent, prefix)
    while True:
        made = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
        with _locked(made) as is_ours:
            if not is_ours:  # others take it for a leftover and remove it
                continue
            try:
                yield made
            finally:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(made)
            return


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory; yield whether the lock is exclusive and the directory still exists."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # already gone, or another user's
        yield False
        return
    try:
        yield _is_ours(descriptor) and flock.is_named(descriptor, directory)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Sync a directory, so that its file names are on disk on return."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _building(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


@contextlib.contextmanager
def _open_temporary(
    beside: Path,
    mode: int,
    put_in_place: Callable[[Path], object],
    owner: tuple[int, int] | None = None,
    *,
    is_synced: bool = True,
) -> Iterator[IO[bytes]]:
    """Provide the temporary file and install it at the end; remove it if writing fails."""
    building, descriptor = _create_locked(beside, mode)
    with os.fdopen(descriptor, "wb") as file:
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            yield file
            file.flush()
            if is_synced:
                os.fsync(descriptor)
            put_in_place(building)  # while locked: otherwise another process takes it for a leftover
        except BaseException:
            if flock.is_named(descriptor, building):
                building.unlink(missing_ok=True)
            raise


def _create_locked(beside: Path, mode: int) -> tuple[Path, int]:
    """Return a new, locked file under the first name that no process writes."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    names = (beside.with_name(f"{beside.name}{number or ''}") for number in itertools.count())
    for building in names:
        if not _is_free(building):
            continue
        try:
            descriptor = os.open(building, flags, mode)
        except FileExistsError:  # created concurrently
            continue
        try:
            if _is_ours(descriptor) and flock.is_named(descriptor, building):
                for left in itertools.takewhile(os.path.lexists, names):  # of a process started during writes
                    _is_free(left)
                return building, descriptor
        except BaseException:  # such as a cancellation
            building.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)  # another process removes it as a leftover
    raise AssertionError("unreachable: the counter is infinite")


def _is_free(building: Path) -> bool:
    """Remove a killed run's leftover under this name; return whether the name is free."""
    if not os.path.lexists(building):  # or unreadable: creation fails then
        return True
    try:
        descriptor = os.open(building, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ELOOP:
            return False  # another user's, now writable
        building.unlink(missing_ok=True)  # a link, which we never create
        return True
    try:
        if not _is_ours(descriptor):
            return False
        if flock.is_named(descriptor, building):  # otherwise already in place
            building.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


LEAST_FREE = 0.05
"""Reserved share of the disk and of its inodes; device data never uses it."""
_LEAST_BYTES = 1024**3


def has_least(folder: Path) -> bool:
    """Return whether a disk has 1 GiB free, or that share on a small disk; the rest is reserved for the server."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize >= min(_LEAST_BYTES, told.f_blocks * told.f_frsize * LEAST_FREE)


def _is_ours(descriptor: int) -> bool:
    """Lock the file; return whether no other process holds the lock."""
    try:
        return flock.try_lock(descriptor)
    except OSError:  # no lock support
        return True


def _link_unique(building: Path, path: Path) -> None:
    """Give the finished file its name, which must be free. Raise `FileExistsError`."""
    try:
        os.link(building, path)  # unlike rename, never replaces
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            building.replace(path)  # replaces the empty file that reserved the name
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    else:
        building.unlink()
