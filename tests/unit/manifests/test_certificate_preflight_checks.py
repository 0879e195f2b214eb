"""What speaks against a certificate before it is put on record."""

from datetime import timedelta

from birthmark.manifests.certificate_preflight_checks import Judge, doubts_of, doubts_of_ca
from birthmark.manifests.manifest_entry import ManifestEntry
from support.fakes import NOON
from support.pki.odd_certificates import a_certificate
from support.pki.pki_builders import a_ca, a_device, an_rsa_key


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

    for_servers = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    found = doubts_of(a_certificate(for_servers).certificate, NOON, needs_common_name=True)
    assert len(found) == 1
    assert "TLS clients" in found[0]


def test_a_good_ca_raises_no_doubt() -> None:
    assert doubts_of_ca(a_ca().certificate, NOON) == []


def test_an_expired_ca_raises_a_doubt() -> None:
    assert "expired" in doubts_of_ca(a_ca().certificate, NOON + timedelta(days=365 * 50))[0]


def judged(der: bytes | None, *, needs_common_name: bool = True) -> tuple[str, ...]:
    """What speaks against a device of a list."""
    entry = ManifestEntry("0123", "chip", "part", None, NOON, "a signer", der, "sn0123", None, ("0",))
    return Judge(NOON, needs_common_name)(entry)


def test_a_certificate_without_a_common_name_is_doubted_where_that_is_the_registration_id() -> None:
    nameless = a_certificate(subject=None).certificate
    assert judged(nameless.der) == ("it has no common name, which would be the registration id",)
    assert judged(nameless.der, needs_common_name=False) == ()


def test_an_entry_is_judged_by_its_certificate_where_it_has_one() -> None:
    assert judged(a_device().certificate.der) == ()
    assert judged(None) == ()
    (doubt,) = judged(a_device(lifetime=timedelta(microseconds=1)).certificate.der)
    assert "expired" in doubt


def test_a_certificate_that_only_its_maker_reads_is_doubted() -> None:
    (doubt,) = judged(b"no certificate")
    assert doubt.startswith("its certificate cannot be read: ")
