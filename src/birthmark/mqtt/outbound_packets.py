"""Sending half of an MQTT engine.

It encodes packets, messages, acknowledgements and final packets into one buffer. Not here: inbound bytes and timers
(`engine`).
"""

import struct
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NoReturn

import msgspec

from birthmark.mqtt import codec
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.negotiated_limits_and_aliases import Answer, Terms, check_publish, offer_of, strip_diagnostics
from birthmark.mqtt.packet_framer import Framer
from birthmark.mqtt.packets import (
    LEVEL_3_1_1,
    LEVEL_5,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)
from birthmark.mqtt.properties import Properties
from birthmark.mqtt.reason_codes import ReasonCode, connack_reason, disconnect_reason
from birthmark.mqtt.sender_session import SessionState

MAX_OWED = 65_535  # every packet id at once


class Receipts:
    """Received packet IDs in order of arrival, and acknowledgements that wait for their turn."""

    __slots__ = ("_early", "_owed")

    def __init__(self) -> None:
        self._owed: list[int] = []
        self._early: dict[int, list[bytes]] = {}  # several if a client used an ID twice

    def __len__(self) -> int:
        return len(self._owed)

    def record_received(self, packet_ids: list[int], maximum: int) -> int:
        """Record messages in order; return how many trailing messages exceed `maximum` and are not recorded.

        The caller must not reuse the list: it usually becomes the internal state.
        """
        if self._owed:
            self._owed += packet_ids
        else:
            self._owed = packet_ids
        excess = len(self._owed) - maximum
        if excess <= 0:
            return 0
        del self._owed[-excess:]
        return excess

    def settle_next(self, packet_ids: list[int]) -> bool:
        """Settle these messages if they are next to be acknowledged; return whether they are."""
        if self._early:
            return False
        owed, count = self._owed, len(packet_ids)
        if owed == packet_ids:
            self._owed = []
        elif owed[:count] == packet_ids:
            del owed[:count]
        else:
            return False
        return True

    def settle(self, packet_id: int, data: bytes) -> bytes:
        """Settle a message with its encoded acknowledgement and return all acknowledgements that can be sent now.

        An acknowledgement for an unknown packet ID is returned immediately.
        """
        owed, early = self._owed, self._early
        if packet_id not in owed:
            return data
        early.setdefault(packet_id, []).append(data)
        count, ready = 0, []
        for head in owed:
            waiting = early.get(head)
            if waiting is None:
                break
            ready.append(waiting.pop(0))
            if not waiting:
                del early[head]
            count += 1
        del owed[:count]
        return b"".join(ready)


class MqttRole(StrEnum):
    """Role of the local end of the connection."""

    CLIENT = "client"
    SERVER = "server"


class MqttState(StrEnum):
    """Connection state."""

    NEW = "new"  # no CONNECT yet
    CONNECTING = "connecting"  # CONNECT sent or received, no CONNACK yet
    OPEN = "open"
    CLOSED = "closed"  # DISCONNECT or a rejecting CONNACK was sent
    FAILED = "failed"


class MqttLimits(msgspec.Struct, frozen=True):
    """Resource limits of one connection. The defaults allow 256 KiB of payload plus topic and header."""

    max_packet_bytes: int = 270_336
    max_topic_bytes: int = 65_535
    max_filters: int = 64
    max_in_flight: int = 100
    max_queued: int = 1000
    connect_timeout_s: float = 30.0  # server: from the first byte to the end of CONNECT
    ping_timeout_s: float = 30.0  # client: from PINGREQ to PINGRESP


DISCARDED = 0
"""Result for a message over the receiver's maximum size, counted as delivered ([MQTT-3.1.2-25]).

It is returned instead of a packet ID.
"""

_PUBACK = 0x4002  # first byte and length
_pack_one = struct.Struct(">HH").pack

FROM_CLIENT_ONLY = (Connect, Subscribe, Unsubscribe, PingReq)
FROM_SERVER_ONLY = (ConnAck, SubAck, UnsubAck, PingResp)


