"""Kernel file locks (flock), released when the process ends."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from birthmark.ownership_and_sudo_commands import hand_over_open

_PAUSE_S = 0.05
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def take(path: Path, patience: int) -> int | None:
    """Return a descriptor that holds the lock until it is closed, or None when another holds it. Raise `OSError`.

    `is_taken` holds the lock for an instant: `patience` is the number of attempts. A previous holder may have removed
    the file: the lock counts only for the file at this path. A lock file that root creates in another user's directory
    is handed over to that user, who may need it next.
    """
    for _ in range(patience):
        descriptor = _opened(path)
        try:
            if try_lock(descriptor) and is_named(descriptor, path):
                with contextlib.suppress(OSError):  # for example a read-only disk
                    hand_over_open(descriptor, path.parent)
                taken, descriptor = descriptor, -1
                return taken
        finally:
            if descriptor != -1:
                os.close(descriptor)
        time.sleep(_PAUSE_S)
    return None


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed; return whether no other process holds the lock. Raise `OSError`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_named(descriptor: int, path: Path) -> bool:
    """Return whether the path still names this file: a previous holder may have removed or renamed it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _opened(path: Path) -> int:
    # A link may belong to another user, the owner of the directory, and would make root create a file at its target.
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC):
            raise
        return os.open(path, os.O_RDONLY | _FLAGS)  # a kernel lock: nothing is written


def holder(path: Path) -> int | None:
    """Return the PID of the lock holder, or None where the kernel does not list it.

    The kernel does not list a holder in another PID namespace. On a file system with its own device numbers (btrfs),
    the entry does not match.
    """
    try:
        file, lines = path.stat(), Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return None
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for line in lines:
        match line.split():
            case [_, "FLOCK", _, "WRITE", pid, where, *_] if where == place and int(pid) > 0:
                return int(pid)
    return None


def has_open(pid: int, path: Path) -> bool:
    """Return whether the process visibly has the file open."""
    try:
        return any(one.exists() and one.samefile(path) for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def is_locked(path: Path) -> bool:
    """Return whether another process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def open_files(process: Path) -> Iterator[Path]:
    """Yield the files that a process in `/proc` has open; none for another user's process."""
    with contextlib.suppress(OSError):
        for one in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed in the meantime
                yield one.readlink()


def parent_of(process: Path) -> int:
    """Return the parent PID of a process, or 0 if it has ended."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def directory_of(process: Path, name: str) -> Path | None:
    """Return the directory of the lock file of this name that a process has open.

    Return None where it has none open, or belongs to another user.
    """
    return next((path.parent for path in open_files(process) if path.name == name), None)
