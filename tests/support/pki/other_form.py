"""A certificate that anybody can make of another one without a key."""

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.der import BIT_STRING, SEQUENCE, wrap

_ORDERS = {
    "secp192r1": 2**192 - 0x662107C9EB94364E4B2DD7CF,
    "secp224r1": 2**224 - 0xE95D1F470FC1EC22D6BAA3A3D5C3,
    "secp256r1": 2**256 - 2**224 + 2**192 - 0x4319055258E8617B0C46353D039CDAAF,
    "secp384r1": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "brainpoolP256r1": 0xA9FB57DBA1EEA9BC3E660A909D838D718C397AA3B561A6F7901E0E82974856A7,
    "brainpoolP384r1": int(
        "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565", 16
    ),
    "brainpoolP512r1": int(
        "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870"
        "553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069",
        16,
    ),
    "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
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
