"""AMQP values to bytes (part 1 section 1.6): the smallest constructor of each number, and compound values in full.

Lists are always list8 or list32, never list0 (0x45): pyamqp reads the count of a performative from the byte after it.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from birthmark.amqp.errors import LocalProtocolError
from birthmark.amqp.values import (
    Array,
    Byte,
    Char,
    DecimalBytes,
    DescribedValue,
    Float,
    Int,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

SYMBOL_CODE: Final = 0xA3
LIST_CODE: Final = 0xC0
MAP_CODE: Final = 0xC1
ARRAY_CODE: Final = 0xE0
NULL_BYTES: Final = b"\x40"

_pack_u8 = struct.Struct(">B").pack
_pack_u16 = struct.Struct(">H").pack
_pack_u32 = struct.Struct(">I").pack
_pack_u64 = struct.Struct(">Q").pack
_pack_i8 = struct.Struct(">b").pack
_pack_i16 = struct.Struct(">h").pack
_pack_i32 = struct.Struct(">i").pack
_pack_i64 = struct.Struct(">q").pack
_pack_float = struct.Struct(">f").pack
_pack_double = struct.Struct(">d").pack


def encode_value(value: Any) -> bytes:
    """Return the value's bytes. Raise `LocalProtocolError` for a value that AMQP cannot express."""
    try:
        return _encode(value)
    except KeyError as error:
        raise LocalProtocolError(f"AMQP has no type for {error}") from None
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise LocalProtocolError(f"a value does not fit its AMQP type: {error}") from None


def _encode(value: Any) -> bytes:
    return _WRITERS[type(value)](value)


# ---- writers of one type


def encode_bool(value: bool) -> bytes:  # noqa: FBT001 (a value, not a flag)
    return b"\x41" if value else b"\x42"


def encode_ubyte(value: int) -> bytes:
    return b"\x50" + _pack_u8(value)


def encode_ushort(value: int) -> bytes:
    return b"\x60" + _pack_u16(value)


def encode_uint(value: int) -> bytes:
    if not value:
        return b"\x43"
    return bytes((0x52, value)) if 0 < value < 0x100 else b"\x70" + _pack_u32(value)


def encode_ulong(value: int) -> bytes:
    if not value:
        return b"\x44"
    return bytes((0x53, value)) if 0 < value < 0x100 else b"\x80" + _pack_u64(value)


def encode_int(value: int) -> bytes:
    return b"\x54" + _pack_i8(value) if -0x80 <= value < 0x80 else b"\x71" + _pack_i32(value)


def encode_long(value: int) -> bytes:
    return b"\x55" + _pack_i8(value) if -0x80 <= value < 0x80 else b"\x81" + _pack_i64(value)


def encode_variable(code: int, raw: bytes) -> bytes:
    """Return bytes with their size; `code` is the constructor of the one-byte size."""
    size = len(raw)
    if size < 0x100:
        return bytes((code, size)) + raw
    return bytes((code + 0x10,)) + _pack_u32(size) + raw


def encode_binary(value: bytes) -> bytes:
    return encode_variable(0xA0, value)


_SHORT_STRING = tuple(bytes((0xA1, size)) for size in range(0x100))


def encode_string(value: str) -> bytes:
    raw = value.encode()
    return _SHORT_STRING[len(raw)] + raw if len(raw) < 0x100 else encode_variable(0xA1, raw)


@lru_cache(1024)  # most symbols are names, the same in every message
def encode_symbol(value: str) -> bytes:
    return encode_variable(SYMBOL_CODE, value.encode("ascii"))


def encode_compound(code: int, count: int, body: bytes) -> bytes:
    """Return a list, map or array; `code` is the constructor of the one-byte size."""
    size = len(body)
    if size < 0xFF and count < 0x100:
        return bytes((code, size + 1, count)) + body
    return bytes((code + 0x10,)) + _pack_u32(size + 4) + _pack_u32(count) + body


