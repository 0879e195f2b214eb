"""One MQTT connection, either end, without IO: bytes in, packets out; packets in, bytes out.

Feed with `receive_data`, draw with `next_event` until None, send what `data_to_send` returns, and call `on_deadline`
when `deadline` has passed. After `RemoteProtocolError` the engine stays failed: send the rest and close.

As a server it insists on CONNECT first, gives nothing out between CONNECT and our CONNACK (so that nothing is acted
upon before the verdict), answers PINGREQ itself and watches the keep alive. As a client it pings by itself.

Not here: which protocol levels, topics, QoS or clients are allowed; sessions stored on disk; retained messages.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NoReturn

import msgspec

from birthmark.mqtt import codec
from birthmark.mqtt.errors import KEEP_ALIVE_TIMEOUT, LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.framing import Framer
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
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)
from birthmark.mqtt.properties import Properties
from birthmark.mqtt.session import Session

_PINGRESP = b"\xd0\x00"
_PINGREQ = b"\xc0\x00"
_MAX_PINGS = 100  # that came before the answers to earlier ones left: no client has more than one
_KEEP_ALIVE_FACTOR = 1.5  # [MQTT-3.1.2-24]


class Role(StrEnum):
    """Which end of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class State(StrEnum):
    """How far the connection is."""

    NEW = "new"  # no CONNECT yet
    CONNECTING = "connecting"  # CONNECT sent or received, no CONNACK yet
    OPEN = "open"
    CLOSED = "closed"  # DISCONNECT or a refusing CONNACK went over the wire
    FAILED = "failed"


class Limits(msgspec.Struct, frozen=True):
    """What one connection may cost us. The defaults take 256 KiB of payload with its topic and header."""

    max_packet_bytes: int = 270_336
    max_topic_bytes: int = 65_535
    max_filters: int = 64
    max_in_flight: int = 100
    max_queued: int = 1000
    connect_timeout_s: float = 30.0  # server: from the first byte to the end of CONNECT
    ping_timeout_s: float = 30.0  # client: from PINGREQ to PINGRESP


_FROM_CLIENT_ONLY = (Connect, Subscribe, Unsubscribe, PingReq)
_FROM_SERVER_ONLY = (ConnAck, SubAck, UnsubAck, PingResp)


