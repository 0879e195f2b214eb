"""An MQTT connection, either role, without IO: bytes in, packets out; packets in, bytes out.

Feed with `receive_data`, draw with `next_event` until None, send the result of `data_to_send`, and call `on_deadline`
when `deadline` has passed. After `RemoteProtocolError` the engine stays failed: send the rest and close.

A server engine requires CONNECT first. It returns no packets between CONNECT and its CONNACK, so that no packet is
processed before the decision. It answers PINGREQ and enforces the keep alive. A client engine sends PINGREQ itself.
Acknowledgments are sent in the order of their messages, whatever the order of `ack`.

At level 5 it also enforces the limits that both sides announced in CONNECT and CONNACK (`negotiation`).

The caller handles permitted protocol levels, topics, QoS and clients, stored sessions, and retained messages.
"""

from collections.abc import Sequence

from birthmark.mqtt import codec
from birthmark.mqtt.errors import RemoteProtocolError
from birthmark.mqtt.negotiated_limits_and_aliases import (
    check_connect,
    check_disconnect,
    check_payload,
    check_subscribe,
    offer_of,
)
from birthmark.mqtt.outbound_packets import (
    DISCARDED,
    FROM_CLIENT_ONLY,
    FROM_SERVER_ONLY,
    MAX_OWED,
    MqttLimits,
    MqttRole,
    MqttSender,
    MqttState,
    Receipts,
)
from birthmark.mqtt.packets import (
    LEVEL_5,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.mqtt.sender_session import SessionState

_PINGRESP = b"\xd0\x00"
_PINGREQ = b"\xc0\x00"
_LEVEL_5_CONNECT = b"\0\4MQTT\5"
_MAX_PINGS = 100  # pings before earlier answers left: no client sends more than one
_KEEP_ALIVE_FACTOR = 1.5  # [MQTT-3.1.2-24]
_OF_QOS_2 = (PubRec, PubRel, PubComp)


class MqttEngine(MqttSender):
    """MQTT connection state machine; see `MqttSender` for sending."""

    __slots__ = ("_connect_due", "_last_received", "_ping_due", "_pings", "_pong_due")

    def __init__(self, role: MqttRole, limits: MqttLimits = MqttLimits(), session: SessionState | None = None) -> None:  # noqa: B008 (frozen)
        super().__init__(role, limits, session)
        self._last_received: float | None = None
        self._connect_due: float | None = None
        self._ping_due: float | None = None
        self._pong_due: float | None = None
        self._pings = 0  # unanswered so far

    def begin(self, now: float) -> None:
        """Start the CONNECT timeout of a server at connection time, so that it also applies to silent clients."""
        if self._connect_due is None:
            self._connect_due = now + self.limits.connect_timeout_s

    # ---- bytes

    def receive_data(self, data: bytes, now: float) -> None:
        """Accept received bytes. Raise `RemoteProtocolError` if too much arrives before our CONNACK."""
        if self._failure is not None:
            self._fail(self._failure)
        if self.state is MqttState.CLOSED:
            return
        self._last_received = now
        if self._connect_due is None:
            self.begin(now)
        self._framer.receive_data(data)
        self.received_bytes += len(data)
        if self.state is MqttState.CONNECTING and self._framer.buffered > 2 * self.limits.max_packet_bytes:
            self._fail(
                RemoteProtocolError(
                    "the client sends too much data before CONNACK", reason_code=ReasonCode.QUOTA_EXCEEDED
                )
            )
        if self.role is MqttRole.CLIENT and self._ping_due is None and self.state is MqttState.OPEN:
            self._schedule_ping(now)

    @property
    def has_input(self) -> bool:
        """Whether received input is pending; it may be a partial packet or an unreported failure."""
        return bool(self._framer.chunk or self._burst) or self._failure is not None

    @property
    def buffered(self) -> int:
        """Number of received bytes not yet returned as packets."""
        return self._framer.buffered

    @property
    def wants_to_send(self) -> bool:
        return bool(self._out)

    @property
    def unsent(self) -> int:
        """Number of bytes that `data_to_send` would return."""
        return len(self._out)

    def data_to_send(self) -> bytes:
        """Return and remove the bytes to send, also after a failure."""
        if not self._out:
            return b""
        data = bytes(self._out)
        self._out.clear()
        self.sent_bytes += len(data)
        self._pings = 0
        return data

    # ---- packets

    def next_event(self) -> Packet | None:
        """Return the peer's next packet, or None. Raise `RemoteProtocolError`."""
        if not self._burst and (burst := self.next_burst()):
            self._burst = [*reversed(burst)]
        return self.next_packet()

    def next_packet(self) -> Packet | None:
        """Return the next packet, as `next_event` does, for callers that have checked for a burst."""
        if self._burst:
            return self._burst.pop()
        if self._failure is not None:
            self._fail(self._failure)
        if not self._framer.chunk:
            return None
        while self.state is not MqttState.CLOSED and not (
            self.role is MqttRole.SERVER and self.state is MqttState.CONNECTING
        ):
            try:
                frame = self._framer.next_frame()
                if frame is None:
                    return None
                packet = self._receive(self._decode(*frame))
            except RemoteProtocolError as error:
                self._fail(error)
            if packet is not None:
                return packet
        return None

    def next_acks(self) -> Sequence[int]:
        """Return the packet ids of the next PUBACKs without a reason; empty if `next_event` must be called."""
        if self.state is not MqttState.OPEN or self._burst or self._failure is not None:
            return ()
        packet_ids = self._framer.next_acks()
        if packet_ids and self.session.acknowledge(packet_ids):
            self._write_in_flight(self.session.advance())
        return packet_ids

    def next_burst(self) -> list[Publish]:
        """Return the next plain PUBLISH packets; empty if `next_event` must be called."""
        if self.state is not MqttState.OPEN or not self._framer.chunk or self._burst or self._failure is not None:
            return []
        burst, packet_ids = self._framer.next_burst(self.limits.max_topic_bytes, self._terms)
        count = len(packet_ids)
        self.received_0 += len(burst) - count
        if not count:
            return burst
        self.received_1 += count
        if excess := self._take(packet_ids):
            self._failure = self._too_many()  # raised after earlier packets
            numbered = [at for at, packet in enumerate(burst) if packet.qos]
            return burst[: numbered[-excess]]
        return burst

    # ---- time

    @property
    def deadline(self) -> float | None:
        """Time at which to call `on_deadline`, in the seconds of `now`; None for never."""
        if self.state in (MqttState.CLOSED, MqttState.FAILED):
            return None
        if self.role is MqttRole.SERVER and self.state is MqttState.NEW:
            return self._connect_due
        if self._last_received is None:
            return None
        if self.role is MqttRole.SERVER:
            return self._last_received + _KEEP_ALIVE_FACTOR * self.keep_alive_s if self.keep_alive_s else None
        return self._pong_due if self._pong_due is not None else self._ping_due

    def on_deadline(self, now: float) -> None:
        """Send a PINGREQ, or raise `RemoteProtocolError` if the peer was silent for too long.

        Early calls do nothing.
        """
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self.role is MqttRole.SERVER and self.state is MqttState.NEW:
            self._fail(RemoteProtocolError("CONNECT was not received in time"))
        if self.role is MqttRole.SERVER:
            self._fail(RemoteProtocolError("the keep alive has run out", reason_code=ReasonCode.KEEP_ALIVE_TIMEOUT))
        if self._pong_due is not None:
            self._fail(
                RemoteProtocolError("the server does not answer PINGREQ", reason_code=ReasonCode.KEEP_ALIVE_TIMEOUT)
            )
        self._out += _PINGREQ
        self._pong_due = now + self.limits.ping_timeout_s
        self._schedule_ping(now)

    # ---- inside

    def _decode(self, first: int, body: bytes) -> Packet:
        if self.state is MqttState.NEW and first == codec.CONNECT and body.startswith(_LEVEL_5_CONNECT):
            self.level = LEVEL_5  # CONNACK reports later errors in it
        return codec.decode(first, body, self.level)

    def _receive(self, packet: Packet) -> Packet | None:
        """Process the peer's packet; return it if the caller must handle it."""
        if isinstance(packet, Publish):
            return self._receive_publish(packet)
        if self.role is MqttRole.SERVER:
            return self._receive_as_server(packet)
        return self._receive_as_client(packet)

    def _receive_publish(self, packet: Publish) -> Publish | None:
        if self.state is not MqttState.OPEN:
            raise RemoteProtocolError(
                f"PUBLISH was received in state {self.state}", reason_code=ReasonCode.PROTOCOL_ERROR
            )
        topic, most = packet.topic, self.limits.max_topic_bytes
        if len(topic) > most or (not topic.isascii() and len(topic.encode()) > most):
            raise RemoteProtocolError("the topic is too long", reason_code=ReasonCode.TOPIC_NAME_INVALID)
        if packet.qos:
            self.received_1 += 1
        else:
            self.received_0 += 1
        if self._terms is not None:
            packet = self._terms.received(packet)
        if packet.qos == 1 and packet.packet_id is not None and self._take([packet.packet_id]):
            raise self._too_many()
        try:
            check_payload(packet.payload, packet.properties)
        except RemoteProtocolError as error:
            if packet.qos != 1 or packet.packet_id is None:
                raise
            self.ack([packet.packet_id], error.reason_code)
            return None
        return packet

    def _take(self, packet_ids: list[int]) -> int:
        """Track QoS 1 messages; return the number that exceeds the peer's in-flight limit."""
        if self._receipts is None:
            self._receipts = Receipts()
        return self._receipts.record_received(
            packet_ids, MAX_OWED if self._terms is None else self._terms.ours.receive_maximum
        )

    def _too_many(self) -> RemoteProtocolError:
        told = f"more than {len(self._receipts or ())} messages are unacknowledged"
        return RemoteProtocolError(told, reason_code=ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)

    def _receive_as_server(self, packet: Packet) -> Packet | None:
        if isinstance(packet, Connect):
            return self._receive_connect(packet)
        if self.state is MqttState.NEW:
            raise RemoteProtocolError("the first packet is not CONNECT", reason_code=ReasonCode.PROTOCOL_ERROR)
        # QoS 2 and step-by-step authentication are not supported; in 3.1.1 the caller reports that.
        if isinstance(packet, FROM_SERVER_ONLY) or (self.level == LEVEL_5 and isinstance(packet, (*_OF_QOS_2, Auth))):
            raise _out_of_place("a client", packet)
        match packet:
            case PingReq():
                self._answer_ping()
                return None
            case Subscribe() | Unsubscribe():
                self._check_filters(packet)
            case PubAck():
                self._acknowledged(packet)
            case Disconnect():
                if self._terms is not None:
                    check_disconnect(packet, self._terms.theirs)
                self.state = MqttState.CLOSED
            case _:
                pass
        return packet

    def _receive_connect(self, packet: Connect) -> Connect:
        if self.state is not MqttState.NEW:
            raise RemoteProtocolError("CONNECT was sent twice", reason_code=ReasonCode.PROTOCOL_ERROR)
        if packet.level == LEVEL_5:
            check_connect(packet)
        self.state = MqttState.CONNECTING
        self._apply_connect(packet)
        return packet

    def _check_filters(self, packet: Subscribe | Unsubscribe) -> None:
        if len(packet.filters) > self.limits.max_filters:
            told = f"the packet has more than {self.limits.max_filters} topic filters"
            raise RemoteProtocolError(told, reason_code=ReasonCode.QUOTA_EXCEEDED)
        if self._terms is not None and isinstance(packet, Subscribe):
            check_subscribe(packet, self._terms.ours)

    def _answer_ping(self) -> None:
        self._pings += 1
        if self._pings > _MAX_PINGS:
            told = "PINGREQ was sent repeatedly without waiting for PINGRESP"
            raise RemoteProtocolError(told, reason_code=ReasonCode.MESSAGE_RATE_TOO_HIGH)
        self._out += _PINGRESP

    def _receive_as_client(self, packet: Packet) -> Packet:
        if isinstance(packet, ConnAck):
            return self._receive_connack(packet)
        if self.state is not MqttState.OPEN and not isinstance(packet, Auth):
            raise RemoteProtocolError("the first packet is not CONNACK", reason_code=ReasonCode.PROTOCOL_ERROR)
        if isinstance(packet, FROM_CLIENT_ONLY):
            raise _out_of_place("a server", packet)
        match packet:
            case PingResp():
                self._pong_due = None
            case SubAck() | UnsubAck():
                self._answered(packet)
            case PubAck():
                self._acknowledged(packet)
            case Disconnect():
                if self.level != LEVEL_5:
                    raise _out_of_place("a server", packet)
                self.state = MqttState.CLOSED
            case _:
                pass
        return packet

    def _receive_connack(self, packet: ConnAck) -> ConnAck:
        if self.state is not MqttState.CONNECTING:
            raise _out_of_place(f"a server that is {self.state}", packet)
        if self._terms is not None:
            self._terms.theirs = offer_of(packet.properties)
        self._apply_connack(packet, may_resume=packet.session_present)
        if not packet.code and self._last_received is not None:
            self._schedule_ping(self._last_received)
        return packet

    def _acknowledged(self, packet: PubAck) -> None:
        if self.session.acknowledge((packet.packet_id,)):
            self._write_in_flight(self.session.advance())

    def _answered(self, packet: SubAck | UnsubAck) -> None:
        expected = (self._requests or {}).pop(packet.packet_id, None)
        if expected is None:
            raise RemoteProtocolError(
                "an acknowledgement answers no request of ours", reason_code=ReasonCode.PROTOCOL_ERROR
            )
        has_codes = isinstance(packet, SubAck) or self.level == LEVEL_5
        if has_codes and len(packet.codes) != expected:
            raise RemoteProtocolError(
                f"{len(packet.codes)} codes answer {expected} filters", reason_code=ReasonCode.PROTOCOL_ERROR
            )
        self.session.release(packet.packet_id)

    def _schedule_ping(self, now: float) -> None:
        self._ping_due = now + self.keep_alive_s if self.keep_alive_s else None


def _out_of_place(who: str, packet: Packet) -> RemoteProtocolError:
    return RemoteProtocolError(f"{who} sent {type(packet).__name__}", reason_code=ReasonCode.PROTOCOL_ERROR)


__all__ = ["DISCARDED", "MqttEngine", "MqttLimits", "MqttRole", "MqttState", "SessionState"]
