"""An AMQP 1.0 connection, the server's end, without IO: bytes in, events out; calls in, bytes out.

Feed with `receive_data`, send the result of `data_to_send`, and call `check_deadlines` when `next_deadline` has passed.
No call raises for the peer's bytes: after a violation, `ConnectionClosed` is the last event and CLOSE the last frame.

Some events are questions, and the peer's frames after them wait for the decision:

- `SaslStarted`, `SaslResponded`: `accept_sasl`, `refuse_sasl` or `challenge_sasl`
- `ConnectionOpened`: `accept_open` or `close`
- `LinkRequested`: `accept` or `refuse` of the link; only its session waits

After a decision, call `next_events` for the frames that waited. Stop reading while `wants_data` is False.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from birthmark.amqp.control_allowance import ControlAllowance
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, LocalProtocolError
from birthmark.amqp.events import AmqpEvent, ConnectionClosed, ConnectionOpened, SaslResponded, SaslStarted
from birthmark.amqp.framer import (
    AMQP_FRAME,
    AMQP_HEADER,
    EMPTY_FRAME,
    MIN_MAX_FRAME_BYTES,
    SASL_FRAME,
    SASL_HEADER,
    AmqpFramer,
    Frame,
    encode_frame,
)
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Open,
    Performative,
    Transfer,
    decode_performative,
    encode_performative,
    error_info_of,
    error_of,
    without_description,
)
from birthmark.amqp.sasl import (
    SaslCode,
    SaslMechanism,
    decode_init,
    decode_response,
    encode_challenge,
    encode_mechanisms,
    encode_outcome,
    read_identity,
)
from birthmark.amqp.session import Session

_DEFAULTS = AmqpLimits()
_HELD_FACTOR = 2  # a caller that respects `wants_data` exceeds the limit by one read at most
ALL_MECHANISMS = tuple(str(one) for one in SaslMechanism)


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
_BEFORE_OPEN = frozenset({AmqpState.OPEN, AmqpState.OPEN_DECISION})


class AmqpEngine:
    """AMQP connection state machine."""

    def __init__(
        self,
        limits: AmqpLimits = _DEFAULTS,
        mechanisms: tuple[str, ...] = ALL_MECHANISMS,
        container_id: str = "birthmark",
    ) -> None:
        self.limits = limits
        self.state = AmqpState.HEADER
        self.out = bytearray()
        self.max_frame_bytes = MIN_MAX_FRAME_BYTES  # of the frames that we send
        self.allowance = ControlAllowance(limits.max_control_frames, limits.control_frames_per_s)
        self.held_bytes = self.incomplete_bytes = self.queued_bytes = self.link_count = 0
        self.sessions: dict[int, Session] = {}
        self._mechanisms = mechanisms
        self._container_id = container_id
        self._framer = AmqpFramer()
        self._events: list[AmqpEvent] = []
        self._ended_channels: set[int] = set()  # bounded by `max_channel`
        self._session_count = 0
        self._used_sasl = False
        self._sasl_challenges = 0
        self._peer_idle_s = 0.0
        self._began: float | None = None
        self._now = 0.0
        self._last_received = 0.0
        self._last_sent = 0.0
        self._closed_at = 0.0

    # ---- bytes

    def begin(self, now: float) -> None:
        """Start the timeout to OPEN at connection time, so that it also applies to silent clients."""
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
                for session in [*self.sessions.values()]:
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
        """Number of received bytes that are incomplete or wait for a decision."""
        return self.held_bytes + self.incomplete_bytes + self._framer.buffered

    @property
    def unsent(self) -> int:
        """Number of bytes that `data_to_send` would return, without dispositions and credit."""
        return len(self.out)

    def data_to_send(self, now: float | None = None) -> bytes:
        """Return and remove the bytes to send, also after `ConnectionClosed`."""
        for session in [*self.sessions.values()]:
            session.flush()
        if not self.out:
            return b""
        self._last_sent = self._now if now is None else now
        data = bytes(self.out)
        self.out.clear()
        return data

    # ---- decisions

    def accept_sasl(self) -> None:
        """Report success to the peer; `ConnectionOpened` follows. Does nothing on a closed connection."""
        if self.state is not AmqpState.CLOSED:
            self._require(AmqpState.SASL_DECISION)
            self.out += encode_outcome(SaslCode.OK)
            self.state = AmqpState.HEADER_AFTER_SASL

    def challenge_sasl(self, challenge: bytes) -> None:
        """Send a challenge; `SaslResponded` follows. Beyond the limit, the peer is refused instead."""
        if self.state is not AmqpState.CLOSED:
            self._require(AmqpState.SASL_DECISION)
            frame = encode_challenge(challenge)
            self._sasl_challenges += 1
            if self._sasl_challenges > self.limits.max_sasl_challenges:
                told = f"more than {self.limits.max_sasl_challenges} SASL challenges"
                self._refuse_sasl(AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told))
                return
            self.out += frame
            self.state = AmqpState.SASL_RESPONSE

    def refuse_sasl(self) -> None:
        """Report an authentication failure to the peer, and close the connection."""
        if self.state is not AmqpState.CLOSED:
            self._require(AmqpState.SASL_DECISION)
            self._refuse_sasl(AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "SASL authentication failed"))

    def accept_open(
        self,
        *,
        properties: Mapping[Any, Any] | None = None,
        offered_capabilities: tuple[str, ...] | None = None,
    ) -> None:
        """Open the connection. Does nothing on a closed connection."""
        if self.state is not AmqpState.CLOSED:
            self._require(AmqpState.OPEN_DECISION)
            self._write_open(properties, offered_capabilities)
            self.state = AmqpState.OPENED

    def close(self, error: AmqpError | None = None) -> None:
        """Close the connection; `ConnectionClosed` follows with the peer's CLOSE or by `check_deadlines`."""
        if self.state in _BEFORE_OPEN:
            self._write_open()
        elif self.state is not AmqpState.OPENED:
            if self.state is not AmqpState.CLOSING:
                self._end(error, by_peer=False)
            return
        self._write_close(error)
        self._close_sessions()
        self.state = AmqpState.CLOSING
        self._closed_at = self._now

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

    def forget_session(self, channel: int) -> None:
        self.sessions.pop(channel, None)
        self._ended_channels.add(channel)

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
                case _:
                    frame = self._framer.next_frame()
                    if frame is None:
                        break
                    self._receive_frame(frame)
        if self.held_bytes + self._framer.buffered > _HELD_FACTOR * self.limits.max_held_bytes:
            told = "too many bytes wait for a decision"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)

    def _receive_header(self, header: bytes) -> None:
        if header == AMQP_HEADER:
            self.out += AMQP_HEADER
            self._framer.max_frame_bytes = MIN_MAX_FRAME_BYTES
            self.state = AmqpState.OPEN
        elif header == SASL_HEADER and self.state is AmqpState.HEADER and self._mechanisms:
            self.out += SASL_HEADER + encode_mechanisms(self._mechanisms)
            self._framer.max_frame_bytes = self.limits.max_sasl_frame_bytes
            self._used_sasl = True
            self.state = AmqpState.SASL
        else:  # section 2.2: answer with a supported header, then close
            self.out += AMQP_HEADER
            raise AmqpError(AmqpCondition.NOT_IMPLEMENTED, "the protocol header is not supported")

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

    def _receive_sasl(self, frame: Frame) -> None:
        if frame.type != SASL_FRAME:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, "a frame in the SASL layer is not a SASL frame")
        if self.state is AmqpState.SASL_RESPONSE:
            response = decode_response(frame.body)
            self.state = AmqpState.SASL_DECISION
            self.emit(SaslResponded(response))
            return
        init = decode_init(frame.body)
        try:
            identity = read_identity(init, self._mechanisms)
        except AmqpError as error:
            self._refuse_sasl(error)
            return
        self.state = AmqpState.SASL_DECISION
        self.emit(
            SaslStarted(
                str(init.mechanism),
                identity.authentication_id,
                identity.password,
                identity.authorization_id,
                init.hostname,
                identity.response,
            )
        )

    def _receive_open(self, channel: int, performative: Performative) -> None:
        if not isinstance(performative, Open) or channel:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, "a connection does not begin with OPEN")
        if performative.max_frame_size < MIN_MAX_FRAME_BYTES:
            told = f"the maximum frame size is below {MIN_MAX_FRAME_BYTES}"
            raise AmqpError(AmqpCondition.INVALID_FIELD, told)
        self.max_frame_bytes = min(performative.max_frame_size, self.limits.max_frame_bytes)
        self._framer.max_frame_bytes = self.limits.max_frame_bytes
        self._peer_idle_s = (performative.idle_time_out or 0) / 1000
        self.state = AmqpState.OPEN_DECISION
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

    def _route(self, frame: Frame, performative: Performative, payload: bytes) -> None:
        channel = frame.channel
        session = self.sessions.get(channel)
        if isinstance(performative, Attach) and len(frame.body) > self.limits.max_attach_bytes:
            told = f"an ATTACH has more than {self.limits.max_attach_bytes} bytes"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)
        if session is not None:
            session.receive(performative, payload, len(frame.body))
        elif isinstance(performative, Begin):
            self._begin_session(channel, performative)
        elif channel not in self._ended_channels:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, f"channel {channel} has no session")
        elif isinstance(performative, Transfer):  # pyamqp detaches links after it has ended their session
            self._spend()

    def _begin_session(self, channel: int, begin: Begin) -> None:
        limits = self.limits
        if channel > limits.max_channel:  # section 2.7.1
            raise AmqpError(AmqpCondition.FRAMING_ERROR, f"channel {channel} is above {limits.max_channel}")
        if len(self.sessions) >= limits.max_sessions:
            told = f"a connection has {limits.max_sessions} sessions"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)
        self._ended_channels.discard(channel)
        self._session_count += 1
        self.sessions[channel] = Session(self, self._session_count, channel, begin)

    def _receive_close(self, close: Close) -> None:
        error = None if close.error is None else error_of(close.error, AmqpErrorScope.CONNECTION)
        if self.state is AmqpState.OPENED:
            self._write_close(None)
        self._end(error, by_peer=True)

    # ---- inside

    def _spend(self) -> None:
        if not self.allowance.spend():
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, "control frames are too frequent")

    def _require(self, state: AmqpState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the connection is in state {self.state!s}")

    def _write_open(
        self, properties: Mapping[Any, Any] | None = None, offered_capabilities: tuple[str, ...] | None = None
    ) -> None:
        limits = self.limits
        body = encode_performative(
            Open(
                self._container_id,
                max_frame_size=limits.max_frame_bytes,
                channel_max=limits.max_channel,
                idle_time_out=limits.idle_timeout_ms or None,
                offered_capabilities=offered_capabilities,
                properties=properties,
            )
        )
        self.out += encode_frame(0, body)

    def _write_close(self, error: AmqpError | None) -> None:
        for session in [*self.sessions.values()]:
            session.flush_dispositions()
        close = Close(None if error is None else error_info_of(error))
        body = encode_performative(close)
        if len(body) + 8 > self.max_frame_bytes:
            body = encode_performative(without_description(close))
        self.out += encode_frame(0, body)

    def _refuse_sasl(self, error: AmqpError) -> None:
        self.out += encode_outcome(SaslCode.AUTH)
        self._end(error, by_peer=False)

    def _fail(self, error: AmqpError) -> None:
        """Report an error to the peer, as far as the state permits, and close the connection."""
        if self.state in _BEFORE_OPEN:
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
