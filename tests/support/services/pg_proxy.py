"""A way to PostgreSQL that counts what goes over it, and can be cut or go silent."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

READY = b"Z"
_HEADER = 5


@dataclass
class Counted:
    """`answers` counts the server's messages by type; each ReadyForQuery ends one round trip.

    After `is_silent_after` of them nothing comes any more, and no line ends.
    """

    url: str
    is_silent_after: int | None = None
    answers: Counter[bytes] = field(default_factory=Counter)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def round_trips(self) -> int:
        return self.answers[READY]

    def cut(self) -> None:
        """Cut every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()


@contextlib.asynccontextmanager
async def counting(url: str) -> AsyncIterator[Counted]:
    """Open a way to the server at `url`; yields the URL over it."""
    at = urlsplit(url)
    counted = Counted("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(at.hostname, at.port)
        counted._writers |= {writer, far_writer}
        out = asyncio.create_task(_copied(reader, far_writer))
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    header = await far_reader.readexactly(_HEADER)
                    body = await far_reader.readexactly(int.from_bytes(header[1:]) - 4)
                    counted.answers[header[:1]] += 1
                    if counted.is_silent_after is not None and counted.answers.total() > counted.is_silent_after:
                        await counted._is_over.wait()
                        return
                    writer.write(header + body)
        finally:
            out.cancel()
            counted._writers -= {writer, far_writer}
            writer.close()
            far_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    counted.url = f"postgresql://{at.username}@127.0.0.1:{port}{at.path}?sslmode=disable"
    try:
        yield counted
    finally:
        counted._is_over.set()
        counted.cut()
        server.close()
        await server.wait_closed()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
