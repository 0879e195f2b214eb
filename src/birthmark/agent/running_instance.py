"""Lock for one agent per root, with the holder's process ID, and commands to that process (`orders`).

The process ID in the file may be a former holder's if the disk is read-only or full, so it is never trusted alone.
"""

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from birthmark import flock
from birthmark.agent.control_socket import ControlCommand, ask
from birthmark.agent.state_directory import StateNotWritableError, control_socket_of
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ConflictError, UnavailableError
from birthmark.untrusted_json_and_text import reason_of

_POLL_S = 0.05
_PATIENCE = 5
_SILENT_S = 10.0
_MAX_PID_BYTES = 20


class AgentRunningError(ConflictError):
    """An agent is already running."""

    code = "agent.running"
    cause = "An agent is already running (process {pid})."
    fix = (
        "Stop the agent first: `birthmark agent stop --root {root}`. The commands `renew` and `reprovision` work "
        "while the agent runs."
    )
    pid: int | str
    root: str = "?"


class AgentNotRunningError(LookupError):
    """No agent is running; each command handles this itself."""


class AgentForeignError(UnavailableError):
    """The agent belongs to another user."""

    code = "agent.foreign"
    cause = "The agent (process {pid}) belongs to another user, and only that user can stop it."
    fix = "Run the command as that user or as root."
    for_a_person = "the user that owns the process, or root, has to run the command"
    pid: int | str


class AgentInProgramError(ConflictError):
    """The agent runs inside a program."""

    code = "agent.in_program"
    cause = "The agent runs inside a program (process {pid}), and `birthmark agent stop` does not stop programs."
    fix = (
        "Stop that program. Other commands work while the program runs: `birthmark agent renew --root {root}`, "
        "`birthmark agent reprovision --root {root}`"
    )
    pid: int
    root: str = "?"


class AgentSlowError(UnavailableError):
    """The agent did not respond in time."""

    code = "agent.slow"
    cause = "{who}, which manages this identity, did not {what} within {seconds} s."
    fix = (
        "The process may be waiting for a chip, running an older version, or out of disk space. Check its log. If "
        "the process hangs, stop it: an agent loses no data, but a program can lose unsaved data. {how}: `{command}`"
    )
    command: str
    how: str
    seconds: str
    what: str
    who: str


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the agent lock of this root during the block. Raise `AgentRunningError`."""
    try:
        descriptor = flock.take(path, _PATIENCE)
    except OSError as error:
        raise StateNotWritableError(path=path, reason=reason_of(error)) from error
    if descriptor is None:
        raise AgentRunningError(pid=running_pid(path) or "?")
    try:
        with contextlib.suppress(OSError):  # a full or read-only disk must not prevent the agent's start
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def running_pid(path: Path) -> int | None:
    """Return the process that holds the lock; None if there is none or it is unknown."""
    if not flock.is_locked(path):
        return None
    if (pid := flock.holder(path)) is not None:
        return pid
    written = _pid_in(path)
    return written if written is not None and flock.has_open(written, path) else None


def tell(path: Path, order: ControlCommand, clock: Clock) -> int:
    """Send a command to the lock holder and return its process ID.

    Raise `AgentNotRunningError`, `AgentForeignError`, `AgentSlowError` or `AgentInProgramError`.
    """
    deadline = clock.monotonic() + _SILENT_S
    while flock.is_locked(path):
        try:
            is_taken, process = ask(control_socket_of(path), order)
        except PermissionError as error:
            raise AgentForeignError(pid=running_pid(path) or "?") from error
        except OSError as error:  # the lock holder does not listen yet, or runs once and soon exits
            if clock.monotonic() > deadline:
                raise _agent_slow_error(path, "accept a command", _SILENT_S) from error
            time.sleep(_POLL_S)
            continue
        if not is_taken:
            raise AgentInProgramError(pid=process)
        return process
    raise AgentNotRunningError("No agent is running.")


def stop(path: Path, clock: Clock, timeout_s: float = 20.0) -> int:
    """Stop the running agent and wait until it exits. Raise `AgentSlowError` and the errors of `tell`."""
    pid = tell(path, ControlCommand.STOP, clock)
    deadline = clock.monotonic() + timeout_s
    while flock.is_locked(path):
        if clock.monotonic() > deadline:
            raise _agent_slow_error(path, "stop", timeout_s)
        time.sleep(_POLL_S)
    return pid


def _agent_slow_error(path: Path, what: str, seconds: float) -> AgentSlowError:
    """Return the error; it names the process to end only if that is certain."""
    who, how, command = f"The holder of {path}", "This names it", f"fuser {shlex.quote(str(path))}"
    if (pid := running_pid(path)) is not None:
        who, how, command = f"Process {pid}", "To stop it", f"kill -KILL {pid}"
    return AgentSlowError(who=who, how=how, command=command, what=what, seconds=f"{seconds:g}")


def _pid_in(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        return int(file.read(_MAX_PID_BYTES))
    return None
