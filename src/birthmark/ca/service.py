"""The certificate authority at work: decide, sign, record, and only then hand out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from birthmark.auth.principals import Principal
from birthmark.ca import store
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.model import Issued
from birthmark.ca.rules.issuance import decide
from birthmark.clock import Clock, Entropy
from birthmark.errors import ConflictError, NotFoundError, UnauthenticatedError
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.crl import Revocation, RevocationReason, build_crl
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.issue import Issuer, issue, new_serial
from birthmark.pki.profiles import DEVICE, Profile
from birthmark.store import Changes, Database, from_micros, to_micros
from birthmark.store.database import Row

CRL_LIFETIME = timedelta(days=7)
# An entry stays on one list after its certificate expired (RFC 5280 section 3.3).
_LINGER = CRL_LIFETIME


class CertificateUnknownError(NotFoundError):
    """This CA issued no such certificate."""

    code = "ca.certificate_unknown"
    cause = "The CA's inventory has no certificate {wanted}."
    fix = "Look it up with `birthmark ca show`: by thumbprint, serial number or device id."


class CertificateRevokedError(UnauthenticatedError):
    """A certificate of this CA that was taken back."""

    code = "ca.certificate_revoked"
    cause = "The certificate {thumbprint} of '{device_id}' was revoked at {revoked_at}."
    fix = "Issue a new one if the device is to be trusted again: by its chip's own certificate, or a new EST password."


class AlreadyRevokedError(ConflictError):
    """The certificate is revoked already."""

    code = "ca.already_revoked"
    cause = "The certificate {wanted} was revoked before."
    fix = "Nothing needs to be done: it is on the revocation list until it expires."


@dataclass(slots=True)
class CertificateAuthority:
    """Issues from a hierarchy and remembers it in a database."""

    hierarchy: Hierarchy
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    lifetimes: dict[str, timedelta] = field(default_factory=dict)
    """By profile name, where it differs from the profile's own."""

    async def issue(
        self,
        request: CertificateRequest,
        principal: Principal,
        profile: Profile = DEVICE,
        *,
        san: Sequence[x509.GeneralName] = (),
        lifetime: timedelta | None = None,
    ) -> tuple[Certificate, ...]:
        """Return the new certificate and the CAs above it, root last, once all of it is on record.

        Raise `PolicyError`, `ForbiddenError` or `ConflictError` from `rules.issuance`.
        """
        key_digest = hashlib.sha256(request.spki_der).digest()
        holders = await self.database.all(store.HOLDERS_OF_KEY, key_digest=key_digest)
        device_id = decide(request, principal, profile, [row["device_id"] for row in holders])
        issuer, above = self._issuer_for(profile)
        certificate = issue(
            profile,
            request.subject,
            request.public_key,
            issuer=issuer,
            serial=new_serial(self.entropy),
            now=self.clock.now(),
            lifetime=lifetime or self.lifetimes.get(profile.name),
            san=san,
        )
        await self.database.commit(
            _issued(
                certificate,
                issuer=issuer,
                device_id=device_id,
                key_digest=key_digest,
                profile=profile,
                principal=principal,
            )
        )
        return (certificate, *above)

    async def find(self, thumbprint: Thumbprint) -> Issued | None:
        """Return what was issued under this thumbprint, if it was."""
        row = await self.database.one(store.BY_THUMBPRINT, thumbprint=thumbprint)
        return None if row is None else store.issued_of(row)

    async def check_not_revoked(self, certificate: Certificate) -> None:
        """Raise `CertificateRevokedError` for a certificate that this CA issued and took back."""
        issued = await self.find(certificate.thumbprint)
        if issued is not None and issued.is_revoked:
            raise CertificateRevokedError(
                "The certificate was revoked.",
                thumbprint=certificate.thumbprint.hex(),
                device_id=issued.device_id,
                revoked_at=issued.revoked_at,
            )

    async def search(self, wanted: str) -> list[Issued]:
        """Return what fits a thumbprint, a serial number (both in hex) or a device id, newest first."""
        rows = list(await self.database.all(store.BY_DEVICE, device_id=wanted))
        plain = wanted.replace(":", "").lower()
        try:
            number = bytes.fromhex(plain if len(plain) % 2 == 0 else "0" + plain)
        except ValueError:
            return [store.issued_of(row) for row in rows]
        rows += await self.database.all(store.BY_THUMBPRINT, thumbprint=number)
        rows += await self.database.all(store.BY_SERIAL, serial=f"{int.from_bytes(number):x}")
        return [store.issued_of(row) for row in rows]

    async def latest(self, limit: int = 100) -> list[Issued]:
        """Return the inventory, those that live longest first."""
        return [store.issued_of(row) for row in await self.database.all(store.LATEST, limit=limit)]

    async def revoke(
        self,
        thumbprint: Thumbprint,
        principal: Principal,
        reason: RevocationReason = RevocationReason.UNSPECIFIED,
    ) -> Issued:
        """Revoke for good. Raise `CertificateUnknownError` or `AlreadyRevokedError`."""
        wanted = thumbprint.hex()
        known = await self.find(thumbprint)
        if known is None:
            raise CertificateUnknownError("This CA issued no such certificate.", wanted=wanted)
        changes = Changes().run(
            store.REVOKE,
            expect=1,
            otherwise=AlreadyRevokedError("The certificate is revoked already.", wanted=wanted),
            key_thumbprint=thumbprint,
            revoked_at=to_micros(self.clock.now()),
            revocation_reason=reason.value,
        )
        changes.audit(principal.actor, "certificate.revoke", known.device_id, thumbprint=wanted, reason=reason.value)
        changes.event("certificate.revoked", device_id=known.device_id, thumbprint=wanted, reason=reason.value)
        await self.database.commit(changes)
        return known

    async def crl(self, issuer: Issuer | None = None) -> bytes:
        """Return the DER revocation list of `issuer` (default: the issuing CA), made anew when something changed."""
        issuer = issuer or self.hierarchy.issuing
        name = issuer.certificate.thumbprint
        now = self.clock.now()
        rows = await self.database.all(store.REVOKED, issuer=name, after=to_micros(now - _LINGER))
        last = await self.database.one(store.CRL, issuer=name)
        if last is not None and not _is_stale(last["made_at"], last["next_update"], rows, now):
            der: bytes = last["der"]
            return der
        number = 1 if last is None else last["number"] + 1
        revocations = [
            Revocation(
                int(row["serial"], 16), from_micros(row["revoked_at"]), RevocationReason(row["revocation_reason"])
            )
            for row in rows
        ]
        made = build_crl(issuer, revocations, number=number, now=now, lifetime=CRL_LIFETIME)
        await self.database.commit(
            Changes().run(
                store.SAVE_CRL,
                issuer=name,
                number=number,
                made_at=to_micros(now),
                next_update=to_micros(now + CRL_LIFETIME),
                der=made,
            )
        )
        return made

    def _issuer_for(self, profile: Profile) -> tuple[Issuer, tuple[Certificate, ...]]:
        """A CA certificate comes from the root, as the issuing CA's path length is 0."""
        if profile.is_ca:
            return self.hierarchy.root, self.hierarchy.anchors
        return self.hierarchy.issuing, self.hierarchy.certificates


