"""Composite types: described lists with typed fields, declared as frozen structs (part 1 section 1.4).

The annotations of a struct are its field table. A field without null in its annotation and without a default is
mandatory. Reading checks each field by its constructor byte and raises `amqp:invalid-field`; a null becomes the field's
default. Writing includes all trailing nulls unless told otherwise, because pyamqp reads fields by their index.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from birthmark.amqp import encoder
from birthmark.amqp.decoder import (
    DESCRIBED,
    LIST0,
    LIST8,
    LIST32,
    NULL,
    READERS,
    SMALL_ULONG,
    DecodeBudget,
    Reader,
    constant,
    decode_symbol,
    decode_text,
    fixed,
    guard,
    read_compound_header,
    read_value,
    variable,
)
from birthmark.amqp.errors import AmqpCondition, AmqpError, DecodeError, LocalProtocolError
from birthmark.amqp.values import Array, DescribedValue, Symbol

_REQUIRED: Final = object()


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity, as annotations are
class FieldType:
    """AMQP type of a field: readers by constructor byte, and the writer of values that are not null."""

    name: str
    readers: Mapping[int, Reader]
    write: Callable[[Any], bytes]


class _FieldSpec(NamedTuple):
    name: str
    type: FieldType
    default: Any


class CompositeType(NamedTuple):
    """A struct's descriptor and field table."""

    kind: type[msgspec.Struct]
    code: int
    prefix: bytes
    fields: tuple[_FieldSpec, ...]
    readers: tuple[tuple[Mapping[int, Reader], Any], ...]
    """Readers of each field, with the value that a null stands for."""
    defaults: tuple[Any, ...]
    has_required: bool
    writers: tuple[Callable[[Any], bytes], ...]


_BY_CODE: dict[int, CompositeType] = {}
_BY_NAME: dict[str, int] = {}
_BY_KIND: dict[type, CompositeType] = {}

StructType = TypeVar("StructType", bound=type[msgspec.Struct])


def composite(code: int, name: str) -> Callable[[StructType], StructType]:
    """Register a struct under its numeric and symbolic descriptor."""

    def register(kind: StructType) -> StructType:
        hints = get_type_hints(kind, include_extras=True)
        fields = tuple(
            _FieldSpec(field.name, *_type_of(hints[field.name], field)) for field in msgspec.structs.fields(kind)
        )
        prefix = bytes((DESCRIBED, SMALL_ULONG, code))
        readers = tuple((one.type.readers, one.default) for one in fields)
        defaults, writers = tuple(one.default for one in fields), tuple(one.type.write for one in fields)
        has_required = _REQUIRED in defaults
        _BY_CODE[code] = _BY_KIND[kind] = CompositeType(
            kind, code, prefix, fields, readers, defaults, has_required, writers
        )
        _BY_NAME[name] = code
        return kind

    return register


def _type_of(hint: Any, field: msgspec.structs.FieldInfo) -> tuple[FieldType, Any]:
    """Return the AMQP type in an annotation, and the value that a null stands for."""
    parts = (hint,) if get_origin(hint) is Annotated else get_args(hint)
    found = next(part for part in parts if get_origin(part) is Annotated)
    is_optional = type(None) in parts or found.__origin__ is Any
    default = None if is_optional else _REQUIRED
    return get_args(found)[1], default if field.default is msgspec.NODEFAULT else field.default


# ---- reading


def decode_composite(data: bytes, offset: int = 0, budget: DecodeBudget | None = None) -> tuple[Any, int]:
    """Return the struct at `offset` and the position after it; a `DescribedValue` if its descriptor is unknown."""
    budget = DecodeBudget() if budget is None else budget
    return guard(_read_outer, data, offset, budget)


def _read_outer(data: bytes, offset: int, budget: DecodeBudget) -> tuple[Any, int]:
    if data[offset] != DESCRIBED:
        raise DecodeError("a described type is expected")
    return read_described(data, offset + 1, budget)


