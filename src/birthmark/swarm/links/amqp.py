"""AMQP for simulated devices: the client's engine on a lightweight stream, with one link for telemetry.

The certificate of the TLS connection identifies the device, so there is no SASL layer and no token.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from birthmark.amqp.client_engine import AmqpClientEngine
from birthmark.amqp.errors import AmqpCondition, AmqpError
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionClosed,
    ConnectionOpened,
    CreditChanged,
    DeliverySettled,
    LinkDetached,
    SessionEnded,
)
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.message import AmqpMessage, DataBody, write_message
from birthmark.amqp.performatives import AcceptedOutcome, Outcome, RejectedOutcome
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Symbol
from birthmark.device_transports.errors import CLOSED_HERE, AmqpRefusedError, LinkLostError, LinkTimeoutError
from birthmark.device_transports.urls import TIMEOUT_S
from birthmark.errors import BirthmarkError
from birthmark.iothub.client import AGENT
from birthmark.swarm.links.low_memory_tls_stream import ByteStream, Dialer

_LINK_NAME = "telemetry"
_PROPERTIES = {Symbol("com.microsoft:client-version"): AGENT}
_REFUSALS = frozenset({AmqpCondition.UNAUTHORIZED_ACCESS, AmqpCondition.NOT_FOUND})
_REASON_CHARS = 100


@lru_cache(maxsize=16)
def limits_of(idle_timeout_s: int) -> AmqpLimits:
    """Return limits that all devices with this idle timeout share."""
    return AmqpLimits(idle_timeout_ms=idle_timeout_s * 1000, max_sessions=1, max_links=1, max_unsettled=1)


class SwarmAmqp:
    """A device's connection; one task drives it."""

    __slots__ = (
        "_device_id",
        "_dialer",
        "_end",
        "_engine",
        "_host",
        "_idle",
        "_link",
        "_pem",
        "_port",
        "_refusal",
        "_sent_id",
        "_stream",
        "_waiting",
        "now",
    )

    def __init__(self, dialer: Dialer, pem: Path | None) -> None:
        self._dialer, self._pem = dialer, pem
        self._host, self._port, self._device_id = "", 0, ""
        self._engine: AmqpClientEngine | None = None
        self._stream: ByteStream | None = None
        self._link: SenderLink | None = None
        self._waiting: asyncio.Future[Outcome | None] | None = None  # for credit, or for the outcome of `_sent_id`
        self._sent_id: int | None = None
        self._idle: asyncio.Future[None] | None = None
        self._end: BirthmarkError | None = None
        self._refusal = ""
        self.now: Callable[[], float] = asyncio.get_running_loop().time

    async def connect(self, host: str, port: int, device_id: str, idle_timeout_s: int) -> None:
        """Connect, and attach the link for telemetry. Raise the error that ended the connection."""
        self._host, self._port, self._device_id = host, port, device_id
        self._stream = await self._dialer.open(host, port, self._pem)
        self._engine = AmqpClientEngine(host, container_id=device_id, limits=limits_of(idle_timeout_s))
        self._engine.begin(self.now())
        self._stream.listen(self._receive, self._finish)
        try:
            await self._answer()
        except BaseException:
            await self.close()
            raise

    async def send(self, payload: bytes) -> None:
        """Send a message and wait for its outcome; see `take_refusal`. Raise the error that ended the connection."""
        self._check_alive()
        link = self._link
        assert link is not None  # noqa: S101 (`connect` waits for it)
        while link.capacity < 1:
            await self._answer()
        self._sent_id = link.send(write_message(AmqpMessage(DataBody((payload,)))))
        try:
            outcome = await self._answer()
        finally:
            self._sent_id = None
        if not isinstance(outcome, AcceptedOutcome):
            self._refusal = _reason_of(outcome)

    def take_refusal(self) -> str:
        """Return and forget why the last message was rejected; empty if it was not."""
        refusal, self._refusal = self._refusal, ""
        return refusal

    @property
    def has_message(self) -> bool:
        """Whether a message is stored; the device attaches no link that receives."""
        return False

    async def idle(self, until: float) -> None:
        """Wait until that loop time. Raise the error that ended the connection."""
        while (engine := self._engine) is not None and (left := until - self.now()) > 0:
            deadline = engine.next_deadline
            await self._wait(left if deadline is None else min(left, max(0.0, deadline - self.now())))
            if self._engine is not None:
                self._process(engine.check_deadlines(self.now()))
        self._check_alive()

    async def close(self) -> None:
        """Close the connection with CLOSE, without waiting for the answer."""
        if self._engine is not None:
            self._engine.close()
            self._flush()
        self._finish(LinkLostError(host=self._host, reason=CLOSED_HERE))

    def cut(self) -> None:
        """Cut the connection without CLOSE, as a network failure does."""
        if self._stream is not None:
            self._stream.close(politely=False)
        self._finish(LinkLostError(host=self._host, reason=CLOSED_HERE))

    # ---- inside

    async def _answer(self) -> Outcome | None:
        """Send what is written, and wait for the peer's answer."""
        self._check_alive()
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._waiting = future
        self._flush()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise LinkTimeoutError(host=self._host, port=self._port, seconds=f"{TIMEOUT_S:g}") from error
        finally:
            self._waiting = None

    async def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        future = self._idle = loop.create_future()
        timer = loop.call_later(seconds, _release, future)
        try:
            await future
        finally:
            self._idle = None
            timer.cancel()

    def _check_alive(self) -> None:
        if self._end is not None:
            raise self._end

    def _flush(self) -> None:
        if self._stream is not None and self._engine is not None and (data := self._engine.data_to_send(self.now())):
            self._stream.write(data)

    def _receive(self, data: bytes) -> None:
        if self._engine is not None:
            self._process(self._engine.receive_data(data, self.now()))

    def _process(self, events: list[AmqpEvent]) -> None:
        for event in events:
            self._take(event)
        self._flush()
        if self._end is not None:
            self._finish(self._end)

    def _take(self, event: AmqpEvent) -> None:
        match event:
            case ConnectionOpened():
                assert self._engine is not None  # noqa: S101 (its event)
                address = f"/devices/{self._device_id}/messages/events"
                self._link = self._engine.begin_session().attach_sender(_LINK_NAME, address, properties=_PROPERTIES)
            case CreditChanged(link=link) if link.capacity and self._sent_id is None:
                self._resolve(None)
            case DeliverySettled(link=link, delivery_ids=delivery_ids, outcome=outcome):
                if not event.settled:
                    link.confirm(delivery_ids)
                if self._sent_id in delivery_ids:
                    self._resolve(outcome)
            case LinkDetached(error=error) | SessionEnded(error=error) | ConnectionClosed(error=error):
                self._end = self._end or self._error_of(error)
            case _:
                pass

    def _resolve(self, outcome: Outcome | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(outcome)

    def _error_of(self, error: AmqpError | None) -> BirthmarkError:
        if error is None:
            return LinkLostError(host=self._host, reason="the server closed it")
        if error.condition in _REFUSALS:
            return AmqpRefusedError(host=self._host, client_id=self._device_id, condition=error.condition)
        return LinkLostError(host=self._host, reason=f"{error.condition}: {error.description}"[:_REASON_CHARS])

    def _finish(self, error: BirthmarkError) -> None:
        """Release the connection; the first error is kept."""
        self._end = end = self._end or error
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._engine is not None:
            self._engine.discard()
            self._engine = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(end)
        if self._idle is not None:
            _release(self._idle)


def _reason_of(outcome: Outcome | None) -> str:
    """Return the condition of a rejected message, or the name of another outcome."""
    if isinstance(outcome, RejectedOutcome):
        return "amqp.rejected" if outcome.error is None else outcome.error.condition[:_REASON_CHARS]
    return "amqp.no_outcome" if outcome is None else f"amqp.{type(outcome).__name__.removesuffix('Outcome').lower()}"


def _release(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
