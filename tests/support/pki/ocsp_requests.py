"""OCSP requests as clients make them."""

from collections.abc import Sequence

from asn1crypto import ocsp as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from birthmark.pki.certificates import Certificate


def a_request(
    certificate: Certificate | int,
    issuer: Certificate,
    *,
    algorithm: hashes.SHA1 | hashes.SHA256 | None = None,
    nonce: bytes | None = None,
) -> bytes:
    """A request about one certificate, or about a serial number."""
    builder = ocsp.OCSPRequestBuilder()
    algorithm = algorithm or hashes.SHA1()
    if isinstance(certificate, int):
        bits = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        digests = [_digest(algorithm, data) for data in (issuer.subject_der, bits)]
        builder = builder.add_certificate_by_hash(digests[0], digests[1], certificate, algorithm)
    else:
        builder = builder.add_certificate(certificate.parsed, issuer.parsed, algorithm)
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def together(requests: Sequence[bytes]) -> bytes:
    """One request about all that these ask for."""
    first, *others = (asn1.OCSPRequest.load(one) for one in requests)
    for one in others:
        first["tbs_request"]["request_list"].append(one["tbs_request"]["request_list"][0])
    return bytes(first.dump(force=True))


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()
