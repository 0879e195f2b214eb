"""Entries of a manifest, one per chip."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from birthmark.manifests.bundle.intake_records import Intake
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der, pem_of, thumbprint_of

UNSIGNED = "listed"
"""Model name of entries in an unsigned list."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A chip that a trusted signer attested.

    Parts without a certificate (TrustMANAGER) have no `device_der`, so fewer checks apply.
    """

    unique_id: str
    model: str
    part_number: str
    group_id: str | None
    provisioned_at: datetime
    signer: str
    device_der: bytes | None
    common_name: str | None
    """Common name of the device certificate; None without a certificate."""
    issuer_der: bytes | None
    key_ids: tuple[str, ...]
    point: bytes | None = None
    """X and Y of the certificate's key, otherwise of the first key; the complete key for other key types."""
    intake: Intake | None = None
    """Intake data of a bundle; `unique_id` is the board's serial number then."""
    columns: tuple[tuple[str, str], ...] = ()
    """Other columns of a table, by name in lower case, `_` for a space."""
    doubts: tuple[str, ...] = ()
    """Reasons against enrolling the device, if a judge evaluated it; the list's consumer may do so as well."""

    @property
    def unread(self) -> "UnreadCertificate | None":
        """Return the unparsed device certificate, for forwarding."""
        return None if self.device_der is None else _unread(self.device_der, self.common_name)

    @property
    def certificate(self) -> Certificate | None:
        """Return the device certificate, parsed on demand. Raise `CertificateInvalidError` if it is invalid."""
        return None if self.device_der is None else parse_der(self.device_der)

    @property
    def issuer(self) -> Certificate | None:
        """The certificate of the CA that issued the device certificate."""
        return None if self.issuer_der is None else parse_der(self.issuer_der)

    @property
    def thumbprint(self) -> Thumbprint | None:
        return None if self.device_der is None else thumbprint_of(self.device_der)

    @property
    def is_signed(self) -> bool:
        """Return whether a signer attested the entry; a certificate list has only the certificates themselves."""
        return self.model != UNSIGNED

    @property
    def unchecked(self) -> str | None:
        """Return why name, key and chain could not be checked; None if all were."""
        if self.device_der is not None:
            return None
        return "it has no certificate" if self.key_ids else "it lists no public keys"

    @property
    def device_id(self) -> str:
        """Return the device id: the certificate's common name, the board's, or `sn` with the serial number."""
        if self.common_name:
            return self.common_name
        return "sn" + self.unique_id.upper() if self.intake is None else self.intake.board


@dataclass(frozen=True, slots=True)
class ManifestSigner:
    """A trusted manifest signer: a P-256 key (raw X and Y), identified by its certificate's SHA-256."""

    name: str
    thumbprint: bytes
    public_point: bytes
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Root:
    """A CA above the chips' signers: its subject's common name and P-256 key (raw X and Y)."""

    name: str
    public_point: bytes


@dataclass(frozen=True, slots=True)
class UnreadCertificate:
    """An unparsed certificate."""

    der: bytes
    subject_cn: str | None
    thumbprint: Thumbprint

    def pem(self) -> str:
        return pem_of(self.der)


def _unread(der: bytes, common_name: str | None) -> UnreadCertificate:
    return UnreadCertificate(der, common_name, thumbprint_of(der))


Judge: TypeAlias = Callable[[ManifestEntry], tuple[str, ...]]
"""Function that returns the doubts about an entry; it must be picklable."""


def add_doubts(verdict: Any, judge: Judge | None) -> Any:
    """Return an entry with the judge's doubts; other verdicts are returned unchanged."""
    return (
        replace(verdict, doubts=judge(verdict)) if judge is not None and isinstance(verdict, ManifestEntry) else verdict
    )
