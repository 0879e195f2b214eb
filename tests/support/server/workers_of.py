"""The processes below a server of several workers, to be hit by a test."""

import contextlib
import os
import signal
import time
from pathlib import Path

from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer

_SPARE = "birthmark spare"


def below(server: RunningServer) -> dict[str, int]:
    """Return the process ids below a parent: `nats`, and the workers in the order of their start; without the spare."""
    programs = _programs(server)
    workers = sorted(pid for pid, name in programs.items() if name.startswith("birthmark ") and name != _SPARE)
    found = {name: pid for pid, name in programs.items() if name == "nats"}
    return found | {f"worker {number}": pid for number, pid in enumerate(workers, 1)}


def loaded(server: RunningServer) -> set[int]:
    """Return the process ids of all programs for workers, the spare and successors included."""
    return {pid for pid, name in _programs(server).items() if name != "nats"}


def spare_of(server: RunningServer) -> int:
    """Return the process id of the spare program, when it is loaded."""
    deadline = time.monotonic() + 60
    while _SPARE not in (programs := _programs(server)).values():
        assert time.monotonic() < deadline, programs
        time.sleep(0.05)
    return next(pid for pid, name in programs.items() if name == _SPARE)


def _programs(server: RunningServer) -> dict[int, str]:
    """Return the processes below a parent: `nats`, and by its name each program for a worker."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    found: dict[int, str] = {}
    for pid in (int(one) for path in children for one in path.read_text().split()):
        try:
            command, name = Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/comm").read_text()
        except FileNotFoundError:  # it has just ended
            continue
        if b"nats" in command:
            found[pid] = "nats"
        elif b"workers.worker_process" in command:
            found[pid] = name.strip()
    return found


def started_anew(server: RunningServer) -> None:
    """Have each worker started again, one after the other, and return when all are ready."""
    assert server.process is not None
    before = set(below(server).values())
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while len(set(below(server).values()) & before) > 1:  # the bus stays
        assert time.monotonic() < deadline, "not all are new"
        time.sleep(0.05)
    until_workers_are_ready(server)


def hit(pid: int, how: signal.Signals, wake_after_s: float = 0.0) -> None:
    """Send a signal; wake what was stopped after a while."""
    os.kill(pid, how)
    if wake_after_s:
        time.sleep(wake_after_s)
        wake(pid)


def wake(pid: int) -> None:
    """Continue a stopped process, unless it was killed meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
