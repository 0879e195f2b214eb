"""PROXY protocol version 2: the client address, sent by a load balancer before all other data.

It is accepted only from the addresses in `proxies`, and is mandatory there; from others it is invalid TLS. Source:
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2.
"""

import ipaddress
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD_BYTES = 16
MAX_REST_BYTES = 2048
"""Maximum length after the fixed header: addresses take up to 216 bytes; extensions (TLVs) are ignored."""
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}  # TCP over IPv4 and over IPv6
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Proxies: TypeAlias = Callable[[str], bool]
"""Returns whether an address belongs to a load balancer."""


class ProxyHeaderError(ValueError):
    """The data is not a PROXY protocol version 2 header."""


def rest_of(head: bytes) -> int:
    """Return the number of bytes after the first 16. Raise `ProxyHeaderError`."""
    if len(head) != HEAD_BYTES or not head.startswith(SIGNATURE):
        raise ProxyHeaderError("it does not start with the signature of version 2")
    if head[12] not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError(f"its version and command are {head[12]:#04x}")
    (size,) = struct.unpack("!H", head[14:])
    if size > MAX_REST_BYTES:
        raise ProxyHeaderError(f"it announces {size} bytes")
    return int(size)


def source_of(head: bytes, rest: bytes) -> str | None:
    """Return the client address; None for the balancer's own connection or a non-TCP address.

    Raise `ProxyHeaderError` if the addresses are truncated.
    """
    size = _ADDRESS_BYTES.get(head[13])
    if head[12] == _LOCAL or size is None:
        return None
    if len(rest) < 2 * size + 4:
        raise ProxyHeaderError("its addresses are truncated")
    return str(ipaddress.ip_address(rest[:size]))


def networks_of(texts: Iterable[str]) -> Sequence[Network]:
    """Parse networks, such as `10.0.0.0/8` or a single address. Raise `ValueError`."""
    return [ipaddress.ip_network(text) for text in texts]


def among(networks: Sequence[Network]) -> Proxies:
    """Return a predicate for addresses in one of the networks."""

    def is_among(address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in networks)

    return is_among
