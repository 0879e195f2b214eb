"""Managed certificates: which ones the agent issues and renews, with their names and uses. Pure.

A managed certificate has its aziot ID, its issuance settings with renewal rules, and a use that determines the CSR. If
a bootstrap certificate authenticates the device to an EST server first, there is one more: the EST identity. The
bootstrap certificate requests it, and it requests all other certificates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from birthmark.agent.config.model import AgentConfig, EstIssuance, IssuedIdentity
from birthmark.agent.renewal_policy import Renewal
from birthmark.agent.state_directory import DEVICE_ID, EDGE_CA, LOCAL_CA
from birthmark.pki import certificate_profiles
from birthmark.pki.certificate_profiles import CertificateProfile


class CertificateUse(Enum):
    """Use of a certificate, which determines the CSR."""

    DEVICE = "device identity"
    EST = "EST identity"
    CA = "certificate authority"


@dataclass(frozen=True, slots=True)
class ManagedCertificate:
    """One certificate that the agent issues and renews."""

    id: str
    issued: IssuedIdentity
    kind: CertificateUse

    @property
    def renewal(self) -> Renewal | None:
        return self.issued.renewal

    @property
    def profile(self) -> CertificateProfile:
        """Profile that a CA on the device would apply."""
        return certificate_profiles.EDGE_CA if self.kind is CertificateUse.CA else certificate_profiles.DEVICE


def _usage(*bits: str) -> x509.KeyUsage:
    return x509.KeyUsage(**dict.fromkeys(_USAGES, False) | dict.fromkeys(bits, True))


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
EXTENSIONS: Mapping[CertificateUse, tuple[tuple[x509.ExtensionType, bool], ...]] = MappingProxyType(
    {
        CertificateUse.DEVICE: (),
        CertificateUse.EST: ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),),
        CertificateUse.CA: (
            (_usage("digital_signature", "key_cert_sign"), True),
            (x509.BasicConstraints(ca=True, path_length=0), True),
        ),
    }
)
"""Extensions in the CSR for each use, as in aziot; the flag means critical."""


def est_identity_of(managed: ManagedCertificate) -> ManagedCertificate | None:
    """Return the EST identity that requests this certificate; None if there is none or it is one itself."""
    by = managed.issued.by
    if managed.kind is CertificateUse.EST or not isinstance(by, EstIssuance) or by.auth.pair is None:
        return None
    if not by.auth.pair.is_bootstrap:
        return None
    return ManagedCertificate(by.identity_id, replace(managed.issued, renewal=by.identity_renewal), CertificateUse.EST)


def managed_by(config: AgentConfig) -> dict[str, ManagedCertificate]:
    """Return all managed certificates of this configuration by ID, each after its dependencies."""
    found: dict[str, ManagedCertificate] = {}
    for one in _wanted(config):
        if (asking := est_identity_of(one)) is not None:
            found.setdefault(asking.id, asking)
        found[one.id] = one
    return found


def _wanted(config: AgentConfig) -> Iterator[ManagedCertificate]:
    if config.local_ca is not None:
        yield ManagedCertificate(LOCAL_CA, config.local_ca, CertificateUse.CA)
    if isinstance(config.source.identity, IssuedIdentity):
        yield ManagedCertificate(DEVICE_ID, config.source.identity, CertificateUse.DEVICE)
    if isinstance(config.edge_ca, IssuedIdentity):
        yield ManagedCertificate(EDGE_CA, config.edge_ca, CertificateUse.CA)
