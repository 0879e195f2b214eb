"""Processes that end with their parent for any reason, and their names in `ps` and `top` (prctl(2)); Linux only.

As a program it replaces itself with another: `python -m birthmark.server.workers.process_control PROGRAM ARGUMENTS…`
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, with this process id, ends."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before this call
        os._exit(1)


def show_process_name(name: str) -> None:
    """Set the name that `ps` and `top` show for this process; the kernel keeps its first 15 bytes."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_NAME, name.encode())


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - absolute program path
