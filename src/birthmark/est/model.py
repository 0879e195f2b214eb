"""Values of the EST server: callers, their credentials, labels and settings."""

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
    """A user with a password, for certificates of `device_id`, or of any device if it is None.

    A token is a user for one device and one key: after its first use only that key may request again, until the token
    expires.
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
    """A CA whose certificates bootstrap devices. `any_name`: also under a name other than their own."""

    certificate: Certificate
    any_name: bool


@dataclass(frozen=True, slots=True)
class RegistrationAuthority:
    """A registration authority: it requests certificates for devices that it has verified.

    The holder of the certificate's key is the registration authority. `names` is a pattern of device IDs, with `*` and
    `?`.
    """

    certificate: Certificate
    names: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class LateRenewalRule:
    """Late renewal rule: how long an expired certificate is accepted, and whether an operator must approve."""

    window: timedelta
    approval: bool = False


@dataclass(frozen=True, slots=True)
class CallerProof:
    """A proven identity of a caller, with the credential that proved it."""

    principal: Principal
    user: EstUser | None = None
    authority: RegistrationAuthority | None = None
    bootstrap: BootstrapCa | None = None
    late_renewal: LateRenewalRule | None = None
    """The rule under which an expired certificate was accepted."""
    issued: IssuedCertificate | None = None
    """The presented certificate, from the inventory."""


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A waiting or decided request; it remains after fetching, because a response can be lost."""

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
    """Time at which the certificate was first returned."""


@dataclass(frozen=True, slots=True)
class EstLabel:
    """An EST label, or the path without one, with its profile and rules."""

    profile: CertificateProfile = DEVICE
    approval: bool = False
    """Whether an operator approves each request of a caller without a certificate issued here."""
    key_generation: bool = False
    csr_attributes: bytes | None = None
    """DER of CsrAttrs for csrattrs (`wire.render_csr_attributes`); None returns 204."""
    base64_lines: bool = True
    """Whether responses are wrapped at 64 characters; strongSwan's client reads only one line."""


@dataclass(frozen=True, slots=True)
class EstSettings:
    """Settings of the EST server."""

    door: EstLabel = EstLabel()
    labels: Mapping[str, EstLabel] = field(default_factory=dict)
    """EST labels by the path segment before the operation."""
    late_renewal: Mapping[str, LateRenewalRule] = field(default_factory=dict)
    """Late renewal rules by the profile of the expired certificate, so that no label selects a laxer rule."""
    renewals_per_s: float = 400.0
    """Certificates per second above which callers are queued."""
    renewal_window: tuple[float, float] = (0.6, 0.8)
    """Renewal window in fractions of a certificate's lifetime; each device chooses its own moment in it."""
    max_live: int = 1000
    """Maximum number of valid certificates per name."""
    workers: int = 1
    """Number of workers that share the limits for password guesses and certificates."""


class EstPeer(Protocol):
    """Peer of the TLS handshake, with proven possession of the leaf's key. Nothing is verified yet."""

    @property
    def leaf(self) -> Certificate | None: ...

    @property
    def chain(self) -> tuple[Certificate, ...]: ...

    @property
    def tls_unique(self) -> bytes | None:
        """The channel binding of TLS 1.2 (RFC 5929)."""

    def exported_binding(self) -> bytes | None:
        """Return the channel binding of TLS 1.3 (RFC 9266)."""


@dataclass(frozen=True, slots=True)
class EstCaller:
    """Sender of a request, as far as the transport identifies it."""

    peer: EstPeer
    authorization: str | None = field(default=None, repr=False)
    address: str = ""
