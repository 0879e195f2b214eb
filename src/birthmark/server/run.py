"""`birthmark serve`: run a server until SIGTERM or SIGINT; SIGHUP reads the server certificate again."""

import asyncio
import gc
import json
import logging
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from birthmark.clock import SystemClock, SystemEntropy
from birthmark.net.quota_key import share_of
from birthmark.rate_limits import RateLimits
from birthmark.server.server import Server
from birthmark.server.settings import Settings

EACH = (50, 2)  # lines at once, and a second
ALL = (500, 50)


class BoundedLog(logging.Filter):
    """Lets pass what an address, a key or event without one, and all have room for. `now` is a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._each = RateLimits(*EACH)
        self._all = RateLimits(*ALL, max_addresses=1)
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is written."""
        now = self._now()
        whose = str(getattr(record, "whose", "")) or f"{record.name} {record.msg}"
        who = share_of(str(getattr(record, "address", ""))) or whose
        if not (self._each.has_room(who, now) and self._all.has_room("", now)):
            self._dropped += 1
            return False
        if self._dropped:
            vars(record)["lines_dropped"], self._dropped = self._dropped, 0
        return True


log = logging.getLogger(__name__)


def run(
    settings: Settings, on_ready: Callable[[dict[str, Any], Sequence[str]], None], config: Path | None = None
) -> None:
    """Serve until told to stop; `on_ready` gets the endpoints, and the hosts that the certificate does not have.

    `config` is the file that the settings were read from. Raise `BirthmarkError` when it cannot start.
    """

    os.umask(os.umask(0o077) | 0o022)  # whatever this process was started with, nobody else writes what it makes

    async def main() -> None:
        server = Server(settings, SystemClock(), SystemEntropy(), config)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGHUP, server.reload)
        try:
            endpoints = await server.start()
            collect_seldom()
            on_ready(endpoints, server.elsewhere)
            lost = server.hold.lost
            lost.add_done_callback(lambda _: ended.set())
            await ended.wait()
            if lost.done():
                log.error("server.database_lost", extra={"reason": lost.result().explain_cause()})
                raise lost.result()
        finally:
            await server.stop()

    uvloop.run(main())


def collect_seldom() -> None:
    """Look for cycles once in 20,000 new objects, and not among what the start made, where `serve` did not look at all.

    Reference counts free what a request leaves behind; looking through the documents and sessions that are there, 700
    objects apart as is the interpreter's own habit, cost a shadow's update half of its time.
    """
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


def begin_log(worker: str = "") -> None:
    """Write events to stderr from the level of BIRTHMARK_LOG on, one JSON object a line, as many as are of use."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(worker))
    handler.addFilter(BoundedLog(SystemClock().monotonic))
    logging.basicConfig(level=os.environ.get("BIRTHMARK_LOG", "WARNING").upper(), handlers=[handler])
    for name in ("alembic", "asyncio", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)  # what they say at DEBUG drowns what happens here
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it reports each bad request of a peer as a warning


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event and its fields, and the worker where there are several."""

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in self._STANDARD}
        line = {"at": self.formatTime(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line |= self._worker | fields
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
