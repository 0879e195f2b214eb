"""Whose share a peer's address counts in, wherever a limit is by address; and whose connection one is."""

import ipaddress
from functools import lru_cache

from birthmark.pki.certificates import Certificate


@lru_cache(maxsize=16384)
def share_of(address: str) -> str:
    """Return an IPv4 address itself, and the /64 of an IPv6 address: whoever has one has all of its addresses."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def owner_of(leaf: Certificate | None, address: str) -> str:
    """Return whose connection it is: that of a key, else of an address."""
    return share_of(address) if leaf is None else leaf.thumbprint.hex()
