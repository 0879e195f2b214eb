"""A certificate that anybody can make of another one without a key."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.der import BIT_STRING, SEQUENCE, wrap

_ORDERS = {
    "secp256r1": 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
    "secp384r1": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "secp521r1": 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}


def other_form(certificate: Certificate, key: object) -> Certificate:
    """Return the certificate with the other number in its signature; `key` is its CA's, for the curve alone."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    known = x509.load_der_x509_certificate(certificate.der)
    r, s = decode_dss_signature(known.signature)
    signature = b"\0" + encode_dss_signature(r, _ORDERS[key.curve.name] - s)
    signed = known.tbs_certificate_bytes
    algorithm_at = certificate.der.index(signed) + len(signed)
    algorithm = certificate.der[algorithm_at : algorithm_at + 2 + certificate.der[algorithm_at + 1]]
    made = wrap(SEQUENCE, signed, algorithm, wrap(BIT_STRING, signature))
    assert x509.load_der_x509_certificate(made).public_bytes(Encoding.DER) == made
    return parse_der(made)
