"""What the EST server knows about those who may ask."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from birthmark.pki.certificates import Certificate
from birthmark.pki.profiles import DEVICE, Profile


@dataclass(frozen=True, slots=True)
class User:
    """Whoever knows the password may get a certificate for `device_id`, or for any device when it is None."""

    name: str
    password_hash: str = field(repr=False)
    device_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BootstrapCa:
    """Certificates of this CA introduce devices. `any_name`: also under another name than their own."""

    certificate: Certificate
    any_name: bool


@dataclass(frozen=True, slots=True)
class EstSettings:
    """How this server behaves."""

    labels: Mapping[str, Profile] = field(default_factory=dict)
    """Path segments before the operation, each with the profile it issues; without a label it is `profile`."""
    profile: Profile = DEVICE
    expired_grace: timedelta = timedelta(0)
    """How long after its end a certificate issued here still proves who a device is, to renew it."""
    csr_attributes: bytes | None = None
    """DER of CsrAttrs to hand out (`wire.render_csr_attributes`); None answers 204."""


class Peer(Protocol):
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
class Caller:
    """Who sent a request, as far as the transport can tell."""

    peer: Peer
    authorization: str | None = field(default=None, repr=False)
    address: str = ""
