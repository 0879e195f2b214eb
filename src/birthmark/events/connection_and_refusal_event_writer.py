"""Transient events that are in no audit row: connections, disconnections and refusals.

They are written asynchronously, some tenths of a second later, to a separate chain per worker. Delivery is therefore
best effort. A killed worker loses unwritten events, and a burst beyond `MAX_WAITING` is truncated, which the next row
states. Rows are kept for a week, and the number per worker is limited.
"""

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from birthmark.clock_and_entropy import Clock, ClockStability
from birthmark.errors import ChangedMeanwhileError
from birthmark.events import store
from birthmark.events.model import CONNECTED, DISCONNECTED, LOST, NOTICED, REFUSED
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Changes, Database, to_micros

MAX_WAITING, KEEP, MOST = 20_000, timedelta(days=7), 500_000
_AT_ONCE, _GATHER_S, _LOOK_S, _MAX_CHARS = 200, 0.2, 5.0, 256
_PRUNE_EVERY_S = 60.0
_GOODBYES = {CloseReason.DISCONNECT, CloseReason.DISCONNECT_WITH_WILL}
_NAMES = ("registration_id", "device_id", "thing", "common_name", "client_id")


class _Notice(NamedTuple):
    at: int
    action: str
    subject: str
    detail: Mapping[str, Any]


class Notices:
    """Transient events of this worker that wait to be written."""

    def __init__(self, database: Database, clock: Clock, worker: str) -> None:
        self._database = database
        self._clock = clock
        self._steadiness = ClockStability(clock)
        self._chain = f"{NOTICED}{worker}"
        self._waiting: deque[_Notice] = deque()
        self._missed = 0
        self._head: int | None = None
        self._some = asyncio.Event()
        self._alone = asyncio.Lock()
        self._pruned_at = clock.monotonic()

    def came(self, scope: str, client: str, address: str) -> None:
        """Record that a client connected at a hub or at the account."""
        self._add(CONNECTED, client, {"place": scope, "from": address})

    def record_disconnection(self, scope: str, client: str, reason: CloseReason) -> None:
        """Record a disconnection, unless a new connection of the same client replaced it."""
        if reason is not CloseReason.TAKEN_OVER:
            action = DISCONNECTED if reason in _GOODBYES else LOST
            self._add(action, client, {"place": scope, "reason": reason.value})

    def record_refusal(self, code: str, address: str, tracking_id: str, facts: Mapping[str, str]) -> None:
        """Record a refusal with a known subject; refusals without a name appear only in `birthmark why`."""
        subject = next((facts[name] for name in _NAMES if facts.get(name)), "")
        if subject:
            self._add(REFUSED, subject, {"code": code, "from": address, "tracking_id": tracking_id})

    async def keep_writing(self) -> None:
        """Write pending events in a loop; never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._some.wait()
                    await asyncio.sleep(_GATHER_S)
            await self.write_pending()
            if self._clock.monotonic() - self._pruned_at >= _PRUNE_EVERY_S and self._steadiness.is_steady():
                await self._prune()

    async def write_pending(self) -> None:
        """Write all pending events."""
        async with self._alone:
            self._some.clear()
            while self._waiting:
                await self._write(list(itertools.islice(self._waiting, _AT_ONCE)))

    def _add(self, action: str, subject: str, detail: dict[str, Any]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._missed += 1
            return
        if self._missed:
            detail["missed"], self._missed = self._missed, 0
        self._waiting.append(_Notice(self._clock.micros(), action, subject[:_MAX_CHARS], detail))
        self._some.set()

    async def _write(self, some: Sequence[_Notice]) -> None:
        """Write these events; after a failure they stay pending, and may be written twice."""
        if self._head is None:
            known = await self._database.one(store.NOTICED_UPTO, chain=self._chain)
            if known is None:
                await self._database.commit(Changes().run(store.FIRST_NOTICED, chain=self._chain, seq=0))
            self._head = 0 if known is None else int(known["seq"])
        begin, changes = self._head, Changes()
        self._head = None  # unknown until this commit
        for seq, one in enumerate(some, begin + 1):
            row: dict[str, Any] = {**one._asdict(), "detail": json.dumps(one.detail)}
            changes.run(store.ADD_NOTICE, chain=self._chain, seq=seq, **row)
        other = ChangedMeanwhileError(what="The event list of this worker")
        end = begin + len(some)
        if end > MOST:  # in the same commit, so that frequent reconnects never fill the disk
            changes.run(store.PRUNE_NOTICED, chain=self._chain, upto=end - MOST)
        changes.run(store.NOTICED_TO, expect=1, otherwise=other, key_chain=self._chain, key_seq=begin, seq=end)
        await self._database.commit(changes)
        self._head = end
        for _ in some:
            self._waiting.popleft()

    async def _prune(self) -> None:
        """Delete old rows of every worker, in batches."""
        self._pruned_at = self._clock.monotonic()
        before = to_micros(self._clock.now() - KEEP)
        await self._database.commit(Changes().run(store.PRUNE_NOTICES, before=before))
