"""For which hosts a certificate is, and what is told when it is for others."""

import ipaddress

import pytest
from cryptography import x509

from birthmark.pki.hostname_verification import check_host
from birthmark.pki.single_certificate_checks import ChainError
from support.pki.odd_certificates import a_certificate

NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("Hub.example"),
        x509.DNSName("*.fleet.example"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.RFC822Name("who@cares.example"),
    ]
)
CERTIFICATE = a_certificate((NAMES, False)).certificate


@pytest.mark.parametrize("host", ["hub.example", "HUB.EXAMPLE", "a.fleet.example", "192.0.2.1", "[2001:db8::1]"])
def test_it_is_for_these(host: str) -> None:
    check_host(CERTIFICATE, host)


@pytest.mark.parametrize(
    "host", ["fleet.example", "a.b.fleet.example", "192.0.2.2", "cares.example", "hub_.example", "hub.example.evil", ""]
)
def test_it_is_for_no_other_and_tells_its_own(host: str) -> None:
    with pytest.raises(ChainError) as refusal:
        check_host(CERTIFICATE, host)
    assert "Hub.example, *.fleet.example, 192.0.2.1, 2001:db8::1" in str(refusal.value)


def test_without_names_it_is_for_no_host() -> None:
    with pytest.raises(ChainError) as refusal:
        check_host(a_certificate().certificate, "hub.example")
    assert "no host" in str(refusal.value)