class MqttSender:
    """MQTT packet sender; `session` carries unacknowledged messages to the next connection."""

    __slots__ = (
        "_burst",
        "_failure",
        "_framer",
        "_out",
        "_receipts",
        "_requests",
        "_terms",
        "keep_alive_s",
        "level",
        "limits",
        "received_0",
        "received_1",
        "received_bytes",
        "role",
        "sent_0",
        "sent_1",
        "sent_bytes",
        "session",
        "state",
    )

    def __init__(self, role: MqttRole, limits: MqttLimits, session: SessionState | None) -> None:
        self.role = role
        self.limits = limits
        self.session = session or SessionState(limits.max_in_flight, limits.max_queued)
        self.state = MqttState.NEW
        self.level = LEVEL_3_1_1
        self.keep_alive_s = 0  # a server may overwrite it after CONNECT
        # Messages by QoS and bytes so far, for metrics.
        self.received_0 = self.received_1 = self.received_bytes = 0
        self.sent_0 = self.sent_1 = self.sent_bytes = 0
        self._framer = Framer(limits.max_packet_bytes)
        self._burst: list[Packet] = []  # received, not yet returned, the next at the end
        self._out = bytearray()
        self._failure: RemoteProtocolError | None = None
        self._requests: dict[int, int] | None = None  # packet id of a SUBSCRIBE or UNSUBSCRIBE -> codes expected
        self._receipts: Receipts | None = None
        self._terms: Terms | None = None

    def forget(self) -> None:
        """Release every queued and received message after the connection has closed."""
        self.session = SessionState(self.limits.max_in_flight, self.limits.max_queued)
        self._framer = Framer(self.limits.max_packet_bytes)
        self._burst, self._out = [], bytearray()

    def send(self, packet: Packet) -> None:
        """Queue a packet. Raise `LocalProtocolError`, without writing anything, if it must not be sent now."""
        self._check_may_send(packet)
        if isinstance(packet, Answer):
            data = self._encode_answer(packet)
        else:
            data = codec.encode(packet, packet.level if isinstance(packet, Connect) else self.level)
            if self._terms is not None and len(data) > self._terms.theirs.max_packet_bytes:
                raise LocalProtocolError(f"the server takes no packet of {len(data)} bytes")
        match packet:
            case PubAck(packet_id=packet_id) if self._receipts is not None:
                data = self._receipts.settle(packet_id, data)
            case Connect():
                self.state = MqttState.CONNECTING
                self._apply_connect(packet)
            case Subscribe() | Unsubscribe():
                if self._requests is None:
                    self._requests = {}
                self._requests[packet.packet_id] = len(packet.filters)
            case Disconnect():
                self.state = MqttState.CLOSED
                self._burst.clear()
            case _:
                pass
        self._out += data
        if isinstance(packet, ConnAck):
            if self._terms is not None:
                self._terms.ours = offer_of(packet.properties)
            self._apply_connack(packet, may_resume=True)

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,  # noqa: FBT001, FBT002 (wire flag)
        properties: Properties = (),
    ) -> int | None:
        """Send a message or queue it until the in-flight window has space; return its packet ID for QoS 1.

        Before the connection is open, only QoS 1 is accepted, for later sending. Raise `LocalProtocolError`, or its
        subclass `QueueFullError` if too many messages wait.
        """
        return self.deliver(EncodedMessage(topic, payload, properties, retain=retain), qos)

    def deliver(self, parcel: EncodedMessage, qos: int = 0) -> int | None:
        """Send a shared encoded message, as `publish` does. A server returns `DISCARDED` if it is too large."""
        if self._terms is not None and self.role is MqttRole.CLIENT:
            check_publish(parcel, qos, self._terms.theirs)
        if qos == 0:
            self._check_open()
            self._write(parcel, 0, None)
            return None
        if qos != 1:
            raise LocalProtocolError("messages are sent with QoS 0 or 1")
        is_open = self.state is MqttState.OPEN
        if not is_open and self.state in {MqttState.CLOSED, MqttState.FAILED}:
            raise LocalProtocolError("the connection is closed")
        session = self.session
        packet_id, flies = session.add(parcel, may_fly=is_open)
        try:
            if not flies:
                parcel.form(1)  # raises now for later send errors
            elif not self._write(parcel, 1, packet_id):
                session.forget(packet_id)
                return DISCARDED
        except LocalProtocolError:
            session.forget(packet_id)
            raise
        return packet_id

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool = False) -> bool:
        """Send a QoS 1 message that the caller numbers and stores; return False if the peer's limits exclude it."""
        self._check_open()
        return self._write(parcel, 1, packet_id, dup=dup)

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> int:
        """Subscribe to `filters` with their QoS and return the packet ID of the expected SUBACK."""
        packet_id = self.session.reserve()
        try:
            self.send(Subscribe(packet_id, tuple(filters)))
        except LocalProtocolError:
            self.session.release(packet_id)
            raise
        return packet_id

    def unsubscribe(self, filters: Sequence[str]) -> int:
        """Unsubscribe from filters and return the packet ID of the expected UNSUBACK."""
        packet_id = self.session.reserve()
        try:
            self.send(Unsubscribe(packet_id, tuple(filters)))
        except LocalProtocolError:
            self.session.release(packet_id)
            raise
        return packet_id

    def ack(self, packet_ids: list[int], code: int = ReasonCode.SUCCESS) -> None:
        """Acknowledge QoS 1 messages in one write; 3.1.1 has no reason code.

        Every received message must be acknowledged, or the connection closed: later acknowledgements wait for it.
        """
        if not packet_ids:
            return
        if self.state is not MqttState.OPEN:
            self._check_open()
        receipts = self._receipts
        if code or (receipts is not None and not receipts.settle_next(packet_ids)):
            for packet_id in packet_ids:
                self.send(PubAck(packet_id, code))
            return
        try:
            if len(packet_ids) == 1:
                self._out += _pack_one(_PUBACK, packet_ids[0])
                return
            words = [_PUBACK] * (2 * len(packet_ids))
            words[1::2] = packet_ids
            self._out += struct.pack(f">{len(words)}H", *words)
        except struct.error:
            raise LocalProtocolError("a packet id does not fit into two bytes") from None

    # ---- inside

    def _apply_connect(self, packet: Connect) -> None:
        """Apply a CONNECT that was sent or received."""
        self.level = packet.level
        self.keep_alive_s = packet.keep_alive_s
        if packet.level == LEVEL_5:
            offer = offer_of(packet.properties)
            is_ours = self.role is MqttRole.CLIENT
            self._terms = Terms(by_server=False, ours=offer) if is_ours else Terms(by_server=True, theirs=offer)

    def _apply_connack(self, connack: ConnAck, *, may_resume: bool) -> None:
        """Apply a CONNACK that was sent or received: open the connection and resend unacknowledged messages."""
        if connack.code:
            self.state = MqttState.CLOSED
            return
        self.state = MqttState.OPEN
        window = self.limits.max_in_flight
        if self._terms is not None:
            window = min(window, self._terms.theirs.receive_maximum)
            self._framer.max_packet_bytes = min(self.limits.max_packet_bytes, self._terms.ours.max_packet_bytes)
            from_server = self._terms.theirs if self.role is MqttRole.CLIENT else self._terms.ours
            if from_server.keep_alive_s is not None:  # [MQTT-3.1.2-21], [MQTT-3.2.2-21]
                self.keep_alive_s = from_server.keep_alive_s
        self.session.window = window
        if self.role is MqttRole.SERVER and not connack.session_present:
            self.session.clear()
            return
        # A server that lost the session never saw these: they are new to it, and still must be delivered.
        self._write_in_flight(self.session.resend(as_duplicates=may_resume))
        self._write_in_flight(self.session.advance())

    def _write_in_flight(self, messages: Iterable[tuple[int, EncodedMessage, bool]]) -> None:
        """Write session messages.

        A message that exceeds the peer's size limit is reported as a PUBACK with PACKET_TOO_LARGE.
        """
        for packet_id, parcel, dup in messages:
            if not self._write(parcel, 1, packet_id, dup=dup):
                self.session.forget(packet_id)
                self._burst.insert(0, PubAck(packet_id, ReasonCode.PACKET_TOO_LARGE))

    def _write(self, parcel: EncodedMessage, qos: int, packet_id: int | None, *, dup: bool = False) -> bool:
        """Write a message; return False, without writing, if it exceeds the peer's maximum packet size."""
        terms, out = self._terms, self._out
        if terms is None:
            before, block = parcel.head(qos), b""
        else:
            form = terms.encode_parts(parcel, qos)
            if form is None:
                return False
            before, block = form
        if dup:
            before = bytes((before[0] | 0x08,)) + before[1:]
        out += before
        if packet_id is not None:
            out += packet_id.to_bytes(2, "big")
        out += block
        out += parcel.payload
        if qos:
            self.sent_1 += 1
        else:
            self.sent_0 += 1
        return True

    def _encode_answer(self, packet: Answer) -> bytes:
        """Return an encoded acknowledgement, without reason strings that the peer did not request or cannot fit."""
        terms = self._terms
        if terms is None:
            return codec.encode(packet, self.level)
        if not terms.theirs.wants_problems and isinstance(packet, PubAck | SubAck | UnsubAck):  # [MQTT-3.1.2-29]
            packet = strip_diagnostics(packet)
        data, most = codec.encode(packet, self.level), terms.theirs.max_packet_bytes
        if len(data) > most:
            data = codec.encode(strip_diagnostics(packet), self.level)
        if len(data) > most:  # [MQTT-3.1.2-24]
            told = f"the peer accepts at most {most} bytes, but {type(packet).__name__} has {len(data)}"
            self._fail(RemoteProtocolError(told, reason_code=ReasonCode.PACKET_TOO_LARGE))
        return data

    def _check_may_send(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            if self.role is MqttRole.SERVER or self.state is not MqttState.NEW:
                raise LocalProtocolError(f"a {self.role} that is {self.state} sends no CONNECT")
            return
        if isinstance(packet, ConnAck):
            if self.role is MqttRole.CLIENT or self.state is not MqttState.CONNECTING:
                raise LocalProtocolError(f"a {self.role} that is {self.state} sends no CONNACK")
            return
        if not (isinstance(packet, Disconnect | Auth) and self.state is MqttState.CONNECTING):
            self._check_open()
        wrong_way = FROM_SERVER_ONLY if self.role is MqttRole.CLIENT else FROM_CLIENT_ONLY
        if isinstance(packet, wrong_way):
            raise LocalProtocolError(f"a {self.role} sends no {type(packet).__name__}")
        if isinstance(packet, Disconnect) and self.role is MqttRole.SERVER:
            if self.level != LEVEL_5:
                raise LocalProtocolError("a server has no DISCONNECT in 3.1.1: close the connection")
            self._check_open()  # [MQTT-3.14.0-1]

    def _check_open(self) -> None:
        if self.state is not MqttState.OPEN:
            raise LocalProtocolError(f"the connection is {self.state}")

    def _fail(self, error: RemoteProtocolError) -> NoReturn:
        """Queue the final packet that the specification requires, enter the failed state and raise the error."""
        if self.state is not MqttState.FAILED:
            self._out += self._last_words(error)
            self.state = MqttState.FAILED
            self._failure = error
        raise error

    def _last_words(self, error: RemoteProtocolError) -> bytes:
        last: ConnAck | Disconnect
        if self.level == LEVEL_5 and self.state is MqttState.OPEN:
            last = Disconnect(disconnect_reason(error.reason_code))
        elif self.role is MqttRole.CLIENT or self.state not in {MqttState.NEW, MqttState.CONNECTING}:
            return b""
        elif self.level == LEVEL_5:
            last = ConnAck(code=connack_reason(error.reason_code))
        elif error.return_code is not None:
            last = ConnAck(code=error.return_code)
        else:
            return b""
        data = codec.encode(last, self.level)
        return data if self._terms is None or len(data) <= self._terms.theirs.max_packet_bytes else b""
