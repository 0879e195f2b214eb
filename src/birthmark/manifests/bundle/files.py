"""Files that a power loss leaves whole: new ones are there whole or not at all, lines are there when told."""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from birthmark.manifests.bundle.wire import MAX_LINE_BYTES


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is there whole after any interruption, or not at all; who calls it holds the station's lock."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory lasting."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(file: BinaryIO, line: bytes) -> None:
    """Add a line that lasts when this returns. What came of one that failed is taken away again."""
    end = file.seek(0, os.SEEK_END)
    try:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def cut_torn_line(file: BinaryIO) -> int:
    """Take away a last line that the power was lost in, and return how many bytes it had.

    It has no end, or holds a block that never reached the disk and reads as NUL; it was never told to anyone as taken.
    """
    end = file.seek(0, os.SEEK_END)
    last = file.seek(max(0, end - 2 * MAX_LINE_BYTES))
    tail = file.read()
    keep = last + tail.rfind(b"\n") + 1 if b"\n" in tail else last
    if keep == end and b"\0" in tail[tail.rfind(b"\n", 0, -1) + 1 :]:
        keep = last + tail.rfind(b"\n", 0, -1) + 1
    if keep < end:
        file.truncate(keep)
        file.flush()
        os.fsync(file.fileno())
    file.seek(0)
    return end - keep
