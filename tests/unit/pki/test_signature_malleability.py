"""One signature in its two forms, and certificates whose bytes differ without that anybody signed anew."""

import contextlib

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.pki.certificates import Certificate, CertificateInvalidError, is_signed_by, parse_der
from birthmark.pki.der import element
from birthmark.pki.signature_malleability import twins_of
from support.pki.other_form import other_form
from support.pki.pki_builders import Holder, a_ca, a_device, an_rsa_key


def every_curve() -> dict[str, type[ec.EllipticCurve]]:
    """Return the curves that the library can make keys of: by each of them a maker's CA can sign."""
    found = {}
    for one in ec.EllipticCurve.__subclasses__():
        with contextlib.suppress(UnsupportedAlgorithm):
            found[ec.generate_private_key(one()).curve.name] = one
    return found


CURVES = every_curve()


def test_the_curves_of_the_standards_are_among_those_that_are_tried() -> None:
    assert {"secp192r1", "secp224r1", "secp256r1", "secp384r1", "secp521r1", "secp256k1"} <= set(CURVES)
    assert {"brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"} <= set(CURVES)


def signed_by(ca: Holder) -> Certificate:
    return a_device(ca).certificate


@pytest.mark.parametrize("curve", CURVES)
def test_the_other_form_is_as_good_and_is_known_by_its_thumbprint(curve: str) -> None:
    ca = a_ca(key=ec.generate_private_key(CURVES[curve]()))
    for _ in range(8):  # the numbers of a signature are of several lengths
        certificate = signed_by(ca)
        other = other_form(certificate, ca.private_key)
        assert is_signed_by(other, ca.certificate)
        assert other.thumbprint != certificate.thumbprint
        assert other.thumbprint in twins_of(certificate)
        assert certificate.thumbprint in twins_of(other)


def test_a_signature_by_rsa_has_one_form() -> None:
    certificate = signed_by(a_ca(key=an_rsa_key()))
    assert set(twins_of(certificate)) == {certificate.thumbprint}


def test_a_signature_that_claims_unused_bits_is_no_certificate() -> None:
    der = signed_by(a_ca()).der
    start, _ = element(der, 0)
    bits, _ = element(der, element(der, element(der, start)[1])[1])
    with pytest.raises(CertificateInvalidError):
        parse_der(der[:bits] + b"\1" + der[bits + 1 :])
