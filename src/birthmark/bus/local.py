"""In-process bus of a single worker: calls handlers in its event loop, and drains its outbox in order.

Events of this process's commits are handled before the committer gets its result. A client that gets a revocation
response knows that the credential is rejected and its connections have ended. The outbox delivers the events of an
earlier process, and those of commits with an unknown result.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from birthmark.bus.ports import ASK_S, BusRequest, NoAnswerError, R, WorkerUnreachableError
from birthmark.errors import BirthmarkError
from birthmark.store import Database
from birthmark.store.database import Heard, Row
from birthmark.store.event_base_and_codec import E, Event, decode_event, kind_of
from birthmark.store.reloading_cache import UNSURE_S
from birthmark.supervised_tasks import cancel_and_wait, start_supervised

MAX_ENTITIES = 65_536


class LatestVersions:
    """Bounded cache of the last delivered version per entity."""

    def __init__(self, max_entities: int = MAX_ENTITIES) -> None:
        self._max_entities = max_entities
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def admits(self, event: Event) -> bool:
        """Return whether `event` is newer than the last delivered one, and record it."""
        if event.version <= 0:
            return True
        key = kind_of(type(event)), event.entity
        if event.version < self._known.get(key, 0):
            return False
        self._known[key] = event.version
        self._known.move_to_end(key)
        if len(self._known) > self._max_entities:
            self._known.popitem(last=False)
        return True


log = logging.getLogger(__name__)

_BATCH = 256
_RETRY_S = 1.0
_LOOK_S = 5.0
_MAX_TOLD = 1024


class LocalBus:
    """A `Bus` within one process; events of commits come from the outbox of `database`."""

    def __init__(self, database: Database, worker: str = "") -> None:
        self._database = database
        self._kinds: dict[str, type[Event]] = {}
        self._handlers: defaultdict[type[Event], list[Callable[[Any], None]]] = defaultdict(list)
        self._servers: dict[type[BusRequest[Any]], Callable[[Any], Awaitable[Any]]] = {}
        self._latest = LatestVersions()
        self._handed_on: set[int] = set()  # rows handed on before the outbox was read up to them
        self._last = 0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_draining = False
        self._later: asyncio.TimerHandle | None = None
        self._told: set[asyncio.Task[None]] = set()
        self._missed: list[Callable[[], Awaitable[None]]] = []
        self.worker = worker or database.worker

    def on(self, kind: type[E], handler: Callable[[E], None]) -> None:
        self._kinds[kind_of(kind)] = kind
        self._handlers[kind].append(handler)

    def announce(self, event: Event) -> None:
        self._announce_here(event)

    def _announce_here(self, event: Event) -> None:
        if self._latest.admits(event):
            self._hand_on(event)

    async def confirm(self, event: Event) -> None:
        self.announce(event)
        handled = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(_resolve, handled)  # after its handlers and those of earlier events
        await handled

    async def catch_up(self) -> None:
        """Do nothing: there are no other workers."""

    def on_missed(self, handler: Callable[[], Awaitable[None]]) -> None:
        self._missed.append(handler)  # never in a single process

    def serve(self, kind: type[BusRequest[R]], handler: Callable[[Any], Awaitable[R]]) -> None:
        self._servers[kind] = handler

    async def ask(self, worker: str, request: BusRequest[R], timeout_s: float = ASK_S) -> R:
        if worker != self.worker:
            raise WorkerUnreachableError(worker=worker)
        facts = {"worker": worker, "request": kind_of_request(request)}
        handler = self._servers.get(type(request))
        if handler is None:
            raise NoAnswerError(reason="it does not provide this service", **facts)
        try:
            async with asyncio.timeout(timeout_s) as limit:
                answer: R = await handler(request)
        except BirthmarkError:
            raise
        except Exception as error:
            if limit.expired():
                raise NoAnswerError(reason=f"no response within {timeout_s:g} s", **facts) from error
            log.exception("bus.request_failed", extra={"request": facts["request"]})
            raise NoAnswerError(reason="it failed with an internal error", **facts) from error
        return answer

    def tell(self, worker: str, batch: Sequence[BusRequest[R]]) -> None:
        if worker != self.worker or len(self._told) >= _MAX_TOLD:
            log.info("bus.lost", extra={"worker": worker, "requests": len(batch)})
            return
        task = asyncio.get_running_loop().create_task(self._handle(tuple(batch)))
        self._told.add(task)
        task.add_done_callback(self._told.discard)

    @property
    def is_draining(self) -> bool:
        """Return whether the outbox is being drained."""
        return self._is_draining

    def start(self) -> None:
        """Start draining the outbox, including the events of an earlier process."""
        self._database.on_events(self._hear)
        self._wanted.set()
        self._is_draining = True
        self._task = start_supervised("the outbox", self._drain)

    async def stop(self) -> None:
        """Stop draining; remaining events stay in the outbox."""
        if self._later is not None:
            self._later.cancel()
        await cancel_and_wait(*self._told, self._task)
        self._is_draining = False

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - port signature
        if is_sure:
            for number, event in events if self.is_draining else ():
                if number > self._last:  # otherwise the row was read before this
                    self._handed_on.add(number)
                    self._tell_all(event)
            if not self.is_draining or self._needs_reading():
                self._wanted.set()
        else:  # the database may still commit them
            self._wanted.set()
            self._later = asyncio.get_running_loop().call_later(UNSURE_S, self._wanted.set)

    def _needs_reading(self) -> bool:
        """Return whether the outbox may have rows that were not handed on; the rows before them are discarded."""
        while self._last + 1 in self._handed_on:
            self._last += 1
            self._handed_on.remove(self._last)
        self._database.discard_events(self._last)
        return bool(self._handed_on)

    async def _handle(self, batch: Sequence[BusRequest[Any]]) -> None:
        for request in batch:
            try:
                await self.ask(self.worker, request)
            except BirthmarkError as error:
                log.info("bus.told_in_vain", extra={"code": error.code, "request": kind_of_request(request)})

    async def _drain(self) -> None:
        self._is_draining = True
        try:
            await self._drain_for_ever()
        finally:
            self._is_draining = False

    async def _drain_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):  # the poll finds rows without a wakeup
                async with asyncio.timeout(_LOOK_S):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                while rows := await self._database.events_after(self._last, _BATCH):
                    for row in rows:
                        if row["seq"] in self._handed_on:
                            self._handed_on.remove(row["seq"])
                        elif row["seq"] > self._last:  # not handed on while the outbox was read
                            self._deliver_here(row["kind"], row["body"])
                        self._last = max(self._last, row["seq"])
                    await self.wait_for_other_workers(rows)
                    self._database.discard_events(self._last)
            except BirthmarkError as error:  # retry after a database outage: no event may be missed
                log.warning("bus.waiting", extra={"reason": error.explain_cause()})
                await asyncio.sleep(_RETRY_S)
                self._wanted.set()

    async def wait_for_other_workers(self, rows: Sequence[Row]) -> None:
        """Wait until other workers have handled outbox rows; a single worker has none."""

    def _deliver_here(self, name: str, body: str, kinds: Mapping[str, type[Event]] | None = None) -> Event | None:
        """Deliver an outbox event to the local handlers, and return it."""
        if (kind := (kinds or self._kinds).get(name)) is None:
            return None  # without subscribers
        try:
            event = decode_event(body, kind)
        except msgspec.MsgspecError:  # from another version of Birthmark
            log.exception("bus.event_unreadable", extra={"kind": name})
            return None
        self._tell_all(event)
        return event

    def _tell_all(self, event: Event) -> None:
        log.debug("event", extra={"kind": kind_of(type(event)), "entity": event.entity})
        self._announce_here(event)

    def _hand_on(self, event: Event) -> None:
        for handler in self._handlers.get(type(event), ()):  # separately, so that a failure affects no other
            asyncio.get_running_loop().call_soon(handler, event)


def kind_of_request(request: BusRequest[Any]) -> str:
    """Return the tag of a request's type."""
    return str(request.__struct_config__.tag)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