class Engine:
    """See the module. `session` carries unacknowledged messages from one connection to the next."""

    __slots__ = (
        "_burst",
        "_connect_due",
        "_failure",
        "_framer",
        "_last_received",
        "_out",
        "_ping_due",
        "_pings",
        "_pong_due",
        "_requests",
        "keep_alive_s",
        "level",
        "limits",
        "role",
        "session",
        "state",
    )

    def __init__(self, role: Role, limits: Limits = Limits(), session: Session | None = None) -> None:  # noqa: B008 (frozen)
        self.role = role
        self.limits = limits
        self.session = session or Session(limits.max_in_flight, limits.max_queued)
        self.state = State.NEW
        self.level = LEVEL_3_1_1
        self.keep_alive_s = 0  # a server may overwrite it after CONNECT
        self._framer = Framer(limits.max_packet_bytes)
        self._burst: list[Publish] = []  # received, not yet given out, the next at the end
        self._out = bytearray()
        self._failure: RemoteProtocolError | None = None
        self._requests: dict[int, int] = {}  # packet id of a SUBSCRIBE or UNSUBSCRIBE -> codes expected
        self._last_received: float | None = None
        self._connect_due: float | None = None
        self._ping_due: float | None = None
        self._pong_due: float | None = None
        self._pings = 0  # whose answers have not left

    def begin(self, now: float) -> None:
        """Start a server's clock with the connection: a client that never sends a byte has no more time than others."""
        if self._connect_due is None:
            self._connect_due = now + self.limits.connect_timeout_s

    def adopt(self, session: Session) -> None:
        """Go on with a client's session, which a server knows only after CONNECT: until CONNACK is sent."""
        if self.role is not Role.SERVER or self.state is not State.CONNECTING:
            raise LocalProtocolError(f"a {self.role} that is {self.state} adopts no session")
        self.session = session

    # ---- bytes

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes as they came. Raise `RemoteProtocolError` when too much is sent before our CONNACK."""
        if self._failure is not None:
            raise self._failure
        if self.state is State.CLOSED:
            return
        self._last_received = now
        self.begin(now)
        self._framer.receive_data(data)
        if self.state is State.CONNECTING and self._framer.buffered > 2 * self.limits.max_packet_bytes:
            self._fail(RemoteProtocolError("the client sends too much before its CONNACK", reason_code=0x97))
        if self.role is Role.CLIENT and self._ping_due is None and self.state is State.OPEN:
            self._schedule_ping(now)

    @property
    def has_input(self) -> bool:
        """Something came that was not given out; perhaps not a whole packet, or a failure to be told."""
        return not self._framer.is_empty or bool(self._burst) or self._failure is not None

    @property
    def wants_to_send(self) -> bool:
        return bool(self._out)

    def data_to_send(self) -> bytes:
        """Return and forget the bytes to send; also after a failure, when they are the last words."""
        if not self._out:
            return b""
        data = bytes(self._out)
        self._out.clear()
        self._pings = 0
        return data

    # ---- packets

    def next_event(self) -> Packet | None:
        """Return the next packet of the peer, or None. Raise `RemoteProtocolError`."""
        if self._burst:
            return self._burst.pop()
        if self._failure is not None:
            raise self._failure
        if self._framer.is_empty:
            return None
        if burst := self.next_burst():
            self._burst = burst[::-1]
            return self._burst.pop()
        while self.state is not State.CLOSED and not (self.role is Role.SERVER and self.state is State.CONNECTING):
            try:
                frame = self._framer.next_frame()
                if frame is None:
                    return None
                packet = codec.decode(*frame, self.level)
                is_news = self._receive(packet)
            except RemoteProtocolError as error:
                self._fail(error)
            if is_news:
                return packet
        return None

    def next_burst(self) -> list[Publish]:
        """Return the plain PUBLISH packets that come next, all at once; none when `next_event` has to look."""
        if self.state is not State.OPEN or self._framer.is_empty or self._burst:
            return []
        return self._framer.next_burst(self.limits.max_topic_bytes, is_level_5=self.level == LEVEL_5)

    def send(self, packet: Packet) -> None:
        """Queue a packet. Raise `LocalProtocolError` when it may not be sent now; nothing is written then."""
        self._check_may_send(packet)
        level = packet.level if isinstance(packet, Connect) else self.level
        data = codec.encode(packet, level)
        self._out += data
        match packet:
            case Connect():
                self.state = State.CONNECTING
                self.level = packet.level
                self.keep_alive_s = packet.keep_alive_s
            case ConnAck():
                self._accept(packet, may_resume=True)
            case Subscribe() | Unsubscribe():
                self._requests[packet.packet_id] = len(packet.filters)
            case Disconnect():
                self.state = State.CLOSED
                self._burst.clear()
            case _:
                pass

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,  # noqa: FBT001, FBT002 (the wire's own flag)
        properties: Properties = (),
    ) -> int | None:
        """Send a message, or queue it behind the window of unacknowledged ones; return its packet id for QoS 1.

        Before the connection is open only QoS 1 is taken, for sending later. Raise `LocalProtocolError`, and of these
        `QueueFullError` when too many wait.
        """
        if qos == 0:
            self.send(Publish(topic, payload, 0, retain, properties=properties))
            return None
        if qos != 1:
            raise LocalProtocolError("messages are sent with QoS 0 or 1")
        if self.state in (State.CLOSED, State.FAILED):
            raise LocalProtocolError("the connection is over")
        self.session.check_room()
        packet_id = self.session.reserve()
        message = Publish(topic, payload, 1, retain, packet_id=packet_id, properties=properties)
        try:
            data = codec.encode_publish(message, self.level)
        except LocalProtocolError:
            self.session.release(packet_id)
            raise
        if self.session.add(message, may_fly=self.state is State.OPEN):
            self._out += data
        return packet_id

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> int:
        """Ask for `filters` with their QoS and return the packet id of the SUBACK to come."""
        packet_id = self.session.reserve()
        try:
            self.send(Subscribe(packet_id, tuple(filters)))
        except LocalProtocolError:
            self.session.release(packet_id)
            raise
        return packet_id

    def unsubscribe(self, filters: Sequence[str]) -> int:
        """End subscriptions and return the packet id of the UNSUBACK to come."""
        packet_id = self.session.reserve()
        try:
            self.send(Unsubscribe(packet_id, tuple(filters)))
        except LocalProtocolError:
            self.session.release(packet_id)
            raise
        return packet_id

    def ack(self, packet_ids: Sequence[int]) -> None:
        """Acknowledge QoS 1 messages, all in one write."""
        if not packet_ids:
            return
        self._check_open()
        try:
            self._out += b"".join([b"\x40\x02" + packet_id.to_bytes(2, "big") for packet_id in packet_ids])
        except OverflowError:
            raise LocalProtocolError("a packet id does not fit into two bytes") from None

    # ---- time

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` wants to be called, in the seconds of `now`; None for never."""
        if self.state in (State.CLOSED, State.FAILED):
            return None
        if self.role is Role.SERVER and self.state is State.NEW:
            return self._connect_due
        if self._last_received is None:
            return None
        if self.role is Role.SERVER:
            return self._last_received + _KEEP_ALIVE_FACTOR * self.keep_alive_s if self.keep_alive_s else None
        return self._pong_due if self._pong_due is not None else self._ping_due

    def on_deadline(self, now: float) -> None:
        """Ping, or raise `RemoteProtocolError` when the peer was silent for too long. Early calls do nothing."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        if self.role is Role.SERVER and self.state is State.NEW:
            self._fail(RemoteProtocolError("no CONNECT came in time"))
        if self.role is Role.SERVER:
            self._fail(RemoteProtocolError("the keep alive has run out", reason_code=KEEP_ALIVE_TIMEOUT))
        if self._pong_due is not None:
            self._fail(RemoteProtocolError("the server does not answer PINGREQ", reason_code=KEEP_ALIVE_TIMEOUT))
        self._out += _PINGREQ
        self._pong_due = now + self.limits.ping_timeout_s
        self._schedule_ping(now)

    # ---- inside

    def _receive(self, packet: Packet) -> bool:
        """Follow the peer's packet; say whether the caller should hear of it."""
        if type(packet) is Publish:
            if self.state is not State.OPEN:
                raise RemoteProtocolError(f"PUBLISH came while {self.state}", reason_code=0x82)
            topic, most = packet.topic, self.limits.max_topic_bytes
            if len(topic) > most or (not topic.isascii() and len(topic.encode()) > most):
                raise RemoteProtocolError("the topic is too long", reason_code=0x90)
            return True
        if self.role is Role.SERVER:
            return self._receive_as_server(packet)
        return self._receive_as_client(packet)

    def _receive_as_server(self, packet: Packet) -> bool:
        if isinstance(packet, Connect):
            if self.state is not State.NEW:
                raise RemoteProtocolError("CONNECT came twice", reason_code=0x82)
            self.state = State.CONNECTING
            self.level = packet.level
            self.keep_alive_s = packet.keep_alive_s
            return True
        if self.state is State.NEW:
            raise RemoteProtocolError("the first packet is not CONNECT", reason_code=0x82)
        match packet:
            case PingReq():
                self._answer_ping()
                return False
            case Subscribe(filters=filters) | Unsubscribe(filters=filters):
                if len(filters) > self.limits.max_filters:
                    raise RemoteProtocolError(f"more than {self.limits.max_filters} filters at once", reason_code=0x97)
            case PubAck():
                self._acknowledged(packet)
            case Disconnect():
                self.state = State.CLOSED
            case ConnAck() | SubAck() | UnsubAck() | PingResp():
                raise RemoteProtocolError(f"a client sent {type(packet).__name__}", reason_code=0x82)
            case _:
                pass
        return True

    def _answer_ping(self) -> None:
        self._pings += 1
        if self._pings > _MAX_PINGS:
            raise RemoteProtocolError("PINGREQ comes without waiting for an answer", reason_code=0x96)
        self._out += _PINGRESP

    def _receive_as_client(self, packet: Packet) -> bool:
        if isinstance(packet, ConnAck):
            if self.state is not State.CONNECTING:
                raise RemoteProtocolError(f"CONNACK came while {self.state}", reason_code=0x82)
            self._accept(packet, may_resume=packet.session_present)
            return True
        if self.state is not State.OPEN and not isinstance(packet, Auth):
            raise RemoteProtocolError("the first packet is not CONNACK", reason_code=0x82)
        match packet:
            case PingResp():
                self._pong_due = None
            case SubAck() | UnsubAck():
                self._answered(packet)
            case PubAck():
                self._acknowledged(packet)
            case Disconnect() if self.level == LEVEL_5:
                self.state = State.CLOSED
            case Connect() | Subscribe() | Unsubscribe() | PingReq() | Disconnect():
                raise RemoteProtocolError(f"a server sent {type(packet).__name__}", reason_code=0x82)
            case _:
                pass
        return True

    def _accept(self, connack: ConnAck, *, may_resume: bool) -> None:
        """CONNACK went out or came in: the connection is open, and unacknowledged messages go again."""
        if connack.code:
            self.state = State.CLOSED
            return
        self.state = State.OPEN
        if self.role is Role.SERVER and not connack.session_present:
            self.session.clear()
            return
        if self.role is Role.CLIENT and self._last_received is not None:
            self._schedule_ping(self._last_received)
        # A server that lost the session never saw these: they are new to it, and still owed by us.
        for message in self.session.resend(as_duplicates=may_resume):
            self._out += codec.encode_publish(message, self.level)
        self._advance()

    def _acknowledged(self, packet: PubAck) -> None:
        # An unknown id is harmless: it is the answer to a message of an earlier life, or a caller's own bookkeeping.
        if self.session.acknowledge(packet.packet_id):
            self._advance()

    def _advance(self) -> None:
        for message in self.session.advance():
            self._out += codec.encode_publish(message, self.level)

    def _answered(self, packet: SubAck | UnsubAck) -> None:
        expected = self._requests.pop(packet.packet_id, None)
        if expected is None:
            raise RemoteProtocolError("an acknowledgement answers no request of ours", reason_code=0x82)
        has_codes = isinstance(packet, SubAck) or self.level == LEVEL_5
        if has_codes and len(packet.codes) != expected:
            raise RemoteProtocolError(f"{len(packet.codes)} codes answer {expected} filters", reason_code=0x82)
        self.session.release(packet.packet_id)

    def _schedule_ping(self, now: float) -> None:
        self._ping_due = now + self.keep_alive_s if self.keep_alive_s else None

    def _check_may_send(self, packet: Packet) -> None:
        if isinstance(packet, Connect):
            if self.role is Role.SERVER or self.state is not State.NEW:
                raise LocalProtocolError(f"a {self.role} that is {self.state} sends no CONNECT")
            return
        if isinstance(packet, ConnAck):
            if self.role is Role.CLIENT or self.state is not State.CONNECTING:
                raise LocalProtocolError(f"a {self.role} that is {self.state} sends no CONNACK")
            return
        if not (isinstance(packet, Disconnect | Auth) and self.state is State.CONNECTING):
            self._check_open()
        wrong_way = _FROM_SERVER_ONLY if self.role is Role.CLIENT else _FROM_CLIENT_ONLY
        if isinstance(packet, wrong_way):
            raise LocalProtocolError(f"a {self.role} sends no {type(packet).__name__}")
        if isinstance(packet, Disconnect) and self.role is Role.SERVER and self.level != LEVEL_5:
            raise LocalProtocolError("a server has no DISCONNECT in 3.1.1: close the connection")

    def _check_open(self) -> None:
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"the connection is {self.state}")

    def _fail(self, error: RemoteProtocolError) -> NoReturn:
        """Say the last words the specification asks for, and stay failed."""
        if self.role is Role.SERVER:
            if error.return_code is not None:
                self._out += codec.encode(ConnAck(code=error.return_code))
            elif self.level == LEVEL_5 and self.state is State.OPEN:
                self._out += codec.encode(Disconnect(error.reason_code), LEVEL_5)
        self.state = State.FAILED
        self._failure = error
        raise error


__all__ = ["Engine", "Limits", "Role", "Session", "State"]
