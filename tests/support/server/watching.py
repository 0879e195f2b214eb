"""A command that goes on until Ctrl-C, and what it has printed so far."""

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import warm
from support.server.servers import RunningServer, clean_environment


class Watcher:
    """`birthmark ARGUMENTS --json` that runs; its rows come one by one."""

    def __init__(self, server: RunningServer, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [warm.programs() / "birthmark", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent)),
        )
        self.rest: list[dict[str, Any]] = []
        assert self.process.stderr is not None
        assert "Watching. " in self.process.stderr.readline()

    def row(self, within_s: float = 20) -> dict[str, Any]:
        """Return the next row."""
        assert self.process.stdout is not None
        late = threading.Timer(within_s, self.process.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        assert line, self.process.communicate()
        return dict(json.loads(line))

    def rows(self, count: int) -> list[dict[str, Any]]:
        return [self.row() for _ in range(count)]

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return exit code and what it said on stderr."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Return exit code and stderr when it ends by itself."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        late = threading.Timer(20, self.process.kill)
        late.start()
        self.rest = [json.loads(line) for line in self.process.stdout]  # `communicate` forgets what is read ahead
        told = self.process.stderr.read()
        self.process.wait()
        late.cancel()
        return self.process.returncode, told


@contextlib.contextmanager
def watching(server: RunningServer, *arguments: str) -> Iterator[Watcher]:
    watcher = Watcher(server, *arguments)
    try:
        yield watcher
    finally:
        if watcher.process.poll() is None:
            watcher.process.kill()
            watcher.process.wait()
        for pipe in (watcher.process.stdout, watcher.process.stderr):
            if pipe is not None:
                pipe.close()
