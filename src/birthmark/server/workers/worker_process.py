"""A worker process of `birthmark serve --workers`, which gets settings and sockets from its parent through a pipe.

It stops on request, and ends with its parent, because a new parent may start immediately.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from birthmark.bus.wire import ReplyFrame, refusal_of
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.server.server import Server
from birthmark.server.server_process import begin_log, reduce_gc_frequency
from birthmark.server.settings import Settings
from birthmark.server.workers.process_control import end_with_parent, show_process_name
from birthmark.server.workers.worker_process_configuration import WorkerConfig, WorkerContext
from birthmark.untrusted_json_and_text import decode_json

log = logging.getLogger(__name__)

# Modules that a single-process server loads on first use. A worker loads them before its predecessor ends, so that
# import errors appear in time, and a version installed while it serves is not half loaded.
_LATE = (
    *("birthmark.dps.http", "birthmark.iothub.http", "birthmark.azure_arm.http", "birthmark.net.bounded_websocket"),
    *("birthmark.bus.nats", "birthmark.store.postgresql"),
)


class Start(msgspec.Struct, frozen=True):
    """Start message of a parent to a worker: one line of JSON."""

    settings: Settings
    given: WorkerConfig
    config: str | None


class WorkerReady(msgspec.Struct, frozen=True):
    """Reply of a worker that serves or failed to start."""

    endpoints: dict[str, Any] = {}
    elsewhere: list[str] = []
    worker: str = ""
    """Id of this process among the workers of the database."""
    refusal: ReplyFrame | None = None


class WorkerHealth(msgspec.Struct, frozen=True):
    """Reply of a worker to a health check."""

    workers: list[str] = []
    """Ids of the workers that have not been declared dead, this one included; empty if it does not know."""


def main() -> None:
    """Run the worker whose parent process and pipes are given as arguments."""
    parent, told, answers = (int(one) for one in sys.argv[1:4])
    end_with_parent(parent)
    for name in _LATE:
        import_module(name)
    show_process_name("birthmark spare")
    os.write(answers, b"\n")  # all loaded: the predecessor may end
    with os.fdopen(told, "rb") as pipe:
        if not (line := pipe.readline()):  # no longer wanted
            return
    start = decode_json(line, Start)
    show_process_name(f"birthmark {start.given.name}")
    begin_log(start.given.name)
    os.umask(os.umask(0o077) | 0o022)

    def answer(ready: WorkerReady) -> None:
        os.write(answers, msgspec.json.encode(ready) + b"\n")
        os.close(answers)

    try:
        uvloop.run(_serve(start, answer))
    except BirthmarkError as error:
        extra = {"code": error.code, "reason": error.explain_cause()}
        log.error("worker.ended", extra=extra)  # noqa: TRY400 - the extra has it all
        raise SystemExit(1) from None


async def _serve(start: Start, answer: Callable[[WorkerReady], None]) -> None:
    config = None if start.config is None else Path(start.config)
    server = Server(start.settings, SystemClock(), SystemEntropy(), config, WorkerContext(start.given))
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    try:
        try:
            endpoints = await server.start()
        except BirthmarkError as error:
            answer(WorkerReady(refusal=refusal_of(error)))
            raise
        reduce_gc_frequency()
        answer(WorkerReady(endpoints, server.elsewhere, server.rooms.broker.worker))
        lost = server.hold.lost
        lost.add_done_callback(lambda _: ended.set())
        server.on_considered_dead(ended.set)
        await ended.wait()
        if lost.done():
            raise lost.result()
    finally:
        await server.stop()


if __name__ == "__main__":
    main()
