"""File download by URLs in job documents: GET and HEAD, complete or one range (RFC 9110 section 14).

A file is read in chunks, each once the previous one is sent, so a slow connection holds one chunk. A client that does
not receive a chunk within `PIECE_S` seconds is disconnected and may resume.
"""

import asyncio
import logging
import os
import re
from contextlib import ExitStack
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from birthmark.awsiot.rules.job_document_placeholders import FILES
from birthmark.awsiot.service.job_documents_and_s3_files import JobFiles
from birthmark.net.bounded_http import Receive, Scope, Send

log = logging.getLogger(__name__)
PIECE_BYTES = 64 * 1024
PIECE_S = 60.0
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_METHODS = ("GET", "HEAD")


def is_file(path: str) -> bool:
    """Return whether a path is that of a file."""
    return path.startswith(f"/{FILES}/")


async def file_of(files: JobFiles, request: Request, path: str) -> Response:
    """Return the response to a valid file URL. Raise the errors of `JobFiles`."""
    if request.method not in _METHODS:
        return Response(status_code=405, headers={"allow": ", ".join(_METHODS)})
    thing = await files.reader(path, request.query_params)
    _, _, bucket, key = path.split("/", 3)
    with ExitStack() as held:
        held.enter_context(files.reading(thing))
        file = held.enter_context(await files.open_file(unquote(bucket), unquote(key)))
        return _FileRangeResponse(file, request, held.pop_all())


class _FileRangeResponse(Response):
    """Response that sends a file, or a range of it, and closes the file."""

    def __init__(self, file: BinaryIO, request: Request, stack: ExitStack) -> None:
        known = os.fstat(file.fileno())
        self._file, self._held = file, stack
        headers = {
            "accept-ranges": "bytes",
            "etag": f'"{known.st_mtime_ns:x}-{known.st_size:x}-{known.st_ino:x}"',
            "last-modified": formatdate(known.st_mtime, usegmt=True),
        }
        wanted = range_of(request, known.st_size, headers["etag"], headers["last-modified"])
        status = 200 if wanted is None else 206
        if wanted == range(0):
            status = 416
            headers["content-range"] = f"bytes */{known.st_size}"
        elif wanted is not None:
            headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{known.st_size}"
        self._wanted = range(known.st_size) if wanted is None else wanted
        headers["content-length"] = str(len(self._wanted))
        super().__init__(None, status, headers, "application/octet-stream")

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
                log.info("awsiot.file_reader_dropped", extra={"left": left})
                return False
        return not left


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def range_of(request: Request, size: int, etag: str, modified: str) -> range | None:
    """Return the requested range of a file: None for all of it, an empty one if it cannot be satisfied.

    Several ranges, invalid ranges, and ranges of an outdated file select the complete file.
    """
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if request.method != "GET" or found is None or found[0] == "bytes=-":
        return None
    if (known := request.headers.get("if-range")) is not None and known.strip() not in {etag, modified}:
        return None
    first, last = found[1], found[2]
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    return range(start, stop) if start < stop else range(0)
