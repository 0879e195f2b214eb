"""CBOR as devices of AWS IoT speak it: RFC 8949's own examples, any value there and back, and bytes of all kinds."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.wire.cbor import MAX_DEPTH, CborError, decode, encode

# RFC 8949, appendix A.
EXAMPLES: list[tuple[str, Any]] = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1a000f4240", 1_000_000),
    ("1bffffffffffffffff", 18_446_744_073_709_551_615),
    ("3863", -100),
    ("f93c00", 1.0),
    ("fb3ff199999999999a", 1.1),
    ("f4", False),
    ("f6", None),
    ("4401020304", b"\x01\x02\x03\x04"),
    ("62c3bc", "ü"),
    ("83010203", [1, 2, 3]),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("5f42010243030405ff", b"\x01\x02\x03\x04\x05"),
    ("7f657374726561646d696e67ff", "streaming"),
    ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
    ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
]
WRONG = {
    "a tag": "c074323031332d30332d32315432303a30343a30305a",
    "a big number": "c249010000000000000000",
    "nothing": "",
    "an early end": "83 01 02",
    "something behind": "0000",
    "a key that is a number": "a10102",
    "a key twice": "a2616101616102",
    "no UTF-8": "62c328",
    "a length of nothing": "1c",
    "a break alone": "ff",
    "a text in parts of bytes": "7f4161ff",
    "an undefined simple value": "f8ff",
    "many items that are not there": "9bffffffffffffffff",
    "deep": "81" * (MAX_DEPTH + 2) + "00",
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(("text", "value"), EXAMPLES)
def test_the_examples_of_the_standard_are_read(text: str, value: Any) -> None:
    found = decode(bytes.fromhex(text))
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_cbor_or_more_than_devices_need_is_refused(text: str) -> None:
    with pytest.raises(CborError):
        decode(bytes.fromhex(text.replace(" ", "")))


@given(VALUES)
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_refused(body: bytes) -> None:
    try:
        value = decode(body)
    except CborError:
        return
    if isinstance(value, float) and math.isnan(value):
        return
    assert decode(encode(value)) == value or "NaN" in json.dumps(value, default=str)
