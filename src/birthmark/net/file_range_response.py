"""Response that sends a file, or a range of it, in chunks: each once the previous one is sent.

A slow connection holds one chunk. A client that does not receive a chunk within `PIECE_S` seconds is disconnected and
may resume.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from typing import BinaryIO

from starlette.responses import Response

from birthmark.net.bounded_http import Receive, Scope, Send

log = logging.getLogger(__name__)
PIECE_BYTES = 64 * 1024
PIECE_S = 60.0


class FileRangeResponse(Response):
    """Sends the `wanted` bytes of an open file, and closes `stack` at the end."""

    def __init__(
        self, file: BinaryIO, wanted: range, stack: ExitStack, *, status: int, headers: Mapping[str, str]
    ) -> None:
        self._file, self._wanted, self._held = file, wanted, stack
        media = headers.get("content-type", "application/octet-stream")
        super().__init__(None, status, {**headers, "content-length": str(len(wanted))}, media)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            is_whole = scope["method"] == "HEAD" or await self._send(send, gone)
            if is_whole:
                await send({"type": "http.response.body", "body": b""})
            elif not gone.done() and (connection := scope.get("extensions", {}).get("connection")) is not None:
                connection.abort()
        finally:
            gone.cancel()
            self._held.close()

    async def _send(self, send: Send, gone: "asyncio.Future[None]") -> bool:
        """Send the requested content; return whether all of it was sent."""
        left = len(self._wanted)
        await asyncio.to_thread(self._file.seek, self._wanted.start)
        while left and not gone.done():
            piece = await asyncio.to_thread(self._file.read, min(left, PIECE_BYTES))
            if not piece:  # the file is shorter than before
                return False
            left -= len(piece)
            try:
                async with asyncio.timeout(PIECE_S):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                log.info("net.file_reader_dropped", extra={"left": left})
                return False
        return not left


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
