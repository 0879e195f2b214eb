"""Drives one MQTT engine over a byte transport and hands its packets to a room's connection.

A room gives an `Accept`: it looks at CONNECT and the peer, and returns an `MqttConnection` or raises
`MqttRefusedError`. Its methods may return at once or return an awaitable; while one runs, nothing more of this
connection is read, so that packets keep their order and a slow decision holds up only its own peer. Everything sent
within a loop tick leaves in one write.

This module alone catches `Exception`: a bug in a room is logged and costs one connection.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import StrEnum
from typing import Protocol

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.mqtt.engine import Engine, Limits, Role
from birthmark.mqtt.errors import KEEP_ALIVE_TIMEOUT, LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import (
    LEVEL_5,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)
from birthmark.net.connection import PlainTransport
from birthmark.net.tls import NO_PEER, TlsPeer

log = logging.getLogger(__name__)

NOT_AUTHORIZED = 5
_UNSUPPORTED_VERSION_5 = 0x84
# Then others get their turn: small packets that come without a pause would hold everyone up.
_PACKETS_A_TURN = 256
_LIMITS = Limits()


class MqttProtocolError(InvalidRequestError):
    """The client broke the protocol."""

    code = "mqtt.protocol_error"
    cause = "The client broke the MQTT protocol: {reason}."
    fix = (
        "Check the client library, docs/reference/limits.md lists the sizes this server takes. This is taken: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST"`'
    )
    reason: str


class MqttVersionError(InvalidRequestError):
    """MQTT 5 is not served here."""

    code = "mqtt.version_unsupported"
    cause = "The client speaks MQTT 5; this endpoint speaks MQTT 3.1.1."
    fix = (
        "Configure the client for MQTT 3.1.1 (protocol level 4), which this speaks: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST"`'
    )


class MqttRefusedError(Exception):
    """A room's answer to CONNECT: a return code, and the reason for the ledger. Code None closes without CONNACK."""

    def __init__(self, return_code: int | None, error: BirthmarkError) -> None:
        super().__init__(str(error))
        self.return_code = return_code
        self.error = error


class Closed(StrEnum):
    """Why a connection ended."""

    DISCONNECT = "disconnect"  # the client said so
    LOST = "lost"
    KEEP_ALIVE = "keep_alive"
    PROTOCOL = "protocol"
    REFUSED = "refused"
    TAKEN_OVER = "taken_over"
    SERVER = "server"


class MqttConnection(Protocol):
    """A room's side of one connection. Raise `BirthmarkError` to record a refusal and close."""

    @property
    def session_present(self) -> bool: ...

    def opened(self) -> None:
        """CONNACK is on its way."""
        ...

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        """Take messages that came together, in their order."""
        ...

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None: ...

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None: ...

    def acknowledged(self, packet: PubAck) -> Awaitable[None] | None: ...

    def closed(self, reason: Closed) -> None:
        """The connection is over; called once, also when it ended during an await."""
        ...


Accept = Callable[["MqttPump", Connect], Awaitable[MqttConnection]]
Report = Callable[[BirthmarkError, str, TlsPeer], None]


