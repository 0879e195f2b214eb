"""Certificate profiles: templates of fields and extensions.

Sources: RFC 5280 section 4.2, IEEE 802.1AR, the clouds' requirements. A profile determines everything except names,
keys and dates. Fields of a request are used only if the profile permits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier


class Purpose(StrEnum):
    """Purpose of an issuing CA. The values are the names of the CAs' files."""

    ROOT = "root"
    DEVICES = "issuing"
    EST = "est"
    EDGE = "edge"
    SERVERS = "servers"


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """Permitted subjectAltName entries of a request; others are refused."""

    dns: tuple[str, ...] = ()
    """Permitted DNS domains, including their subdomains."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    uris: tuple[str, ...] = ()
    """Permitted URI prefixes."""
    hardware_module: bool = False
    """Whether hardwareModuleName (RFC 4108 section 5) is allowed in an operator's request."""


@dataclass(frozen=True, slots=True)
class CertificateProfile:
    """Fields of one kind of certificate, and its default lifetime."""

    name: str
    lifetime: timedelta
    purpose: Purpose = Purpose.DEVICES
    is_ca: bool = False
    path_length: int | None = None
    key_usage: frozenset[str] = field(default_factory=lambda: frozenset({"digital_signature"}))
    """Key usage bits, by cryptography's names."""
    extended_key_usage: tuple[ObjectIdentifier, ...] = ()
    takes_subject_alt_name: bool = False
    """Whether an operator may specify subject alternative names."""
    names: AllowedNames | None = None
    """Names that are allowed from the request."""
    ocsp_no_check: bool = False
    is_endless: bool = False
    """Whether it is valid until 99991231235959Z, regardless of the issuer's end.

    IEEE 802.1AR section 8.7; RFC 5280 section 4.1.2.5.
    """
    key_kinds: frozenset[str] = frozenset()
    """Permitted key types, named as by `kind_of_key`, or RSA for any size; empty permits every accepted type."""
    subject: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Fixed subject attributes besides the name, by short name."""
    has_serial_number: bool = False
    """Whether the subject has a serialNumber: from the operator's request, otherwise the device's name."""
    revocation: bool | None = None
    """Whether the certificate has revocation pointers; None decides by its lifetime."""


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
"""IDevID certificate (IEEE 802.1AR): permanent, identified by its serialNumber."""
LDEVID = CertificateProfile("ldevid", timedelta(days=90), extended_key_usage=_CLIENT, has_serial_number=True)
"""LDevID certificate that an operator issues to a device with an IDevID; EST renews it."""
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
"""Proves possession of a CA's key to a cloud; see `possession`."""

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
"""Profiles that a client can request; the others are internal to the CA."""


def kind_of_key(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    """Return the type of a key, such as P-256, P-384 or RSA-2048."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    return f"P-{key.key_size}"


def takes_key(profile: CertificateProfile, kind: str) -> bool:
    """Return whether the profile permits a key of that type."""
    return not profile.key_kinds or kind in profile.key_kinds or kind.partition("-")[0] in profile.key_kinds
