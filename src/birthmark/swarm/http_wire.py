"""HTTP/1.1 for single requests: encode a request, and decode a response in any chunking (RFC 9112).

Bounded: 32 KiB of headers, and a body up to the caller's limit. Raises only `AnswerBrokenError`.
"""

from collections.abc import Mapping

from birthmark.device_transports.ports import HttpResponse
from birthmark.untrusted_json_and_text import whole_number

_MAX_HEAD_BYTES = 32 * 1024
_MAX_LINE_BYTES = 256
_NO_BODY = frozenset({204, 304})
_CONTINUES = range(100, 200)
_HEX = frozenset("0123456789abcdefABCDEF")
_MAX_HEX_DIGITS = 8


class AnswerBrokenError(ValueError):
    """The response is not valid HTTP/1.1, or is too large."""


def render_request(method: str, path: str, authority: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request after which the server closes the connection."""
    own = {"Host": authority, "Connection": "close"}
    sized = {"Content-Length": str(len(body))} if body or method in {"PUT", "POST"} else {}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in {**headers, **own, **sized}.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class AnswerReader:
    """Parses a response incrementally and returns it when complete."""

    __slots__ = ("_body", "_data", "_head", "_length", "_max", "_status")

    def __init__(self, max_body_bytes: int) -> None:
        self._max = max_body_bytes
        self._data = bytearray()
        self._body = bytearray()
        self._head: dict[str, str] | None = None
        self._status = 0
        self._length: int | None = None

    def receive(self, data: bytes) -> HttpResponse | None:
        """Return the response if it is complete. Raise `AnswerBrokenError`."""
        self._data += data
        while self._head is None:
            if not self._cut_head():
                return None
        return self._chunked() if self._is_chunked else self._sized()

    def end(self) -> HttpResponse | None:
        """Return a response that the end of the connection completes; None if it is incomplete."""
        if self._head is None or self._is_chunked or self._length is not None:
            return None
        return self._answer()

    @property
    def _is_chunked(self) -> bool:
        return self._head is not None and "chunked" in self._head.get("transfer-encoding", "").lower()

    def _cut_head(self) -> bool:
        at = self._data.find(b"\r\n\r\n")
        if at < 0:
            if len(self._data) > _MAX_HEAD_BYTES:
                raise AnswerBrokenError(f"more than {_MAX_HEAD_BYTES} bytes of headers")
            return False
        if at > _MAX_HEAD_BYTES:
            raise AnswerBrokenError(f"more than {_MAX_HEAD_BYTES} bytes of headers")
        first, *lines = self._data[:at].decode("latin-1").split("\r\n")
        del self._data[: at + 4]
        version, _, rest = first.partition(" ")
        status = whole_number(rest.partition(" ")[0])
        if not version.startswith("HTTP/1.") or status is None:
            raise AnswerBrokenError("no HTTP/1.1 status line")
        if status in _CONTINUES:
            return True
        pairs = (line.partition(":") for line in lines)
        self._head = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._status = status
        self._length = 0 if status in _NO_BODY else self._told_length(self._head.get("content-length"))
        return True

    def _told_length(self, told: str | None) -> int | None:
        if told is None:
            return None
        if (length := whole_number(told)) is None or length > self._max:
            raise AnswerBrokenError(f"a body of {told[:20]!r} bytes")
        return length

    def _sized(self) -> HttpResponse | None:
        self._grow(len(self._data))
        if self._length is None or len(self._body) < self._length:
            return None
        del self._body[self._length :]
        return self._answer()

    def _chunked(self) -> HttpResponse | None:
        while (at := self._data.find(b"\r\n")) >= 0:
            size = self._chunk_size(at)
            if not size:  # drops trailers
                return self._answer()
            if len(self._data) < at + 2 + size + 2:
                return None
            del self._data[: at + 2]
            self._grow(size)
            del self._data[:2]
        if len(self._data) > _MAX_LINE_BYTES:
            raise AnswerBrokenError("a chunk without a size")
        return None

    def _chunk_size(self, offset: int) -> int:
        text = self._data[:offset].decode("latin-1").partition(";")[0].strip()
        if not text or len(text) > _MAX_HEX_DIGITS or not set(text) <= _HEX:
            raise AnswerBrokenError("a chunk without a size")
        size = int(text, 16)
        if size + len(self._body) > self._max:
            raise AnswerBrokenError(f"a body of more than {self._max} bytes")
        return size

    def _grow(self, size: int) -> None:
        self._body += self._data[:size]
        del self._data[:size]
        if len(self._body) > self._max:
            raise AnswerBrokenError(f"a body of more than {self._max} bytes")

    def _answer(self) -> HttpResponse:
        return HttpResponse(self._status, self._head or {}, bytes(self._body))
