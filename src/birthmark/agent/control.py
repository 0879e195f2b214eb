"""One agent per root: a lock that names its process, and how a command talks to it.

The number in the lock's file is only read while it is held.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from birthmark import flock
from birthmark.agent.files import StateNotWritableError
from birthmark.clock import Clock
from birthmark.errors import ConflictError, UnavailableError
from birthmark.text import reason_of

_POLL_S = 0.05
_PATIENCE = 5
_MAX_PID_BYTES = 20


class Order(Enum):
    """What a running agent can be told, by signal."""

    STOP = signal.SIGTERM
    RENEW = signal.SIGUSR1
    REPROVISION = signal.SIGUSR2


class AgentRunningError(ConflictError):
    """An agent is running already."""

    code = "agent.running"
    cause = "An agent is running here already (process {pid})."
    fix = "Stop it first: `birthmark agent stop --root {root}`. `renew` and `reprovision` may be given while it runs."
    pid: int | str
    root: str = "?"


class AgentNotRunningError(LookupError):
    """There is nobody to tell: no refusal, each command knows what to do then."""


class AgentForeignError(UnavailableError):
    """The agent belongs to another user."""

    code = "agent.foreign"
    cause = "The agent (process {pid}) belongs to another user, who alone may stop it."
    fix = "Run the command as that user, or as root."
    for_a_person = "another user's process"
    pid: int


class AgentSlowError(UnavailableError):
    """The agent does not stop."""

    code = "agent.slow"
    cause = "The agent (process {pid}) did not stop within {seconds} s."
    fix = "It may be waiting for a chip; look at its log, and end the process if it is stuck."
    for_a_person = "a process that hangs has to be looked at"
    pid: int
    seconds: str


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the one agent of this root while the block runs. Raise `AgentRunningError`."""
    try:
        descriptor = flock.take(path, _PATIENCE)
    except OSError as error:
        raise StateNotWritableError(path=path, reason=reason_of(error)) from error
    if descriptor is None:
        raise AgentRunningError(pid=_pid_in(path) or "?")
    try:
        with contextlib.suppress(OSError):  # a full or read-only disk keeps nobody from being the one agent
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def running_pid(path: Path) -> int | None:
    """Return the process that holds the lock, or None."""
    return _pid_in(path) if flock.is_taken(path) else None


def tell(path: Path, order: Order) -> int:
    """Give the running agent an order and return its process. Raise `AgentNotRunningError` or `AgentForeignError`."""
    pid = running_pid(path)
    if pid is None:
        raise AgentNotRunningError("No agent is running.")
    try:
        os.kill(pid, order.value)
    except ProcessLookupError as error:
        raise AgentNotRunningError("No agent is running.") from error
    except PermissionError as error:
        raise AgentForeignError(pid=pid) from error
    return pid


def stop(path: Path, clock: Clock, timeout_s: float = 20.0) -> int:
    """Stop the running agent and return when it is gone. Raise `AgentSlowError`."""
    pid = tell(path, Order.STOP)
    deadline = clock.monotonic() + timeout_s
    while running_pid(path) is not None:
        if clock.monotonic() > deadline:
            raise AgentSlowError(pid=pid, seconds=f"{timeout_s:g}")
        time.sleep(_POLL_S)
    return pid


def _pid_in(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        return int(file.read(_MAX_PID_BYTES))
    return None
