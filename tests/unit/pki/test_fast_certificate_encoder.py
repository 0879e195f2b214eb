"""What is cast has the same bytes as what the library's builder makes."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark.pki import issuance as issuing
from birthmark.pki.certificate_profiles import PROFILES, CertificateProfile
from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.der import element, positive, wrap
from birthmark.pki.issuance import NO_END, LeafIssuer, SigningKey, issue
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.revocation_urls import DistributionPoints
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_key

CAS = {"P-256": a_ca("P-256"), "P-384": a_ca("P-384", key=ec.generate_private_key(ec.SECP384R1()))}
KEYS: dict[str, SigningKey] = {
    "P-256": a_key(),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
}
PLACES = DistributionPoints("http://pki.example")
EXCLUDED = (x509.DNSName("est.example.org"),)
FIRST_DAY = datetime(1950, 1, 1, tzinfo=UTC)


def built(
    profile: CertificateProfile,
    subject: x509.Name,
    key: SigningKey,
    *,
    issuer: LeafIssuer,
    places: DistributionPoints | None,
    like: Certificate,
) -> bytes:
    """The part that the issuer signs, by the library's builder, with the number and dates of `like`."""
    above = issuer.certificate
    named = issuing.authority_key_id(issuer)
    builder = issuing._below(above, named, profile, places, EXCLUDED, subject=subject, public_key=key.public_key())
    builder = builder.serial_number(like.serial).not_valid_before(like.not_before).not_valid_after(like.not_after)
    return builder.sign(issuer.private_key, issuing.hash_for(issuer.private_key)).tbs_certificate_bytes


@pytest.mark.parametrize("places", [None, PLACES], ids=["silent", "told"])
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("ca", CAS)
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_is_cast_as_it_is_built(
    profile: CertificateProfile, ca: str, kind: str, places: DistributionPoints | None
) -> None:
    issuer, key, subject = CAS[ca].as_issuer, KEYS[kind], name_of("device-1", "Örg")
    public, serial = key.public_key(), 2**125 + 1
    made = issue(profile, subject, public, issuer=issuer, serial=serial, now=NOON, points=places, excluded=EXCLUDED)
    assert made.parsed.tbs_certificate_bytes == built(profile, subject, key, issuer=issuer, places=places, like=made)
    made.parsed.verify_directly_issued_by(issuer.certificate.parsed)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_what_is_known_of_a_cast_certificate_is_what_a_reader_finds(profile: CertificateProfile) -> None:
    issuer = CAS["P-256"].as_issuer
    made = issue(profile, name_of("device-1"), KEYS["P-256"].public_key(), issuer=issuer, serial=7, now=NOON)
    assert facts(made) == facts(parse_der(made.der))


def facts(of: Certificate) -> tuple[object, ...]:
    return (
        *(of.der, of.thumbprint, of.extensions, of.subject_der, of.issuer_der, of.spki_der),
        *(of.serial, of.not_before, of.not_after),
    )


@settings(max_examples=50)
@given(
    serial=st.integers(1, 2**159 - 1),
    age=st.timedeltas(timedelta(days=400), timedelta(days=365 * 8000)),
    lifetime=st.timedeltas(timedelta(seconds=1), timedelta(days=400_000)),
    name=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=16),
)
def test_any_number_date_and_name_is_cast_as_it_is_built(
    serial: int, age: timedelta, lifetime: timedelta, name: str
) -> None:
    endless = a_ca_without_end()
    profile, subject, key = PROFILES["device"], name_of(name), KEYS["P-256"]
    moment = FIRST_DAY + age
    made = issue(profile, subject, key.public_key(), issuer=endless, serial=serial, now=moment, lifetime=lifetime)
    assert made.parsed.tbs_certificate_bytes == built(profile, subject, key, issuer=endless, places=None, like=made)
    assert facts(made) == facts(parse_der(made.der))


def a_ca_without_end() -> LeafIssuer:
    key = KEYS["P-256"]
    subject = name_of("Endless")
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
    builder = builder.not_valid_before(FIRST_DAY).not_valid_after(NO_END)
    return LeafIssuer(parse_der(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)), key)


def test_a_profile_that_changes_has_a_mold_of_its_own() -> None:
    issuer = CAS["P-256"].as_issuer
    once = PROFILES["device"]
    other = CertificateProfile(once.name, once.lifetime, extended_key_usage=PROFILES["server"].extended_key_usage)
    first, second = (
        issue(one, name_of("device-1"), KEYS["P-256"].public_key(), issuer=issuer, serial=7, now=NOON)
        for one in (once, other)
    )
    assert first.extensions.extended_key_usage != second.extensions.extended_key_usage


@given(st.integers(0, 2**200), st.binary(max_size=70_000), st.integers(0, 3))
def test_an_element_ends_where_its_content_does(number: int, content: bytes, before: int) -> None:
    whole = b"\0" * before + wrap(0x04, content)
    at, end = element(whole, before)
    assert whole[at:end] == content
    inside, end = element(positive(number), 0)
    assert int.from_bytes(positive(number)[inside:end], signed=True) == number
