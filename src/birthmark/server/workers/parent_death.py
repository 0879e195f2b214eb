"""Processes that end with their parent, however that ends (prctl(2), PR_SET_PDEATHSIG); on Linux alone.

As a program it runs another in its own place: `python -m birthmark.server.workers.parent_death PROGRAM ARGUMENTS…`
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent, which had this number, is gone."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before this was asked for
        os._exit(1)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - a program by its whole path
