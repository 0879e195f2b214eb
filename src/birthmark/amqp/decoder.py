"""Bytes to AMQP values (part 1 section 1.2).

A reader takes the bytes, the position after the constructor and the budget, and returns the value and the next
position. `READERS` maps each constructor byte to its reader. The budget bounds the work that hostile bytes can cause:

- nesting, by `MAX_DEPTH`
- elements of all lists, maps and arrays of one value, by `MAX_ELEMENTS`
- counts, by the bytes that follow; an array of elements without bytes is refused

Map keys are text or integers, because hash collisions of other types, such as UUIDs, can be constructed.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

from birthmark.amqp.errors import AmqpCondition, AmqpError, DecodeError
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

MAX_DEPTH: Final = 8
MAX_ELEMENTS: Final = 4096

DESCRIBED: Final = 0x00
NULL: Final = 0x40
SMALL_ULONG: Final = 0x53
LIST0: Final = 0x45
LIST8: Final = 0xC0
LIST32: Final = 0xD0
_WITHOUT_BYTES = range(0x40, 0x46)
_SURROGATES = range(0xD800, 0xE000)

_unpack_two = struct.Struct(">II").unpack_from
_unpack_u32 = struct.Struct(">I").unpack_from


class DecodeBudget:
    """Nesting and elements that remain for one value or one message."""

    __slots__ = ("depth", "elements")

    def __init__(self, depth: int = MAX_DEPTH, elements: int = MAX_ELEMENTS) -> None:
        self.depth = depth
        self.elements = elements

    def enter(self, count: int) -> None:
        """Enter a compound value of `count` elements; leave it with `depth += 1`."""
        self.depth -= 1
        self.elements -= count
        if self.depth < 0:
            raise DecodeError("values are nested too deeply")
        if self.elements < 0:
            told = f"a value has more than {MAX_ELEMENTS} elements"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)


Reader: TypeAlias = Callable[[bytes, int, DecodeBudget], tuple[Any, int]]


def decode_value(data: bytes, offset: int = 0, budget: DecodeBudget | None = None) -> tuple[Any, int]:
    """Return the value at `offset` and the position after it. Raise `DecodeError`."""
    return guard(read_value, data, offset, DecodeBudget() if budget is None else budget)


def guard(reader: Reader, data: bytes, offset: int, budget: DecodeBudget) -> tuple[Any, int]:
    """Call a reader, and raise `DecodeError` for bytes that end early or that have no meaning."""
    try:
        return reader(data, offset, budget)
    except (IndexError, struct.error):
        raise DecodeError("a value ends too early") from None
    except (ValueError, OverflowError):  # UTF-8, ASCII, characters
        raise DecodeError("a value is not valid for its type") from None


def read_value(data: bytes, offset: int, budget: DecodeBudget) -> tuple[Any, int]:
    """Read a constructor and its value, unguarded."""
    return READERS[data[offset]](data, offset + 1, budget)


# ---- readers of one type


def fixed(layout: str, kind: Callable[[Any], Any] | None = None) -> Reader:
    """Return the reader of a fixed-width value."""
    unpack, width = struct.Struct(">" + layout).unpack_from, struct.calcsize(">" + layout)
    if kind is None:
        return lambda data, offset, _budget: (unpack(data, offset)[0], offset + width)
    return lambda data, offset, _budget: (kind(unpack(data, offset)[0]), offset + width)


def constant(value: Any) -> Reader:
    """Return the reader of a constructor that is the value itself."""
    return lambda _data, offset, _budget: (value, offset)


def variable(*, is_wide: bool, kind: Callable[[bytes], Any]) -> Reader:
    """Return the reader of a value that begins with its size in one or four bytes."""

    def read_narrow(data: bytes, offset: int, _budget: DecodeBudget) -> tuple[Any, int]:
        end = offset + 1 + data[offset]
        if end > len(data):
            raise IndexError
        return kind(data[offset + 1 : end]), end

    def read_wide(data: bytes, offset: int, _budget: DecodeBudget) -> tuple[Any, int]:
        end = offset + 4 + _unpack_u32(data, offset)[0]
        if end > len(data):
            raise IndexError
        return kind(data[offset + 4 : end]), end

    return read_wide if is_wide else read_narrow


def read_compound_header(data: bytes, offset: int, *, is_wide: bool) -> tuple[int, int, int]:
    """Return the count of elements, the position of the first one, and the end."""
    if is_wide:
        size, count = _unpack_two(data, offset)
        offset += 8
        end = offset + size - 4
    else:
        size, count = data[offset], data[offset + 1]
        offset += 2
        end = offset + size - 1
    if end > len(data):
        raise DecodeError("a compound value is longer than its frame or message")
    if end < offset or count > end - offset:  # each element has at least one byte
        raise DecodeError("a compound value has more elements than bytes")
    return count, offset, end


def _read_elements(data: bytes, offset: int, budget: DecodeBudget, *, is_wide: bool) -> tuple[list[Any], int]:
    count, offset, end = read_compound_header(data, offset, is_wide=is_wide)
    budget.enter(count)
    values = []
    for _ in range(count):
        value, offset = READERS[data[offset]](data, offset + 1, budget)
        values.append(value)
    budget.depth += 1
    if offset != end:
        raise DecodeError("a compound value does not have the size that it states")
    return values, offset


def _list(*, is_wide: bool) -> Reader:
    return lambda data, offset, budget: _read_elements(data, offset, budget, is_wide=is_wide)


def _map(*, is_wide: bool) -> Reader:
    def read(data: bytes, offset: int, budget: DecodeBudget) -> tuple[dict[Any, Any], int]:
        flat, offset = _read_elements(data, offset, budget, is_wide=is_wide)
        keys = flat[::2]
        if len(flat) % 2:
            raise DecodeError("a map has a key without a value")
        for key in keys:
            if not isinstance(key, str | int):
                raise DecodeError("a map key is neither text nor an integer")
        pairs = dict(zip(keys, flat[1::2], strict=True))
        if len(pairs) != len(keys):
            raise DecodeError("a map has a key twice")
        return pairs, offset

    return read


def _array(*, is_wide: bool) -> Reader:
    def read(data: bytes, offset: int, budget: DecodeBudget) -> tuple[Array, int]:
        count, offset, end = read_compound_header(data, offset, is_wide=is_wide)
        budget.enter(count)
        kind: type = Symbol
        values = []
        if offset < end:  # rhea omits the constructor of an empty array
            code = data[offset]
            offset += 1
            if code not in ARRAY_KINDS or code in _WITHOUT_BYTES:
                raise DecodeError(f"an array has elements of constructor 0x{code:02x}")
            kind, reader = ARRAY_KINDS[code], READERS[code]
            for _ in range(count):
                value, offset = reader(data, offset, budget)
                values.append(value)
        budget.depth += 1
        if offset != end:
            raise DecodeError("an array does not have the size that it states")
        return Array(kind, tuple(values)), offset

    return read


def _read_described(data: bytes, offset: int, budget: DecodeBudget) -> tuple[DescribedValue, int]:
    budget.enter(1)
    descriptor, offset = READERS[data[offset]](data, offset + 1, budget)
    value, offset = READERS[data[offset]](data, offset + 1, budget)
    budget.depth += 1
    return DescribedValue(descriptor, value), offset


def _read_empty_list(_data: bytes, offset: int, _budget: DecodeBudget) -> tuple[list[Any], int]:
    return [], offset


def _refuse(data: bytes, offset: int, _budget: DecodeBudget) -> tuple[Any, int]:
    raise DecodeError(f"no type has the constructor 0x{data[offset - 1]:02x}")


def _decimal(width: int) -> Reader:
    return fixed(f"{width}s", DecimalBytes)


def _char(code: int) -> Char:
    if code in _SURROGATES:
        raise ValueError
    return Char(chr(code))


def decode_text(raw: bytes) -> str:
    """Return UTF-8 as text."""
    return raw.decode()


def decode_symbol(raw: bytes) -> Symbol:
    """Return ASCII as a symbol."""
    return Symbol(raw.decode("ascii"))


def _uuid(raw: bytes) -> UUID:
    return UUID(bytes=raw)


READERS: list[Reader] = [_refuse] * 256
for _code, _reader in {
    DESCRIBED: _read_described,
    NULL: constant(None),
    0x41: constant(True),  # noqa: FBT003 (a value, not a flag)
    0x42: constant(False),  # noqa: FBT003 (as above)
    0x43: constant(UInt(0)),
    0x44: constant(ULong(0)),
    LIST0: _read_empty_list,
    0x50: fixed("B", UByte),
    0x51: fixed("b", Byte),
    0x52: fixed("B", UInt),
    SMALL_ULONG: fixed("B", ULong),
    0x54: fixed("b", Int),
    0x55: fixed("b"),
    0x56: fixed("B", bool),
    0x60: fixed("H", UShort),
    0x61: fixed("h", Short),
    0x70: fixed("I", UInt),
    0x71: fixed("i", Int),
    0x72: fixed("f", Float),
    0x73: fixed("I", _char),
    0x74: _decimal(4),
    0x80: fixed("Q", ULong),
    0x81: fixed("q"),
    0x82: fixed("d"),
    0x83: fixed("q", Timestamp),
    0x84: _decimal(8),
    0x94: _decimal(16),
    0x98: fixed("16s", _uuid),
    0xA0: variable(is_wide=False, kind=bytes),
    0xA1: variable(is_wide=False, kind=decode_text),
    0xA3: variable(is_wide=False, kind=decode_symbol),
    0xB0: variable(is_wide=True, kind=bytes),
    0xB1: variable(is_wide=True, kind=decode_text),
    0xB3: variable(is_wide=True, kind=decode_symbol),
    LIST8: _list(is_wide=False),
    0xC1: _map(is_wide=False),
    LIST32: _list(is_wide=True),
    0xD1: _map(is_wide=True),
    0xE0: _array(is_wide=False),
    0xF0: _array(is_wide=True),
}.items():
    READERS[_code] = _reader

ARRAY_KINDS: dict[int, type] = {
    0x50: UByte,
    0x51: Byte,
    0x52: UInt,
    SMALL_ULONG: ULong,
    0x54: Int,
    0x55: int,
    0x56: bool,
    0x60: UShort,
    0x61: Short,
    0x70: UInt,
    0x71: Int,
    0x72: Float,
    0x73: Char,
    0x80: ULong,
    0x81: int,
    0x82: float,
    0x83: Timestamp,
    0x98: UUID,
    0xA0: bytes,
    0xA1: str,
    0xA3: Symbol,
    0xB0: bytes,
    0xB1: str,
    0xB3: Symbol,
    LIST8: list,
    LIST32: list,
    0xC1: dict,
    0xD1: dict,
    0xE0: Array,
    0xF0: Array,
}
"""Constructors that an array may have, with the Python type of its elements."""
