"""SSRF protection: permitted addresses are those of the Internet and those allowed in the configuration.

All others are internal: this machine, its network, cloud metadata services (169.254.169.254), and IPv4 addresses
embedded in IPv6.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from birthmark.errors import PolicyError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
PATIENCE_S, CONNECT_S = 15.0, 5.0
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_OTHERS = (
    ipaddress.IPv4Network("168.63.129.16"),  # Azure VMs receive secrets there, on a public address
    ipaddress.IPv4Network("192.88.99.0/24"),  # RFC 7526: any announcer of it would get the data
    ipaddress.IPv6Network("fec0::/10"),  # RFC 3879: internal, as long as it is still routed
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # RFC 8215: IPv4 addresses of local networks
)
_EMBEDDING = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"), _NAT64)


class AddressRefusedError(PolicyError):
    """The address is private and not in outbound.allow."""

    code = "outbound.address_refused"
    cause = "{host} has the private address {address}, so a call could reach this machine or its network."
    fix = (
        'If the call is intended, set allow = ["{network}"] in the [outbound] table of the configuration, and '
        "restart the server."
    )
    for_a_person = "the configuration file differs for each installation"
    address: str
    host: str

    @property
    def network(self) -> str:
        """The smallest network that would allow the address."""
        return f"{self.address}/{ipaddress.ip_address(self.address).max_prefixlen}"


class PlainRefusedError(PolicyError):
    """The URL has no TLS, and its address is not in outbound.allow."""

    code = "outbound.plain_refused"
    cause = (
        "{host} has the address {address}, which is not in [outbound] allow. Calls without TLS are limited to the "
        "addresses listed there."
    )
    fix = "Use an https:// URL: `{command}`"
    address: str
    command: str = "birthmark webhook create plant https://hooks.example.com/birthmark"
    host: str


def networks_of(texts: Iterable[str]) -> Sequence[Network]:
    """Parse networks. Raise `ValueError` that names the invalid one."""
    return [ipaddress.ip_network(text, strict=False) for text in texts]


def may_call(address: Address, allowed: Sequence[Network]) -> bool:
    """Return whether this address may be called."""
    if any(address.version == one.version and address in one for one in allowed):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return may_call(address.ipv4_mapped, allowed)
        if any(address in one for one in _EMBEDDING) or address.scope_id is not None:
            return False
    if any(address.version == one.version and address in one for one in _OTHERS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_addresses(
    host: str, addresses: Iterable[str], allowed: Sequence[Network], *, is_plain: bool = False
) -> Sequence[str]:
    """Return the permitted addresses of a host; without TLS only those allowed explicitly.

    Raise `AddressRefusedError`, `PlainRefusedError` if there is none.
    """
    found = [ipaddress.ip_address(one) for one in addresses]
    good = [one for one in found if may_call(one, allowed)]
    if not good and found:
        raise AddressRefusedError(host=host, address=str(found[0]).partition("%")[0])
    named = [one for one in good if not is_plain or any(one.version == net.version and one in net for net in allowed)]
    if good and not named:
        raise PlainRefusedError(host=host, address=str(good[0]))
    return [str(one) for one in named]
