"""The processes below a server of several workers, to be hit by a test."""

import os
import signal
import time
from pathlib import Path

from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer


def below(server: RunningServer) -> dict[str, int]:
    """Return the numbers of the processes that a parent has: `nats`, and the workers in the order of their start."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    found: dict[str, int] = {}
    for pid in sorted(int(one) for path in children for one in path.read_text().split()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:  # it has just ended
            continue
        if b"nats" in command:
            found["nats"] = pid
        elif b"workers.worker_process" in command:
            found[f"worker {len([name for name in found if name != 'nats']) + 1}"] = pid
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
        os.kill(pid, signal.SIGCONT)
