"""Revocation lists, put together by hand: the same bytes as the library's builder, however many there are."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.crl_encoder import Revocation, RevocationReason, build_crl, entries_of
from birthmark.pki.issuance import LeafIssuer, authority_key_id, hash_for
from support.fakes import NOON
from support.pki.pki_builders import a_ca, an_rsa_key

CA = a_ca()
WEEK = timedelta(days=7)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as asked for
REVOCATIONS = st.builds(Revocation, st.integers(1, 2**159 - 1), MOMENTS, st.sampled_from(RevocationReason))


def by_the_library(issuer: LeafIssuer, revocations: list[Revocation], now: datetime) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now.replace(microsecond=0))
        .next_update(now.replace(microsecond=0) + WEEK)
        .add_extension(authority_key_id(issuer), critical=False)
        .add_extension(x509.CRLNumber(9), critical=False)
    )
    for one in revocations:
        entry = x509.RevokedCertificateBuilder(one.serial, one.revoked_at.replace(microsecond=0))
        if one.reason is not RevocationReason.UNSPECIFIED:
            entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags(one.reason.value)), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.private_key, hash_for(issuer.private_key))


@given(st.lists(REVOCATIONS, max_size=5), MOMENTS)
def test_what_is_signed_is_what_the_library_would_sign(revocations: list[Revocation], now: datetime) -> None:
    ours = x509.load_der_x509_crl(build_crl(CA.as_issuer, revocations, number=9, now=now, lifetime=WEEK))
    assert ours.tbs_certlist_bytes == by_the_library(CA.as_issuer, revocations, now).tbs_certlist_bytes


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), an_rsa_key()], ids=["P-384", "RSA"])
def test_each_kind_of_key_signs(key: ec.EllipticCurvePrivateKey) -> None:
    issuer = LeafIssuer(CA.certificate, key)
    der = build_crl(issuer, [Revocation(5, NOON)], number=9, now=NOON, lifetime=WEEK)
    ours = x509.load_der_x509_crl(der)
    assert ours.is_signature_valid(key.public_key())
    assert ours.signature_algorithm_oid == by_the_library(issuer, [], NOON).signature_algorithm_oid
    assert ours.public_bytes(Encoding.DER) == der


def test_entries_of_pages_are_those_of_the_whole() -> None:
    rows = [(f"{number:x}", number * 1_000_000, "superseded") for number in range(1, 400)]
    assert entries_of(rows) == entries_of(rows[:150]) + entries_of(rows[150:])
