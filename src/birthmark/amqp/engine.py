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
from typing import Any

from birthmark.amqp.connection_engine import BEFORE_OPEN, AmqpState, ConnectionEngine
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, LocalProtocolError
from birthmark.amqp.events import SaslResponded, SaslStarted
from birthmark.amqp.framer import AMQP_HEADER, MIN_MAX_FRAME_BYTES, SASL_FRAME, SASL_HEADER, Frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    Attach,
    Begin,
    Close,
    End,
    Open,
    Performative,
    Transfer,
    error_info_of,
    error_of,
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
ALL_MECHANISMS = tuple(str(one) for one in SaslMechanism)


class AmqpEngine(ConnectionEngine):
    """AMQP connection state machine of a server."""

    __slots__ = ("_ended_channels", "_mechanisms", "_sasl_challenges")

    def __init__(
        self,
        limits: AmqpLimits = _DEFAULTS,
        mechanisms: tuple[str, ...] = ALL_MECHANISMS,
        container_id: str = "birthmark",
    ) -> None:
        super().__init__(limits, container_id)
        self._mechanisms = mechanisms
        self._ended_channels: set[int] = set()  # bounded by `max_channel`
        self._sasl_challenges = 0

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

    def refuse_sasl(self, code: SaslCode = SaslCode.AUTH) -> None:
        """Report an authentication failure to the peer, and close the connection."""
        if self.state is not AmqpState.CLOSED:
            self._require(AmqpState.SASL_DECISION)
            self._refuse_sasl(AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "SASL authentication failed"), code)

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
        """Close the connection; `ConnectionClosed` follows with the peer's CLOSE or by `check_deadlines`.

        Each session is ended first, for which Azure's SDK for Node.js otherwise waits 45 s.
        """
        if self.state in BEFORE_OPEN:
            self._write_open()
        elif self.state is not AmqpState.OPENED:
            if self.state is not AmqpState.CLOSING:
                self._end(error, by_peer=False)
            return
        for session in self.sessions.values():
            session.write(End(None if error is None else error_info_of(error)))
        self._write_close(error)
        self._close_sessions()
        self.state = AmqpState.CLOSING
        self._closed_at = self._now

    def forget_session(self, channel: int) -> None:
        self.sessions.pop(channel, None)
        self._ended_channels.add(channel)

    # ---- reading

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

    def _peer_opened(self, _performative: Open, /) -> None:
        self.state = AmqpState.OPEN_DECISION

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

    def _require(self, state: AmqpState) -> None:
        if self.state is not state:
            raise LocalProtocolError(f"the connection is in state {self.state!s}")

    def _refuse_sasl(self, error: AmqpError, code: SaslCode = SaslCode.AUTH) -> None:
        self.out += encode_outcome(code)
        self._end(error, by_peer=False)
