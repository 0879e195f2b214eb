"""One agent per root: a lock that names its process, and how a command talks to whoever has it (`orders`).

The number in the lock's file is only read while it is held.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from birthmark import flock
from birthmark.agent.files import StateNotWritableError, orders_beside
from birthmark.agent.orders import Order, ask
from birthmark.clock import Clock
from birthmark.errors import ConflictError, UnavailableError
from birthmark.text import reason_of

_POLL_S = 0.05
_PATIENCE = 5
_SILENT_S = 10.0
_MAX_PID_BYTES = 20


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


class AgentInProgramError(ConflictError):
    """The identity is kept by a program, which is nobody's to stop from here."""

    code = "agent.in_program"
    cause = "The identity is kept by a program of its own (process {pid}), which `birthmark agent stop` does not end."
    fix = (
        "End that program in its own way. Other orders reach it: `birthmark agent renew --root {root}`, "
        "`birthmark agent reprovision --root {root}`"
    )
    pid: int
    root: str = "?"


class AgentSlowError(UnavailableError):
    """Whoever has the lock takes no orders, or does not stop."""

    code = "agent.slow"
    cause = "Process {pid}, which keeps the identity here, did not {what} within {seconds} s."
    fix = (
        "It may be at work with a chip, of an older version, or on a full disk: look at its log. If it is stuck, end "
        "it, which loses nothing: `kill -KILL {pid}`"
    )
    pid: int
    seconds: str
    what: str


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


def tell(path: Path, order: Order, clock: Clock) -> int:
    """Give whoever has the lock an order, and return the process that took it.

    Raise `AgentNotRunningError`, `AgentForeignError`, `AgentSilentError` or `AgentInProgramError`.
    """
    deadline = clock.monotonic() + _SILENT_S
    while (pid := running_pid(path)) is not None:
        try:
            is_taken, process = ask(orders_beside(path), order)
        except PermissionError as error:
            raise AgentForeignError(pid=pid) from error
        except OSError as error:  # it has the lock and does not listen yet, or works once and is soon gone
            if clock.monotonic() > deadline:
                raise AgentSlowError(pid=pid, what="take an order", seconds=f"{_SILENT_S:g}") from error
            time.sleep(_POLL_S)
            continue
        if not is_taken:
            raise AgentInProgramError(pid=process)
        return process
    raise AgentNotRunningError("No agent is running.")


def stop(path: Path, clock: Clock, timeout_s: float = 20.0) -> int:
    """Stop the running agent and return when it is gone. Raise `AgentSlowError`, and what `tell` raises."""
    pid = tell(path, Order.STOP, clock)
    deadline = clock.monotonic() + timeout_s
    while running_pid(path) is not None:
        if clock.monotonic() > deadline:
            raise AgentSlowError(pid=pid, what="stop", seconds=f"{timeout_s:g}")
        time.sleep(_POLL_S)
    return pid


def _pid_in(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        return int(file.read(_MAX_PID_BYTES))
    return None
