"""What the EST server knows about those who may ask."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from birthmark.auth.principals import Principal
from birthmark.ca.model import IssuedCertificate
from birthmark.pki.certificate_profiles import DEVICE, CertificateProfile
from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class EstUser:
    """Whoever knows the password may get a certificate for `device_id`, or for any device when it is None.

    A token is a user for one device and one key: after its first use only that key may ask again, until it ends.
    """

    name: str
    password_hash: str = field(repr=False)
    device_id: str | None
    created_at: datetime
    expires_at: datetime | None = None
    is_one_time: bool = False
    used_by: bytes | None = None
    """SHA-256 of the public key for which a token was used."""


@dataclass(frozen=True, slots=True)
class BootstrapCa:
    """Certificates of this CA introduce devices. `any_name`: also under another name than their own."""

    certificate: Certificate
    any_name: bool


@dataclass(frozen=True, slots=True)
class RegistrationAuthority:
    """A registration authority: who has this certificate's key asks for others, whom it has checked itself.

    `names` is a pattern of the device ids it may ask for, with `*` and `?`.
    """

    certificate: Certificate
    names: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class LateRenewalRule:
    """How long after its end a certificate still proves who a device is, and whether an operator has to agree."""

    window: timedelta
    approval: bool = False


@dataclass(frozen=True, slots=True)
class CallerProof:
    """Someone whom a caller proves to be, and what follows from how that was proven."""

    principal: Principal
    user: EstUser | None = None
    authority: RegistrationAuthority | None = None
    bootstrap: BootstrapCa | None = None
    comeback: LateRenewalRule | None = None
    """The rule by which a certificate counted that had expired."""
    issued: IssuedCertificate | None = None
    """The certificate that was shown, as the inventory has it."""


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A request that an operator is to decide, or decided; once fetched it is kept, as an answer gets lost."""

    id: str
    name: str
    actor: str
    profile: str
    address: str
    csr: bytes
    asked_at: datetime
    decided_at: datetime | None = None
    is_approved: bool | None = None
    fetched_at: datetime | None = None
    """When the certificate was first handed out."""


@dataclass(frozen=True, slots=True)
class EstLabel:
    """What one label serves, or the path without one."""

    profile: CertificateProfile = DEVICE
    approval: bool = False
    """An operator decides each request of somebody who has no certificate from here."""
    key_generation: bool = False
    csr_attributes: bytes | None = None
    """DER of CsrAttrs to hand out (`wire.render_csr_attributes`); None answers 204."""
    base64_lines: bool = True
    """Whether answers are wrapped at 64 characters; strongSwan's client reads one line only."""


@dataclass(frozen=True, slots=True)
class EstSettings:
    """How this server behaves."""

    door: EstLabel = EstLabel()
    labels: Mapping[str, EstLabel] = field(default_factory=dict)
    """By path segment before the operation."""
    comeback: Mapping[str, LateRenewalRule] = field(default_factory=dict)
    """By the profile of the certificate that expired: nobody chooses a laxer one by a label."""
    renewals_per_s: float = 400.0
    """How many certificates are issued in a second, before who asks is given a turn."""
    renewal_window: tuple[float, float] = (0.6, 0.8)
    """When a certificate is to be renewed, as parts of its life: devices choose a moment in it, each its own."""
    max_live: int = 1000
    """How many certificates of one name may be alive at a time."""
    workers: int = 1
    """How many serve as this one does: together they let nobody guess, and issue, more often than one alone."""


class EstPeer(Protocol):
    """What the handshake proved: possession of the leaf's key. Nothing is verified yet."""

    @property
    def leaf(self) -> Certificate | None: ...

    @property
    def chain(self) -> tuple[Certificate, ...]: ...

    @property
    def tls_unique(self) -> bytes | None:
        """The channel binding of TLS 1.2 (RFC 5929)."""

    def exported_binding(self) -> bytes | None:
        """The channel binding of TLS 1.3 (RFC 9266)."""


@dataclass(frozen=True, slots=True)
class EstCaller:
    """Who sent a request, as far as the transport can tell."""

    peer: EstPeer
    authorization: str | None = field(default=None, repr=False)
    address: str = ""
