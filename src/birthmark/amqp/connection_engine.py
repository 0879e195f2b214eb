"""The part of an AMQP 1.0 connection that both ends share: frames, deadlines, and the end of the connection.

No call raises for the peer's bytes: after a violation, `ConnectionClosed` is the last event and CLOSE the last frame.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from birthmark.amqp.control_allowance import ControlAllowance
from birthmark.amqp.errors import AmqpCondition, AmqpError, LocalProtocolError
from birthmark.amqp.events import AmqpEvent, ConnectionClosed, ConnectionOpened
from birthmark.amqp.framer import AMQP_FRAME, EMPTY_FRAME, MIN_MAX_FRAME_BYTES, AmqpFramer, Frame, encode_frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    Close,
    Open,
    Performative,
    Transfer,
    decode_performative,
    encode_performative,
    error_info_of,
    without_description,
)
from birthmark.amqp.session import Session

_HELD_FACTOR = 2  # a caller that respects `wants_data` exceeds the limit by one read at most


class AmqpState(StrEnum):
    """State of a connection."""

    HEADER = "header"
    SASL = "sasl"
    SASL_DECISION = "sasl decision"
    SASL_RESPONSE = "sasl response"
    HEADER_AFTER_SASL = "header after sasl"
    OPEN = "open"
    OPEN_DECISION = "open decision"
    OPENED = "opened"
    CLOSING = "closing"
    CLOSED = "closed"


_SASL = frozenset({AmqpState.SASL, AmqpState.SASL_RESPONSE})
BEFORE_OPEN = frozenset({AmqpState.OPEN, AmqpState.OPEN_DECISION})


class ConnectionEngine(ABC):
    """Connection state machine without the start, which differs between the ends."""

    __slots__ = (
        "_began",
        "_closed_at",
        "_container_id",
        "_events",
        "_framer",
        "_last_received",
        "_last_sent",
        "_now",
        "_peer_idle_s",
        "_session_count",
        "_used_sasl",
        "_wrote_open",
        "allowance",
        "held_bytes",
        "incomplete_bytes",
        "limits",
        "link_count",
        "max_frame_bytes",
        "out",
        "queued_bytes",
        "sessions",
        "sessions_to_flush",
        "sessions_with_held_frames",
        "state",
    )

    def __init__(self, limits: AmqpLimits, container_id: str) -> None:
        self.limits = limits
        self.state = AmqpState.HEADER
        self.out = bytearray()
        self.max_frame_bytes = MIN_MAX_FRAME_BYTES  # of the frames that we send
        self.allowance = ControlAllowance(limits.max_control_frames, limits.control_frames_per_s)
        self.held_bytes = self.incomplete_bytes = self.queued_bytes = self.link_count = 0
        self.sessions: dict[int, Session] = {}
        self.sessions_to_flush: set[Session] = set()
        self.sessions_with_held_frames: set[Session] = set()
        self._container_id = container_id
        self._framer = AmqpFramer()
        self._events: list[AmqpEvent] = []
        self._session_count = 0
        self._used_sasl = False
        self._wrote_open = False
        self._peer_idle_s = 0.0
        self._began: float | None = None
        self._now = 0.0
        self._last_received = 0.0
        self._last_sent = 0.0
        self._closed_at = 0.0

    # ---- bytes

    def begin(self, now: float) -> None:
        """Start the timeout to OPEN at connection time, so that it also applies to silent peers."""
        if self._began is None:
            self._began = self._now = self._last_received = self._last_sent = now

    def receive_data(self, data: bytes, now: float) -> list[AmqpEvent]:
        """Accept received bytes and return the events in them."""
        self.begin(now)
        self._now = self._last_received = now
        if self.state is not AmqpState.CLOSED:
            self.allowance.update(now)
            self._framer.receive_data(data)
        return self.next_events()

    def next_events(self) -> list[AmqpEvent]:
        """Return the events of frames that waited for a decision."""
        if self.state is not AmqpState.CLOSED:
            try:
                for session in [*self.sessions_with_held_frames]:
                    session.resume()
                self._read()
            except AmqpError as error:
                self._fail(error)
        events, self._events = self._events, []
        return events

    @property
    def wants_data(self) -> bool:
        """Whether the caller should read from the peer; False while too much waits for decisions."""
        return (
            self.state is not AmqpState.CLOSED and self.held_bytes + self._framer.buffered <= self.limits.max_held_bytes
        )

    @property
    def buffered(self) -> int:
        """Received bytes that are incomplete or wait for a decision, and the memory of sessions without links.

        A client may begin many sessions before it authenticates.
        """
        unused = max(0, len(self.sessions) - self.link_count)
        return self.held_bytes + self.incomplete_bytes + self._framer.buffered + unused * self.limits.session_bytes

    @property
    def unsent(self) -> int:
        """Number of bytes that `data_to_send` would return, without dispositions and credit."""
        return len(self.out)

    def data_to_send(self, now: float | None = None) -> bytes:
        """Return and remove the bytes to send, also after `ConnectionClosed`."""
        while self.sessions_to_flush:
            self.sessions_to_flush.pop().flush()
        if not self.out:
            return b""
        self._last_sent = self._now if now is None else now
        data = bytes(self.out)
        self.out.clear()
        return data

    def discard(self) -> None:
        """Release everything: the transport is closed, so nothing is received or sent any more."""
        self.state = AmqpState.CLOSED
        self._close_sessions()
        self._framer = AmqpFramer()
        self._events.clear()
        self.out.clear()

    # ---- time

    @property
    def next_deadline(self) -> float | None:
        """Time at which to call `check_deadlines`, in the seconds of `now`; None for never."""
        if self._began is None or self.state is AmqpState.CLOSED:
            return None
        if self.state is AmqpState.CLOSING:
            return self._closed_at + self.limits.close_timeout_s
        if self.state is not AmqpState.OPENED:
            return self._began + self.limits.open_timeout_s
        deadlines = [*self._silence_deadline(), *self._heartbeat_deadline()]
        return min(deadlines) if deadlines else None

    def _silence_deadline(self) -> list[float]:
        """Return when the peer was silent for twice the time that we announced."""
        idle_s = self.limits.idle_timeout_ms / 1000
        return [self._last_received + 2 * idle_s] if idle_s else []

    def _heartbeat_deadline(self) -> list[float]:
        """Return when half of the peer's idle timeout is over."""
        return [self._last_sent + max(self._peer_idle_s / 2, self.limits.min_heartbeat_s)] if self._peer_idle_s else []

    def check_deadlines(self, now: float) -> list[AmqpEvent]:
        """Send an empty frame, or close a connection that is silent; early calls do nothing."""
        deadline = self.next_deadline
        if deadline is None or now < deadline:
            return []
        self._now = now
        if self.state is AmqpState.CLOSING:
            self._end(None, by_peer=False)
        elif self.state is not AmqpState.OPENED:
            self._fail(AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, "OPEN was not received in time"))
        elif any(now >= one for one in self._silence_deadline()):
            self._fail(AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, "the peer was silent for too long"))
        else:
            self.out += EMPTY_FRAME
            self._last_sent = now
        events, self._events = self._events, []
        return events

    # ---- for sessions

    def write_frame(self, channel: int, body: bytes) -> None:
        if self.state is AmqpState.CLOSED:
            return
        if len(body) + 8 > self.max_frame_bytes:
            told = f"a frame of {len(body) + 8} bytes exceeds the peer's maximum"
            self._fail(AmqpError(AmqpCondition.FRAME_SIZE_TOO_SMALL, told))
            return
        self.out += encode_frame(channel, body)

    def emit(self, event: AmqpEvent) -> None:
        if self.state is not AmqpState.CLOSED:
            self._events.append(event)

    @abstractmethod
    def forget_session(self, channel: int) -> None:
        """Forget a session that has ended."""

    # ---- reading

    def _read(self) -> None:
        while True:
            match self.state:
                case AmqpState.HEADER | AmqpState.HEADER_AFTER_SASL:
                    header = self._framer.next_header()
                    if header is None:
                        return
                    self._receive_header(header)
                case AmqpState.SASL_DECISION | AmqpState.OPEN_DECISION | AmqpState.CLOSED:
                    break
                case _ if self.held_bytes > self.limits.max_held_bytes:  # the rest waits as it was received
                    break
                case _:
                    frame = self._framer.next_frame()
                    if frame is None:
                        break
                    self._receive_frame(frame)
        if self.held_bytes + self._framer.buffered > _HELD_FACTOR * self.limits.max_held_bytes:
            told = "too many bytes wait for a decision"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)

    @abstractmethod
    def _receive_header(self, header: bytes) -> None:
        """Answer the protocol header of the peer."""

    def _receive_frame(self, frame: Frame) -> None:
        if self.state in _SASL:
            self._receive_sasl(frame)
            return
        if frame.type != AMQP_FRAME:
            raise AmqpError(AmqpCondition.FRAMING_ERROR, f"a frame has type {frame.type}")
        if not frame.body:
            self._spend()
            return
        performative, payload_offset = decode_performative(frame.body)
        if not isinstance(performative, Transfer):
            self._spend()
            if payload_offset != len(frame.body):
                raise AmqpError(AmqpCondition.FRAMING_ERROR, "a frame has bytes after its performative")
        if self.state is AmqpState.OPEN:
            self._receive_open(frame.channel, performative)
        elif isinstance(performative, Close):
            self._receive_close(performative)
        elif self.state is AmqpState.OPENED:
            self._route(frame, performative, frame.body[payload_offset:])

    @abstractmethod
    def _receive_sasl(self, frame: Frame) -> None:
        """Process a frame of the SASL layer."""

    def _receive_open(self, channel: int, performative: Performative) -> None:
        if not isinstance(performative, Open) or channel:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, "a connection does not begin with OPEN")
        if performative.max_frame_size < MIN_MAX_FRAME_BYTES:
            told = f"the maximum frame size is below {MIN_MAX_FRAME_BYTES}"
            raise AmqpError(AmqpCondition.INVALID_FIELD, told)
        self.max_frame_bytes = min(performative.max_frame_size, self.limits.max_frame_bytes)
        self._framer.max_frame_bytes = self.limits.max_frame_bytes
        self._peer_idle_s = (performative.idle_time_out or 0) / 1000
        self._peer_opened(performative)
        self.emit(
            ConnectionOpened(
                performative.container_id,
                performative.hostname,
                performative.idle_time_out or 0,
                performative.max_frame_size,
                self._used_sasl,
                performative.properties or {},
            )
        )

    @abstractmethod
    def _peer_opened(self, performative: Open, /) -> None:
        """Change the state after the peer's OPEN."""

    @abstractmethod
    def _route(self, frame: Frame, performative: Performative, payload: bytes) -> None:
        """Process a frame of an open connection."""

    @abstractmethod
    def _receive_close(self, close: Close) -> None:
        """End the connection by the peer's CLOSE."""

    # ---- inside

    def _spend(self) -> None:
        if not self.allowance.spend():
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, "control frames are too frequent")

    def _require(self, state: AmqpState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the connection is in state {self.state!s}")

    def _write_open(
        self,
        properties: Mapping[Any, Any] | None = None,
        offered_capabilities: tuple[str, ...] | None = None,
        *,
        hostname: str | None = None,
    ) -> None:
        limits = self.limits
        body = encode_performative(
            Open(
                self._container_id,
                hostname,
                max_frame_size=limits.max_frame_bytes,
                channel_max=limits.max_channel,
                idle_time_out=limits.idle_timeout_ms or None,
                offered_capabilities=offered_capabilities,
                properties=properties,
            )
        )
        self.out += encode_frame(0, body)
        self._wrote_open = True

    def _write_close(self, error: AmqpError | None) -> None:
        for session in [*self.sessions.values()]:
            session.flush_dispositions()
        close = Close(None if error is None else error_info_of(error))
        body = encode_performative(close)
        if len(body) + 8 > self.max_frame_bytes:
            body = encode_performative(without_description(close))
        self.out += encode_frame(0, body)

    def _fail(self, error: AmqpError) -> None:
        """Report an error to the peer, as far as the state permits, and close the connection."""
        if self.state in BEFORE_OPEN:
            if not self._wrote_open:
                self._write_open()
            self._write_close(error)
        elif self.state is AmqpState.OPENED:
            self.state = AmqpState.CLOSING  # an error in here must not lead back here
            self._write_close(error)
        self._end(error, by_peer=False)

    def _end(self, error: AmqpError | None, *, by_peer: bool) -> None:
        if self.state is not AmqpState.CLOSED:
            self._close_sessions()
            self.emit(ConnectionClosed(error, by_peer))
            self.state = AmqpState.CLOSED

    def _close_sessions(self) -> None:
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()
