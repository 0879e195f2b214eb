"""MQTT 3.1.1 by the `birthmark` engine over asyncio's TLS."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from birthmark.clock_and_entropy import Clock
from birthmark.device_transports.errors import CLOSED_HERE, LinkLostError
from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.mqtt_client_protocol import Conversation
from birthmark.device_transports.openssl.certificate_time import check_dates
from birthmark.device_transports.openssl.deadlines import open_connection
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.device_transports.ports import ReceivedMessage
from birthmark.device_transports.proxy import proxy_of
from birthmark.device_transports.urls import TIMEOUT_S, WEBSOCKET_PORT
from birthmark.errors import BirthmarkError
from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, Packet, PubAck, Publish, SubAck
from birthmark.supervised_tasks import cancel_and_wait

if TYPE_CHECKING:
    from birthmark.device_transports.openssl.websocket_framing import WebSocketBytes

log = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
_MAX_UNSENT_BYTES = 4 * 1024 * 1024  # above any message size
_MAX_UNTAKEN = 1000


class OpensslMqtt(Conversation):
    """`MqttClient` by the `birthmark` engine."""

    def __init__(
        self, identity: FileIdentity | None, trust: ServerTrust, clock: Clock, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._identity = identity
        self._trust = trust
        self._clock = clock
        self._timeout_s = timeout_s
        self._engine = MqttEngine(MqttRole.CLIENT)
        self._host, self._port = "", 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._frames: WebSocketBytes | None = None
        self._task: asyncio.Task[None] | None = None
        self._untaken: asyncio.Queue[ReceivedMessage | None] = asyncio.Queue()
        self._waiting: dict[tuple[type[Packet], int], asyncio.Future[Packet]] = {}
        self._over: asyncio.Future[BirthmarkError] = asyncio.get_running_loop().create_future()

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        self._host, self._port = host, port
        context = client_context(self._identity, self._trust)
        if port == WEBSOCKET_PORT or proxy_of(host, port) is not None:
            self._port = port = WEBSOCKET_PORT
            from birthmark.device_transports.openssl.websocket_framing import WebSocketBytes  # noqa: PLC0415 - few devices need it

            self._frames = WebSocketBytes(host, port)
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await open_connection(self._timeout_s, host, port)
                opening = asyncio.open_connection(sock=line, ssl=context, server_hostname=host)
                self._reader, self._writer = await opening
        except OSError as error:  # includes TimeoutError
            raise translate_error(error, host, port) from error
        try:
            check_dates(self._writer.get_extra_info("ssl_object"), self._trust, host, port)
            if self._frames is not None:
                async with asyncio.timeout(self._timeout_s):
                    await self._frames.open(self._reader, self._writer)
        except OSError as error:
            await self.close()
            raise translate_error(error, host, port) from error
        except BaseException:
            await self.close()
            raise
        self._engine.send(connect)
        answer = self._expect(ConnAck)
        self._task = asyncio.create_task(self._run())
        return await self._await_connack(answer, connect)

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        await super().publish(topic, payload, qos)
        if self._writer is not None:
            with contextlib.suppress(OSError):  # the reader reports the reason to callers
                await self._writer.drain()

    async def next_message(self) -> ReceivedMessage:
        message = await self._untaken.get()
        if message is None:
            self._untaken.put_nowait(None)  # for the next caller
            raise self._over.result()
        return message

    async def wait_for_loss(self) -> Exception:
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        self._end(LinkLostError(host=self._host, reason=CLOSED_HERE))
        task, self._task = self._task, None
        writer, self._writer = self._writer, None
        try:
            if task is not asyncio.current_task():
                await cancel_and_wait(task)
        finally:  # a cancelled call must not leak the connection
            if writer is not None:
                with contextlib.suppress(OSError, LocalProtocolError):
                    self._engine.send(Disconnect())
                    writer.write(self._framed(self._engine.data_to_send()))
                writer.close()
        if writer is None:
            return
        with contextlib.suppress(OSError):
            async with asyncio.timeout(1):  # a dead peer must not block
                await writer.wait_closed()

    # ---- inside

    def _expect(self, kind: type[Packet], packet_id: int = 0) -> asyncio.Future[Packet]:
        future: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        self._waiting[kind, packet_id] = future
        self._flush()
        return future

    def _check_alive(self) -> None:
        if self._over.done():
            raise self._over.result()

    def _flush(self) -> None:
        if self._writer is not None and not self._over.done() and (data := self._engine.data_to_send()):
            self._writer.write(self._framed(data))

    def _framed(self, data: bytes) -> bytes:
        return data if self._frames is None else self._frames.encode_frames(data)

    async def _run(self) -> None:
        """Read until the connection ends, and pass the error to all waiting callers."""
        try:
            while True:
                await self._step()
        except RemoteProtocolError as error:
            self._end(self._lost(f"the server broke MQTT's rules, {error}"))
        except OSError as error:
            self._end(translate_error(error, self._host, self._port))
        except LinkLostError as error:
            self._end(error)
        except Exception:  # our bug: waiters must still learn that the connection ended
            log.exception("links.bug", extra={"host": self._host})
            self._end(self._lost("of a mistake of Birthmark, which the log has"))

    async def _step(self) -> None:
        deadline, now = self._engine.deadline, self._clock.monotonic()
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - now)) as patience:
                data = await self._reader.read(_READ_BYTES)
        except TimeoutError:
            if not patience.expired():  # timeout of the network, not ours
                raise
            self._engine.on_deadline(self._clock.monotonic())
            self._flush()
            return
        if not data:
            raise self._lost("the server closed the connection")
        if self._frames is not None:
            data, answer = self._frames.decode_frames(data)
            if self._writer is not None:
                self._writer.write(answer)
        self._engine.receive_data(data, self._clock.monotonic())
        while (packet := self._engine.next_event()) is not None:
            self._take(packet)
        if self._frames is not None and (goodbye := self._frames.close_reason):
            raise self._lost(goodbye)
        self._flush()
        if self._writer is not None and self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            raise self._lost("the server does not read its responses")

    def _take(self, packet: Packet) -> None:
        match packet:
            case Publish():
                if self._untaken.qsize() >= _MAX_UNTAKEN:
                    raise self._lost(f"{_MAX_UNTAKEN} unread messages are queued")
                self._untaken.put_nowait(ReceivedMessage(packet.topic, packet.payload))
                if packet.packet_id is not None:
                    self._engine.ack([packet.packet_id])
            case PubAck() | SubAck() | ConnAck():
                future = self._waiting.pop((type(packet), getattr(packet, "packet_id", 0)), None)
                if future is not None and not future.done():
                    future.set_result(packet)
            case _:
                pass

    def _lost(self, reason: str) -> LinkLostError:
        return LinkLostError(host=self._host, reason=reason)

    def _end(self, error: BirthmarkError) -> None:
        if self._over.done():
            return
        self._over.set_result(error)
        self._untaken.put_nowait(None)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()
