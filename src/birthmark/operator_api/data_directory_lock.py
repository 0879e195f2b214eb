"""Who serves a data directory: a lock on `DIR/server.lock`.

The server holds it while it runs, so that a second one is refused before it touches anything. The command line looks at
it before it sends the operator's token anywhere: an endpoint that a killed server left behind may be anyone's by now.
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
    cause = "Another `birthmark serve` uses the data directory {path}."
    fix = (
        "Use that server: `birthmark env --data {path}`. Otherwise, stop it first, or pass another "
        "directory with --data."
    )
    path: Path


class DirectoryLock:
    """The lock of the one server of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raise `DirectoryInUseError`, or `OSError` when there can be no such file."""
        self._descriptor = flock.take(self._directory / NAME, _PATIENCE)
        if self._descriptor is None:
            raise DirectoryInUseError(path=self._directory)

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def keeping_out(directory: Path) -> Iterator[None]:
    """Let no server start on a directory; where there can be no such file none does. Raise `DirectoryInUseError`."""
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
    """Say whether a server runs on this directory now."""
    return flock.is_taken(directory / NAME)
