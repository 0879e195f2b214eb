"""MQTT 3.1.1 to a configured broker: QoS 1, and a message is delivered when it is acknowledged."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from birthmark.message_routing.delivery_model import PORTS, Delivery, MessageServer
from birthmark.message_routing.sinks.server_sink_base import ServerSink
from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, PubAck
from birthmark.mqtt.topics import is_valid_name

IDLE_S = 60
_READ = 65_536


class _RefusedError(Exception):
    """The broker rejected or closed the connection."""


class _Broker:
    """A broker connection, used by one partition at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._engine = MqttEngine(MqttRole.CLIENT)
        self.lock = asyncio.Lock()

    async def greet(self, connect: Connect) -> None:
        self._engine.send(connect)
        while True:
            packet = await self._next()
            if isinstance(packet, ConnAck):
                if packet.code:
                    raise _RefusedError(f"it refuses the connection with code {packet.code}")
                return

    async def publish(self, deliveries: Sequence[Delivery]) -> None:
        """Publish deliveries, and wait until all are acknowledged."""
        waiting = {self._engine.publish(one.address["topic"], one.body, 1) for one in deliveries}
        while waiting:
            packet = await self._next()
            if isinstance(packet, PubAck):
                waiting.discard(packet.packet_id)

    async def _next(self) -> object:
        loop = asyncio.get_running_loop()
        while (packet := self._engine.next_event()) is None:
            if self._engine.wants_to_send:
                self._writer.write(self._engine.data_to_send())
                await self._writer.drain()
            data = await self._reader.read(_READ)
            if not data:
                raise _RefusedError("it ended the connection")
            self._engine.receive_data(data, loop.time())
        return packet

    def close(self) -> None:
        with contextlib.suppress(LocalProtocolError, OSError):
            self._engine.send(Disconnect())
            self._writer.write(self._engine.data_to_send())
        self._writer.close()


class MqttSink(ServerSink):
    """Publishes to an MQTT broker; see `ServerCarrier`."""

    patience_s = 10.0
    problems = (_RefusedError, RemoteProtocolError)

    def find_topic_error(self, topic: str) -> str | None:
        return None if is_valid_name(topic) else f"{topic[:100]!r} is not a valid topic"

    async def publish(self, server: MessageServer, deliveries: Sequence[Delivery]) -> None:
        parts = urlsplit(server.url)
        context = None
        if parts.scheme == "mqtts":
            context = await asyncio.to_thread(ssl.create_default_context, cadata=server.ca)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        broker = _Broker(reader, writer)
        try:
            password = server.password.encode() if server.user else None
            await broker.greet(Connect("", True, IDLE_S, server.user or None, password))  # noqa: FBT003 - clean start
            await broker.publish(deliveries)
        finally:
            broker.close()
