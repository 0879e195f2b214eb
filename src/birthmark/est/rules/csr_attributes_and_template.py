"""CSR requirements in both forms: as attributes (RFC 7030) and as a template (RFC 9908).

A client that supports templates uses the template; others read the key type and the hash from the list.
"""

from dataclasses import dataclass, replace

from asn1crypto import core, parser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.errors import InvalidRequestError
from birthmark.est.wire import CsrAttribute, render_csr_attributes
from birthmark.pki.csr import CertificateRequest


class KeyEncryptionUnsupportedError(InvalidRequestError):
    """Additional encryption of a server-generated key is not supported."""

    code = "est.key_encryption_unsupported"
    cause = "The request asks the server to encrypt the server-generated key with a key of the client ({attribute})."
    fix = (
        "Create a request without that attribute: `(set -C; openssl req -new -key device.key -subj /CN={common_name} "
        "> new.csr)`. The TLS connection protects the key."
    )
    attribute: str
    common_name: str


def request_for_key(request: CertificateRequest, key: ec.EllipticCurvePublicKey) -> CertificateRequest:
    """Return the request as if made with `key`. Raise `KeyEncryptionUnsupportedError`.

    The client's own key in it only proves that the client can sign.
    """
    if request.key_encryption is not None:
        raise KeyEncryptionUnsupportedError(
            attribute=request.key_encryption, common_name=request.subject_cn or "device-1"
        )
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return replace(request, public_key=key, spki_der=spki, challenge_password=None)


TEMPLATE = "1.2.840.113549.1.9.16.2.61"
_EC_KEY, _RSA_KEY, _CHALLENGE = "1.2.840.10045.2.1", "1.2.840.113549.1.1.1", "1.2.840.113549.1.9.7"
_CURVES = {"P-256": "1.2.840.10045.3.1.7", "P-384": "1.3.132.0.34"}
_HASHES = {"P-256": "1.2.840.10045.4.3.2", "P-384": "1.2.840.10045.4.3.3"}
_RSA_WITH_SHA256 = "1.2.840.113549.1.1.11"
_COMMON_NAME = "2.5.4.3"
_SEQUENCE, _SET, _CONTEXT = 16, 17, 2


@dataclass(frozen=True, slots=True)
class KeyRequirements:
    """Required key of a device (`P-256`, `P-384`, `RSA-2048` …), and whether the CSR binds its TLS connection."""

    key: str
    channel_binding: bool = False


def render_wish(requirements: KeyRequirements) -> bytes:
    """Return the DER of CsrAttrs for key requirements."""
    if (curve := _CURVES.get(requirements.key)) is not None:
        of_key = CsrAttribute(_EC_KEY, (_oid(curve),))
        hashed, algorithm, public_key = _HASHES[requirements.key], _made(_SEQUENCE, _oid(_EC_KEY), _oid(curve)), b""
    else:
        bits = int(requirements.key.removeprefix("RSA-"))
        of_key = CsrAttribute(_RSA_KEY, (_number(bits),))
        hashed, algorithm = _RSA_WITH_SHA256, _made(_SEQUENCE, _oid(_RSA_KEY), core.Null().dump())
        # A key of that size conveys the size; only its length matters (RFC 9908 section 3.4).
        placeholder = _made(_SEQUENCE, _number((1 << bits) - 1), _number(65537))
        public_key = core.OctetBitString(placeholder).dump()
    any_name = _made(_SEQUENCE, _made(_SET, _made(_SEQUENCE, _oid(_COMMON_NAME))))
    template = _made(
        _SEQUENCE,
        _number(0),
        any_name,
        _made(0, algorithm, public_key, kind=_CONTEXT),
        _made(1, kind=_CONTEXT),
    )
    wanted = [of_key, CsrAttribute(hashed), CsrAttribute(TEMPLATE, (template,))]
    return render_csr_attributes([*wanted, CsrAttribute(_CHALLENGE)] if requirements.channel_binding else wanted)


def _made(tag: int, *parts: bytes, kind: int = 0) -> bytes:
    made: bytes = parser.emit(kind, 1, tag, b"".join(parts))
    return made


def _oid(dotted: str) -> bytes:
    made: bytes = core.ObjectIdentifier(dotted).dump()
    return made


def _number(value: int) -> bytes:
    made: bytes = core.Integer(value).dump()
    return made
