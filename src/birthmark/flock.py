"""Locks that are the kernel's (flock): they end with the process however that ends."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_PAUSE_S = 0.05


def take(path: Path, patience: int) -> int | None:
    """Return a descriptor that holds the lock until it is closed, or None when another has it. Raise `OSError`.

    Whoever asks `is_taken` holds it for an instant: `patience` is how often to try.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENOSPC):
            raise
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # the lock is the kernel's: nothing is written for it
    for _ in range(patience):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:
            os.close(descriptor)
            raise
        else:
            return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def alone(path: Path) -> Iterator[int]:
    """Give a descriptor of a file of ours alone, which is made or found, and removed at the end. Raise `OSError`.

    Whoever has it is waited for; a link is not followed, and another user's is taken away where that may be.
    """
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                path.unlink(missing_ok=True)
            elif status.st_nlink:  # else who had it has removed it meanwhile
                try:
                    yield descriptor
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(descriptor)


def holder(path: Path) -> int | None:
    """Return the process that holds the lock, where the kernel lists it.

    It does not for another PID namespace's, and on a file system that counts its devices in its own way (btrfs).
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
    """Say whether a process is seen to have the file open."""
    try:
        return any(one.exists() and one.samefile(path) for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def is_taken(path: Path) -> bool:
    """Say whether somebody holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
