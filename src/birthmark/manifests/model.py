"""What a manifest says of one chip."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from birthmark.manifests.bundle.model import Intake
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der, pem_of, thumbprint_of

UNSIGNED = "listed"
"""The model of what stands on a list that nobody signed."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One chip that a trusted signer vouched for.

    Parts without a certificate (TrustMANAGER) have no `device_der`, and so less of them is checked.
    """

    unique_id: str
    model: str
    part_number: str
    group_id: str | None
    provisioned_at: datetime
    signer: str
    device_der: bytes | None
    common_name: str | None
    """The device certificate's; None where there is none."""
    issuer_der: bytes | None
    key_ids: tuple[str, ...]
    point: bytes | None = None
    """X and Y of the key that the certificate is for, else of the first one; of another kind of key all of it."""
    intake: Intake | None = None
    """What a production line adds, in a bundle of ours; `unique_id` is the board's serial number then."""
    columns: tuple[tuple[str, str], ...] = ()
    """What a table says of the device in its other columns, by their names in lower case, `_` for a space."""
    doubts: tuple[str, ...] = ()
    """What speaks against enrolling the device, where it was judged: whoever reads the list may do that as well."""

    @property
    def unread(self) -> "UnreadCertificate | None":
        """The device's certificate for whoever hands it on."""
        return None if self.device_der is None else _unread(self.device_der, self.common_name)

    @property
    def certificate(self) -> Certificate | None:
        """The device's, read when asked for. Raise `CertificateInvalidError` for what only its issuer reads."""
        return None if self.device_der is None else parse_der(self.device_der)

    @property
    def issuer(self) -> Certificate | None:
        """The CA's that signed it."""
        return None if self.issuer_der is None else parse_der(self.issuer_der)

    @property
    def thumbprint(self) -> Thumbprint | None:
        return None if self.device_der is None else thumbprint_of(self.device_der)

    @property
    def is_signed(self) -> bool:
        """Whether somebody vouched for the entry; a list of certificates has only what each of them says."""
        return self.model != UNSIGNED

    @property
    def unchecked(self) -> str | None:
        """Why name, key and chain could not be checked; None when everything was."""
        if self.device_der is not None:
            return None
        return "it has no certificate" if self.key_ids else "it lists no public keys"

    @property
    def device_id(self) -> str:
        """The certificate's common name, else the board's, else `sn` and the serial number as certificates have it."""
        if self.common_name:
            return self.common_name
        return "sn" + self.unique_id.upper() if self.intake is None else self.intake.board


@dataclass(frozen=True, slots=True)
class ManifestSigner:
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


@dataclass(frozen=True, slots=True)
class UnreadCertificate:
    """A certificate of which nobody has made an object."""

    der: bytes
    subject_cn: str | None
    thumbprint: Thumbprint

    def pem(self) -> str:
        return pem_of(self.der)


def _unread(der: bytes, common_name: str | None) -> UnreadCertificate:
    return UnreadCertificate(der, common_name, thumbprint_of(der))


Judge: TypeAlias = Callable[[ManifestEntry], tuple[str, ...]]
"""What returns the doubts about an entry; it goes from process to process."""


def judged(verdict: Any, judge: Judge | None) -> Any:
    """Return an entry with what speaks against it; what is none, as it is."""
    return (
        replace(verdict, doubts=judge(verdict)) if judge is not None and isinstance(verdict, ManifestEntry) else verdict
    )
