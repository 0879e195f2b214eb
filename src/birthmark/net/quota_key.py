"""Quota keys: the share of an address in per-address limits, and the owner of a connection."""

import ipaddress
from functools import lru_cache

from birthmark.pki.certificates import Certificate


@lru_cache(maxsize=16384)
def share_of(address: str) -> str:
    """Return an IPv4 address itself, or the /64 of an IPv6 address.

    A client usually controls all addresses of its /64.
    """
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
    """Return the owner of a connection: its key if there is a certificate, otherwise its address."""
    return share_of(address) if leaf is None else leaf.thumbprint.hex()
