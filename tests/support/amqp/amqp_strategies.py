"""Hypothesis strategies for AMQP values, performatives and messages."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from birthmark.amqp.composite import (
    ANYTHING,
    BINARY,
    BOOLEAN,
    MAP,
    MESSAGE_ID,
    STRING,
    SYMBOL,
    SYMBOLS,
    TEXT,
    TIMESTAMP,
    UBYTE,
    UINT,
    ULONG,
    USHORT,
    FieldType,
)
from birthmark.amqp.message import AmqpMessage, DataBody, MessageHeader, MessageProperties, SequenceBody, ValueBody
from birthmark.amqp.performatives import (
    AcceptedOutcome,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    ErrorInfo,
    Flow,
    ModifiedOutcome,
    Open,
    ReceivedState,
    RejectedOutcome,
    ReleasedOutcome,
    Source,
    Target,
    Transfer,
)
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

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=12)
symbols = ascii_texts.map(Symbol)
i64 = st.integers(-(2**63), 2**63 - 1)
u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))

ELEMENTS: Mapping[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    UByte: u8.map(UByte),
    UShort: u16.map(UShort),
    UInt: u32.map(UInt),
    ULong: u64.map(ULong),
    Byte: st.integers(-128, 127).map(Byte),
    Short: st.integers(-(2**15), 2**15 - 1).map(Short),
    Int: st.integers(-(2**31), 2**31 - 1).map(Int),
    int: i64,
    Timestamp: i64.map(Timestamp),
    Float: st.floats(width=32, allow_nan=False).map(Float),
    float: st.floats(allow_nan=False),
    Char: st.characters(exclude_categories=["Cs"]).map(Char),
    bytes: st.binary(max_size=300),
    str: texts,
    Symbol: symbols,
}
arrays = st.sampled_from(sorted(ELEMENTS, key=str)).flatmap(
    lambda kind: st.lists(ELEMENTS[kind], max_size=5).map(lambda values: Array(kind, tuple(values)))
)
scalars = st.one_of(
    st.none(),
    *ELEMENTS.values(),
    st.uuids(),
    st.sampled_from([4, 8, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size)).map(DecimalBytes),
    arrays,
)
keys = st.one_of(texts, symbols, i64)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(DescribedValue, st.one_of(u64.filter(lambda code: code > 0x100).map(ULong), symbols), inner),
    ),
    max_leaves=8,
)
maps = st.dictionaries(symbols, values, max_size=3)

_FIELDS: Mapping[FieldType, st.SearchStrategy[Any]] = {
    ANYTHING: texts,
    BINARY: st.binary(max_size=32),
    BOOLEAN: st.booleans(),
    MAP: maps,
    MESSAGE_ID: st.one_of(u64.map(ULong), st.uuids(), st.binary(max_size=20), texts),
    STRING: texts,
    SYMBOL: symbols,
    SYMBOLS: st.lists(symbols, min_size=1, max_size=3).map(tuple),
    TEXT: symbols,
    TIMESTAMP: i64,
    UBYTE: u8,
    UINT: u32,
    ULONG: u64,
    USHORT: u16,
}


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Return a strategy for a composite, from its annotations."""
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, *(_field(hints[name]) for name in kind.__struct_fields__))


def _field(hint: Any) -> st.SearchStrategy[Any]:
    parts = (hint,) if get_origin(hint) is Annotated else get_args(hint)
    found = next(part for part in parts if get_origin(part) is Annotated)
    field_type = get_args(found)[1]
    strategy = _NESTED[field_type.name]() if field_type.name in _NESTED else _FIELDS[field_type]
    return st.one_of(st.none(), strategy) if type(None) in parts or get_args(found)[0] is Any else strategy


def _error() -> st.SearchStrategy[Any]:
    return structs(ErrorInfo)


def _state() -> st.SearchStrategy[Any]:
    kinds = (AcceptedOutcome, RejectedOutcome, ReleasedOutcome, ModifiedOutcome, ReceivedState)
    return st.one_of(*(structs(kind) for kind in kinds))


def _source() -> st.SearchStrategy[Any]:
    return structs(Source)


def _target() -> st.SearchStrategy[Any]:
    return structs(Target)


_NESTED: Mapping[str, Callable[[], st.SearchStrategy[Any]]] = {
    "error": _error,
    "delivery state": _state,
    "source": _source,
    "target": _target,
}
performatives = st.one_of(
    *(structs(kind) for kind in (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close))
)
messages = st.builds(
    AmqpMessage,
    body=st.one_of(
        st.none(),
        st.lists(st.binary(max_size=300), min_size=1, max_size=3).map(tuple).map(DataBody),
        st.lists(st.lists(values, max_size=3), min_size=1, max_size=3).map(tuple).map(SequenceBody),
        values.map(ValueBody),
    ),
    properties=structs(MessageProperties),
    application_properties=st.dictionaries(texts, scalars, max_size=3),
    message_annotations=maps,
    delivery_annotations=maps,
    header=structs(MessageHeader),
    footer=maps,
)


def typed(value: Any) -> Any:
    """Return a value together with its types, because numbers of different types are equal."""
    if isinstance(value, list | tuple):
        return (type(value), [typed(one) for one in value])
    if isinstance(value, dict):
        return (dict, [(typed(key), typed(one)) for key, one in value.items()])
    if isinstance(value, Array):
        return (Array, value.kind, typed(value.values))
    if isinstance(value, DescribedValue):
        return (DescribedValue, typed(value.descriptor), typed(value.value))
    return (type(value), value)
