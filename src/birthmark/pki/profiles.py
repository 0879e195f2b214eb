"""Templates of the fields a certificate may have (RFC 5280 section 4.2, IEEE 802.1AR, the clouds' rules).

A profile decides everything but names, keys and dates. What a request asks for never gets in by itself.
"""

from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier


@dataclass(frozen=True, slots=True)
class Profile:
    """What a certificate of one kind carries, and how long it lives unless told otherwise."""

    name: str
    lifetime: timedelta
    is_ca: bool = False
    path_length: int | None = None
    key_usage: frozenset[str] = field(default_factory=lambda: frozenset({"digital_signature"}))
    """cryptography's names of the bits."""
    extended_key_usage: tuple[ObjectIdentifier, ...] = ()
    takes_subject_alt_name: bool = False
    ocsp_no_check: bool = False


_CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})

ROOT = Profile("root", timedelta(days=20 * 365 + 5), is_ca=True, key_usage=_CA_USAGE)
ISSUING_CA = Profile("issuing_ca", timedelta(days=5 * 365 + 1), is_ca=True, path_length=0, key_usage=_CA_USAGE)
EDGE_ISSUING_CA = Profile(
    "edge_issuing_ca", timedelta(days=5 * 365 + 1), is_ca=True, path_length=1, key_usage=_CA_USAGE
)
EDGE_CA = Profile("edge_ca", timedelta(days=90), is_ca=True, path_length=0, key_usage=_CA_USAGE | {"digital_signature"})
DEVICE = Profile("device", timedelta(days=1), extended_key_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))
SERVER = Profile(
    "server",
    timedelta(days=90),
    extended_key_usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
    takes_subject_alt_name=True,
)
OCSP = Profile("ocsp", timedelta(days=30), extended_key_usage=(ExtendedKeyUsageOID.OCSP_SIGNING,), ocsp_no_check=True)
VERIFICATION = Profile("verification", timedelta(days=1), extended_key_usage=(ExtendedKeyUsageOID.CLIENT_AUTH,))
"""Proves to a cloud that its holder has a CA's key; see `possession`."""

PROFILES = {
    profile.name: profile
    for profile in (ROOT, ISSUING_CA, EDGE_ISSUING_CA, EDGE_CA, DEVICE, SERVER, OCSP, VERIFICATION)
}
