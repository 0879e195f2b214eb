"""Records of the CA."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.crl_encoder import RevocationReason

_MAX_KEPT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate in the inventory."""

    certificate: Certificate
    device_id: str
    profile: str
    requested_by: str
    revoked_at: datetime | None = None
    revocation_reason: RevocationReason | None = None
    parent: Thumbprint | None = None
    """Certificate that authenticated the request for this one, if any."""
    registered_at: datetime | None = None
    """Time of its first use as attestation at a provisioning service of this installation."""

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None


@dataclass(frozen=True, slots=True)
class LiveCertificate:
    """A certificate that holds a name now: not revoked, not expired, not released by the operator."""

    thumbprint: Thumbprint
    device_id: str
    """Device ID, as spelled in the certificate."""
    key_digest: bytes


@dataclass(frozen=True, slots=True)
class SubjectStatus:
    """State of a request's key and name at decision time."""

    key_holder: str | None = None
    """The name that holds the key, case-folded."""
    key_revoked_at: datetime | None = None
    live: Sequence[LiveCertificate] = ()
    """Live certificates of the name; those with the same key and spelling may be omitted."""
    version: int = 0
    """Version of the name; the commit requires it to be unchanged."""
    lost_at: datetime | None = None
    """When the name was revoked with its device."""
    alive: int = 0
    """Number of valid certificates of the name, counted up to the requested limit."""


def key_digest(spki_der: bytes) -> bytes:
    """Return the SHA-256 digest that identifies a public key (SubjectPublicKeyInfo, DER)."""
    return _digest(spki_der) if len(spki_der) <= _MAX_KEPT_BYTES else _compute_digest(spki_der)


def _compute_digest(spki_der: bytes) -> bytes:
    return hashlib.sha256(spki_der).digest()


_digest = lru_cache(maxsize=256)(_compute_digest)  # a key is hashed repeatedly while its request is decided
