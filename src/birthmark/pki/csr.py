"""Certificate signing requests: parsing, proof of possession, and policy.

Source: RFC 2986; RFC 6402 for ChangeSubjectName.

In: DER, at most MAX_CSR_BYTES.

Out: a `CertificateRequest` whose signature proves possession of the private key and whose key type is accepted. Each
refusal has its own class under `pki.csr_…`. Other requested fields are shown, never copied.
"""

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AttributeOID, ExtensionOID, ObjectIdentifier, SignatureAlgorithmOID

from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import UNREADABLE
from birthmark.pki.der import OCTET_STRING, element
from birthmark.pki.fast_certificate_parser import MAX_NAME_BYTES, P256_SPKI
from birthmark.pki.names_and_registration_ids import MAKE_REQUEST, MAX_COMMON_NAME_BYTES, common_name_of, text_of
from birthmark.pki.single_certificate_checks import has_roca_pattern

MAX_CSR_BYTES = 32 * 1024
MAX_NAMES_BYTES = 4 * 1024
_MAX_TEXT = (MAX_CSR_BYTES + 2) // 3 * 4
_NAMES_OID = bytes.fromhex("0603551d11")
_CRITICAL = bytes.fromhex("0101ff")
MIN_RSA_BITS, MAX_RSA_BITS, RSA_EXPONENT = 2048, 4096, 65537
CHANGE_SUBJECT_NAME = ObjectIdentifier("1.3.6.1.5.5.7.7.36")
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Curves = Sequence[type[ec.EllipticCurve]]
CURVES: Curves = (ec.SECP256R1, ec.SECP384R1)

_KEY_ENCRYPTION = {
    ObjectIdentifier("1.2.840.113549.1.9.16.2.37"): "DecryptKeyIdentifier",
    ObjectIdentifier("1.2.840.113549.1.9.16.2.54"): "AsymmetricDecryptKeyIdentifier",
}
_ECDSA = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: ec.ECDSA(hashes.SHA256()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: ec.ECDSA(hashes.SHA384()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: ec.ECDSA(hashes.SHA512()),
}
_ACCEPTED_HASHES = frozenset({"sha256", "sha384", "sha512"})
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
)


class CsrRefusedError(InvalidRequestError):
    """The certificate signing request cannot be accepted."""

    code = "pki.csr_refused"


class CsrMalformedError(CsrRefusedError):
    """The certificate signing request cannot be parsed."""

    code = "pki.csr_malformed"
    cause = "The data is not a valid certificate signing request: {detail}."
    fix = MAKE_REQUEST
    detail: str


class CsrTooLargeError(CsrRefusedError):
    """The certificate signing request is too large."""

    code = "pki.csr_too_large"
    cause = "{part} has {size} bytes; the limit is {limit}."
    fix = f"Omit unnecessary data. {MAKE_REQUEST}"
    limit: int = MAX_CSR_BYTES
    part: str = "The request"
    size: int


class CsrSignatureInvalidError(CsrRefusedError):
    """The request's signature is not valid."""

    code = "pki.csr_signature_invalid"
    cause = (
        "The request's signature does not match its public key, so the signature does not prove possession of the "
        "private key."
    )
    fix = f"{MAKE_REQUEST} With a secure element, check that certificate slot and key slot belong together."


class CsrHashRefusedError(CsrRefusedError):
    """The request's signature algorithm is not accepted."""

    code = "pki.csr_hash_refused"
    cause = "The request is signed with {hash}; only SHA-256, SHA-384, and SHA-512 are accepted."
    fix = MAKE_REQUEST
    hash: str


class CsrKeyTypeRefusedError(CsrRefusedError):
    """This type of key is not accepted."""

    code = "pki.csr_key_type_refused"
    cause = "The key is {key}; only {curves} and RSA keys of 2048 to 4096 bits are accepted."
    fix = MAKE_REQUEST
    curves: str
    key: str


class CsrKeySizeRefusedError(CsrRefusedError):
    """This RSA key is not accepted."""

    code = "pki.csr_key_size_refused"
    cause = (
        "The RSA key has {bits} bits and exponent {exponent}; only keys of 2048 to 4096 bits with exponent 65537 are "
        "accepted."
    )
    fix = MAKE_REQUEST
    bits: int
    exponent: int


