"""Certificates of this installation's own TLS servers."""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from birthmark.pki.certificates import Certificate
from birthmark.pki.issue import Issuer, issue
from birthmark.pki.names import MAX_COMMON_NAME_BYTES, name_of
from birthmark.pki.places import Places
from birthmark.pki.profiles import SERVER


def issue_server(
    issuer: Issuer,
    hosts: Sequence[str],
    public_key: CertificatePublicKeyTypes,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta | None = None,
    places: Places | None = None,
) -> Certificate:
    """Return a server certificate for `hosts`: DNS names and IP addresses, the most important one first."""
    named = next((host for host in hosts if len(host.encode()) <= MAX_COMMON_NAME_BYTES), "server")
    return issue(
        SERVER,
        name_of(named),
        public_key,
        issuer=issuer,
        serial=serial,
        now=now,
        lifetime=lifetime,
        places=places,
        san=[_general_name(host) for host in dict.fromkeys(hosts)],
    )


def excluding(hosts: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    """Return the constraints that keep a CA from naming these hosts; nobody else can stand at a loopback address."""
    found: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if host != "localhost":
                found.append(x509.DNSName(host))
        else:
            if not (address.is_loopback or address.is_unspecified):
                found.append(x509.IPAddress(ipaddress.ip_network(address)))
    return tuple(found)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
