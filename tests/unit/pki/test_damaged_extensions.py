"""Damage in the extensions is a refusal, however the readers stumble over it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.certificates import CertificateInvalidError, parse_der
from birthmark.pki.extensions import read_extensions
from fuzz.certificates import use
from odd_certificates import CHANGES, odd_certificate
from pki_builders import a_ca, a_device, a_key

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