def _issued(
    certificate: Certificate,
    *,
    issuer: Issuer,
    device_id: str,
    key_digest: bytes,
    profile: Profile,
    principal: Principal,
) -> Changes:
    thumbprint = certificate.thumbprint.hex()
    return (
        Changes()
        .run(
            store.ADD,
            thumbprint=certificate.thumbprint,
            issuer=issuer.certificate.thumbprint,
            serial=f"{certificate.serial:x}",
            device_id=device_id,
            key_digest=key_digest,
            profile=profile.name,
            requested_by=principal.actor,
            not_after=to_micros(certificate.not_after),
            der=certificate.der,
            revoked_at=None,
            revocation_reason=None,
        )
        .audit(
            principal.actor,
            "certificate.issue",
            device_id,
            thumbprint=thumbprint,
            serial=f"{certificate.serial:x}",
            profile=profile.name,
            key=key_digest.hex(),
        )
        .event("certificate.issued", device_id=device_id, thumbprint=thumbprint, profile=profile.name)
    )


def _is_stale(made_at: int, next_update: int, revoked: Sequence[Row], now: datetime) -> bool:
    """A list is made anew at once after a revocation and latest after half of its life."""
    half = made_at + (next_update - made_at) // 2
    return to_micros(now) >= half or any(row["revoked_at"] >= made_at for row in revoked)
