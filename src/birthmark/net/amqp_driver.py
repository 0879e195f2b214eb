"""Drives one AMQP engine over a byte transport and passes its events to a service's side of the connection.

A service's `handle` may return at once or return an awaitable. While an awaitable runs, no further event of this
connection is handled. Events therefore keep their order, and a slow decision delays only its own peer. All output of a
loop iteration is sent in one write.

A peer is unauthenticated until the service calls `mark_authenticated`; it has `AUTHENTICATION_S` for that.

Only this module catches `Exception`: a bug in a service is logged and ends one connection.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpCondition, AmqpError
from birthmark.amqp.events import AmqpEvent, ConnectionClosed
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.sasl import SaslCode
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.net.accepted_connection import PlainTransport
from birthmark.net.fair_scheduler import SLICE_S, Backlog, now
from birthmark.net.mqtt_driver import MqttTransport
from birthmark.net.quota_key import owner_of
from birthmark.net.send_buffer_quota import SMALL_BYTES
from birthmark.net.tls import NO_PEER, TlsPeer

log = logging.getLogger(__name__)

AUTHENTICATION_S = 30.0
NEXT_TOKEN_S = 75.0
"""Time for the next token after a refused one: Azure's SDK for Node.js waits 30 s, and longer after each."""
MAX_UNSENT_BYTES = 128 * 1024
"""Output that may wait for a slow peer before its links stop sending."""
_LIMITS = AmqpLimits()


class AmqpProtocolError(InvalidRequestError):
    """The client violated the protocol."""

    code = "amqp.protocol_error"
    message = "The client violated the AMQP protocol: {reason}"
    cause = "The client violated the AMQP protocol: {reason}."
    fix = (
        "Check the client library; docs/reference/limits.md lists the limits. To show the endpoints and protocols of "
        "this server: `birthmark env --format json`"
    )
    reason: str


class AmqpServiceConnection(Protocol):
    """A service's side of one connection. A raised `BirthmarkError` is recorded and closes the connection."""

    def handle(self, event: AmqpEvent) -> Awaitable[None] | None:
        """Handle an event of the peer; the last one is `ConnectionClosed`."""
        ...

    def writable(self) -> None:
        """Continue to send: the peer has read what waited."""
        ...

    def check_deadlines(self, at: float) -> float | None:
        """Handle what has expired, and return when to call again, in the seconds of `at`."""
        ...

    def closed(self) -> None:
        """Release everything: the transport is closed."""
        ...


Report = Callable[[BirthmarkError, str, TlsPeer], str]
"""Records a refusal with the address and the certificate of the peer, and returns its tracking ID."""
MakeConnection = Callable[["AmqpDriver"], AmqpServiceConnection]


