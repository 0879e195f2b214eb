"""Whom a load balancer speaks for, as HAProxy's document has it, section 2.2."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.net.proxy_protocol import (
    HEAD_BYTES,
    MAX_REST_BYTES,
    SIGNATURE,
    ProxyHeaderError,
    among,
    networks_of,
    rest_of,
    source_of,
)


def a_header(source: str, destination: str = "", *, command: int = 0x21, more: bytes = b"") -> tuple[bytes, bytes]:
    """Return the first sixteen bytes, and the rest."""
    there = ipaddress.ip_address(destination or source)
    family = 0x11 if there.version == 4 else 0x21
    rest = ipaddress.ip_address(source).packed + there.packed + struct.pack("!HH", 49152, 8883) + more
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest)), rest


@given(source=st.ip_addresses(), more=st.binary(max_size=300))
def test_the_source_is_read_whatever_follows_it(source: ipaddress.IPv4Address, more: bytes) -> None:
    head, rest = a_header(str(source), more=more)
    assert rest_of(head) == len(rest)
    assert source_of(head, rest) == str(source)


def test_a_balancer_that_speaks_for_itself_names_nobody() -> None:
    assert source_of(*a_header("192.0.2.1", command=0x20)) is None


def test_an_address_that_is_none_of_tcp_names_nobody() -> None:
    head = SIGNATURE + b"\x21\x31" + struct.pack("!H", 216)
    assert source_of(head, bytes(216)) is None


@pytest.mark.parametrize(
    "head",
    [
        b"PROXY TCP4 192.0",
        SIGNATURE + b"\x11\x11\x00\x0c",
        SIGNATURE + b"\x22\x11\x00\x0c",
        SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_REST_BYTES + 1),
        SIGNATURE,
    ],
)
def test_what_is_no_header_of_version_2_is_refused(head: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        rest_of(head)


@given(cut=st.integers(0, 11))
def test_addresses_that_are_cut_off_are_refused(cut: int) -> None:
    head, rest = a_header("192.0.2.1")
    with pytest.raises(ProxyHeaderError):
        source_of(head, rest[:cut])


@given(head=st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES), rest=st.binary(max_size=600))
def test_nothing_else_comes_of_any_bytes(head: bytes, rest: bytes) -> None:
    try:
        assert rest_of(head) <= MAX_REST_BYTES
        source_of(head, rest)
    except ProxyHeaderError:
        pass


def test_addresses_are_among_networks() -> None:
    is_proxy = among(networks_of(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"]))
    found = [
        one for one in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "192.0.2.7", "192.0.2.8", "") if is_proxy(one)
    ]
    assert found == ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "192.0.2.7"]
