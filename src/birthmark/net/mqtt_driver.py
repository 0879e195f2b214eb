"""Drives one MQTT engine over a byte transport and passes its packets to a service's connection.

A service supplies an `Accept`: it checks CONNECT and the peer, and returns an `Admission` with its `MqttConnection` or
raises `MqttRefusedError`. The connection's methods may return at once or return an awaitable. While an awaitable runs,
nothing more of this connection is read. Packets therefore keep their order, and a slow decision delays only its own
peer. All output of a loop iteration is sent in one write.

Services use MQTT 5 terms; what 3.1.1 cannot express is omitted here and in the codec.

Only this module catches `Exception`: a bug in a service is logged and ends one connection.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar, Protocol
from weakref import WeakKeyDictionary

from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError
from birthmark.metric_catalog import Traffic
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.engine import MqttEngine, MqttLimits, MqttRole, MqttState
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
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
from birthmark.mqtt.properties import Properties, PropertyId, get_property
from birthmark.mqtt.reason_codes import RETURN_CODES, ReasonCode, connack_reason, disconnect_reason
from birthmark.net.accepted_connection import PlainTransport
from birthmark.net.fair_scheduler import SLICE_S, TURN_S, Backlog, now
from birthmark.net.mqtt_service_interface import (
    CLOSE_CODES,
    Admission,
    CloseReason,
    MqttConnection,
    MqttProtocolError,
    MqttRefusedError,
    reason_of,
)
from birthmark.net.quota_key import owner_of
from birthmark.net.send_buffer_quota import SMALL_BYTES
from birthmark.net.stale_cache_request_delay import Freshness
from birthmark.net.tls import NO_PEER, TlsPeer

log = logging.getLogger(__name__)

_LIMITS = MqttLimits()


Accept = Callable[["MqttDriver", Connect], Awaitable[Admission]]
Report = Callable[[BirthmarkError, str, TlsPeer], None]


class MqttTransport(Protocol):
    """Transport interface of the driver: output bytes and a deadline."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None: ...

    def mark_authenticated(self, owner: str) -> None:
        """Mark the peer as authenticated as `owner`."""
        ...

    def record_incomplete(self, size: int) -> None:
        """Record the number of received bytes that are incomplete or wait for their turn."""
        ...


