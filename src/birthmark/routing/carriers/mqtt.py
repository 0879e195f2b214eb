"""MQTT 3.1.1 to another broker that the configuration names: QoS 1, and a letter is taken when it is acknowledged."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from birthmark.errors import BirthmarkError
from birthmark.mqtt.engine import Engine, Role
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, PubAck
from birthmark.mqtt.topics import is_valid_name
from birthmark.routing.carriers.errors import AddressInvalidError, NotTakenError
from birthmark.routing.letters import Letter
from birthmark.routing.servers import PORTS, Server
from birthmark.text import reason_of

PATIENCE_S = 10.0
IDLE_S = 60
_READ = 65_536


class _RefusedError(Exception):
    """The broker let nobody in, or broke off."""


class _Broker:
    """One connection, used by one lane at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._engine = Engine(Role.CLIENT)
        self.lock = asyncio.Lock()

    async def greet(self, connect: Connect) -> None:
        self._engine.send(connect)
        while True:
            packet = await self._next()
            if isinstance(packet, ConnAck):
                if packet.code:
                    raise _RefusedError(f"it refuses the connection with code {packet.code}")
                return

    async def publish(self, letters: Sequence[Letter]) -> None:
        """Publish, and return when all is acknowledged."""
        waiting = {self._engine.publish(one.address["topic"], one.body, 1) for one in letters}
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


class MqttCarrier:
    """Addresses have `server`, a name of the configuration, and `topic`."""

    is_quick = False

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers

    async def carry(self, letters: Sequence[Letter]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.routing.letters.Carrier`. A connection lives as long as one portion of a lane."""
        name = letters[0].address["server"]
        wrong = [_wrong(letter) for letter in letters]
        good = [letter for letter, problem in zip(letters, wrong, strict=True) if problem is None]
        problem: NotTakenError | None = None
        if good:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._publish(self._servers[name], good)
            except (OSError, _RefusedError, RemoteProtocolError, TimeoutError, KeyError) as error:
                problem = NotTakenError(receiver=name, reason=_why(error))
        return [one or problem for one in wrong]

    async def _publish(self, server: Server, letters: Sequence[Letter]) -> None:
        parts = urlsplit(server.url)
        context = None
        if parts.scheme == "mqtts":
            context = await asyncio.to_thread(ssl.create_default_context, cafile=server.ca)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        broker = _Broker(reader, writer)
        try:
            password = server.password.encode() if server.user else None
            await broker.greet(Connect("", True, IDLE_S, server.user or None, password))  # noqa: FBT003 - a clean start
            await broker.publish(letters)
        finally:
            broker.close()


def _wrong(letter: Letter) -> AddressInvalidError | None:
    topic = letter.address["topic"]
    if is_valid_name(topic):
        return None
    return AddressInvalidError(receiver=letter.address["server"], reason=f"{topic[:100]!r} is no topic")


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE_S:g} s"
    return reason_of(error) if isinstance(error, OSError) else str(error) or type(error).__name__
