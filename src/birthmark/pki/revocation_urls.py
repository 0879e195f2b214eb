"""Revocation pointers in certificates: CRL distribution points and AIA.

Source: RFC 5280 sections 4.2.1.13, 4.2.2.1. The URLs contain the CA's key identifier, so that certificates of a
replaced CA still find their status.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from birthmark.pki.certificates import Certificate


def name_of_key(issuer: Certificate) -> str:
    """Return the name of a CA in URLs: its key identifier; without one, its thumbprint."""
    return (issuer.extensions.subject_key_id or issuer.thumbprint).hex()


@dataclass(frozen=True, slots=True)
class DistributionPoints:
    """Distribution point URLs below `url`, which has no trailing slash."""

    url: str

    def crl(self, issuer: Certificate) -> str:
        return f"{self.url}/crl/{name_of_key(issuer)}.crl"

    def certificate(self, issuer: Certificate) -> str:
        return f"{self.url}/ca/{name_of_key(issuer)}.cer"

    @property
    def ocsp(self) -> str:
        return f"{self.url}/ocsp"

    def extensions(self, issuer: Certificate) -> tuple[x509.ExtensionType, ...]:
        """Return the extensions for certificates of this issuer."""
        uri = x509.UniformResourceIdentifier
        access = (
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, uri(self.ocsp)),
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, uri(self.certificate(issuer))),
        )
        point = x509.DistributionPoint([uri(self.crl(issuer))], None, None, None)
        return x509.CRLDistributionPoints([point]), x509.AuthorityInformationAccess(access)
