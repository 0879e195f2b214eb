"""Certificate signing by profile (RFC 5280 section 4.1).

In: the subject (a Name as the request encoded it), the public key, the issuer with its private key, a serial number,
`now`.

Out: the certificate. The decision to issue it was made before, in `ca`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.clock_and_entropy import Entropy
from birthmark.errors import PolicyError
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.extension_parser import USAGES
from birthmark.pki.fast_certificate_encoder import CertificateTemplate, create_template
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.revocation_urls import DistributionPoints

SigningKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""A signing key; a key in a token is a subclass that delegates `sign` (package `keys`)."""

BACKDATING = timedelta(minutes=5)
NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""End date of a certificate without expiry (RFC 5280 section 4.1.2.5)."""
_SERIAL_BYTES = 16
_FIRST_DAY = datetime(1950, 1, 1, tzinfo=UTC)
_NOBODY = name_of("-")
_ECDSA_SHA_256, _ECDSA_SHA_384, _RSA_SHA_256 = (  # AlgorithmIdentifiers, DER
    bytes.fromhex(one)
    for one in ("300a06082a8648ce3d040302", "300a06082a8648ce3d040303", "300d06092a864886f70d01010b0500")
)


class IssuerExpiredError(PolicyError):
    """The CA's certificate has expired."""

    code = "pki.issuer_expired"
    cause = "The CA certificate '{issuer}' expired at {not_after}."
    fix = (
        "Create a new CA: `birthmark ca init --name Devices --dir new-ca && export BIRTHMARK_CA_DIR=new-ca`. Then "
        "renew the devices' certificates from the new CA."
    )
    issuer: str
    not_after: str


class IssuerNotBegunError(PolicyError):
    """The CA's certificate is not yet valid."""

    code = "pki.issuer_not_begun"
    cause = (
        "The CA certificate '{issuer}' is valid from {not_before}; a certificate signed now would expire before that "
        "time."
    )
    fix = (
        "If the clock is behind, correct it. If the clock is right, it was ahead when the CA was created; create "
        "another CA: `birthmark ca init --name Devices --dir new-ca && export BIRTHMARK_CA_DIR=new-ca`. For a "
        "server's CA, start the server with another data directory."
    )
    issuer: str
    not_before: str


@dataclass(frozen=True, slots=True)
class LeafIssuer:
    """A CA: its certificate and the key that signs."""

    certificate: Certificate
    private_key: SigningKey = field(repr=False, compare=False)


def new_serial(entropy: Entropy) -> int:
    """Return a positive serial number of 126 random bits.

    RFC 5280 section 4.1.2.2: at most 20 octets, never zero.
    """
    return (int.from_bytes(entropy.token(_SERIAL_BYTES)) >> 1) | 1


def issue(
    profile: CertificateProfile,
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    *,
    issuer: LeafIssuer,
    serial: int,
    now: datetime,
    lifetime: timedelta | None = None,
    san: Sequence[x509.GeneralName] = (),
    points: DistributionPoints | None = None,
    excluded: tuple[x509.GeneralName, ...] = (),
) -> Certificate:
    """Return a certificate signed by `issuer`, backdated slightly, not outliving the issuer if that expires.

    Certificates of a CA must contain none of the `excluded` names.
    """
    above = issuer.certificate
    if now > above.not_after:
        raise IssuerExpiredError(issuer=above.subject_text, not_after=above.not_after.isoformat())
    not_before, not_after = _validity(now, lifetime or profile.lifetime)
    if not_after <= above.not_before:
        raise IssuerNotBegunError(issuer=above.subject_text, not_before=above.not_before.isoformat())
    not_before = max(not_before, above.not_before)
    not_after = NO_END if profile.is_endless and lifetime is None else min(not_after, above.not_after)
    not_before, not_after = (one.astimezone(UTC).replace(microsecond=0) for one in (not_before, not_after))
    key, named = issuer.private_key, authority_key_id(issuer)
    has_names = bool(san) and _takes_names(profile)
    # The builder rejects impossible dates: in the wrong order, or before the start of its calendar.
    if isinstance(key, ec.EllipticCurvePrivateKey) and not has_names and _FIRST_DAY <= not_before <= not_after:
        algorithm = hash_for(key)
        return _mold(
            above, named, profile, points, excluded, is_strong=isinstance(algorithm, hashes.SHA384)
        ).build_certificate(
            subject.public_bytes(),
            public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            serial=serial,
            not_before=not_before,
            not_after=not_after,
            sign=lambda signed: key.sign(signed, ec.ECDSA(algorithm)),
        )
    builder = _below(above, named, profile, points, excluded, subject=subject, public_key=public_key, san=san)
    return _sign(builder.serial_number(serial).not_valid_before(not_before).not_valid_after(not_after), key)


