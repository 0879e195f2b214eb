"""Requests of the parent to a worker: HTTP/1.1 over the worker's Unix domain socket, with a streamed response.

No thread waits for a response, so the number of open requests does not delay the next one. Closing a response closes
the connection, which ends its processing in the worker.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httptools

from birthmark.operator_api.unix_socket import connect_socket
from birthmark.supervised_tasks import cancel_and_wait

_ANSWER_S = 330.0  # a method call takes up to 5 minutes
_PART = 65536

Headers = Sequence[tuple[bytes, bytes]]


class NotReachedError(OSError):
    """The worker did not receive the request."""


class CutOffError(OSError):
    """The worker's response was interrupted."""


class WorkerResponse:
    """A worker's response; its methods are parser callbacks and readers. Raise `OSError` if it is interrupted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, has_body: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._reader, self._writer = reader, writer
        self._has_body = has_body
        self._is_over = self._is_broken = False
        self._found: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._is_over = not self._has_body

    def on_body(self, body: bytes) -> None:
        self._found.append(body)

    def on_message_complete(self) -> None:
        self._is_over = True

    async def begin(self) -> None:
        """Wait until status and headers have arrived."""
        while not self.status:
            await self._read()

    async def content(self) -> bytes:
        """Return the complete content."""
        return b"".join([part async for part in self._parts()])

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield complete lines, as many as have arrived."""
        begun: list[bytes] = []
        async for part in self._parts():
            whole, newline, rest = part.rpartition(b"\n")
            if newline:
                yield b"".join((*begun, whole, newline))
                begun.clear()
            begun.append(rest)

    async def _parts(self) -> AsyncIterator[bytes]:
        while True:
            found, self._found = self._found, []
            for part in found:
                yield part
            if self._is_over:
                return
            await self._read()

    async def _read(self) -> None:
        async with asyncio.timeout(_ANSWER_S):
            data = await self._reader.read(_PART)
        if not data or self._is_broken:
            raise CutOffError
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._is_broken = True  # earlier data is valid

    def close(self) -> None:
        self._writer.transport.abort()


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """A request with its original bytes."""

    method: str
    target: bytes
    headers: Headers = ()
    body: bytes = b""
    pieces: AsyncIterator[bytes] | None = None
    """Chunks of a body that is forwarded as it arrives."""

    async def send_to_socket(self, directory: Path) -> WorkerResponse:
        """Send the request to the Unix domain socket of a directory and return the response when it starts.

        Raise `NotReachedError`, or another `OSError`.
        """
        try:
            sock = await connect_socket(directory)
        except OSError as error:
            raise NotReachedError from error
        try:
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_PART)
        except BaseException:
            sock.close()
            raise
        answer = WorkerResponse(reader, writer, has_body=self.method != "HEAD")
        try:
            writer.write(self._written())
            await writer.drain()
            if self.pieces is None:
                await answer.begin()
            else:
                await _passed_on(self.pieces, writer, answer)
        except BaseException:
            answer.close()
            raise
        return answer

    async def answered(self, directory: Path) -> tuple[int, bytes]:
        """Send the request, and return the response's status and body. Raise `OSError`."""
        with contextlib.closing(await self.send_to_socket(directory)) as answer:
            return answer.status, await answer.content()

    def _written(self) -> bytes:
        length = (b"content-length", b"%d" % len(self.body))
        own = [(b"connection", b"close"), length if self.pieces is None else (b"transfer-encoding", b"chunked")]
        if all(name != b"host" for name, _ in self.headers):  # the worker checks the host that a browser requested
            own.append((b"host", b"localhost"))
        fields = b"".join(b"%b: %b\r\n" % field for field in (*own, *self.headers))
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (self.method.encode(), self.target, fields, self.body)


async def _passed_on(pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter, answer: WorkerResponse) -> None:
    """Forward chunks, no faster than they are read, until they end or the response starts.

    Raise the errors of `pieces`, and `OSError` if the response does not start.
    """
    beginning, writing = asyncio.ensure_future(answer.begin()), asyncio.ensure_future(_written_on(pieces, writer))
    try:
        await asyncio.wait({beginning, writing}, return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            with contextlib.suppress(OSError):  # it may have answered anyway
                await writing
        await beginning
    finally:
        await cancel_and_wait(beginning, writing)


async def _written_on(pieces: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
    async for piece in pieces:
        if piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
