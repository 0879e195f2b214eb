"""HTTP header names in their customary capitals: some embedded clients compare them letter by letter."""

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

# What title case would spoil: the vendors' own spelling.
_AS_WRITTEN = {
    b"etag": b"ETag",
    b"www-authenticate": b"WWW-Authenticate",
    b"x-amzn-requestid": b"x-amzn-RequestId",
    b"x-amzn-errortype": b"x-amzn-ErrorType",
    b"iothub-errorcode": b"iothub-errorcode",
}
_VENDORS = (b"x-ms-", b"x-amz")
_LINES = frozenset(STATUS_LINE.values())


@lru_cache(maxsize=256)
def capitals(name: bytes) -> bytes:
    """Return a header's name as it is customarily written."""
    low = name.lower()
    return _AS_WRITTEN.get(low) or (low if low.startswith(_VENDORS) else low.title())


class Capitals:
    """The transport of one response: its head leaves with capitals, everything else as it is."""

    __slots__ = ("_has_head", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._has_head = False

    def write(self, data: bytes) -> None:
        if not self._has_head:
            line, _, rest = data.partition(b"\r\n")
            if line + b"\r\n" in _LINES and not line.startswith(b"HTTP/1.1 1"):
                self._has_head = True
                head, end, body = rest.partition(b"\r\n\r\n")
                fields = [field.partition(b":") for field in head.split(b"\r\n")]
                data = b"\r\n".join([line, *(capitals(n) + colon + v for n, colon, v in fields)]) + end + body
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())