def encode_list(values: Iterable[Any]) -> bytes:
    parts = [_encode(value) for value in values]
    return encode_compound(LIST_CODE, len(parts), b"".join(parts))


def encode_map(pairs: Mapping[Any, Any]) -> bytes:
    parts = [_encode(part) for pair in pairs.items() for part in pair]
    return encode_compound(MAP_CODE, len(parts), b"".join(parts))


def encode_symbols(values: Iterable[str]) -> bytes:
    """Return an array of symbols, as mechanisms and capabilities are."""
    return encode_array(Array(Symbol, tuple(values)))


def encode_array(array: Array) -> bytes:
    code, write = _ELEMENT_WRITERS[array.kind]
    parts = [write(value) for value in array.values]
    return encode_compound(ARRAY_CODE, len(parts), bytes((code,)) + b"".join(parts))


def _encode_described(value: DescribedValue) -> bytes:
    return b"\0" + _encode(value.descriptor) + _encode(value.value)


def _encode_decimal(value: DecimalBytes) -> bytes:
    code = {4: b"\x74", 8: b"\x84", 16: b"\x94"}[len(value)]
    return code + value


def _sized(raw: bytes) -> bytes:
    return _pack_u32(len(raw)) + raw


def _wide_compound(count: int, body: bytes) -> bytes:
    return _pack_u32(len(body) + 4) + _pack_u32(count) + body


def _list_element(values: list[Any]) -> bytes:
    return _wide_compound(len(values), b"".join(map(_encode, values)))


def _map_element(pairs: Mapping[Any, Any]) -> bytes:
    return _wide_compound(2 * len(pairs), b"".join([_encode(part) for pair in pairs.items() for part in pair]))


def _array_element(array: Array) -> bytes:
    code, write = _ELEMENT_WRITERS[array.kind]
    return _wide_compound(len(array.values), bytes((code,)) + b"".join(map(write, array.values)))


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _value: NULL_BYTES,
    bool: encode_bool,
    UByte: encode_ubyte,
    UShort: encode_ushort,
    UInt: encode_uint,
    ULong: encode_ulong,
    Byte: lambda value: b"\x51" + _pack_i8(value),
    Short: lambda value: b"\x61" + _pack_i16(value),
    Int: encode_int,
    int: encode_long,
    Timestamp: lambda value: b"\x83" + _pack_i64(value),
    Float: lambda value: b"\x72" + _pack_float(value),
    float: lambda value: b"\x82" + _pack_double(value),
    Char: lambda value: b"\x73" + _pack_u32(ord(value)),
    DecimalBytes: _encode_decimal,
    UUID: lambda value: b"\x98" + value.bytes,
    bytes: encode_binary,
    str: encode_string,
    Symbol: encode_symbol,
    list: encode_list,
    dict: encode_map,
    Array: encode_array,
    DescribedValue: _encode_described,
}

_ELEMENT_WRITERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    bool: (0x56, _pack_u8),
    UByte: (0x50, _pack_u8),
    UShort: (0x60, _pack_u16),
    UInt: (0x70, _pack_u32),
    ULong: (0x80, _pack_u64),
    Byte: (0x51, _pack_i8),
    Short: (0x61, _pack_i16),
    Int: (0x71, _pack_i32),
    int: (0x81, _pack_i64),
    Timestamp: (0x83, _pack_i64),
    Float: (0x72, _pack_float),
    float: (0x82, _pack_double),
    Char: (0x73, lambda value: _pack_u32(ord(value))),
    UUID: (0x98, lambda value: value.bytes),
    bytes: (0xB0, _sized),
    str: (0xB1, lambda value: _sized(value.encode())),
    Symbol: (0xB3, lambda value: _sized(value.encode("ascii"))),
    list: (0xD0, _list_element),
    dict: (0xD1, _map_element),
    Array: (0xF0, _array_element),
}
"""Constructor of an array's elements, and the writer of one element without it."""
