"""HTTP header names in customary capitalization: some embedded clients compare them case-sensitively."""

import asyncio
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

# Vendors' spellings that title case would break.
_AS_WRITTEN = {
    b"etag": b"ETag",
    b"www-authenticate": b"WWW-Authenticate",
    b"x-amzn-requestid": b"x-amzn-RequestId",
    b"x-amzn-errortype": b"x-amzn-ErrorType",
    b"iothub-errorcode": b"iothub-errorcode",
}
_LENGTH = b"Content-Length"
_VENDORS = (b"x-ms-", b"x-amz")
_LINES = frozenset(STATUS_LINE.values())


@lru_cache(maxsize=256)
def capitals(name: bytes) -> bytes:
    """Return a header name in its usual capitalization."""
    low = name.lower()
    return _AS_WRITTEN.get(low) or (low if low.startswith(_VENDORS) else low.title())


class Capitals:
    """Transport of one response that capitalizes header names.

    The header and an immediately following body leave in one write. Two writes are two TLS records and two packets; the
    network stacks of some clients delay the second packet.
    """

    __slots__ = ("_has_head", "_held", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._has_head = False
        self._held = b""

    def write(self, data: bytes) -> None:
        if not self._has_head:
            line, _, rest = data.partition(b"\r\n")
            if line + b"\r\n" in _LINES and not line.startswith(b"HTTP/1.1 1"):
                self._has_head = True
                self._begin(line, rest)
                return
        elif self._held:
            data, self._held = self._held + data, b""
        self._transport.write(data)

    def close(self) -> None:
        self._let_go()
        self._transport.close()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def _begin(self, line: bytes, rest: bytes) -> None:
        head, end, body = rest.partition(b"\r\n\r\n")
        fields = [
            (capitals(name), colon, value) for name, colon, value in (f.partition(b":") for f in head.split(b"\r\n"))
        ]
        data = b"\r\n".join([line, *(name + colon + value for name, colon, value in fields)]) + end + body
        # A chunked response is a stream: its reader waits for the head.
        if any(name == _LENGTH for name, _, _ in fields):
            self._held = data
            asyncio.get_running_loop().call_soon(self._let_go)
        else:
            self._transport.write(data)

    def _let_go(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)
