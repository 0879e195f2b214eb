"""Lines that are in a file when it is told, whatever happens to the power."""

import contextlib
import os
from typing import BinaryIO

from birthmark.manifests.bundle.wire import MAX_LINE_BYTES


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
