"""Bus of several workers over core NATS: messages may be lost, and senders that need delivery retry.

Committed events are handled locally at once, then sent to the others. A worker that does not acknowledge in time is
marked in the database. It must read what it missed before its next heartbeat (`Members`), so that a bus outage costs
time but never consistency. NATS stores nothing: its acknowledgment would precede its fsync.

A disconnected connection buffers nothing; senders that still need a message send it again.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from sqlalchemy import and_, bindparam, or_, select

from birthmark.bus.coalesced_database_reads import CoalescedReader
from birthmark.bus.local import LocalBus, kind_of_request
from birthmark.bus.ports import ASK_S, BusAwayError, BusRequest, Members, NoAnswerError, R, WorkerUnreachableError
from birthmark.bus.stale_cache_marks import MissedWorkerMarker
from birthmark.bus.wire import (
    Batch,
    EventAck,
    EventFrame,
    ReplyFrame,
    RequestFrame,
    Sent,
    encode,
    opened,
    read_answer,
    read_sent,
    refusal_of,
)
from birthmark.errors import BirthmarkError
from birthmark.pki.certificates import CertificateInvalidError, pem_bundle
from birthmark.store import Database, Event, statement
from birthmark.store.core_tables import outbox
from birthmark.store.database import Heard, Row
from birthmark.store.event_base_and_codec import encode_event, kind_of, kinds
from birthmark.supervised_tasks import cancel_and_wait, start_supervised, told
from birthmark.untrusted_json_and_text import reason_of

log = logging.getLogger(__name__)

LEASE_S = 1.0
CONNECT_S = 10.0
_PORT = 4222
HEAR_S = 0.3
"""Seconds that other workers have to acknowledge before they are marked."""
_PAUSE_S = 0.05
_MAX_WAITING = 4096
"""Maximum size of the send queue; further messages are dropped, as during an outage."""
_MAX_SERVED = 4096
_PAGE = 500
OPTIONS: dict[str, Any] = {
    "allow_reconnect": True,
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.2,
    "ping_interval": 2,  # detects a dead connection in seconds; the library, in two minutes
    "max_outstanding_pings": 2,
    "pending_size": 0,
    "no_echo": True,
}
"""Connection options that the bus requires."""
_OF_OTHERS = statement(
    select(outbox.c.worker, outbox.c.seq, outbox.c.kind, outbox.c.body)
    .where(
        outbox.c.worker != bindparam("own"),
        or_(
            outbox.c.worker > bindparam("after"),
            and_(outbox.c.worker == bindparam("after"), outbox.c.seq > bindparam("seq")),
        ),
    )
    .order_by(outbox.c.worker, outbox.c.seq)
    .limit(bindparam("limit"))
)


def create_tls_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """Return the TLS context for these PEM files, or None without any.

    `ca` replaces the system's roots; `certificate` and `key` are for a NATS server that requires a client certificate.
    Raise `BusAwayError`.
    """
    if ca is None and certificate is None:
        return None
    try:
        context = ssl.create_default_context(cadata=None if ca is None else pem_bundle(Path(ca).read_bytes()))
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # like ssl errors
        named = ", ".join(one for one in (ca, certificate, key) if one)
        raise BusAwayError(where="this server", reason=f"its files {named}: {reason_of(error)}") from error
    except CertificateInvalidError as error:
        raise BusAwayError(where="this server", reason=f"its file {ca}: {error.explain_cause()}") from error
    return context


async def connected(url: str, tls: ssl.SSLContext | None = None, **options: Any) -> Client:
    """Return a connection to NATS; `tls` is for `tls://`, by default the system's roots.

    Raise `BusAwayError`.
    """
    if tls is not None:
        options["tls"] = tls
    connection, place = Client(), urlsplit(url)
    host, port = place.hostname, place.port or _PORT
    trouble: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def told(error: Exception) -> None:
        log.info("bus.trouble", extra={"reason": _reason_of(error)})
        if not trouble.done():
            trouble.set_result(error)

    connecting = asyncio.ensure_future(connection.connect(url, **OPTIONS, error_cb=told, **options))
    try:
        async with asyncio.timeout(CONNECT_S):  # the library retries forever without a reason
            either: set[asyncio.Future[Any]] = {connecting, trouble}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if trouble.done():
                raise trouble.result()
            await connecting
    except (NatsError, OSError, TimeoutError) as error:
        await cancel_and_wait(connecting)
        await connection.close()
        raise BusAwayError(where=f"{host}:{port}", reason=_reason_of(error)) from error
    return connection


def _reason_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()  # the loop's message repeats the address
    return reason_of(error)


class NatsBus(LocalBus):
    """A `Bus` among the workers of an installation.

    `worker` names this worker's incarnation, which has a `number`.
    """

    def __init__(
        self, database: Database, connection: Client, installation: str, worker: str = "", *, number: int = 0
    ) -> None:
        super().__init__(database, worker)
        self._connection = connection
        self._all = f"birthmark.{installation}.all"
        self._at = f"birthmark.{installation}.at."
        self._number = number
        self._members: Members
        self._requests: dict[str, type[BusRequest[Any]]] = {}
        self._known = kinds()
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_MAX_WAITING)
        self._serving: set[asyncio.Task[None]] = set()
        self._sender: asyncio.Task[None] | None = None
        self._tokens = itertools.count(1)
        self._hearing: dict[int, dict[str, asyncio.Future[None]]] = {}
        self._others = CoalescedReader(self._read_others)
        self._markings: dict[str, MissedWorkerMarker] = {}
        self._in_flight: dict[int, asyncio.Future[bool]] = {}  # row numbers, and whether every other worker handled it

    @property
    def is_connected(self) -> bool:
        """Return whether the bus is connected."""
        return bool(self._connection.is_connected)

    async def join(self, members: Members) -> None:
        """Subscribe to the other workers' messages; then call `start`."""
        self._members = members
        with contextlib.suppress(NatsError):  # requests keep their order once an inbox subscription exists
            await self._connection.request(f"{self._all}.nobody", b"", timeout=HEAR_S)
        await self._connection.subscribe(self._all, cb=self._dispatch)
        await self._connection.subscribe(self._at + self.worker, cb=self._dispatch)
        for _ in range(2):  # the library's PING overtakes unwritten data: the first writes it
            await self._connection.flush()
        self._sender = start_supervised("the bus", self._send)
        self._database.sharing.join(self._number, self._commit_confirmed, lambda: members.is_fresh)

    async def stop(self) -> None:
        self._database.sharing.leave()
        await super().stop()
        await cancel_and_wait(*self._serving, self._sender)

    async def catch_up(self) -> None:
        """Handle events of other workers' commits that were not sent to all, and notify `on_missed` handlers."""
        after, seq = "", 0
        while True:
            rows = await self._database.all(_OF_OTHERS, own=self._database.worker, after=after, seq=seq, limit=_PAGE)
            for row in rows:
                self._heard_elsewhere(row["kind"], row["body"])
                after, seq = row["worker"], row["seq"]
            if len(rows) < _PAGE:
                break
        for missed in self._missed:
            await missed()
        await self._handled()
        await self._database.sharing.has_read()

    # ---- module interface

    def announce(self, event: Event) -> None:
        self._announce_here(event)
        self._put(self._all, EventFrame(((kind_of(type(event)), encode_event(event)),)))

    async def confirm(self, event: Event) -> None:
        self._announce_here(event)
        await self._handled()
        await self._confirmed([(kind_of(type(event)), encode_event(event))])

    def serve(self, kind: type[BusRequest[R]], handler: Callable[[Any], Awaitable[R]]) -> None:
        super().serve(kind, handler)
        self._requests[str(kind.__struct_config__.tag)] = kind

    async def ask(self, worker: str, request: BusRequest[R], timeout_s: float = ASK_S) -> R:
        if worker == self.worker:
            return await super().ask(worker, request, timeout_s)
        facts = {"worker": worker, "request": kind_of_request(request)}
        asked = encode(RequestFrame(facts["request"], encode(request), timeout_s))
        until = asyncio.get_running_loop().time() + timeout_s
        while True:
            try:
                answer: R = opened(await self._request_once(worker, asked, timeout_s, facts), facts)
            except NoRespondersError:  # not delivered: proves nothing about the lease
                if not await self._lives(worker):
                    raise WorkerUnreachableError(worker=worker) from None
                if asyncio.get_running_loop().time() >= until:
                    raise NoAnswerError(reason="no response", **facts) from None
                await asyncio.sleep(_PAUSE_S)  # it may be rejoining the bus
            else:
                return answer

    async def _request_once(self, worker: str, asked: bytes, timeout_s: float, facts: dict[str, str]) -> ReplyFrame:
        """Send a request once. Raise `NoRespondersError` if no worker received it."""
        answering = asyncio.ensure_future(self._connection.request(self._at + worker, asked, timeout=timeout_s + 1.0))
        try:
            while not (await asyncio.wait({answering}, timeout=HEAR_S))[0]:
                if not await self._lives(worker):  # otherwise its end shows only at the timeout
                    raise NoAnswerError(reason="it has ended", **facts)
            return read_answer((await answering).data)
        except NoRespondersError:
            raise
        except TimeoutError as error:
            raise NoAnswerError(reason=f"no response within {timeout_s:g} s", **facts) from error
        except (NatsError, OSError) as error:
            raise NoAnswerError(reason=f"the bus is not available: {reason_of(error)}", **facts) from error
        finally:
            answering.cancel()
            del answering  # breaks the cycle from the error's trace to this request

    def tell(self, worker: str, batch: Sequence[BusRequest[R]]) -> None:
        if worker == self.worker:
            super().tell(worker, batch)
            return
        self._put(self._at + worker, Batch(tuple((kind_of_request(one), encode(one)) for one in batch)))

    # ---- outgoing

    def _needs_reading(self) -> bool:
        return True  # other workers have to handle the rows, too

    async def wait_for_other_workers(self, rows: Sequence[Row]) -> None:
        """Wait until every other worker has handled these rows, or is dead."""
        left = []
        for row in rows:
            in_flight = self._in_flight.get(row["seq"])
            if in_flight is None or not await asyncio.shield(in_flight):
                left.append((row["kind"], row["body"]))
            self._in_flight.pop(row["seq"], None)
        if left:
            await self._confirmed(left, is_whole=True)

    def _commit_confirmed(self, heard: Sequence[Heard]) -> Awaitable[None]:
        """Return an awaitable that completes when no other worker uses state from before a commit."""
        loop = asyncio.get_running_loop()
        self._in_flight |= (in_flight := {number: loop.create_future() for number, _ in heard})
        return self._until_confirmed(heard, in_flight)

    async def _until_confirmed(self, heard: Sequence[Heard], in_flight: Mapping[int, asyncio.Future[bool]]) -> None:
        has_all = False
        try:
            has_all = await self._confirmed([(kind_of(type(event)), encode_event(event)) for _, event in heard])
        finally:
            for one in in_flight.values():
                one.set_result(has_all)

    async def _confirmed(self, events: Sequence[tuple[str, str]], *, is_whole: bool = False) -> bool:
        """Wait until no worker uses earlier state; return whether all have handled the events.

        With `is_whole`, do not return earlier than that.
        """
        others = await self._others()
        if not others:
            return True
        token, loop = next(self._tokens), asyncio.get_running_loop()
        hearing = self._hearing[token] = {worker: loop.create_future() for worker in others}
        try:
            self._put(self._all, EventFrame(tuple(events), self.worker, token))
            await asyncio.wait(hearing.values(), timeout=HEAR_S)
            deaf = [
                self._confirm_by_database(worker, heard, is_whole)
                for worker, heard in hearing.items()
                if not heard.done()
            ]
            return all(await asyncio.gather(*deaf))
        finally:
            del self._hearing[token]

    async def _confirm_by_database(self, worker: str, heard: "asyncio.Future[None]", is_whole: bool) -> bool:  # noqa: FBT001 - a part of the above
        """Mark a worker that did not acknowledge.

        Wait until its state is invalid, and return whether it has read.
        """
        if worker not in self._markings:
            self._markings[worker] = MissedWorkerMarker(self._members, worker, LEASE_S, _PAUSE_S)
        reading = asyncio.get_running_loop().create_task(self._markings[worker].read(is_whole=is_whole))
        try:
            either: set[asyncio.Future[Any]] = {heard, reading}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return heard.done() or reading.result()
        finally:
            reading.cancel()

    async def _read_others(self) -> Sequence[str]:
        while True:
            try:
                found = await self._members.others()
            except BirthmarkError:
                await asyncio.sleep(_PAUSE_S)
                continue
            for gone in self._markings.keys() - set(found):
                if not self._markings[gone].is_asked:
                    del self._markings[gone]
            return found

    async def _lives(self, worker: str) -> bool:
        try:
            return await self._members.is_alive(worker)
        except BirthmarkError:
            return True

    def _put(self, subject: str, sent: Sent) -> None:
        try:
            self._waiting.put_nowait((subject, encode(sent)))
        except asyncio.QueueFull:
            log.info("bus.lost", extra={"subject": subject})

    async def _send(self) -> None:
        while True:
            subject, data = await self._waiting.get()
            try:
                await self._connection.publish(subject, data)
            except (NatsError, OSError) as error:
                log.info("bus.lost", extra={"subject": subject, "reason": type(error).__name__})
            finally:
                self._waiting.task_done()

    # ---- incoming

    async def _dispatch(self, message: Msg) -> None:
        """Dispatch a message in order of arrival; slow work gets its own task."""
        try:
            sent = read_sent(message.data)
        except msgspec.MsgspecError:  # from another version of Birthmark
            log.exception("bus.unreadable")
            return
        if isinstance(sent, EventAck):
            heard = self._hearing.get(sent.token, {}).get(sent.worker)
            if heard is not None and not heard.done():
                heard.set_result(None)
            return
        if isinstance(sent, EventFrame):
            for kind, body in sent.events:
                self._heard_elsewhere(kind, body)
            if sent.token:
                self._serve(self._acknowledge(sent))
            return
        self._serve(self._answered(sent, message))

    def _serve(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._serving) >= _MAX_SERVED:  # the sender retries
            work.close()
            log.info("bus.lost")
            return
        task = asyncio.get_running_loop().create_task(told("bus", work))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _acknowledge(self, sent: EventFrame) -> None:
        """Acknowledge after the handlers have run and the data that they reload is read."""
        await self._handled()
        await self._database.sharing.has_read()
        self._put(self._at + sent.by, EventAck(sent.token, self.worker))

    def _heard_elsewhere(self, kind: str, body: str) -> None:
        if kind not in self._known:  # classes of modules loaded since
            self._known = kinds()
        event = self._deliver_here(kind, body, self._known)
        if event is not None:
            self._database.sharing.hear([(0, event)])

    async def _answered(self, sent: RequestFrame | Batch, message: Msg) -> None:
        if isinstance(sent, Batch):
            for kind, body in sent.requests:
                try:
                    await self._handle((self._opened_request(kind, body),))
                except NoAnswerError as error:
                    log.info("bus.told_in_vain", extra={"code": error.code, "request": kind})
            return
        answer = await self._answer(sent)
        with contextlib.suppress(NatsError, OSError):  # the sender retries
            await message.respond(encode(answer))

    async def _answer(self, frame: RequestFrame) -> ReplyFrame:
        try:
            reply = await super().ask(self.worker, self._opened_request(frame.kind, frame.body), frame.timeout_s)
        except BirthmarkError as error:
            return refusal_of(error)
        return ReplyFrame(str(reply.__struct_config__.tag), encode(reply))

    def _opened_request(self, kind: str, body: bytes) -> BusRequest[Any]:
        if (known := self._requests.get(kind)) is None:
            raise NoAnswerError(reason="it does not provide this service", worker=self.worker, request=kind)
        request: BusRequest[Any] = msgspec.msgpack.decode(body, type=known)
        return request

    async def _handled(self) -> None:
        """Return after the handlers of the dispatched events."""
        handled = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(handled.set_result, None)
        await handled