class MqttTransport(Protocol):
    """What the pump needs below: bytes out, and a deadline."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None: ...

    def authenticated(self) -> None:
        """The peer is a stranger no more."""
        ...


class MqttPump(asyncio.Protocol):
    """One MQTT connection on the server side."""

    __slots__ = (
        "_accept",
        "_acks",
        "_busy",
        "_clock",
        "_connection",
        "_dirty",
        "_engine",
        "_is_paused",
        "_loop",
        "_over",
        "_reason",
        "_report",
        "_task",
        "_transport",
        "address",
        "client_id",
        "peer",
    )

    def __init__(
        self, accept: Accept, report: Report, clock: Clock, peer: TlsPeer = NO_PEER, limits: Limits = _LIMITS
    ) -> None:
        self._accept = accept
        self._report = report
        self._clock = clock
        self._engine = Engine(Role.SERVER, limits)
        self._loop = asyncio.get_running_loop()
        self._connection: MqttConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        self._dirty = False
        self._is_paused = False
        self._over = False
        self._acks: list[int] = []
        self._reason = Closed.LOST
        self._transport: MqttTransport
        self.peer = peer
        self.address = ""
        self.client_id = ""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, PlainTransport)  # noqa: S101 - the mux gives nothing else
        self.start(transport.connection, transport.connection.address)

    def start(self, transport: MqttTransport, address: str) -> None:
        """Begin on a transport that is connected."""
        self._transport = transport
        self.address = address
        self._engine.begin(self._clock.monotonic())
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._engine.receive_data(data, self._clock.monotonic())
        except RemoteProtocolError as error:
            self._broken(error)
            return
        if not self._busy:
            self._process()
        elif not self._is_paused:  # most answers are there before the peer says more
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._finish()

    # For rooms.

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> int | None:
        """Send a message; return its packet id for QoS 1. Dropped when the connection is over."""
        if self._over:
            return None
        packet_id = self._engine.publish(topic, payload, qos, retain)
        self._soon()
        return packet_id

    def ack(self, packet_id: int | None) -> None:
        """Acknowledge a QoS 1 message; all of a tick go out in one write."""
        if packet_id is not None:
            self.ack_all((packet_id,))

    def ack_all(self, packet_ids: Iterable[int]) -> None:
        """Acknowledge QoS 1 messages."""
        if not self._over:
            self._acks.extend(packet_ids)
            self._soon()

    def send(self, packet: SubAck | UnsubAck) -> None:
        """Send an answer to SUBSCRIBE or UNSUBSCRIBE."""
        if not self._over:
            self._engine.send(packet)
            self._soon()

    def set_keep_alive(self, seconds: int) -> None:
        """Watch for this keep alive instead of the one the client asked for."""
        self._engine.keep_alive_s = seconds

    def close(self, reason: Closed = Closed.SERVER) -> None:
        """Send what is queued, then close the connection cleanly."""
        if self._over:
            return
        self._reason = reason
        self._flush()
        self._transport.close()
        self._finish()

    def refuse(self, error: BirthmarkError) -> None:
        """Record why, and close."""
        if not self._over:
            self._tell(error)
            self.close(Closed.REFUSED)

    def note(self, error: BirthmarkError) -> None:
        """Record a refusal that does not end the connection."""
        self._tell(error)

    @property
    def is_over(self) -> bool:
        return self._over

    # Inside.

    def _process(self) -> None:
        handled = 0
        try:
            while self._engine.has_input and not self._busy and not self._over:
                if burst := self._engine.next_burst():
                    handled += len(burst)
                    waiting = self._connection.published(burst) if self._connection is not None else None
                elif (packet := self._engine.next_event()) is not None:
                    handled += 1
                    waiting = self._dispatch(packet)
                else:
                    break
                if waiting is None and handled >= _PACKETS_A_TURN:
                    waiting = asyncio.sleep(0)
                if waiting is not None:
                    self._busy = True
                    self._task = self._loop.create_task(self._await(waiting))
        except RemoteProtocolError as error:
            self._broken(error)
        except BirthmarkError as error:
            self.refuse(error)
        except Exception:
            log.exception("mqtt.bug", extra={"address": self.address})
            self.close(Closed.SERVER)
        if self._engine.wants_to_send:
            self._soon()

    def _dispatch(self, packet: Packet) -> Awaitable[None] | None:
        connection = self._connection
        if connection is None:
            if isinstance(packet, Connect):
                self.client_id = packet.client_id
                return self._connect(packet)
            return None
        waiting: Awaitable[None] | None = None
        match packet:
            case Publish():
                waiting = connection.published((packet,))
            case PubAck():
                waiting = connection.acknowledged(packet)
            case Subscribe():
                waiting = connection.subscribed(packet)
            case Unsubscribe():
                waiting = connection.unsubscribed(packet)
            case Disconnect():
                self.close(Closed.DISCONNECT)
            case _:
                raise MqttProtocolError(reason=f"{type(packet).__name__} is not served here")
        return waiting

    async def _connect(self, packet: Connect) -> None:
        if packet.level == LEVEL_5:
            self._engine.send(ConnAck(code=_UNSUPPORTED_VERSION_5))
            self.refuse(MqttVersionError())
            return
        try:
            connection = await self._accept(self, packet)
        except MqttRefusedError as refused:
            if refused.return_code is not None and not self._over:
                self._engine.send(ConnAck(code=refused.return_code))
            self.refuse(refused.error)
            return
        if self._over:
            connection.closed(self._reason)
            return
        self._connection = connection
        self._transport.authenticated()
        self._engine.send(ConnAck(session_present=connection.session_present))
        log.debug("mqtt.connected", extra={"address": self.address, "client_id": packet.client_id})
        connection.opened()

    async def _await(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except BirthmarkError as error:
            self.refuse(error)
        except Exception:
            log.exception("mqtt.bug", extra={"address": self.address})
            self.close(Closed.SERVER)
        finally:
            self._busy = False
            self._task = None
        if self._over:
            return
        self._process()
        if self._is_paused and not self._busy:
            self._is_paused = False
            self._transport.resume_reading()

    def _broken(self, error: RemoteProtocolError) -> None:
        self._reason = Closed.KEEP_ALIVE if error.reason_code == KEEP_ALIVE_TIMEOUT else Closed.PROTOCOL
        if self._reason is Closed.PROTOCOL:
            problem = MqttProtocolError(reason=error.reason)
            self._tell(problem)
        self.close(self._reason)

    def _tell(self, error: BirthmarkError) -> None:
        if self.client_id:  # the name that a person finds in the client's own configuration
            error.add_facts(client_id=self.client_id)
        self._report(error, self.address, self.peer)

    def _watch(self) -> None:
        """Look at the engine's deadline again when it may have passed; it moves with every packet."""
        if self._over:
            return
        deadline = self._engine.deadline
        wait = 5.0 if deadline is None else max(0.0, deadline - self._clock.monotonic())
        self._transport.set_deadline(wait, self._on_deadline)

    def _on_deadline(self) -> None:
        try:
            self._engine.on_deadline(self._clock.monotonic())
        except RemoteProtocolError as error:
            self._broken(error)
            return
        self._watch()

    def _soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._dirty = False
        if self._acks:
            acks, self._acks = self._acks, []
            try:
                self._engine.ack(acks)
            except LocalProtocolError:
                log.debug("mqtt.ack_after_end")
        if data := self._engine.data_to_send():
            self._transport.write(data)

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        connection, self._connection = self._connection, None
        log.debug("mqtt.closed", extra={"address": self.address, "reason": self._reason.value})
        if connection is not None:
            connection.closed(self._reason)
