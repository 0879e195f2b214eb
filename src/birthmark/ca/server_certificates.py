"""Certificates of this server, and the host names that a CA excludes."""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from birthmark.pki.certificate_profiles import SERVER
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer, issue
from birthmark.pki.names_and_registration_ids import MAX_COMMON_NAME_BYTES, name_of
from birthmark.pki.revocation_urls import DistributionPoints


def issue_server(
    issuer: LeafIssuer,
    hosts: Sequence[str],
    public_key: CertificatePublicKeyTypes,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta | None = None,
    points: DistributionPoints | None = None,
) -> Certificate:
    """Return a server certificate for `hosts`: DNS names and IP addresses, the primary name first."""
    named = next((host for host in hosts if len(host.encode()) <= MAX_COMMON_NAME_BYTES), "server")
    return issue(
        SERVER,
        name_of(named),
        public_key,
        issuer=issuer,
        serial=serial,
        now=now,
        lifetime=lifetime,
        points=points,
        san=[_general_name(host) for host in dict.fromkeys(hosts)],
    )


def excluding(hosts: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    """Return the name constraints that exclude these hosts from a CA; loopback addresses need no exclusion."""
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
