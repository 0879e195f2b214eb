"""Locks that are the kernel's (flock): they end with the process however that ends."""

import errno
import fcntl
import os
import time
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
