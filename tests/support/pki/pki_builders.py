"""Certificates for tests: P-256, quick, the irrelevant hidden. Keys are fresh, everything else is fixed."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from birthmark.pki import certificate_profiles
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer, SigningKey, issue, new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of
from support.fakes import NOON, SeededEntropy

_ENTROPY = SeededEntropy(7)


@dataclass(frozen=True)
class Holder:
    """A certificate and its private key, as a device or a CA holds them."""

    certificate: Certificate
    private_key: SigningKey

    @property
    def as_issuer(self) -> LeafIssuer:
        return LeafIssuer(self.certificate, self.private_key)

    @property
    def key_pem(self) -> str:
        return key_pem(self.private_key)


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def an_rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def key_pem(key: SigningKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def a_ca(
    common_name: str = "Test Root",
    *,
    parent: Holder | None = None,
    profile: CertificateProfile = certificate_profiles.ROOT,
    now: datetime = NOON,
    lifetime: timedelta | None = None,
    key: SigningKey | None = None,
) -> Holder:
    """A root, or with `parent` an intermediate below it."""
    key = key or a_key()
    serial = new_serial(_ENTROPY)
    if parent is None:
        made = self_signed(profile, name_of(common_name), key, serial=serial, now=now, lifetime=lifetime)
    else:
        made = issue(
            profile,
            name_of(common_name),
            key.public_key(),
            issuer=parent.as_issuer,
            serial=serial,
            now=now,
            lifetime=lifetime or min(profile.lifetime, parent.certificate.not_after - now),
        )
    return Holder(made, key)


def a_burdensome_key() -> rsa.RSAPrivateKey:
    """Make an RSA key whose public exponent is as long as the key, as nobody's is who means well."""
    known = rsa.generate_private_key(65537, 2048).private_numbers()
    phi, exponent = (known.p - 1) * (known.q - 1), (1 << 2040) + 1
    while math.gcd(exponent, phi) != 1:
        exponent += 2
    private = pow(exponent, -1, phi)
    parts = (private % (known.p - 1), private % (known.q - 1), known.iqmp)
    public = rsa.RSAPublicNumbers(exponent, known.public_numbers.n)
    return rsa.RSAPrivateNumbers(known.p, known.q, private, *parts, public).private_key()


def a_device(
    ca: Holder | None = None,
    common_name: str = "device-1",
    *,
    profile: CertificateProfile = certificate_profiles.DEVICE,
    now: datetime = NOON,
    lifetime: timedelta | None = None,
    key: SigningKey | None = None,
    san: tuple[x509.GeneralName, ...] = (),
) -> Holder:
    """A device certificate from `ca`, or a self-signed one."""
    key = key or a_key()
    serial, name = new_serial(_ENTROPY), name_of(common_name)
    if ca is None:
        return Holder(self_signed(profile, name, key, serial=serial, now=now, lifetime=lifetime, san=san), key)
    made = issue(
        profile, name, key.public_key(), issuer=ca.as_issuer, serial=serial, now=now, lifetime=lifetime, san=san
    )
    return Holder(made, key)


def a_csr(
    common_name: str = "device-1",
    *,
    key: SigningKey | None = None,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    attributes: tuple[tuple[x509.ObjectIdentifier, bytes], ...] = (),
) -> bytes:
    """A DER certificate request."""
    builder = x509.CertificateSigningRequestBuilder(subject_name=name_of(common_name))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    for oid, value in attributes:
        builder = builder.add_attribute(oid, value)
    return builder.sign(key or a_key(), algorithm or hashes.SHA256()).public_bytes(serialization.Encoding.DER)