class AmqpDriver(asyncio.Protocol):
    """Server-side AMQP connection."""

    __slots__ = (
        "_backlog",
        "_busy",
        "_clock",
        "_events",
        "_expires_at",
        "_has_refused_token",
        "_is_dirty",
        "_is_lost",
        "_is_over",
        "_is_paused",
        "_is_refused",
        "_owner",
        "_report",
        "_service",
        "_task",
        "_transport",
        "_waits_for_peer",
        "address",
        "engine",
        "peer",
    )

    def __init__(
        self,
        make: MakeConnection,
        report: Report,
        clock: Clock,
        peer: TlsPeer = NO_PEER,
        limits: AmqpLimits = _LIMITS,
    ) -> None:
        self._report = report
        self._clock = clock
        self._backlog = Backlog.running()
        self._events: deque[AmqpEvent] = deque()
        self._task: asyncio.Task[None] | None = None
        self._busy = self._is_dirty = self._is_paused = self._is_lost = self._is_over = False
        self._waits_for_peer = self._is_refused = self._has_refused_token = False
        self._transport: MqttTransport
        self._owner = ""
        self._expires_at: float | None = None
        self.engine = AmqpEngine(limits)
        self.peer = peer
        self.address = ""
        self._service = make(self)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, PlainTransport)  # noqa: S101 - the only type from the mux
        self.start(transport.connection, transport.connection.address)

    def start(self, transport: MqttTransport, address: str) -> None:
        """Start on a connected transport."""
        self._transport = transport
        self.address = address
        self._owner = owner_of(None, address)
        at = self._clock.monotonic()
        self._expires_at = at + AUTHENTICATION_S
        self.engine.begin(at)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._events.extend(self.engine.receive_data(data, self._clock.monotonic()))
        if not self._busy:
            self._process()
        if not self._is_over:
            self._transport.record_incomplete(self.engine.buffered)
            self._hold_or_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, BirthmarkError) and not self._is_over:
            self._report(exc, self.address, self.peer)
        self._is_lost = True
        if not self._busy:
            self._finish()

    def pause_writing(self) -> None:
        self._waits_for_peer = True

    def resume_writing(self) -> None:
        self._waits_for_peer = False
        self._service.writable()

    # For services.

    @property
    def is_over(self) -> bool:
        return self._is_over

    @property
    def owner(self) -> str:
        """Owner for scheduling; an unauthenticated peer is scheduled by its address."""
        return self._owner

    @property
    def can_write(self) -> bool:
        """Whether links should send more: the peer reads, and little output waits."""
        return not (self._is_over or self._waits_for_peer or self.engine.unsent > MAX_UNSENT_BYTES)

    def monotonic(self) -> float:
        """Return the time of deadlines, in seconds."""
        return self._clock.monotonic()

    def millis(self) -> int:
        """Return the time in milliseconds since 1970."""
        return self._clock.micros() // 1000

    def mark_authenticated(self, owner: str) -> None:
        """Count this connection as the `owner`'s from now on."""
        if self._expires_at is not None and not self._is_over:
            self._expires_at = None
            self._owner = owner
            self._transport.mark_authenticated(owner)
            self._watch()

    def allow_next_token(self) -> None:
        """Give a client whose token was refused, and the refusal recorded, time for another one."""
        if self._expires_at is not None:
            self._expires_at = self._clock.monotonic() + NEXT_TOKEN_S
            self._has_refused_token = True
            self._watch()

    def expect_token(self) -> None:
        """Close the connection unless it is authenticated again in time: nothing on it is authorized any more."""
        if not self._is_over:
            self._expires_at = self._clock.monotonic() + NEXT_TOKEN_S
            self._has_refused_token = True
            self._watch()

    def note(self, error: BirthmarkError) -> str:
        """Record a refusal that does not end the connection, and return its tracking ID."""
        return self._report(error, self.address, self.peer)

    def refuse_sasl(self, error: BirthmarkError | None) -> None:
        """Record a refusal of the presented identity, and end the connection; None for a recorded one."""
        if error is not None:
            self.note(error)
        self._is_refused = True
        self.engine.refuse_sasl(SaslCode.SYS_TEMPORARY if isinstance(error, UnavailableError) else SaslCode.AUTH)

    def wrote(self) -> None:
        """Send the engine's output at the end of this loop iteration."""
        if not self._is_dirty:
            self._is_dirty = True
            asyncio.get_running_loop().call_soon(self._flush)
        if self.engine.unsent >= SMALL_BYTES:
            self._flush()
            self._is_dirty = True  # its turn comes anyway

    def resume_events(self) -> None:
        """Handle the events that waited for a decision."""
        self._events.extend(self.engine.next_events())
        if not self._busy:
            self._process()

    def close(self, error: AmqpError | None = None) -> None:
        """Close the connection with an error for the peer."""
        if not self._is_over:
            self.engine.close(error)
            self._end()

    def refuse(self, error: BirthmarkError) -> None:
        """Record the refusal and close the connection."""
        if not self._is_over:
            self.note(error)
            self.close(AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, str(error)))

    async def wait_for_turn(self) -> None:
        """Wait for this peer's turn."""
        await self._backlog.wait_for_turn(self._owner)

    # Inside.

    def _process(self) -> None:
        """Handle events for at most one time slice."""
        since = now()
        try:
            while not self._is_over:
                if not self._events:
                    self._events.extend(self.engine.next_events())
                    if not self._events:
                        break
                event = self._events.popleft()
                waiting = self._service.handle(event)
                if isinstance(event, ConnectionClosed):
                    self._told(event)
                    break
                if waiting is not None:
                    self._busy = True
                    self._task = self._backlog.start(self._await(waiting), waiting, self)
                    break
                if self._events and now() - since > SLICE_S:
                    self._busy = True
                    self._backlog.add(self._process_rest, self._owner)
                    break
        except BirthmarkError as error:
            self.refuse(error)
        except Exception:
            log.exception("amqp.bug", extra={"address": self.address})
            self.close(AmqpError(AmqpCondition.INTERNAL_ERROR, "the server failed"))
        if not self._is_over:
            self.wrote()

    def _told(self, event: ConnectionClosed) -> None:
        """Record why the engine closed the connection, and close the transport."""
        if event.error is not None and not event.by_peer and not self._is_refused:
            self.note(AmqpProtocolError(reason=event.error.description))
        self._end()

    async def _await(self, waiting: Awaitable[None]) -> None:
        try:
            await self._backlog.wait_for_turn(self._owner)
            await waiting
        except BirthmarkError as error:
            self.refuse(error)
        except Exception:
            log.exception("amqp.bug", extra={"address": self.address})
            self.close(AmqpError(AmqpCondition.INTERNAL_ERROR, "the server failed"))
        finally:
            self._task = None
        self._process_rest()

    def _process_rest(self) -> None:
        self._busy = False
        if self._is_lost:
            self._finish()
        elif not self._is_over:
            self._process()
            self._hold_or_resume()

    def _hold_or_resume(self) -> None:
        """Stop reading while events wait or the engine holds much back."""
        is_held = self._busy or not self.engine.wants_data
        if is_held and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        elif self._is_paused and not is_held:
            self._is_paused = False
            self._transport.resume_reading()

    def _watch(self) -> None:
        """Check deadlines when the next one may have passed."""
        if self._is_over:
            return
        at = self._clock.monotonic()
        known = (self.engine.next_deadline, self._expires_at, self._service.check_deadlines(at))
        wait = min([one - at for one in known if one is not None], default=5.0)
        self._transport.set_deadline(max(0.05, min(wait, 60.0)), self._on_deadline)

    def _on_deadline(self) -> None:
        at = self._clock.monotonic()
        if self._expires_at is not None and at >= self._expires_at:
            if self._has_refused_token:
                self.close(AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "no token was accepted"))
                return
            self.refuse(AmqpProtocolError(reason=f"it did not authenticate within {AUTHENTICATION_S:.0f} s"))
            return
        self._events.extend(self.engine.check_deadlines(at))
        if not self._busy:
            self._process()
        self._watch()

    def _flush(self) -> None:
        self._is_dirty = False
        if data := self.engine.data_to_send(self._clock.monotonic()):
            self._transport.write(data)

    def _end(self) -> None:
        """Send the last output and close the transport."""
        if not self._is_over:
            with contextlib.suppress(Exception):
                self._flush()
            self._transport.close()
            self._finish()

    def _finish(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._events.clear()
            self._service.closed()
            self.engine.discard()  # references in a circle would keep its buffers for long
