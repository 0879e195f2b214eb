"""What the CA remembers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.crl import RevocationReason

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
    """The certificate that was shown to get this one, when it was one."""
    registered_at: datetime | None = None
    """When it first was a device's proof at a provisioning service of this installation."""

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None


@dataclass(frozen=True, slots=True)
class LiveCertificate:
    """One that holds a name now: not revoked, not expired, not let go by the operator."""

    thumbprint: Thumbprint
    device_id: str
    """The name as it is spelled in the certificate."""
    key_digest: bytes


@dataclass(frozen=True, slots=True)
class SubjectStatus:
    """What is on record about the key and the name of a request when it is decided."""

    key_holder: str | None = None
    """The name that holds the key, folded."""
    key_revoked_at: datetime | None = None
    live: Sequence[LiveCertificate] = ()
    """Those of the name; of the same key and spelling none need be told."""
    version: int = 0
    """Of the name; the commit asks that it is still this one."""
    lost_at: datetime | None = None
    """When the name was taken back with its device."""
    alive: int = 0
    """How many certificates of the name are alive, counted as far as is asked."""


def key_digest(spki_der: bytes) -> bytes:
    """Return the SHA-256 by which a public key (SubjectPublicKeyInfo, DER) is known here."""
    return _digest(spki_der) if len(spki_der) <= _MAX_KEPT_BYTES else _digest_anew(spki_der)


def _digest_anew(spki_der: bytes) -> bytes:
    return hashlib.sha256(spki_der).digest()


_digest = lru_cache(maxsize=256)(_digest_anew)  # a key is asked for again and again while its request is decided
