"""Files that are there whole, or not at all, whenever their writer is killed or the power is cut.

What is written goes into a file beside, is on disk before it takes its name, and the name is on disk on return. A link
that somebody put there is not followed: the file beside is new, and a rename replaces a link itself.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def create(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create a file. Raise `FileExistsError`."""
    building = _written(path, data, mode)
    try:
        os.link(building, path)  # unlike a rename it never replaces
    finally:
        building.unlink()
    sync_directory(path.parent)


def replace(path: Path, data: bytes, mode: int = 0o600, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file in the place of another, which may be missing; `owner` is its user and group where not ours."""
    move(_written(path, data, mode, owner), path)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Write a file bit by bit; it takes the place of another at the end, and leaves that where an error comes first."""
    with _begun(path, mode) as (building, file):
        yield file
    move(building, path)


def put(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file in the place of another in one step, and do not wait for the disk: what is easily made again."""
    _written(path, data, mode, is_synced=False).replace(path)


def move(source: Path, target: Path) -> None:
    """Rename within a directory, in the place of what is there."""
    source.replace(target)
    sync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there, and what a write that was cut short left beside it."""
    there = [one for one in (path, _building(path)) if os.path.lexists(one)]
    for one in there:
        one.unlink(missing_ok=True)
    if there:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _building(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _written(
    path: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None, *, is_synced: bool = True
) -> Path:
    with _begun(path, mode, owner, is_synced=is_synced) as (building, file):
        file.write(data)
    return building


@contextlib.contextmanager
def _begun(
    path: Path, mode: int, owner: tuple[int, int] | None = None, *, is_synced: bool = True
) -> Iterator[tuple[Path, IO[bytes]]]:
    """Return the file beside, and remove it if its writing fails."""
    building = _building(path)
    building.unlink(missing_ok=True)  # of a run that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(building, flags, mode), "wb") as file:
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            yield building, file
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        building.unlink(missing_ok=True)
        raise
