"""What a request for a server-made key asks for (RFC 7030 section 4.4.1)."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.errors import InvalidRequestError
from birthmark.pki.csr import CertificateRequest


class KeyEncryptionUnsupportedError(InvalidRequestError):
    """The key cannot be encrypted beyond TLS."""

    code = "est.key_encryption_unsupported"
    cause = "The request for a server-made key wants it encrypted for a key of the client's ({attribute})."
    fix = (
        "Ask without that attribute: `(set -C; openssl req -new -key device.key -subj /CN={common_name} > new.csr)`. "
        "The connection's TLS protects the key."
    )
    attribute: str
    common_name: str


def request_for_key(asked: CertificateRequest, key: ec.EllipticCurvePublicKey) -> CertificateRequest:
    """Return the request as if it had been made with `key`. Raise `KeyEncryptionUnsupportedError`.

    The client's own key in it says nothing but that somebody could sign.
    """
    if asked.key_encryption is not None:
        raise KeyEncryptionUnsupportedError(attribute=asked.key_encryption, common_name=asked.subject_cn or "device-1")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return replace(asked, public_key=key, spki_der=spki, challenge_password=None)
