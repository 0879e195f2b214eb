"""Files that are there whole, or not at all, whenever their writer is killed or the power is cut.

What is written goes into a file beside, is on disk before it takes its name, and the name is on disk on return. A link
that somebody put there is not followed: the file beside is new, and a rename replaces a link itself.

The file beside is its writer's alone: locked until it has its place, so that two who write the same have one each, and
what is not locked is of a run that was killed. Where the file system has no locks, only one may write at a time.
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
"""What link(2) says where the file system has no second names (FAT, many shares)."""


def create(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create a file. Raise `FileExistsError`."""
    with creating(path, mode) as file:
        file.write(data)


@contextlib.contextmanager
def creating(path: Path, mode: int = 0o600, *, beside: Path | None = None) -> Iterator[IO[bytes]]:
    """Write a new file bit by bit; `beside` is where it is until its end, if another name is wanted.

    Raise `FileExistsError`.
    """
    with _begun(beside or _building(path), mode, lambda building: _named(building, path)) as file:
        yield file
    sync_directory(path.parent)


def replace(path: Path, data: bytes, mode: int = 0o600, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file in the place of another, which may be missing; `owner` is its user and group where not ours."""
    with replacing(path, mode, owner=owner) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666, *, owner: tuple[int, int] | None = None) -> Iterator[IO[bytes]]:
    """Write a file bit by bit; it takes the place of another at the end, and leaves that where an error comes first."""
    with _begun(_building(path), mode, lambda building: building.replace(path), owner) as file:
        yield file
    sync_directory(path.parent)


def is_there(path: Path, data: bytes, mode: int) -> bool:
    """Say whether a file of ours says this already, with this mode, and is no link to another."""
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
    """Write a file in the place of another in one step, and do not wait for the disk: what is easily made again."""
    with _begun(_building(path), mode, lambda building: building.replace(path), is_synced=False) as file:
        file.write(data)


def move(source: Path, target: Path) -> None:
    """Rename within a directory, in the place of what is there."""
    source.replace(target)
    sync_directory(target.parent)


def aside(path: Path, ending: str = "old") -> Path:
    """Return a name for what is to be moved out of the way, which nothing has: `.old`, else `.old-2` and so on."""
    names = (Path(f"{path}.{ending}{f'-{number}' if number > 1 else ''}") for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def keep_aside(path: Path) -> Path | None:
    """Give what is about to be replaced a second name and return that; an empty file or a link has nothing to keep."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        return None
    kept = aside(path)
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        path.rename(kept)
    return kept


def remove(path: Path) -> None:
    """Remove a file, if it is there, and what a write that was cut short left beside it."""
    there = [one for one in (path, _building(path)) if os.path.lexists(one)]
    path.unlink(missing_ok=True)
    _is_free(_building(path))
    if there:
        sync_directory(path.parent)


def clear(beside: Path) -> None:
    """Remove what killed runs left under this name and its numbered ones, and nothing that is written now."""
    for one in beside.parent.glob(f"{beside.name}*"):
        _is_free(one)


def clear_directories(parent: Path, prefix: str) -> None:
    """Remove what killed runs of `directory_beside` left, and nothing that is in use, or a stranger's.

    Root takes what is of the directory's owner for its own: in another user's it works for that one.
    """
    owners = {os.geteuid()} | ({parent.stat().st_uid} if os.geteuid() == 0 else set())
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        with _locked(left) as is_ours:
            if is_ours and left.lstat().st_uid in owners:
                shutil.rmtree(left)


@contextlib.contextmanager
def directory_beside(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new directory of its owner's alone, which is removed at the end where it has not been renamed.

    It is locked meanwhile: what a killed run left under the prefix goes first, as nobody has locked that.
    """
    clear_directories(parent, prefix)
    while True:
        made = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
        with _locked(made) as is_ours:
            if not is_ours:  # another took it for a killed one's, and removes it
                continue
            try:
                yield made
            finally:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(made)
            return


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory; say whether nobody else has it, and it is still there."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it is gone meanwhile, or another user's
        yield False
        return
    try:
        yield _is_ours(descriptor) and flock.is_named(descriptor, directory)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _building(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


@contextlib.contextmanager
def _begun(
    beside: Path,
    mode: int,
    put_in_place: Callable[[Path], object],
    owner: tuple[int, int] | None = None,
    *,
    is_synced: bool = True,
) -> Iterator[IO[bytes]]:
    """Give the file beside, and put it in place at the end; it is removed if its writing fails."""
    building, descriptor = _opened(beside, mode)
    with os.fdopen(descriptor, "wb") as file:
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            yield file
            file.flush()
            if is_synced:
                os.fsync(descriptor)
            put_in_place(building)  # while it is locked: else who comes would take it for a killed one's
        except BaseException:
            if flock.is_named(descriptor, building):
                building.unlink(missing_ok=True)
            raise


def _opened(beside: Path, mode: int) -> tuple[Path, int]:
    """Return a new file, locked, under the first name that nobody writes now."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    names = (beside.with_name(f"{beside.name}{number or ''}") for number in itertools.count())
    for building in names:
        if not _is_free(building):
            continue
        try:
            descriptor = os.open(building, flags, mode)
        except FileExistsError:  # made by another meanwhile
            continue
        try:
            if _is_ours(descriptor) and flock.is_named(descriptor, building):
                for left in itertools.takewhile(os.path.lexists, names):  # of one that began while others wrote
                    _is_free(left)
                return building, descriptor
        except BaseException:  # such as the word to end
            building.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)  # another takes it for a killed one's, and removes it
    raise AssertionError("numbers do not end")


def _is_free(building: Path) -> bool:
    """Remove what a killed run left under this name; say whether nobody has it then."""
    if not os.path.lexists(building):  # or cannot be: whoever makes it hears why
        return True
    try:
        descriptor = os.open(building, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ELOOP:
            return False  # another user's, who may write it now
        building.unlink(missing_ok=True)  # a link, which no run of ours has made
        return True
    try:
        if not _is_ours(descriptor):
            return False
        if flock.is_named(descriptor, building):  # else it has its place meanwhile
            building.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)


LEAST_FREE = 0.05
"""Of the disk, and of the files that it may have: what devices send fills no more of it."""
_LEAST_BYTES = 1024**3


def has_least(folder: Path) -> bool:
    """Say whether a folder's disk has a gigabyte left, or of a small one that share: less is for what is not sent."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize >= min(_LEAST_BYTES, told.f_blocks * told.f_frsize * LEAST_FREE)


def _is_ours(descriptor: int) -> bool:
    """Lock it; say whether nobody else has."""
    try:
        return flock.try_lock(descriptor)
    except OSError:  # there are no locks here
        return True


def _named(building: Path, path: Path) -> None:
    """Give what was built its name, which must be free. Raise `FileExistsError`."""
    try:
        os.link(building, path)  # unlike a rename it never replaces
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            building.replace(path)  # of the empty file, which has kept the name for it
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    else:
        building.unlink()
