"""Templates of the fields a certificate may have (RFC 5280 section 4.2, IEEE 802.1AR, the clouds' rules).

A profile decides everything but names, keys and dates. What a request asks for gets in only where the profile says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier


class Purpose(StrEnum):
    """Which CA signs. The values name the CAs' files."""

    ROOT = "root"
    DEVICES = "issuing"
    EST = "est"
    EDGE = "edge"
    SERVERS = "servers"


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """Which of the names that a request asks for (subjectAltName) a certificate gets; every other is refused."""

    dns: tuple[str, ...] = ()
    """Domains: each stands for itself and for what is below it."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    uris: tuple[str, ...] = ()
    """What a URI begins with."""
    hardware_module: bool = False
    """hardwareModuleName (RFC 4108 section 5) of an operator's request."""


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """What a certificate of one kind carries, and how long it lives unless told otherwise."""

    name: str
    lifetime: timedelta
    purpose: Purpose = Purpose.DEVICES
    is_ca: bool = False
    path_length: int | None = None
    key_usage: frozenset[str] = field(default_factory=lambda: frozenset({"digital_signature"}))
    """cryptography's names of the bits."""
    extended_key_usage: tuple[ObjectIdentifier, ...] = ()
    takes_subject_alt_name: bool = False
    """From an operator's own words."""
    names: AllowedNames | None = None
    """From the request."""
    ocsp_no_check: bool = False
    is_endless: bool = False
    """Valid until 99991231235959Z, whatever its issuer's end (IEEE 802.1AR section 8.7; RFC 5280 section 4.1.2.5)."""
    key_kinds: frozenset[str] = frozenset()
    """As `kind_of_key` names them, or RSA for any size; none is every kind that is accepted at all."""
    subject: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the subject says besides the name, by short name."""
    has_serial_number: bool = False
    """The subject has a serialNumber: an operator's request says which, else it is the device's name."""
    revocation: bool | None = None
    """Whether it says where its revocation is told; None leaves it to its lifetime."""


_CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})
_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
_YEARS_5 = timedelta(days=5 * 365 + 1)

ROOT = CertificateProfile("root", timedelta(days=20 * 365 + 5), Purpose.ROOT, is_ca=True, key_usage=_CA_USAGE)
ISSUING_CA = CertificateProfile("issuing_ca", _YEARS_5, Purpose.ROOT, is_ca=True, path_length=0, key_usage=_CA_USAGE)
EDGE_ISSUING_CA = CertificateProfile(
    "edge_issuing_ca", _YEARS_5, Purpose.ROOT, is_ca=True, path_length=1, key_usage=_CA_USAGE
)
EDGE_CA = CertificateProfile(
    "edge_ca",
    timedelta(days=90),
    Purpose.EDGE,
    is_ca=True,
    path_length=0,
    key_usage=_CA_USAGE | {"digital_signature"},
)
DEVICE = CertificateProfile("device", timedelta(days=1), extended_key_usage=_CLIENT)
EST_IDENTITY = CertificateProfile("est_identity", timedelta(days=30), Purpose.EST, extended_key_usage=_CLIENT)
IDEVID = CertificateProfile(
    "idevid",
    timedelta(days=20 * 365 + 5),
    extended_key_usage=_CLIENT,
    names=AllowedNames(hardware_module=True),
    is_endless=True,
    has_serial_number=True,
)
"""A device's birth certificate (IEEE 802.1AR): for good, and found by its serialNumber."""
LDEVID = CertificateProfile("ldevid", timedelta(days=90), extended_key_usage=_CLIENT, has_serial_number=True)
"""What an operator gives a device with a birth certificate, and EST renews."""
SERVER = CertificateProfile(
    "server",
    timedelta(days=90),
    Purpose.SERVERS,
    extended_key_usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
    takes_subject_alt_name=True,
)
OCSP = CertificateProfile(
    "ocsp", timedelta(days=30), extended_key_usage=(ExtendedKeyUsageOID.OCSP_SIGNING,), ocsp_no_check=True
)
VERIFICATION = CertificateProfile("verification", timedelta(days=1), extended_key_usage=_CLIENT)
"""Proves to a cloud that its holder has a CA's key; see `possession`."""

PROFILES = {
    profile.name: profile
    for profile in (
        ROOT,
        ISSUING_CA,
        EDGE_ISSUING_CA,
        EDGE_CA,
        DEVICE,
        EST_IDENTITY,
        IDEVID,
        LDEVID,
        SERVER,
        OCSP,
        VERIFICATION,
    )
}
FOR_REQUESTS: Mapping[str, CertificateProfile] = {
    one.name: one for one in (DEVICE, SERVER, EDGE_CA, EST_IDENTITY, IDEVID, LDEVID)
}
"""Those that somebody can ask for; the others are the CA's own."""


def kind_of_key(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    """Return P-256, P-384, RSA-2048 and the like."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return f"P-{key.key_size}"


def takes_key(profile: CertificateProfile, kind: str) -> bool:
    """Say whether a key of that kind may have such a certificate."""
    return not profile.key_kinds or kind in profile.key_kinds or kind.partition("-")[0] in profile.key_kinds
