"""Integers and strings as MQTT writes them (section 1.5), and what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt import primitives
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError


@given(st.integers(0, primitives.MAX_VARINT))
def test_a_variable_byte_integer_is_read_as_it_was_written(value: int) -> None:
    raw = primitives.write_varint(value)
    assert primitives.read_varint(raw, 0) == (value, len(raw))


@pytest.mark.parametrize("raw", [b"\x80\x00", b"\xff\xff\xff\xff\x01", b"", b"\x80"])
def test_a_variable_byte_integer_that_is_long_or_cut_off_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        primitives.read_varint(raw, 0)


@pytest.mark.parametrize("value", [-1, primitives.MAX_VARINT + 1])
def test_an_integer_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        primitives.write_varint(value)
    with pytest.raises(LocalProtocolError):
        primitives.write_u16(value)


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "x" * 65536])
def test_a_string_that_mqtt_does_not_have_is_not_written(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        primitives.write_utf8(text)


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0\2a", b"\0\1\xff", b"\0\1\0"])
def test_a_string_that_is_cut_off_or_none_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        primitives.read_utf8(raw, 0)


def test_four_bytes_that_are_three_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        primitives.read_u32(b"\0\0\0", 0)
