"""Integers, strings and binary data in the MQTT encoding (section 1.5, 5.0 section 1.5).

Readers take the body and a position and return the value and the next position. They raise `RemoteProtocolError` for a
truncated body. Writers raise `LocalProtocolError` for values that cannot be encoded.
"""

from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError

MAX_U16 = 0xFFFF
MAX_VARINT = 268_435_455


def read_u8(body: bytes, offset: int) -> tuple[int, int]:
    if offset >= len(body):
        raise RemoteProtocolError("the packet ends too early")
    return body[offset], offset + 1


def read_u16(body: bytes, offset: int) -> tuple[int, int]:
    if offset + 2 > len(body):
        raise RemoteProtocolError("the packet ends too early")
    return body[offset] << 8 | body[offset + 1], offset + 2


def read_u32(body: bytes, offset: int) -> tuple[int, int]:
    if offset + 4 > len(body):
        raise RemoteProtocolError("the packet ends too early")
    return int.from_bytes(body[offset : offset + 4], "big"), offset + 4


def read_varint(body: bytes, offset: int) -> tuple[int, int]:
    """Read a variable byte integer of at most 4 bytes in its shortest encoding (5.0 section 1.5.5)."""
    if offset < len(body) and body[offset] < 0x80:  # nearly always
        return body[offset], offset + 1
    value = shift = 0
    while True:
        byte, offset = read_u8(body, offset)
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            if byte == 0 and shift:
                raise RemoteProtocolError("a variable byte integer uses more bytes than needed")
            return value, offset
        shift += 7
        if shift > 21:
            raise RemoteProtocolError("a variable byte integer is longer than four bytes")


def read_binary(body: bytes, offset: int) -> tuple[bytes, int]:
    start = offset + 2
    if start > len(body):
        raise RemoteProtocolError("the packet ends too early")
    end = start + (body[offset] << 8 | body[offset + 1])
    if end > len(body):
        raise RemoteProtocolError("the packet ends inside a field")
    return body[start:end], end


def read_utf8(body: bytes, offset: int) -> tuple[str, int]:
    """Decode a string: well-formed UTF-8 without surrogates and U+0000 (section 1.5.3)."""
    raw, offset = read_binary(body, offset)
    return decode_utf8(raw), offset


def decode_utf8(raw: bytes) -> str:
    """Return the decoded text, or raise `RemoteProtocolError`.

    A byte order mark is kept, as [MQTT-1.5.3-3] requires.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError("a string is not well-formed UTF-8") from None
    if "\0" in text:
        raise RemoteProtocolError("a string contains U+0000")
    return text


def write_u16(value: int) -> bytes:
    if not 0 <= value <= MAX_U16:
        raise LocalProtocolError(f"{value} does not fit into two bytes")
    return value.to_bytes(2, "big")


def write_varint(value: int) -> bytes:
    if 0 <= value < 0x80:  # usually one or two bytes
        return bytes((value,))
    if 0 < value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if not 0 <= value <= MAX_VARINT:
        raise LocalProtocolError(f"{value} does not fit into a variable byte integer")
    out = bytearray()
    while True:
        value, digit = value >> 7, value & 0x7F
        if not value:
            out.append(digit)
            return bytes(out)
        out.append(digit | 0x80)


def write_binary(value: bytes) -> bytes:
    if len(value) > MAX_U16:
        raise LocalProtocolError(f"a field of {len(value)} bytes is longer than 65535 bytes")
    return len(value).to_bytes(2, "big") + value


def write_utf8(value: str) -> bytes:
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalProtocolError("a string contains surrogates") from None
    if 0 in raw:
        raise LocalProtocolError("a string contains U+0000")
    return write_binary(raw)
