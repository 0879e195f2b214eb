"""CBOR (RFC 8949) subset of AWS IoT devices: maps, arrays, text, bytes, numbers and simple values.

Tags, which allow dates and arbitrarily large numbers, are rejected. Excessive depth and length are rejected as well.
"""

import math
import struct
from typing import Any

MAX_DEPTH = 16
MAX_ITEMS = 4096
_INDEFINITE = 31
_BREAK = 0xFF
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_SIMPLES = {20: False, 21: True, 22: None, 23: None}
_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}


class CborError(ValueError):
    """The bytes are not supported CBOR."""


def decode(body: bytes) -> Any:
    """Return the single value in these bytes; map keys are text. Raise `CborError`."""
    reader = _Reader(body)
    value = reader.value(MAX_DEPTH)
    if reader.at != len(body):
        raise CborError("something follows the value")
    return value


def encode(value: Any) -> bytes:  # noqa: PLR0911 - one per type
    """Encode a value of text, bytes, numbers, None, lists and maps."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case bytes():
            return _head(_BYTES, len(value)) + value
        case str():
            raw = value.encode()
            return _head(_TEXT, len(raw)) + raw
        case list() | tuple():
            return _head(_ARRAY, len(value)) + b"".join(map(encode, value))
        case dict():
            return _head(_MAP, len(value)) + b"".join(encode(str(key)) + encode(one) for key, one in value.items())
        case _:
            raise TypeError(f"{type(value).__name__} has no CBOR")


def _head(major: int, number: int) -> bytes:
    if number < 24:  # noqa: PLR2004 - RFC 8949 section 3
        return bytes((major << 5 | number,))
    for more, size in _SIZES.items():
        if number < 1 << (8 * size):
            return bytes((major << 5 | more,)) + number.to_bytes(size)
    raise ValueError("a number of more than 64 bits")


class _Reader:
    """Sequential value reader."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._left = MAX_ITEMS
        self.at = 0

    def value(self, depth: int) -> Any:  # noqa: PLR0911 - one per type
        """Return the next value; `depth` limits its nesting levels."""
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise CborError("too many items or nesting levels")
        first = self._take(1)[0]
        major, more = first >> 5, first & 0x1F
        match major:
            case 0:
                return self._number(more)
            case 1:
                return -1 - self._number(more)
            case 2:
                return self._string(major, more)
            case 3:
                return _text(self._string(major, more))
            case 4:
                return self._array(more, depth)
            case 5:
                return self._map(more, depth)
            case 6:
                raise CborError("a tag")
            case _:
                return self._simple(more)

    def _take(self, size: int) -> bytes:
        found = self._body[self.at : self.at + size]
        if len(found) != size:
            raise CborError("the data ends early")
        self.at += size
        return found

    def _number(self, more: int) -> int:
        if more < 24:  # noqa: PLR2004 - RFC 8949 section 3
            return more
        if more not in _SIZES:
            raise CborError("an invalid length")
        return int.from_bytes(self._take(_SIZES[more]))

    def _skip_break(self) -> bool:
        """Return whether an indefinite-length item ends here; if so, skip its end marker."""
        if self.at < len(self._body) and self._body[self.at] == _BREAK:
            self.at += 1
            return True
        return False

    def _string(self, major: int, more: int) -> bytes:
        if more != _INDEFINITE:
            return self._take(self._number(more))
        parts = []
        while not self._skip_break():
            self._left -= 1
            first = self._take(1)[0]
            if self._left < 0 or first >> 5 != major or first & 0x1F == _INDEFINITE:
                raise CborError("a part of another kind")
            parts.append(self._take(self._number(first & 0x1F)))
        return b"".join(parts)

    def _array(self, more: int, depth: int) -> list[Any]:
        found: list[Any] = []
        count = math.inf if more == _INDEFINITE else self._number(more)
        while len(found) < count and not (more == _INDEFINITE and self._skip_break()):
            found.append(self.value(depth - 1))
        return found

    def _map(self, more: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        count = math.inf if more == _INDEFINITE else self._number(more)
        while len(found) < count and not (more == _INDEFINITE and self._skip_break()):
            key = self.value(depth - 1)
            if not isinstance(key, str) or key in found:
                raise CborError("a key that is not a string or is repeated")
            found[key] = self.value(depth - 1)
        return found

    def _simple(self, more: int) -> Any:
        if more in _FLOATS:
            value: float = struct.unpack(_FLOATS[more], self._take(_SIZES[more]))[0]
            return value
        if more not in _SIMPLES:
            raise CborError("a simple value that is not known")
        return _SIMPLES[more]


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CborError("a text that is not UTF-8") from error
