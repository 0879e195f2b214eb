"""Checks of a single certificate: key strength, purpose, and conformance to RFC 5280.

They are cheap and run before any signature check. Not here: dates and chains (`chains`).
"""

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from birthmark.errors import UnauthenticatedError
from birthmark.pki.certificates import MAX_KEPT_BYTES, Certificate
from birthmark.pki.extension_parser import CLIENT_AUTH, SERVER_AUTH
from birthmark.pki.fast_certificate_parser import P256_SPKI
from birthmark.pki.names_and_registration_ids import MAKE_CERTIFICATE

_SMALL_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_GENERATOR = 65537
_POWERS = {
    prime: frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(1, prime)) for prime in _SMALL_PRIMES
}


def has_roca_pattern(modulus: int) -> bool:
    """Return whether an RSA modulus has the ROCA pattern."""
    return all(modulus % prime in powers for prime, powers in _POWERS.items())


ANY_PURPOSE = "2.5.29.37.0"
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_EXPONENT_BITS = 64
"""Maximum size of an RSA exponent; 65537 has 17 bits.

A full-length exponent makes verification 100 times slower.
"""
MAX_SERIAL_BITS = 159  # 20 octets, and positive (RFC 5280 section 4.1.2.2)
_NO_NAME = bytes.fromhex("3000")
_PURPOSES = {CLIENT_AUTH: "TLS clients", SERVER_AUTH: "TLS servers"}


class ChainError(UnauthenticatedError):
    """The certificate does not chain to a trust anchor."""

    code = "pki.chain_refused"
    message = "The certificate was rejected: {detail}."
    detail: str = ""


class KeyStrengthError(ChainError):
    """The key is not accepted."""

    code = "pki.key_strength"
    cause = (
        "The key of '{subject}' is {key}. RSA requires 2048 to 8192 bits and a public exponent such as 65537; EC, "
        "Ed25519, and Ed448 keys are also accepted."
    )
    fix = f"Generate another key and reissue its certificate. {MAKE_CERTIFICATE}"
    key: str
    subject: str


class WrongPurposeError(ChainError):
    """The certificate is for another purpose."""

    code = "pki.wrong_purpose"
    message = "The certificate is for another purpose: {detail}"
    cause = "The certificate '{subject}' is not valid for {purpose}: {detail}."
    fix = f"Reissue it with extendedKeyUsage clientAuth, keyUsage digitalSignature and CA:FALSE. {MAKE_CERTIFICATE}"
    detail: str
    purpose: str
    subject: str


class CertificateNonconformingError(ChainError):
    """The certificate does not conform to RFC 5280."""

    code = "pki.certificate_nonconforming"
    cause = "The certificate '{subject}' violates RFC 5280: {detail}."
    fix = (
        "Reissue it in conformance with the RFC. A reissued CA certificate with the same name and key still "
        f"validates its existing certificates. {MAKE_CERTIFICATE}"
    )
    detail: str
    subject: str


def check_strength(certificate: Certificate) -> None:
    """Raise `KeyStrengthError` if the key is weak or too expensive to verify with."""
    if certificate.spki_der.startswith(P256_SPKI):  # the key of most devices, checked when it was parsed
        return
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        exponent_bits = key.public_numbers().e.bit_length()
        if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and exponent_bits <= MAX_EXPONENT_BITS:
            return
        kind = f"RSA with {key.key_size} bits and an exponent of {exponent_bits}"
    elif isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return
    else:
        kind = type(key).__name__.removesuffix("PublicKey")
    raise KeyStrengthError(subject=certificate.subject_text, key=kind)