class _TickFlush:
    """Output of all connections of an event loop, flushed together at the end of an iteration."""

    _of_loops: ClassVar["WeakKeyDictionary[asyncio.AbstractEventLoop, _TickFlush]"] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: deque[MqttDriver] = deque()
        self._is_called = False

    @classmethod
    def running(cls) -> "_TickFlush":
        """Return the instance of the running loop."""
        loop = asyncio.get_running_loop()
        if (known := cls._of_loops.get(loop)) is None:
            known = cls._of_loops[loop] = cls()
        return known

    def add(self, driver: "MqttDriver") -> None:
        """Schedule a flush of this connection."""
        self._waiting.append(driver)
        if not self._is_called:
            self._call()

    def _call(self) -> None:
        if self._waiting and not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Flush the connections in order, for one turn: a message to very many subscribers needs as many writes."""
        until = now() + TURN_S
        while self._waiting:
            self._waiting.popleft().flush_alone()
            if self._waiting and now() > until:
                break
        self._is_called = False
        self._call()


class MqttDriver(asyncio.Protocol):
    """Server-side MQTT connection."""

    __slots__ = (
        "_accept",
        "_acks",
        "_backlog",
        "_busy",
        "_clock",
        "_connection",
        "_dirty",
        "_engine",
        "_freshness",
        "_is_lost",
        "_is_paused",
        "_keeps",
        "_over",
        "_owner",
        "_reason",
        "_reason_of",
        "_report",
        "_task",
        "_traffic",
        "_transport",
        "_turn",
        "address",
        "client_id",
        "peer",
    )

    def __init__(
        self,
        accept: Accept,
        report: Report,
        clock: Clock,
        peer: TlsPeer = NO_PEER,
        limits: MqttLimits = _LIMITS,
        *,
        freshness: Freshness | None = None,
    ) -> None:
        """`freshness` is checked before any client message is processed."""
        self._accept = accept
        self._report = report
        self._clock = clock
        self._freshness = freshness
        self._engine = MqttEngine(MqttRole.SERVER, limits)
        self._turn = _TickFlush.running()
        self._backlog = Backlog.running()
        self._connection: MqttConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        self._dirty = False
        self._is_paused = self._is_lost = False
        self._over = False
        self._keeps = False  # much input at the last check
        self._acks: list[int] = []
        self._reason = CloseReason.LOST
        self._reason_of: Callable[[BirthmarkError], int] = reason_of
        self._traffic: Traffic | None = None
        self._transport: MqttTransport
        self._owner = ""
        self.peer = peer
        self.address = ""
        self.client_id = ""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, PlainTransport)  # noqa: S101 - the only type from the mux
        self.start(transport.connection, transport.connection.address)

    def start(self, transport: MqttTransport, address: str) -> None:
        """Start on a connected transport."""
        self._transport = transport
        self.address = address
        self._owner = owner_of(None, address)
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
            self._dirty = True  # output to it leaves below, without a turn of its own
            is_all = self._process()
            if self._acks or self._engine.wants_to_send:
                self.flush()
            else:
                self._dirty = False
            if is_all and not self._keeps:  # the usual case
                return
        elif not self._is_paused:  # most answers are ready before more input
            self._is_paused = True
            self._transport.pause_reading()
        if self._keeps or self._engine.has_input:
            size = self._engine.buffered
            self._keeps = size >= SMALL_BYTES
            self._transport.record_incomplete(size)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, BirthmarkError) and not self._over:
            self._tell(exc)
        if self._busy:
            self._is_lost = True  # after the earlier input
        elif self._backlog.is_behind(self.owner):  # closing is work, and many may close at once
            self._is_lost = self._busy = True
            self._backlog.add(self._process_rest, self.owner)
        else:
            self._finish()

    # For other packages.

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False, properties: Properties = ()
    ) -> int | None:
        """Send a message; return its packet ID for QoS 1, or `DISCARDED` if it exceeds the client's maximum size.

        The message is dropped if the connection has ended. 3.1.1 has no properties.
        """
        return self.deliver(EncodedMessage(topic, payload, properties, retain=retain), qos)

    def deliver(self, parcel: EncodedMessage, qos: int = 0) -> int | None:
        """Send a message that is encoded once for several receivers, as `publish` does."""
        if self._over:
            return None
        packet_id = self._engine.deliver(parcel, qos)
        self._schedule_flush()
        return packet_id

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool = False) -> bool:
        """Send a QoS 1 message that the service numbers and stores.

        Return False if the client's limits exclude it.
        """
        if self._over:
            return False
        taken = self._engine.forward(parcel, packet_id, dup=dup)
        self._schedule_flush()
        return taken

    def ack(self, packet_id: int | None, code: int = ReasonCode.SUCCESS) -> None:
        """Acknowledge a QoS 1 message; all of a loop iteration are sent in one write. 3.1.1 has no reason code.

        The client receives acknowledgements in message order, whatever the order here ([MQTT-4.6.0-2]). A message that
        is never acknowledged blocks all later ones.
        """
        if packet_id is None or self._over:
            return
        if not code:
            self.ack_all((packet_id,))
            return
        self._flush_acks()
        self._engine.ack([packet_id], code)
        self._schedule_flush()

    def ack_all(self, packet_ids: Iterable[int]) -> None:
        """Acknowledge QoS 1 messages."""
        if not self._over:
            self._acks.extend(packet_ids)
            if not self._dirty:  # like `_soon`: these are not among the pending writes
                self._dirty = True
                self._turn.add(self)

    def send(self, packet: SubAck | UnsubAck) -> None:
        """Send a SUBACK or UNSUBACK."""
        if not self._over:
            self._engine.send(packet)
            self._schedule_flush()

    def close(self, reason: CloseReason = CloseReason.SERVER, code: int | None = None) -> None:
        """Send queued data and, in MQTT 5, a DISCONNECT, then close the connection cleanly."""
        if self._over:
            return
        self._send_close_reason(CLOSE_CODES[reason] if code is None else code)
        self._end(reason)

    def refuse(self, error: BirthmarkError) -> None:
        """Record the refusal and close the connection."""
        if not self._over:
            self._tell(error)
            self.close(CloseReason.REFUSED, self._reason_of(error))

    def note(self, error: BirthmarkError) -> None:
        """Record a refusal that does not end the connection."""
        self._tell(error)

    @property
    def level(self) -> int:
        """The protocol level of the client, from CONNECT on."""
        return self._engine.level

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost: responses cannot be delivered, but received messages still count."""
        return self._is_lost

    @property
    def owner(self) -> str:
        """Owner for scheduling.

        An unauthenticated peer is scheduled by its address, whatever certificate it presents.
        """
        return self._owner

    async def wait_for_turn(self) -> None:
        """Wait for this client's turn; a service calls this before each request of a burst."""
        await self._backlog.wait_for_turn(self._owner)

    # Inside.

    def _process(self) -> bool:
        """Process received data for at most one time slice, because a stream of small packets would delay others.

        Return whether all data is processed.
        """
        since = 0.0
        try:
            while not self._over:
                count, waiting = self._dispatch_next()
                if waiting is not None:
                    self._busy = True
                    self._task = self._backlog.start(self._await(waiting), waiting, self)
                    break
                if not count:
                    break
                if not self._engine.has_input:
                    return True
                at = now()
                if not since:
                    since = at
                elif at - since > SLICE_S:
                    self._busy = True
                    self._backlog.add(self._process_rest, self.owner)
                    break
        except RemoteProtocolError as error:
            self._broken(error)
        except BirthmarkError as error:
            self.refuse(error)
        except Exception:
            log.exception("mqtt.bug", extra={"address": self.address})
            self.close(CloseReason.SERVER)
        return False

    def _dispatch_next(self) -> tuple[int, Awaitable[None] | None]:
        """Pass on the next packets of one type; return their number, and an awaitable if there is one."""
        engine, connection = self._engine, self._connection
        if connection is not None:
            if burst := engine.next_burst():
                if (freshness := self._freshness) is None or freshness.is_fresh:
                    return len(burst), connection.published(burst)
                return len(burst), self._publish_fresh(connection, burst, freshness)
            if packet_ids := engine.next_acks():
                return len(packet_ids), connection.acknowledged(packet_ids)
        packet = engine.next_packet()
        return (0, None) if packet is None else (1, self._dispatch(packet))

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
                waiting = self._publish(connection, (packet,))
            case PubAck(packet_id=packet_id):
                waiting = connection.acknowledged((packet_id,))
            case Subscribe():
                waiting = connection.subscribed(packet)
            case Unsubscribe():
                waiting = connection.unsubscribed(packet)
            case Disconnect(code=code, properties=properties):
                expiry = get_property(properties, PropertyId.SESSION_EXPIRY)
                reason = CloseReason.DISCONNECT_WITH_WILL if code else CloseReason.DISCONNECT
                self._end(reason, expiry if isinstance(expiry, int) else None)
            case _:
                raise MqttProtocolError(reason=f"{type(packet).__name__} is not supported here")
        return waiting

    def _publish(self, connection: MqttConnection, packets: Sequence[Publish]) -> Awaitable[None] | None:
        freshness = self._freshness
        if freshness is None or freshness.is_fresh:
            return connection.published(packets)
        return self._publish_fresh(connection, packets, freshness)

    async def _publish_fresh(
        self, connection: MqttConnection, packets: Sequence[Publish], freshness: Freshness
    ) -> None:
        await freshness.wait_until_fresh()
        if not self._over and (waiting := connection.published(packets)) is not None:
            await waiting

    async def _connect(self, packet: Connect) -> None:
        try:
            admission = await self._accept(self, packet)
        except MqttRefusedError as refused:
            self._refuse_connect(refused)
            return
        connection = admission.connection
        if self._over:
            connection.closed(self._reason, None)
            return
        self._connection = connection
        self._owner = admission.proved_by or owner_of(self.peer.leaf, self.address)
        self._reason_of = admission.reason_of
        self._transport.mark_authenticated(self._owner)
        engine = self._engine
        engine.keep_alive_s = admission.keep_alive_s
        if admission.assigned_client_id is not None:
            self.client_id = admission.assigned_client_id
        properties = admission.properties(engine.limits.max_packet_bytes) if engine.level == LEVEL_5 else ()
        engine.send(ConnAck(session_present=admission.session_present, properties=properties))
        self._traffic = admission.traffic
        if self._traffic is not None:
            self._traffic.count_connection(engine)
        log.debug("mqtt.connected", extra={"address": self.address, "client_id": self.client_id})
        connection.opened()

    def _refuse_connect(self, refused: MqttRefusedError) -> None:
        """Refuse CONNECT with the code for the client's protocol level."""
        if self._over:
            return
        self._tell(refused.error)
        if self._engine.level == LEVEL_5:
            self._send_close_reason(refused.reason_code)
        elif not refused.is_silent_in_3 and (code := RETURN_CODES.get(refused.reason_code)) is not None:
            self._engine.send(ConnAck(code=code))
        self._end(CloseReason.REFUSED)

    async def _await(self, waiting: Awaitable[None]) -> None:
        try:
            await self._backlog.wait_for_turn(self._owner)
            await waiting
        except RemoteProtocolError as error:  # the client's buffer is full
            self._broken(error)
        except BirthmarkError as error:
            self.refuse(error)
        except Exception:
            log.exception("mqtt.bug", extra={"address": self.address})
            self.close(CloseReason.SERVER)
        finally:
            self._task = None
            self._busy = False
        if self._engine.has_input and self._backlog.is_behind(self._owner):
            self._busy = True
            self._backlog.add(self._process_rest, self._owner)
        else:
            self._process_rest()

    def _process_rest(self) -> None:
        """Process the remaining data, then resume reading."""
        self._busy = False
        if self._over:
            return
        self._process()
        if self._engine.wants_to_send:
            self._schedule_flush()
        if self._is_lost and not self._busy:
            self._finish()
        elif self._is_paused and not self._busy:
            self._is_paused = False
            self._transport.resume_reading()

    def _broken(self, error: RemoteProtocolError) -> None:
        reason = CloseReason.KEEP_ALIVE if error.reason_code == ReasonCode.KEEP_ALIVE_TIMEOUT else CloseReason.PROTOCOL
        if reason is CloseReason.PROTOCOL:
            problem = MqttProtocolError(reason=error.reason)
            self._tell(problem)
        self._end(reason)  # the engine sends nothing more

    def _tell(self, error: BirthmarkError) -> None:
        if self.client_id:  # this name is also in the client's own configuration
            error.add_facts(client_id=self.client_id)
        self._report(error, self.address, self.peer)

    def _watch(self) -> None:
        """Check the engine's deadline when it may have passed; every packet moves it."""
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

    def _schedule_flush(self) -> None:
        """Schedule a flush for this iteration; large output is flushed at once, as it is not accounted here."""
        if not self._dirty:
            self._dirty = True
            self._turn.add(self)
        if self._engine.unsent >= SMALL_BYTES:
            self.flush_alone()
            self._dirty = True  # its turn comes anyway

    def flush_alone(self) -> None:
        """Flush pending output; an error ends only this connection."""
        try:
            self.flush()
        except Exception:
            log.exception("mqtt.bug", extra={"address": self.address})
            with contextlib.suppress(Exception):  # others must not wait for its last packet
                self.close(CloseReason.SERVER)

    def flush(self) -> None:
        """Flush pending output."""
        self._dirty = False
        self._flush_acks()
        if data := self._engine.data_to_send():
            self._transport.write(data)

    def _flush_acks(self) -> None:
        if self._acks:
            acks, self._acks = self._acks, []
            try:
                self._engine.ack(acks)
            except LocalProtocolError:
                log.debug("mqtt.ack_after_end")

    def _send_close_reason(self, code: int) -> None:
        """Send the reason in MQTT 5: in CONNACK before opening ([MQTT-3.14.0-1]), otherwise in DISCONNECT."""
        if self._engine.level != LEVEL_5:
            return
        with contextlib.suppress(RemoteProtocolError):  # its buffer is full
            if self._engine.state is MqttState.OPEN:
                self._flush_acks()
                self._engine.send(Disconnect(disconnect_reason(code)))
            elif self._engine.state is MqttState.CONNECTING:
                self._engine.send(ConnAck(code=connack_reason(code)))

    def _end(self, reason: CloseReason, session_expiry_s: int | None = None) -> None:
        """Flush queued data and close the connection."""
        if self._over:
            return
        self._reason = reason
        try:
            self.flush()
        finally:
            self._transport.close()
            self._finish(session_expiry_s)

    def _finish(self, session_expiry_s: int | None = None) -> None:
        if self._over:
            return
        self._over = True
        connection, self._connection = self._connection, None
        log.debug("mqtt.closed", extra={"address": self.address, "reason": self._reason.value})
        if self._traffic is not None:
            self._traffic.ended(self._engine)
        try:
            if connection is not None:
                connection.closed(self._reason, session_expiry_s)
        finally:  # objects of a connection form reference cycles until garbage collection
            self._engine.forget()
