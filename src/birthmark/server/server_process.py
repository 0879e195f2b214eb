"""`birthmark serve`: run a server until SIGTERM or SIGINT; SIGHUP reloads the server certificate."""

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

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.net.quota_key import share_of
from birthmark.rate_limits import RateLimits
from birthmark.server.server import Server
from birthmark.server.settings import Settings

EACH = (50, 2)  # lines at once, per second
ALL = (500, 50)


class BoundedLog(logging.Filter):
    """Rate limit for log lines: per address, per key or event without one, and in total. `now` is a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._each = RateLimits(*EACH)
        self._all = RateLimits(*ALL, max_addresses=1)
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
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
    """Serve until stopped; `on_ready` receives the endpoints, and the hosts that the certificate does not cover.

    `config` is the file of the settings. Raise `BirthmarkError` if the server cannot start.
    """
    os.umask(os.umask(0o077) | 0o022)  # regardless of the inherited umask, no other user writes our files

    async def main() -> None:
        server = Server(settings, SystemClock(), SystemEntropy(), config)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGHUP, server.reload)
        try:
            endpoints = await server.start()
            reduce_gc_frequency()
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


def reduce_gc_frequency() -> None:
    """Run the garbage collector once per 20,000 new objects, without the objects of the start.

    During the start, `serve` disables the collector. Reference counting frees the objects of a request. With the
    interpreter's default of 700 objects, scanning the live documents and sessions took half of the time of a shadow
    update.
    """
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


def begin_log(worker: str = "") -> None:
    """Log events to stderr from the level of BIRTHMARK_LOG, one JSON object per line, with a rate limit."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(worker))
    handler.addFilter(BoundedLog(SystemClock().monotonic))
    logging.basicConfig(level=os.environ.get("BIRTHMARK_LOG", "WARNING").upper(), handlers=[handler])
    for name in ("alembic", "asyncio", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)  # their DEBUG output hides our own
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it logs each malformed request as a warning


class JsonLines(logging.Formatter):
    """Log formatter: one JSON object per line with time, level, event, fields, and the worker if there are several."""

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
