"""Whom a load balancer speaks for: the PROXY protocol, version 2, which comes before everything else of a connection.

Only configured addresses are heard (`proxies`), and those have to say it; whoever else begins so speaks no TLS.
Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2.
"""

import ipaddress
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD_BYTES = 16
MAX_REST_BYTES = 2048
"""Addresses are 216 bytes at most; what is longer has to be extensions (TLVs), which are not looked at."""
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES = {0x11: 4, 0x21: 16}  # TCP over IPv4 and over IPv6
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Proxies: TypeAlias = Callable[[str], bool]
"""Says of an address whether it is a load balancer's."""


class ProxyHeaderError(ValueError):
    """That is no header of the PROXY protocol, version 2."""


def rest_of(head: bytes) -> int:
    """Return how many bytes follow the first sixteen. Raise `ProxyHeaderError`."""
    if len(head) != HEAD_BYTES or not head.startswith(SIGNATURE):
        raise ProxyHeaderError("it does not start with the signature of version 2")
    if head[12] not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError(f"its version and command are {head[12]:#04x}")
    (size,) = struct.unpack("!H", head[14:])
    if size > MAX_REST_BYTES:
        raise ProxyHeaderError(f"it announces {size} bytes")
    return int(size)


def source_of(head: bytes, rest: bytes) -> str | None:
    """Return the address that is spoken for; None where the balancer speaks for itself, or of no TCP address.

    Raise `ProxyHeaderError` where the addresses are cut off.
    """
    size = _ADDRESS_BYTES.get(head[13])
    if head[12] == _LOCAL or size is None:
        return None
    if len(rest) < 2 * size + 4:
        raise ProxyHeaderError("its addresses are truncated")
    return str(ipaddress.ip_address(rest[:size]))


def networks_of(texts: Iterable[str]) -> Sequence[Network]:
    """Return networks, such as `10.0.0.0/8` or one address. Raise `ValueError`."""
    return [ipaddress.ip_network(text) for text in texts]


def among(networks: Sequence[Network]) -> Proxies:
    """Return what says whether an address is in one of them."""

    def is_among(address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any((mapped or parsed) in network for network in networks)

    return is_among