def read_described(data: bytes, offset: int, budget: DecodeBudget) -> tuple[Any, int]:
    """Read a descriptor and its value, unguarded."""
    if data[offset] == SMALL_ULONG:
        code: Any = data[offset + 1]
        offset += 2
        found = _BY_CODE.get(code)
        if found is None:
            code, _ = read_value(data, offset - 2, budget)
    else:
        code, offset = read_value(data, offset, budget)
        found = _find(code)
    if found is not None:
        return _read_fields(found, data, offset, budget)
    budget.enter(1)
    value, offset = read_value(data, offset, budget)
    budget.depth += 1
    return DescribedValue(code, value), offset


def _find(descriptor: object) -> CompositeType | None:
    if isinstance(descriptor, Symbol):
        descriptor = _BY_NAME.get(descriptor)
    return _BY_CODE.get(descriptor) if isinstance(descriptor, int) else None


def _read_fields(kind: CompositeType, data: bytes, offset: int, budget: DecodeBudget) -> tuple[Any, int]:
    code = data[offset]
    offset += 1
    if code == LIST8:
        count, offset, end = read_compound_header(data, offset, is_wide=False)
    elif code == LIST32:
        count, offset, end = read_compound_header(data, offset, is_wide=True)
    elif code == LIST0:
        count, end = 0, offset
    else:
        raise DecodeError(f"{kind.kind.__name__} is not a list")
    if count > len(kind.readers):
        raise _invalid(f"{kind.kind.__name__} has {count} fields")
    budget.enter(count)
    values = []
    for readers, default in kind.readers[:count]:
        code = data[offset]
        offset += 1
        if code == NULL:
            values.append(default)
            continue
        if (reader := readers.get(code)) is None:
            field = kind.fields[len(values)]
            raise _invalid(f"{kind.kind.__name__}.{field.name} is not of type {field.type.name}")
        value, offset = reader(data, offset, budget)
        values.append(value)
    budget.depth += 1
    if offset != end:
        raise DecodeError(f"{kind.kind.__name__} does not have the size that it states")
    values += kind.defaults[count:]
    if kind.has_required and _REQUIRED in values:
        names = [field.name for field, value in zip(kind.fields, values, strict=True) if value is _REQUIRED]
        raise _invalid(f"{kind.kind.__name__}.{names[0]} is missing")
    return kind.kind(*values), offset


def _invalid(description: str) -> AmqpError:
    return AmqpError(AmqpCondition.INVALID_FIELD, description)


# ---- writing


def encode_composite(value: msgspec.Struct) -> bytes:
    """Return a struct's bytes with all fields. Raise `LocalProtocolError` for a value that does not fit."""
    return _encode(value, has_all=True)


def encode_trimmed(value: msgspec.Struct) -> bytes:
    """Return a struct's bytes without trailing nulls, as sections of messages may be."""
    return _encode(value, has_all=False)


def _encode(value: msgspec.Struct, *, has_all: bool) -> bytes:
    kind = _BY_KIND[type(value)]
    null = encoder.NULL_BYTES
    try:
        parts = [
            null if field is None else write(field)
            for field, write in zip(msgspec.structs.astuple(value), kind.writers, strict=True)
        ]
    except (struct.error, OverflowError, UnicodeEncodeError, ValueError) as error:
        raise LocalProtocolError(f"a field of {kind.kind.__name__} does not fit its type: {error}") from None
    if not has_all:
        while parts and parts[-1] == null:
            parts.pop()
    return kind.prefix + encoder.encode_compound(encoder.LIST_CODE, len(parts), b"".join(parts))


def _write_nested(value: Any) -> bytes:
    return _encode(value, has_all=True) if type(value) in _BY_KIND else encoder.encode_value(value)


# ---- field types


def _generic(*codes: int) -> dict[int, Reader]:
    return {code: READERS[code] for code in codes}


def _to_tuple(reader: Reader) -> Reader:
    def read(data: bytes, offset: int, budget: DecodeBudget) -> tuple[tuple[Symbol, ...], int]:
        value, offset = reader(data, offset, budget)
        if not isinstance(value, Array):
            return (value,), offset
        if value.values and value.kind is not Symbol:
            raise _invalid(f"an array of symbols has elements of type {value.kind.__name__}")
        return value.values, offset

    return read


