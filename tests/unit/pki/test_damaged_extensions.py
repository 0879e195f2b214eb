"""Damage in the extensions is a refusal, however the readers stumble over it."""

import contextlib
from collections.abc import Sequence

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.certificates import CertificateInvalidError, parse_der
from birthmark.pki.extension_parser import names_of, read_extensions
from birthmark.pki.name_constraints import MAX_CONSTRAINTS
from birthmark.pki.single_certificate_checks import CertificateNonconformingError, check_conforming
from fuzz.certificates import use
from fuzz.mutate import lists_of, read_der, tlv, write_der
from support.pki.odd_certificates import CHANGES, a_certificate, odd_certificate
from support.pki.pki_builders import a_ca, a_device, a_key

DER = a_device(a_ca()).certificate.der


@given(st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_the_thorough_reader_raises_only_what_it_promises(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(DER)
    for position, value in changes:
        damaged[position] = value
    try:
        read_extensions(bytes(damaged))
    except (ValueError, TypeError):
        with pytest.raises(CertificateInvalidError):
            parse_der(bytes(damaged[:10]))


@pytest.mark.parametrize("what", CHANGES)
def test_an_odd_certificate_is_refused_as_a_whole_or_can_be_used_as_a_whole(what: str) -> None:
    with contextlib.suppress(CertificateInvalidError):
        use(parse_der(odd_certificate(what, a_key())))


LONG = 60_000
EKU, KEY_USAGE, CONSTRAINTS, SAN = "2.5.29.37", "2.5.29.15", "2.5.29.30", "2.5.29.17"


def sequence(*parts: bytes) -> bytes:
    return tlv(0x30, b"".join(parts))


def an_oid(size: int) -> bytes:
    return tlv(0x06, b"\x2a" + b"\xff" * (size - 2) + b"\x7f")


def constraints(number: int) -> bytes:
    return sequence(tlv(0xA0, sequence(b"\x82\x01a") * number))


@pytest.mark.parametrize(
    "extensions",
    [
        [(EKU, sequence(an_oid(LONG)), False)],
        [(EKU, sequence(an_oid(64)), False)],
        [(KEY_USAGE, tlv(0x03, b"\x00" + b"\xff" * LONG), True)],
        [(CONSTRAINTS, constraints(12_000), True)],
        [(f"1.2.3.{number}", b"", True) for number in range(101)],
    ],
    ids=["long id", "id of 64", "long usage", "too many constraints", "too many"],
)
def test_what_would_take_long_to_read_is_refused_first(extensions: Sequence[tuple[str, bytes, bool]]) -> None:
    """Anyone may show it, before a word is said: half a second for one object identifier, as asn1crypto reads it."""
    says = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), is_it) for oid, value, is_it in extensions]
    with pytest.raises(CertificateInvalidError):
        a_certificate(*says)


def test_an_extensions_own_id_that_is_long_is_refused_first() -> None:
    """Also where its names are read, of which name constraints speak."""
    held = a_certificate((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b""), True))
    values = read_der(held.certificate.der)
    (own,) = [node for some in lists_of(values) for node in some if node == [0x06, b"\x2a\x03\x04"]]
    own[1] = an_oid(LONG)[4:]
    for read in (read_extensions, names_of):
        with pytest.raises(ValueError, match="damaged"):
            read(write_der(values))


def test_many_constraints_are_kept_as_they_came() -> None:
    made = a_certificate(
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(CONSTRAINTS), constraints(MAX_CONSTRAINTS)), True)
    ).certificate
    assert made.extensions.name_constraints_der == constraints(MAX_CONSTRAINTS)
    assert made.extensions.name_constraints is not None
    assert len(made.extensions.name_constraints.permitted) == MAX_CONSTRAINTS


@pytest.mark.parametrize("value", [constraints(MAX_CONSTRAINTS + 1), sequence(tlv(0xA0, b"\x30\x05"))])
def test_constraints_that_cannot_be_read_are_a_cas_that_counts_for_nothing(value: bytes) -> None:
    """They are not read before: anyone may show some at each handshake, ten milliseconds each."""
    ca = a_certificate((x509.UnrecognizedExtension(x509.ObjectIdentifier(CONSTRAINTS), value), True), is_ca=True)
    assert ca.certificate.extensions.name_constraints_der == value
    with pytest.raises(ValueError, match="damaged"):
        _ = ca.certificate.extensions.name_constraints
    with pytest.raises(CertificateNonconformingError) as refused:
        check_conforming(ca.certificate)
    assert "cannot be read" in refused.value.explain_cause()
