"""Lock on a data directory: `DIR/server.lock`.

A server holds it while it runs, so that a second server is refused before it changes anything. The command line checks
it before it sends the operator token, because another process may use the endpoint of a killed server.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from birthmark import flock
from birthmark.errors import ConflictError

NAME = "server.lock"
_PATIENCE = 20


class DirectoryInUseError(ConflictError):
    """Another server uses this data directory."""

    code = "server.data_directory_in_use"
    cause = "Another `birthmark serve` process uses the data directory {path}."
    fix = (
        "To use that server: `birthmark env --data {path}`. To start a new server, first stop the running one, or "
        "pass another directory with --data."
    )
    path: Path


class DirectoryLock:
    """Lock of the only server of a data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Acquire the lock. Raise `DirectoryInUseError`, or `OSError` if the file cannot be created."""
        self._descriptor = flock.take(self._directory / NAME, _PATIENCE)
        if self._descriptor is None:
            raise DirectoryInUseError(path=self._directory)

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        """Release the lock; a no-op if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def prevent_start(directory: Path) -> Iterator[None]:
    """Prevent servers from starting on a directory. Raise `DirectoryInUseError`.

    If the lock file cannot be created, no server can start there.
    """
    lock, is_new = DirectoryLock(directory), not (directory / NAME).exists()
    try:
        with suppress(OSError):
            lock.acquire()
        yield
    finally:
        if is_new and lock.is_held:
            (directory / NAME).unlink(missing_ok=True)
        lock.release()


def is_served(directory: Path) -> bool:
    """Return whether a server runs on this directory."""
    return flock.is_locked(directory / NAME)