def nested(name: str, *codes: int, is_open: bool = False) -> FieldType:
    """Return the type of a field that holds one of the composites; an open one may hold unknown descriptors, too."""
    allowed = frozenset(codes)

    def read(data: bytes, offset: int, budget: DecodeBudget) -> tuple[Any, int]:
        value, offset = read_described(data, offset, budget)
        kind = _BY_KIND.get(type(value))
        if not is_open if kind is None else kind.code not in allowed:
            raise _invalid(f"a field is not of type {name}")
        return value, offset

    return FieldType(name, {DESCRIBED: read}, _write_nested)


_STRING_READERS: dict[int, Reader] = {
    0xA1: variable(is_wide=False, kind=decode_text),
    0xB1: variable(is_wide=True, kind=decode_text),
}
_SYMBOL_READERS: dict[int, Reader] = {
    0xA3: variable(is_wide=False, kind=decode_symbol),
    0xB3: variable(is_wide=True, kind=decode_symbol),
}
_BINARY_READERS = _generic(0xA0, 0xB0)

BOOLEAN = FieldType(
    "boolean",
    {0x41: constant(True), 0x42: constant(False), 0x56: fixed("B", bool)},  # noqa: FBT003 (values, not flags)
    encoder.encode_bool,
)
UBYTE = FieldType("ubyte", {0x50: fixed("B")}, encoder.encode_ubyte)
USHORT = FieldType("ushort", {0x60: fixed("H")}, encoder.encode_ushort)
UINT = FieldType("uint", {0x43: constant(0), 0x52: fixed("B"), 0x70: fixed("I")}, encoder.encode_uint)
ULONG = FieldType("ulong", {0x44: constant(0), 0x53: fixed("B"), 0x80: fixed("Q")}, encoder.encode_ulong)
TIMESTAMP = FieldType("timestamp", {0x83: fixed("q")}, lambda value: b"\x83" + struct.pack(">q", value))
STRING = FieldType("string", _STRING_READERS, encoder.encode_string)
BINARY = FieldType("binary", _BINARY_READERS, encoder.encode_binary)
SYMBOL = FieldType("symbol", _SYMBOL_READERS, encoder.encode_symbol)
TEXT = FieldType("symbol or string", {**_SYMBOL_READERS, **_STRING_READERS}, encoder.encode_symbol)
"""A symbol of a message's properties, which some clients send as a string."""
SYMBOLS = FieldType(
    "array of symbols",
    {code: _to_tuple(READERS[code]) for code in (0xA3, 0xB3, 0xE0, 0xF0)},
    lambda value: encoder.encode_symbols(value) if value else encoder.NULL_BYTES,
)
MAP = FieldType("map", _generic(0xC1, 0xD1), encoder.encode_value)
MESSAGE_ID = FieldType("message id", _generic(0x44, 0x53, 0x80, 0x98, 0xA0, 0xB0, 0xA1, 0xB1), encoder.encode_value)
ANYTHING = FieldType("any type", {code: READERS[code] for code in range(0x100) if code != NULL}, encoder.encode_value)

Boolean = Annotated[bool, BOOLEAN]
UInt8 = Annotated[int, UBYTE]
UInt16 = Annotated[int, USHORT]
UInt32 = Annotated[int, UINT]
UInt64 = Annotated[int, ULONG]
Milliseconds = Annotated[int, TIMESTAMP]
String = Annotated[str, STRING]
Binary = Annotated[bytes, BINARY]
SymbolText = Annotated[str, SYMBOL]
LenientSymbol = Annotated[str, TEXT]
Symbols = Annotated[tuple[str, ...], SYMBOLS]
Fields = Annotated[Mapping[Any, Any], MAP]
Anything = Annotated[Any, ANYTHING]
MessageId = Annotated[Any, MESSAGE_ID]
