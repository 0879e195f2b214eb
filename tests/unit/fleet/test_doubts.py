"""What speaks against a certificate before it is put on record."""

from datetime import timedelta

from birthmark.fleet.doubts import doubts_of, doubts_of_ca
from fakes import NOON
from pki_builders import a_ca, a_device, an_rsa_key


def test_a_good_certificate_raises_no_doubt() -> None:
    assert doubts_of(a_device(a_ca()).certificate, NOON, needs_common_name=True) == []


def test_an_expired_certificate_raises_a_doubt() -> None:
    device = a_device(lifetime=timedelta(hours=1)).certificate
    assert "expired" in doubts_of(device, NOON + timedelta(hours=1), needs_common_name=True)[0]


def test_a_certificate_from_the_future_raises_a_doubt() -> None:
    device = a_device(now=NOON + timedelta(days=2)).certificate
    assert "not valid before" in doubts_of(device, NOON, needs_common_name=True)[0]


def test_a_weak_rsa_key_raises_a_doubt() -> None:
    device = a_device(key=an_rsa_key(1024)).certificate
    assert "1024 bits" in doubts_of(device, NOON, needs_common_name=True)[0]


def test_a_certificate_for_servers_only_is_doubted() -> None:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from odd_certificates import a_certificate

    for_servers = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    found = doubts_of(a_certificate(for_servers).certificate, NOON, needs_common_name=True)
    assert len(found) == 1
    assert "TLS clients" in found[0]


def test_a_good_ca_raises_no_doubt() -> None:
    assert doubts_of_ca(a_ca().certificate, NOON) == []


def test_an_expired_ca_raises_a_doubt() -> None:
    assert "expired" in doubts_of_ca(a_ca().certificate, NOON + timedelta(days=365 * 50))[0]
