"""The other form of a certificate that was signed by ECDSA: (r, n - s) is as good a signature as (r, s).

Anybody can write a certificate so, without any key, and it has another thumbprint. So what is known by its thumbprint,
to be refused or to be told from others, is looked for by both.
"""

from birthmark.pki.certificates import ECDSA, Certificate, Thumbprint, thumbprint_of
from birthmark.pki.der import BIT_STRING, SEQUENCE, element, positive, wrap

# The orders of P-256, P-384 and P-521 (SEC 2 section 2); the numbers of a signature tell which it is but for 2^-128.
_ORDERS = (
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    int("ff" * 24 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
    int("01" + "ff" * 32 + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
)


def twin_of(certificate: Certificate) -> Thumbprint:
    """Return the thumbprint of the other form; the certificate's own where there is none."""
    der = certificate.der
    try:
        begin, _ = element(der, 0)
        signed_end = element(der, begin)[1]
        algorithm_end = element(der, signed_end)[1]
        bits, _ = element(der, algorithm_end)
        if der[signed_end:algorithm_end] not in ECDSA or der[bits]:
            return certificate.thumbprint
        numbers, _ = element(der, bits + 1)
        r, s = _integer(der, numbers), _integer(der, element(der, numbers)[1])
    except IndexError:  # another algorithm, or no signature at all: the library looks at that
        return certificate.thumbprint
    order = next((one for one in _ORDERS if max(r, s) < one), None)
    if order is None:
        return certificate.thumbprint
    signature = wrap(SEQUENCE, positive(r), positive(order - s))
    return thumbprint_of(wrap(SEQUENCE, der[begin:algorithm_end], wrap(BIT_STRING, b"\0", signature)))


def _integer(der: bytes, at: int) -> int:
    content, end = element(der, at)
    return int.from_bytes(der[content:end])
