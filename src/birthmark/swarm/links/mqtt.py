"""MQTT for simulated devices: the project's engine on a lightweight stream, for both versions.

An idle connection has one future. See `birthmark.device_transports.ports.MqttClient`; it adds `idle`, in which a device
waits for its next action.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

from birthmark.device_transports.errors import CLOSED_HERE, LinkLostError
from birthmark.device_transports.mqtt_client_protocol import FAILURE, Conversation
from birthmark.device_transports.ports import ReceivedMessage
from birthmark.device_transports.urls import TIMEOUT_S
from birthmark.errors import BirthmarkError
from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, Packet, PubAck, Publish, SubAck
from birthmark.swarm.links.low_memory_tls_stream import ByteStream, Dialer

_MAX_UNTAKEN = 100

_Waiting = dict[tuple[type[Packet], int], "asyncio.Future[Packet]"]


class SwarmMqtt(Conversation):
    """A device's connection; `acknowledges` is false for a misbehaving device that acknowledges no messages."""

    __slots__ = (
        "_dialer",
        "_end",
        "_engine",
        "_hearing",
        "_host",
        "_idle",
        "_keeps",
        "_pem",
        "_port",
        "_stream",
        "_untaken",
        "_waiting",
        "acknowledges",
        "now",
        "received",
        "refused",
    )

    _timeout_s = TIMEOUT_S

    def __init__(self, dialer: Dialer, pem: Path | None, *, keeps: bool = False) -> None:
        """Create a connection; `keeps` stores messages for `next_message`.

        Otherwise messages are counted, acknowledged and dropped.
        """
        self._dialer, self._pem, self._keeps = dialer, pem, keeps
        self._engine = MqttEngine(MqttRole.CLIENT)
        self._host, self._port = "", 0
        self._stream: ByteStream | None = None
        self._waiting: _Waiting | None = None
        self._idle: asyncio.Future[None] | None = None
        self._hearing: tuple[asyncio.Future[None], ...] = ()
        self._untaken: deque[ReceivedMessage] | None = None
        self._end: BirthmarkError | None = None
        self.acknowledges = True
        self.received = 0
        self.refused = 0
        """Reason code of the last rejected message (MQTT 5)."""
        self.now: Callable[[], float] = asyncio.get_running_loop().time

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        self._host, self._port = host, port
        self._stream = await self._dialer.open(host, port, self._pem)
        self._stream.listen(self._receive, self._finish)
        self._engine.send(connect)
        return await self._await_connack(self._expect(ConnAck), connect)

    async def next_message(self) -> ReceivedMessage:
        while not self._untaken:
            self._check_alive()
            await self._hear()
        return self._untaken.popleft()

    @property
    def has_message(self) -> bool:
        """Return whether a message is stored."""
        return bool(self._untaken)

    def take_refusal(self) -> str:
        """Return and forget why the last message was rejected; empty if it was not."""
        code, self.refused = self.refused, 0
        return f"puback.{code:#04x}" if code else ""

    async def wait_for_loss(self) -> Exception:
        while self._end is None:
            await self._hear()
        return self._end

    async def idle(self, until: float) -> None:
        """Wait until that loop time, or until a message is rejected or stored.

        Raise the error that ended the connection.
        """
        while self._end is None and not self.refused and not self._untaken and (left := until - self.now()) > 0:
            deadline = self._engine.deadline
            await self._wait(left if deadline is None else min(left, max(0.0, deadline - self.now())))
            self._keep_alive()
        self._check_alive()

    async def close(self) -> None:
        self._say_goodbye()
        self._finish(LinkLostError(host=self._host, reason=CLOSED_HERE))

    def cut(self) -> None:
        """Cut the connection without DISCONNECT, as a network failure does."""
        if self._stream is not None:
            self._stream.close(politely=False)
        self._finish(LinkLostError(host=self._host, reason=CLOSED_HERE))

    def write_raw(self, data: bytes) -> None:
        """Send raw bytes that no MQTT engine would send."""
        if self._stream is not None:
            self._stream.write(data)

    # ---- inside

    def _say_goodbye(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(LocalProtocolError):
                self._engine.send(Disconnect())
                self._flush()
            self._stream.close()

    def _expect(self, kind: type[Packet], packet_id: int = 0) -> "asyncio.Future[Packet]":
        future: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = {}
        self._waiting[kind, packet_id] = future
        self._flush()
        return future

    async def _wait(self, seconds: float) -> None:
        """Wait for `_wake`, at most `seconds`; only for the device that drives this connection."""
        loop = asyncio.get_running_loop()
        future = self._idle = loop.create_future()
        timer = loop.call_later(seconds, _release, future)
        try:
            await future
        finally:
            self._idle = None
            timer.cancel()

    async def _hear(self) -> None:
        """Wait for `_wake`; any number of callers may wait at the same time."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hearing = (*self._hearing, future)
        try:
            await future
        finally:
            self._hearing = tuple(one for one in self._hearing if one is not future)

    def _wake(self) -> None:
        for future in (*self._hearing, *(() if self._idle is None else (self._idle,))):
            _release(future)

    def _keep_alive(self) -> None:
        try:
            self._engine.on_deadline(self.now())
        except RemoteProtocolError as error:
            self._broken(error)
        self._flush()

    def _check_alive(self) -> None:
        if self._end is not None:
            raise self._end

    def _flush(self) -> None:
        if self._stream is not None and (data := self._engine.data_to_send()):
            self._stream.write(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._engine.receive_data(data, self.now())
            while (packet := self._engine.next_event()) is not None:
                self._take(packet)
        except RemoteProtocolError as error:
            self._broken(error)
        self._flush()

    def _take(self, packet: Packet) -> None:
        match packet:
            case Publish():
                self._take_message(packet)
            case PubAck() | SubAck() | ConnAck():
                self._note_refusal(packet)
                waiting = self._waiting
                future = None if waiting is None else waiting.pop((type(packet), getattr(packet, "packet_id", 0)), None)
                if not waiting:
                    self._waiting = None
                if future is not None and not future.done():
                    future.set_result(packet)
            case Disconnect(code=code):
                self._finish(LinkLostError(host=self._host, reason=f"the server sent DISCONNECT {code:#04x}"))
            case _:
                pass

    def _note_refusal(self, packet: PubAck | SubAck | ConnAck) -> None:
        if isinstance(packet, PubAck) and packet.code >= FAILURE:
            self.refused = packet.code
            self._wake()

    def _take_message(self, packet: Publish) -> None:
        self.received += 1
        if self._keeps:
            if self._untaken is None:
                self._untaken = deque(maxlen=_MAX_UNTAKEN)
            self._untaken.append(ReceivedMessage(packet.topic, packet.payload))
            self._wake()
        if packet.packet_id is not None and self.acknowledges:
            self._engine.ack([packet.packet_id])

    def _broken(self, error: RemoteProtocolError) -> None:
        self._finish(LinkLostError(host=self._host, reason=f"the server violated the MQTT protocol: {error}"))

    def _finish(self, error: BirthmarkError) -> None:
        if self._end is not None:
            return
        self._end = error
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        waiting, self._waiting = self._waiting, None
        for future in (waiting or {}).values():
            if not future.done():
                future.set_exception(error)
        self._wake()


def _release(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
