"""ECDSA signature malleability: (r, n - s) is as valid as (r, s).

Anyone can create this second form of a certificate without a key, and it has another thumbprint. Lookups by thumbprint,
for revocation or identification, therefore check both forms.
"""

from functools import lru_cache

from birthmark.pki.certificates import MAX_KEPT_BYTES, Certificate, Thumbprint, thumbprint_of
from birthmark.pki.der import BIT_STRING, SEQUENCE, element, positive, wrap

MOST = 3
_ECDSA_WITH = bytes.fromhex("2a8648ce3d04")  # prefix of the object identifiers of RFC 3279, 5480 and 5758
# The orders n of the curves that CAs sign with, grouped by size: a signature does not name its curve. Ordered by size,
# so that the first that fits a signature is its own.
_ORDERS = (
    (0xFFFFFFFFFFFFFFFFFFFFFFFF99DEF836146BC9B1B4D22831,),  # P-192
    (0xFFFFFFFFFFFFFFFFFFFFFFFFFFFF16A2E0B8F03E13DD29455C5C2A3D,),  # P-224
    (
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,  # P-256
        0xA9FB57DBA1EEA9BC3E660A909D838D718C397AA3B561A6F7901E0E82974856A7,  # brainpoolP256r1
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,  # secp256k1
    ),
    (
        int("ff" * 24 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),  # P-384
        int("8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565", 16),
    ),
    (
        int("01" + "ff" * 32 + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),  # P-521
        int(
            "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870"
            "553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069",
            16,
        ),
    ),
)


def twins_of(certificate: Certificate) -> tuple[Thumbprint, ...]:
    """Return the possible thumbprints of the other form, `MOST` of them; its own if there is none."""
    der = certificate.der
    found = _keep(der) if len(der) <= MAX_KEPT_BYTES else _twins(der)
    return (*found, *[certificate.thumbprint] * (MOST - len(found)))


def _twins(der: bytes) -> tuple[Thumbprint, ...]:
    try:
        begin, _ = element(der, 0)
        signed_end = element(der, begin)[1]
        algorithm, algorithm_end = element(der, signed_end)
        bits, _ = element(der, algorithm_end)
        identifier, _ = element(der, algorithm)
        if not der.startswith(_ECDSA_WITH, identifier) or der[bits]:
            return ()
        numbers, _ = element(der, bits + 1)
        r, s = _integer(der, numbers), _integer(der, element(der, numbers)[1])
    except IndexError:  # malformed signature: the library handles it
        return ()
    signed = der[begin:algorithm_end]
    # Both numbers are 32 bits shorter than those of their curve once in 2^64 signatures: that signature has no twin
    # here.
    orders = next((some for some in _ORDERS if max(r, s) < max(some)), ())
    return tuple(thumbprint_of(_written(signed, r, order - s)) for order in orders if max(r, s) < order)


# A request looks up its certificate several times, and the CA's as well.
_keep = lru_cache(maxsize=64)(_twins)


def _written(signed: bytes, r: int, s: int) -> bytes:
    signature = wrap(SEQUENCE, positive(r), positive(s))
    return wrap(SEQUENCE, signed, wrap(BIT_STRING, b"\0", signature))


def _integer(der: bytes, offset: int) -> int:
    content, end = element(der, offset)
    return int.from_bytes(der[content:end])
