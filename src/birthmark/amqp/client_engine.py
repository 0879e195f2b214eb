"""An AMQP 1.0 connection, the client's end, without IO: bytes in, events out; calls in, bytes out.

Call `begin`, feed with `receive_data`, send the result of `data_to_send`, and call `check_deadlines` when
`next_deadline` has passed. No call raises for the peer's bytes: `ConnectionClosed` is the last event after a violation.

The order of a connection: `begin`, `ConnectionOpened`, `begin_session`, and the session's `attach_sender` and
`attach_receiver` without waiting for `SessionBegan`. Send on a link once `CreditChanged` reports credit.
"""

from collections.abc import Mapping
from typing import Any

from birthmark.amqp.client_session import ClientSession
from birthmark.amqp.connection_engine import AmqpState, ConnectionEngine
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, LocalProtocolError, printable
from birthmark.amqp.framer import AMQP_HEADER, MIN_MAX_FRAME_BYTES, SASL_FRAME, SASL_HEADER, Frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import Attach, Begin, Close, Open, Performative, error_of
from birthmark.amqp.sasl import SaslCode, SaslInit, SaslMechanisms, decode_sasl, encode_init

_DEFAULTS = AmqpLimits()


class AmqpClientEngine(ConnectionEngine):
    """AMQP connection state machine of a client; without `sasl`, TLS identifies the client, or nothing does."""

    __slots__ = (
        "_begun",
        "_hostname",
        "_incoming",
        "_max_channel",
        "_mechanism",
        "_properties",
        "_sasl",
        "_sent_init",
    )

    def __init__(
        self,
        hostname: str,
        *,
        container_id: str,
        sasl: SaslInit | None = None,
        properties: Mapping[Any, Any] | None = None,
        limits: AmqpLimits = _DEFAULTS,
    ) -> None:
        super().__init__(limits, container_id)
        self._hostname = hostname
        self._properties = properties
        self._mechanism = "" if sasl is None else str(sasl.mechanism)
        self._sasl = None if sasl is None else encode_init(sasl)
        self._sent_init = False
        self._begun: dict[int, ClientSession] = {}  # sessions without the peer's BEGIN, by our channel
        self._incoming: dict[int, ClientSession] = {}  # by the peer's channel
        self._max_channel = limits.max_channel
        if self._sasl is not None and len(self._sasl) > MIN_MAX_FRAME_BYTES:
            raise LocalProtocolError(f"SASL-INIT has {len(self._sasl)} bytes; the limit is {MIN_MAX_FRAME_BYTES} bytes")

    # ---- calls

    def begin(self, now: float) -> None:
        """Write the first bytes and start the timeout to the peer's OPEN."""
        if self._began is not None:
            return
        super().begin(now)
        if self._sasl is None:
            self._start_amqp()
        else:
            self.out += SASL_HEADER

    def begin_session(self) -> ClientSession:
        """Begin a session, in which links may be attached at once. Raise `LocalProtocolError`."""
        if self.state is not AmqpState.OPENED:
            raise LocalProtocolError(f"the connection is in state {self.state!s}")
        channel = next((one for one in range(self._max_channel + 1) if one not in self.sessions), None)
        if channel is None or len(self.sessions) >= self.limits.max_sessions:
            raise LocalProtocolError(f"the connection has {len(self.sessions)} sessions")
        self._session_count += 1
        session = ClientSession(self, self._session_count, channel)
        self.sessions[channel] = self._begun[channel] = session
        return session

    def close(self, error: AmqpError | None = None) -> None:
        """Close the connection; `ConnectionClosed` follows with the peer's CLOSE or by `check_deadlines`."""
        if self.state is AmqpState.OPENED:
            self._write_close(error)
            self._close_sessions()
            self.state = AmqpState.CLOSING
            self._closed_at = self._now
        elif self.state is not AmqpState.CLOSING:
            self._end(error, by_peer=False)

    # ---- for sessions

    def forget_session(self, channel: int) -> None:
        """Keep the channel until the peer's END."""

    def release_channel(self, session: ClientSession) -> None:
        self.sessions.pop(session.channel, None)
        if session.peer_channel is not None:
            self._incoming.pop(session.peer_channel, None)

    # ---- reading

    def _receive_header(self, header: bytes) -> None:
        if self.state is AmqpState.HEADER and self._sasl is not None:
            if header != SASL_HEADER:
                raise AmqpError(AmqpCondition.NOT_IMPLEMENTED, "the server does not support SASL")
            self._used_sasl = True
            self.state = AmqpState.SASL
        elif header == AMQP_HEADER:
            self.state = AmqpState.OPEN
        else:
            raise AmqpError(AmqpCondition.NOT_IMPLEMENTED, f"the server answers with the header {header.hex()}")

    def _receive_sasl(self, frame: Frame) -> None:
        if frame.type != SASL_FRAME:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, "a frame in the SASL layer is not a SASL frame")
        found = decode_sasl(frame.body)
        if isinstance(found, SaslMechanisms) is self._sent_init:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, "the SASL frames are not in order")
        if isinstance(found, SaslMechanisms):
            self._choose(found)
        elif found.code != SaslCode.OK:
            told = f"SASL authentication failed with code {found.code}"
            raise AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, told)
        else:
            self.state = AmqpState.HEADER_AFTER_SASL
            self._start_amqp()

    def _choose(self, offered: SaslMechanisms) -> None:
        if self._sasl is None or self._mechanism not in offered.sasl_server_mechanisms:
            names = printable(", ".join(offered.sasl_server_mechanisms))
            raise AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, f"the server offers other SASL mechanisms: {names}")
        self.out += self._sasl
        self._sent_init = True

    def _start_amqp(self) -> None:
        self.out += AMQP_HEADER
        self._write_open(self._properties, hostname=self._hostname)

    def _peer_opened(self, performative: Open, /) -> None:
        self.state = AmqpState.OPENED
        self._max_channel = min(self._max_channel, performative.channel_max)

    def _route(self, frame: Frame, performative: Performative, payload: bytes) -> None:
        if isinstance(performative, Begin):
            self._receive_begin(frame.channel, performative)
            return
        if isinstance(performative, Attach) and len(frame.body) > self.limits.max_attach_bytes:
            told = f"an ATTACH has more than {self.limits.max_attach_bytes} bytes"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)
        session = self._incoming.get(frame.channel)
        if session is None:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, f"channel {frame.channel} has no session")
        session.receive(performative, payload, len(frame.body))

    def _receive_begin(self, channel: int, begin: Begin) -> None:
        if channel > self.limits.max_channel:
            raise AmqpError(AmqpCondition.FRAMING_ERROR, f"channel {channel} is above {self.limits.max_channel}")
        session = None if begin.remote_channel is None else self._begun.pop(begin.remote_channel, None)
        if session is None or channel in self._incoming:
            raise AmqpError(AmqpCondition.NOT_ALLOWED, "a client's sessions are begun by the client")
        self._incoming[channel] = session
        session.receive_begin(channel, begin)

    def _receive_close(self, close: Close) -> None:
        error = None if close.error is None else error_of(close.error, AmqpErrorScope.CONNECTION)
        by_peer = self.state is AmqpState.OPENED
        if by_peer:
            self._write_close(None)
        self._end(error, by_peer=by_peer)

    def _close_sessions(self) -> None:
        super()._close_sessions()
        self._begun.clear()
        self._incoming.clear()
