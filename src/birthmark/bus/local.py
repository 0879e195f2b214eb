"""The in-process bus: drains the outbox in order and calls whoever listens. At least once, also over a restart."""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from birthmark.errors import BirthmarkError
from birthmark.store import Database

log = logging.getLogger(__name__)

_BATCH = 256
_RETRY_S = 1.0
Handler = Callable[[dict[str, Any]], None]


class LocalBus:
    """Hands events of `database`'s outbox to handlers by topic."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._last = 0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, topic: str, handler: Handler) -> None:
        """Call `handler` with the body of every event on exactly `topic`."""
        self._handlers[topic].append(handler)

    def start(self) -> None:
        """Begin to drain, first what an earlier process left."""
        self._database.on_events(lambda _events, _is_sure: self._wanted.set())
        self._wanted.set()
        self._task = asyncio.create_task(self._drain())

    async def stop(self) -> None:
        """Stop draining; what is left waits in the outbox."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _drain(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while rows := await self._database.events_after(self._last, _BATCH):
                    for row in rows:
                        self._deliver(row["topic"], row["body"])
                        self._last = row["id"]
                    self._database.discard_events(self._last)
            except BirthmarkError as error:  # an engine that is away comes back; nothing may be missed meanwhile
                log.warning("bus.waiting", extra={"reason": error.explain_cause()})
                await asyncio.sleep(_RETRY_S)
                self._wanted.set()

    def _deliver(self, topic: str, body: str) -> None:
        log.debug("event", extra={"topic": topic, "body": body})
        for handler in self._handlers.get(topic, ()):  # on its own, so that one that fails ends nothing else
            asyncio.get_running_loop().call_soon(handler, json.loads(body))
