"""What a manifest says of one chip."""

from dataclasses import dataclass
from datetime import datetime

from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class Entry:
    """One chip that a trusted signer vouched for.

    `certificate` is the device's; parts without one (TrustMANAGER) have None, and so less of them is checked.
    """

    unique_id: str
    model: str
    part_number: str
    group_id: str | None
    provisioned_at: datetime
    signer: str
    certificate: Certificate | None
    issuer: Certificate | None
    key_ids: tuple[str, ...]

    @property
    def unchecked(self) -> str | None:
        """Why name, key and chain could not be checked; None when everything was."""
        if self.certificate is not None:
            return None
        return "it has no certificate" if self.key_ids else "it lists no public keys"

    @property
    def device_id(self) -> str:
        """The certificate's common name, else `sn` and the serial number as the certificate would have it."""
        if self.certificate is not None and self.certificate.subject_cn:
            return self.certificate.subject_cn
        return "sn" + self.unique_id.upper()


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signature on a manifest counts: a P-256 key (raw X and Y) named by its certificate's SHA-256."""

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