def check_client(leaf: Certificate, *, is_pinned: bool = False) -> None:
    """Raise if the extensions of `leaf` exclude TLS client authentication.

    With `is_pinned`, this exact certificate is registered; a self-signed one may then claim to be a CA, as openssl's
    defaults do.
    """
    check_strength(leaf)
    check_conforming(leaf)
    check_purpose(leaf, CLIENT_AUTH)
    usage = leaf.extensions.key_usage
    if usage is not None and "digital_signature" not in usage:
        raise _not_for_clients(leaf, "its keyUsage lacks digitalSignature")
    if leaf.is_ca and not (is_pinned and leaf.is_self_issued):
        raise _not_for_clients(leaf, "it is a CA certificate")


def _not_for_clients(leaf: Certificate, detail: str) -> WrongPurposeError:
    return WrongPurposeError(subject=leaf.subject_text, purpose=_PURPOSES[CLIENT_AUTH], detail=detail)


def check_purpose(leaf: Certificate, purpose: str) -> None:
    """Raise `WrongPurposeError` if the extended key usage excludes `purpose` (dotted)."""
    allowed = leaf.extensions.extended_key_usage
    if allowed is None or purpose in allowed or ANY_PURPOSE in allowed:
        return
    raise WrongPurposeError(
        subject=leaf.subject_text,
        purpose=_PURPOSES.get(purpose, purpose),
        detail=f"its extendedKeyUsage has only {', '.join(sorted(allowed)) or 'nothing'}",
    )


def check_conforming(certificate: Certificate) -> None:
    """Raise `CertificateNonconformingError` for violations of RFC 5280 sections 4.1 and 4.2."""
    says = certificate.extensions
    usage = says.key_usage or frozenset()
    problems = (
        (certificate.serial.bit_length() > MAX_SERIAL_BITS, "its serial number has more than 20 octets"),
        (says.extended_key_usage == frozenset(), "its extendedKeyUsage names no purpose"),
        (not says.is_ca and "key_cert_sign" in usage, "it has the key usage keyCertSign but is not a CA"),
        (not says.is_ca and says.name_constraints_der is not None, "it has name constraints but is not a CA"),
        (says.is_ca and _constrains_unreadably(certificate), "its name constraints cannot be read"),
        (bool(says.wrongly_critical), f"{', '.join(says.wrongly_critical)} is not critical"),
        (_is_nameless(certificate), "it has no subject, and its subjectAltName is not critical"),
        (says.is_ca and certificate.subject_der == _NO_NAME, "a CA without a subject"),
    )
    for is_broken, detail in problems:
        if is_broken:
            raise _nonconforming(certificate, detail)


def _constrains_unreadably(ca: Certificate) -> bool:
    try:
        _ = ca.extensions.name_constraints
    except ValueError:
        return True
    return False


def check_ca(certificate: Certificate) -> None:
    """Raise a `ChainError` for a CA with a weak key or violations of RFC 5280; few CAs issue for many devices."""
    (_check_ca_once if len(certificate.der) <= MAX_KEPT_BYTES else _check_ca)(certificate)


def _check_ca(certificate: Certificate) -> None:
    check_strength(certificate)
    check_conforming(certificate)
    _check_key_ids(certificate)


_check_ca_once = lru_cache(maxsize=64)(_check_ca)


def _check_key_ids(certificate: Certificate) -> None:
    """Raise `CertificateNonconformingError` for a CA that does not name its keys (sections 4.2.1.1 and 4.2.1.2)."""
    if certificate.extensions.subject_key_id is None:
        raise _nonconforming(certificate, "a CA without subjectKeyIdentifier")
    if certificate.extensions.authority_key_id is None and not certificate.is_self_issued:
        raise _nonconforming(certificate, "a CA without authorityKeyIdentifier")


def _is_nameless(certificate: Certificate) -> bool:
    says = certificate.extensions
    has_names = says.subject_alt_name is not None and "subject_alt_name" not in says.critical
    return has_names and certificate.subject_der == _NO_NAME


def _nonconforming(certificate: Certificate, detail: str) -> CertificateNonconformingError:
    return CertificateNonconformingError(subject=certificate.subject_text or "without a subject", detail=detail)