def _below(
    above: Certificate,
    named: x509.AuthorityKeyIdentifier,
    profile: CertificateProfile,
    points: DistributionPoints | None,
    excluded: tuple[x509.GeneralName, ...],
    *,
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    san: Sequence[x509.GeneralName] = (),
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(above.subject, subject, public_key).add_extension(named, critical=False)
    for extension in points.extensions(above) if points is not None else ():
        builder = builder.add_extension(extension, critical=False)
    if excluded and profile.is_ca:
        # Critical by RFC 5280 section 4.2.1.10, but small clients reject unknown critical extensions; clients that know
        # it enforce it.
        builder = builder.add_extension(x509.NameConstraints(None, excluded), critical=False)
    return _with_profile(builder, profile, public_key, san)


@lru_cache(maxsize=64)
def _mold(
    above: Certificate,
    named: x509.AuthorityKeyIdentifier,
    profile: CertificateProfile,
    points: DistributionPoints | None,
    excluded: tuple[x509.GeneralName, ...],
    *,
    is_strong: bool,
) -> CertificateTemplate:
    """Return the template for certificates of a profile issued by `above`.

    It is cut from a model signed with a temporary key.
    """
    key = ec.generate_private_key(ec.SECP384R1() if is_strong else ec.SECP256R1())
    model = _below(above, named, profile, points, excluded, subject=_NOBODY, public_key=key.public_key())
    return create_template(_sign(model.serial_number(1).not_valid_before(_FIRST_DAY).not_valid_after(NO_END), key))


def self_signed(
    profile: CertificateProfile,
    subject: x509.Name,
    private_key: SigningKey,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta | None = None,
    san: Sequence[x509.GeneralName] = (),
) -> Certificate:
    """Return a self-signed certificate: a root, or a device certificate for individual enrollment."""
    not_before, not_after = _validity(now, lifetime or profile.lifetime)
    builder = x509.CertificateBuilder(subject, subject, private_key.public_key(), serial)
    builder = builder.not_valid_before(not_before).not_valid_after(not_after)
    return _sign(_with_profile(builder, profile, private_key.public_key(), san), private_key)


def authority_key_id(issuer: LeafIssuer) -> x509.AuthorityKeyIdentifier:
    """Return the authority key identifier for certificates of `issuer`, equal to its own identifier."""
    if (key_id := issuer.certificate.extensions.subject_key_id) is not None:
        return x509.AuthorityKeyIdentifier(key_id, None, None)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.private_key.public_key())


def hash_for(key: SigningKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the hash that matches the key's strength: SHA-384 for P-384, otherwise SHA-256."""
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    return hashes.SHA384() if strong else hashes.SHA256()


def algorithm_of(key: SigningKey) -> bytes:
    """Return the AlgorithmIdentifier (DER) of `signature_of` with this key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _ECDSA_SHA_384 if isinstance(hash_for(key), hashes.SHA384) else _ECDSA_SHA_256
    return _RSA_SHA_256


def signature_of(key: SigningKey, data: bytes) -> bytes:
    """Return a key's signature over bytes, as encoded in certificates and CRLs."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hash_for(key)))
    return key.sign(data, padding.PKCS1v15(), hash_for(key))


def _validity(now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    """Return the validity period, backdated for clocks that are behind.

    Backdating is limited to a tenth of the lifetime, because renewal counts from notBefore.
    """
    whole = now.replace(microsecond=0)
    return whole - min(BACKDATING, lifetime / 10), whole + min(lifetime, NO_END - whole)


def _with_profile(
    builder: x509.CertificateBuilder,
    profile: CertificateProfile,
    public_key: CertificatePublicKeyTypes,
    san: Sequence[x509.GeneralName],
) -> x509.CertificateBuilder:
    builder = (
        builder.add_extension(x509.BasicConstraints(profile.is_ca, profile.path_length), critical=True)
        .add_extension(
            x509.KeyUsage(**{bit: bit in profile.key_usage for bit in (*USAGES, "encipher_only", "decipher_only")}),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    if profile.extended_key_usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended_key_usage), critical=False)
    if profile.ocsp_no_check:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    if san and _takes_names(profile):
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    return builder


def _takes_names(profile: CertificateProfile) -> bool:
    return profile.takes_subject_alt_name or profile.names is not None


def _sign(builder: x509.CertificateBuilder, key: SigningKey) -> Certificate:
    return parse_der(builder.sign(key, hash_for(key)).public_bytes(Encoding.DER))