class CsrKeyWeakError(CsrRefusedError):
    """A broken generator created this RSA key."""

    code = "pki.csr_key_weak"
    cause = "The RSA key has the pattern of a broken key generator (ROCA, CVE-2017-15361)."
    fix = "Update the chip's firmware or use another chip. " + MAKE_REQUEST


class CsrSubjectInvalidError(CsrRefusedError):
    """The request's subject has no name, or a common name that is too long."""

    code = "pki.csr_subject_invalid"
    message = "The request's subject is not valid: {detail}."
    fix = f"Set a common name of 1 to 64 printable characters. {MAKE_REQUEST}"
    detail: str


class CsrExtensionRefusedError(CsrRefusedError):
    """The request contains an unsupported critical extension."""

    code = "pki.csr_extension_refused"
    cause = "The request contains the critical extension {oid}, which is not supported."
    fix = f"Omit the extension, or do not mark it critical. {MAKE_REQUEST}"
    oid: str


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A CSR with proof of possession. Created by `parse_csr`."""

    der: bytes = field(repr=False)
    subject: x509.Name
    subject_der: bytes = field(repr=False, compare=False)
    subject_cn: str | None = field(repr=False, compare=False)
    public_key: PublicKey = field(repr=False, compare=False)
    spki_der: bytes = field(repr=False)
    challenge_password: str | None = field(repr=False)
    """Either a channel binding (RFC 7030 section 3.5) or a secret of the sender: never logged."""
    change_subject_name: bytes | None = field(repr=False)
    """DER of the new name requested in a re-enrollment (RFC 6402 section 2.8)."""
    subject_alt_name: bytes | None = field(repr=False)
    """DER value of the extension, for comparison byte by byte."""
    names: tuple[x509.GeneralName, ...] = field(repr=False)
    """The same as individual names."""
    wants_ca: bool
    key_encryption: str | None = None
    """Name of the requested attribute to encrypt a server-generated key (RFC 7030 section 4.4.1.1)."""

    @property
    def subject_text(self) -> str:
        return text_of(self.subject)


def _cut(der: bytes) -> tuple[bytes, bytes]:
    """Return the DER of subject and public key.

    Reject an oversized name before the library creates an object for each part.
    """
    try:
        start, _ = element(der, element(der, 0)[0])
        at = element(der, start)[1]  # after the version (RFC 2986 section 4.1)
        key_at = element(der, at)[1]
        subject, key = der[at:key_at], der[key_at : element(der, key_at)[1]]
    except IndexError:  # not a request; the library gives a reason
        return b"", b""
    if len(subject) > MAX_NAME_BYTES:
        raise CsrTooLargeError(part="The subject", size=len(subject), limit=MAX_NAME_BYTES)
    return subject, key


def _check_names_size(der: bytes) -> None:
    """Reject an excessive number of names in the same way. Data that only resembles names is measured as well."""
    at = -1
    while (at := der.find(_NAMES_OID, at + 1)) >= 0:
        value = at + len(_NAMES_OID)
        if der.startswith(_CRITICAL, value):
            value += len(_CRITICAL)
        if der[value : value + 1] == bytes((OCTET_STRING,)) and value + 1 < len(der):
            content, end = element(der, value)
            if end - content > MAX_NAMES_BYTES:
                raise CsrTooLargeError(part="The subject alternative name", size=end - content, limit=MAX_NAMES_BYTES)


def parse_csr_text(text: str) -> CertificateRequest:
    """Return the CSR of base64 without armor or line breaks, as in JSON bodies. Raise `CsrRefusedError`."""
    if len(text) > _MAX_TEXT:
        raise CsrTooLargeError(size=len(text) // 4 * 3)
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise CsrMalformedError(detail="it is not base64 of DER, without armor and line breaks") from error
    return parse_csr(der)


def parse_csr(der: bytes, curves: Curves = CURVES) -> CertificateRequest:
    """Parse a CSR with an RSA key or a key on one of `curves`. Raise `CsrRefusedError`."""
    if len(der) > MAX_CSR_BYTES:
        raise CsrTooLargeError(size=len(der))
    subject_der, spki_der = _cut(der)
    _check_names_size(der)
    try:
        parsed = x509.load_der_x509_csr(der)
        with warnings.catch_warnings():  # long names are rejected below, with a reason
            warnings.simplefilter("ignore", UserWarning)
            subject = parsed.subject
        public_key = _accepted_key(parsed.public_key(), curves)
        common_name = _check_subject(subject)
        if not spki_der.startswith(P256_SPKI):
            spki_der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        hash_name = parsed.signature_hash_algorithm.name if parsed.signature_hash_algorithm else "no hash"
        attributes = {attribute.oid: attribute.value for attribute in parsed.attributes}
        extensions = parsed.extensions
    except (*UNREADABLE, x509.DuplicateExtension) as error:
        raise CsrMalformedError(detail="it is not the DER of a request, or is cut off") from error
    if hash_name not in _ACCEPTED_HASHES:
        raise CsrHashRefusedError(hash=hash_name)
    if not _is_signed(parsed, public_key):
        raise CsrSignatureInvalidError
    challenge = attributes.get(AttributeOID.CHALLENGE_PASSWORD)
    _check_understood(extensions)
    asked = [extension.value for extension in extensions]
    names = [one for one in asked if isinstance(one, x509.SubjectAlternativeName)]
    return CertificateRequest(
        der=der,
        subject=subject,
        subject_der=subject_der,
        subject_cn=common_name,
        public_key=public_key,
        spki_der=spki_der,
        challenge_password=None if challenge is None else challenge.decode("utf-8", "replace"),
        change_subject_name=attributes.get(CHANGE_SUBJECT_NAME),
        subject_alt_name=names[0].public_bytes() if names else None,
        names=tuple(names[0]) if names else (),
        wants_ca=any(isinstance(one, x509.BasicConstraints) and one.ca for one in asked),
        key_encryption=next((name for oid, name in _KEY_ENCRYPTION.items() if oid in attributes), None),
    )


def _accepted_key(key: object, curves: Curves) -> PublicKey:
    match key:
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, tuple(curves)):
            return key
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS or numbers.e != RSA_EXPONENT:
                raise CsrKeySizeRefusedError(bits=key.key_size, exponent=numbers.e)
            if has_roca_pattern(numbers.n):
                raise CsrKeyWeakError
            return key
        case _:
            kind = type(key).__name__.removesuffix("PublicKey")
            if isinstance(key, ec.EllipticCurvePublicKey):
                kind = f"EC {key.curve.name}"
            named = ", ".join(f"EC P-{curve.key_size}" for curve in curves)
            raise CsrKeyTypeRefusedError(key=kind, curves=named)


def _is_signed(request: x509.CertificateSigningRequest, key: PublicKey) -> bool:
    """Return whether the request's key made its signature; the library would parse the key again."""
    algorithm = _ECDSA.get(request.signature_algorithm_oid)
    if algorithm is None or not isinstance(key, ec.EllipticCurvePublicKey):
        return request.is_signature_valid
    try:
        key.verify(request.signature, request.tbs_certrequest_bytes, algorithm)
    except InvalidSignature:
        return False
    return True


def _check_subject(subject: x509.Name) -> str | None:
    """Return the only common name, or None."""
    common_name = common_name_of(subject)
    if common_name is None or len(list(subject)) != 1:
        text_of(subject)  # cryptography parses lazily
    if not subject.rdns:
        raise CsrSubjectInvalidError(detail="it is empty")
    if common_name is None:
        return None
    if not 0 < len(common_name.encode()) <= MAX_COMMON_NAME_BYTES:
        raise CsrSubjectInvalidError(detail=f"the common name has {len(common_name)} characters")
    if not common_name.isprintable():
        raise CsrSubjectInvalidError(detail="control characters in the name")
    if common_name != common_name.strip():  # names that look alike mislead
        raise CsrSubjectInvalidError(detail="spaces around the common name")
    return common_name


def _check_understood(extensions: x509.Extensions) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise CsrExtensionRefusedError(oid=extension.oid.dotted_string)
