"""Values to bytes and back; hostile bytes cost little."""

import struct
import time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.decoder import MAX_ELEMENTS, decode_value
from birthmark.amqp.encoder import encode_value
from birthmark.amqp.errors import AmqpCondition, AmqpError, DecodeError, LocalProtocolError
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
from support.amqp.amqp_strategies import typed, values

EXAMPLES: list[tuple[Any, str]] = [
    (None, "40"),
    (True, "41"),
    (False, "42"),
    (UInt(0), "43"),
    (UInt(255), "52 ff"),
    (UInt(256), "70 00000100"),
    (ULong(0), "44"),
    (ULong(1), "53 01"),
    (ULong(2**63), "80 8000000000000000"),
    (UByte(5), "50 05"),
    (UShort(5), "60 0005"),
    (Byte(-1), "51 ff"),
    (Short(-2), "61 fffe"),
    (Int(200), "71 000000c8"),
    (Int(-1), "54 ff"),
    (-128, "55 80"),
    (128, "81 0000000000000080"),
    (Timestamp(1), "83 0000000000000001"),
    (Float(1.5), "72 3fc00000"),
    (1.5, "82 3ff8000000000000"),
    (Char("é"), "73 000000e9"),
    (DecimalBytes(b"\1\2\3\4"), "74 01020304"),
    (UUID(int=1), "98 00000000000000000000000000000001"),
    (b"ab", "a0 02 6162"),
    ("é", "a1 02 c3a9"),
    (Symbol("a"), "a3 01 61"),
    ([], "c0 01 00"),
    ([None], "c0 02 01 40"),
    ({"a": None}, "c1 05 02 a1 01 61 40"),
    (Array(Symbol, (Symbol("a"),)), "e0 07 01 b3 00000001 61"),
    (DescribedValue(ULong(0x468C00000004), "x"), "00 80 0000468c00000004 a1 01 78"),
]


@pytest.mark.parametrize(("value", "encoded"), EXAMPLES, ids=[encoded for _, encoded in EXAMPLES])
def test_a_value_has_its_smallest_encoding_and_keeps_its_type(value: Any, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert encode_value(value) == data
    assert typed(decode_value(data)[0]) == typed(value)


@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    data = encode_value(value)
    decoded, end = decode_value(data)
    assert end == len(data)
    assert typed(decoded) == typed(value)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    try:
        value, _ = decode_value(data)
    except DecodeError:
        return
    encode_value(value)


@given(values, st.data())
def test_a_value_that_is_cut_is_a_decode_error(value: Any, data: st.DataObject) -> None:
    encoded = encode_value(value)
    with pytest.raises(DecodeError):
        decode_value(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("45", []),
        ("56 01", True),
        ("b1 00000001 61", "a"),
        ("d0 00000005 00000001 40", [None]),
        ("d1 00000004 00000000", {}),
        ("e0 01 00", Array(Symbol)),
        ("f0 00000007 00000002 52 01 02", Array(UInt, (UInt(1), UInt(2)))),
    ],
)
def test_encodings_that_only_clients_use_are_read(encoded: str, value: Any) -> None:
    assert typed(decode_value(bytes.fromhex(encoded))[0]) == typed(value)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "too early"),
        ("ff", "0xff"),
        ("a1 05 61", "too early"),
        ("b0 ffffffff", "too early"),
        ("a1 01 ff", "not valid"),
        ("a3 01 ff", "not valid"),
        ("73 00110000", "not valid"),
        ("73 0000d800", "not valid"),
        ("c0 01 01 40", "more elements"),
        ("c0 05 01 40", "longer than"),
        ("c0 03 01 40 40", "the size"),
        ("c1 02 01 40", "key without"),
        ("c1 05 04 41 40 41 40", "twice"),
        ("c1 05 02 c0 01 00 40", "neither"),
        ("e0 02 05 40", "more elements"),
        ("f0 00000009 ffffffff 40 40 40 40 40", "more elements"),
        ("e0 07 05 40 40 40 40 40 40", "0x40"),
        ("e0 07 01 00 53 01 a1 01 61", "0x00"),
        ("e0 04 01 52 01 02", "the size"),
    ],
)
def test_malformed_values_are_refused(encoded: str, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_value(bytes.fromhex(encoded))


def test_keys_whose_hashes_can_collide_are_refused() -> None:
    key = b"\x98" + bytes(16)
    with pytest.raises(DecodeError, match="neither text nor"):
        decode_value(b"\xc1" + bytes((len(key) + 2, 2)) + key + b"\x40")


@pytest.mark.parametrize("data", [b"\0" * 20_000, b"\xc0\xff\x01" * 5000, b"\0\x53\x01" * 5000])
def test_deep_nesting_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_value(data)


def test_elements_of_one_value_are_bounded_over_all_its_lists() -> None:
    inner = b"\xd0" + struct.pack(">II", 4 + 2000, 2000) + b"\x40" * 2000
    body = inner * 3
    started = time.perf_counter()
    with pytest.raises(AmqpError) as refused:
        decode_value(b"\xd0" + struct.pack(">II", 4 + len(body), 3) + body)
    assert refused.value.condition == AmqpCondition.RESOURCE_LIMIT_EXCEEDED
    assert time.perf_counter() - started < 0.5
    assert MAX_ELEMENTS < 6000


@pytest.mark.parametrize(
    "value",
    [UInt(2**32), UByte(-1), 2**63, object(), Symbol("é"), "\ud800", Float(1e300), [object()], Array(object, (1,))],
)
def test_a_value_that_amqp_cannot_express_is_a_local_error(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode_value(value)


def test_arrays_of_compound_values_are_written_and_read() -> None:
    for array in (
        Array(list, ([None], [])),
        Array(dict, ({"a": 1},)),
        Array(Array, (Array(UInt, (UInt(1),)), Array(UInt))),
        Array(UUID, (UUID(int=2),)),
    ):
        assert typed(decode_value(encode_value(array))[0]) == typed(array)
