"""Revocation of certificates, of all valid certificates of a device, and of keys; revocation checks.

A revoked key remains revoked: it is never certified again, and its other certificates are revoked as well. Only for
`superseded` does the key remain valid, because that reason does not indicate a problem with it (RFC 5280 section
5.3.1).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm

from birthmark.auth.principals import Principal
from birthmark.ca import store
from birthmark.ca.domain_events import CertificateRevoked
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.model import IssuedCertificate, key_digest
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ConflictError, NotFoundError, UnauthenticatedError, UnavailableError
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.names_and_registration_ids import fold
from birthmark.pki.path_validation import MAX_BAG, MAX_DEPTH, SignatureCache, Signatures
from birthmark.store import Changes, Database, Statement, from_micros, retry_on_conflict, to_micros
from birthmark.store.database import Row
from birthmark.store.reloading_cache import RowCache

ATTEMPTS = 5
PAGE = 100
"""Certificates per page."""
_LAST = b"\xff" * 32
"""Highest possible thumbprint."""


class CertificateUnknownError(NotFoundError):
    """This CA issued no such certificate."""

    code = "ca.certificate_unknown"
    cause = "The CA's inventory has no certificate {wanted}."
    fix = (
        "To list issued certificates by thumbprint, serial number or device ID: `birthmark ca show --dir ca` (or use "
        "that CA's directory). To revoke a CA, pass its certificate: `birthmark pki revoke --key-of FILE`."
    )
    wanted: str


class DeviceNotAliveError(NotFoundError):
    """The device has no valid certificate."""

    code = "ca.device_not_alive"
    cause = "'{name}' has no valid certificate: none was issued, or the last was revoked."
    fix = (
        "To list the device's certificates: `birthmark pki ls {name}`. To revoke its other credentials (passwords, "
        "symmetric keys, enrollments) and close its connections: `birthmark device revoke {name}`."
    )
    name: str


class CertificateRevokedError(UnauthenticatedError):
    """The certificate was revoked."""

    code = "ca.certificate_revoked"
    cause = "The certificate {thumbprint} of '{device_id}' is no longer valid: {what} was revoked at {revoked_at}."
    fix = (
        "If you trust the device again, create a device-specific password for the enrollment of a new key: "
        "`birthmark env --format aziot --registration-id {device_id}`. An agent enrolls when it applies the "
        "configuration that this command prints."
    )
    device_id: str
    revoked_at: object
    thumbprint: str
    what: str


class IssuerRevokedError(UnavailableError):
    """The CA was revoked."""

    code = "ca.revoked"
    cause = "Either '{subject}', which signs for this server, or the CA above it was revoked at {revoked_at}."
    fix = (
        "A revocation is permanent. If the devices can continue to use the revoked CA, roll over the root as "
        "described in docs/howto/root-rollover.md. Otherwise, create a CA in another data directory: `export "
        "BIRTHMARK_DATA=~/.local/share/birthmark-2`. Start the server with that directory, and enroll every device "
        "there."
    )
    revoked_at: str
    subject: str


class AlreadyRevokedError(ConflictError):
    """The certificate is already revoked."""

    code = "ca.already_revoked"
    cause = "The certificate {wanted} is already revoked."
    fix = "No action is needed. To show the time of revocation: `birthmark pki ls {wanted}`."
    wanted: str


class NameMovedError(ConflictError):
    """The certificates of this name have changed since they were read."""

    code = "ca.name_moved"
    cause = (
        "Concurrent requests issued or revoked certificates of '{name}' faster than the server could process this "
        "request."
    )
    fix = "Retry: other requests used the same name at the same time."
    name: str


@dataclass(frozen=True, slots=True)
class ForeignRevocation:
    """A certificate of another CA that was revoked here."""

    thumbprint: Thumbprint
    at: datetime
    reason: RevocationReason


OnRecord = Callable[[bytes], Awaitable[Sequence[Certificate]]]


@dataclass(slots=True)
class Revocations:
    """Revocations by the CA of this database."""

    hierarchy: Hierarchy
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    on_record: OnRecord | None = field(default=None, repr=False)
    _signatures: SignatureCache = field(default_factory=SignatureCache, repr=False)
    _remembered: RowCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._remembered = RowCache(self.database, CertificateRevoked)

    async def check(self, leaf: Certificate, bag: Sequence[Certificate] = ()) -> None:
        """Raise `CertificateRevokedError` if `leaf`, its key, or a CA above it was revoked here.

        `bag` has the certificates sent with it; this server's CAs and registered CAs are known. Raise
        `TooMuchWorkError` for a bag with an excessive number of candidate issuers. The check costs one lookup while no
        CA is revoked.
        """
        row = await self.database.one(store.REVOCATION, **store.wanted(leaf), key_digest=digest_of(leaf))
        await self.check_found(leaf, None if row is None else row["revoked_at"], bag)

    async def check_found(self, leaf: Certificate, revoked_at: int | None, bag: Sequence[Certificate] = ()) -> None:
        """Raise the errors of `check`, given the revocation time of the certificate or its key.

        The caller has read that time before.
        """
        if revoked_at is not None:
            raise _revoked(leaf, "it or its key", revoked_at)
        await self._check_above(leaf, bag)

    async def _check_above(self, leaf: Certificate, bag: Sequence[Certificate]) -> None:
        if not await self._remembered.all(store.ANY_REVOKED_CA, dict):
            return
        verdicts = Signatures(self._signatures)
        rest = {one.thumbprint: one for one in (*bag[:MAX_BAG], *self.hierarchy.certificates)}
        seen, level = {leaf.thumbprint}, [leaf]
        for _ in range(MAX_DEPTH):
            issuers = {below.issuer_der for below in level}
            for authority, at in [one for issuer in issuers for one in await self._revoked_cas(issuer)]:
                if any(_issued(authority, one, verdicts) for one in level):
                    raise _revoked(leaf, f"the CA '{authority.subject_text}'", at)
            # Revoke all with this name and key, not only the first: extra certificates from a device must not hide its
            # CA.
            rest |= {one.thumbprint: one for one in await self._named(issuers)}
            level = [
                one
                for one in rest.values()
                if one.thumbprint not in seen and any(_issued(one, below, verdicts) for below in level)
            ]
            seen |= {one.thumbprint for one in level}
            for one in level:
                for row in await self._remembered.all(store.REVOKED_CA, dict, key_digest=digest_of(one)):
                    raise _revoked(leaf, f"the CA '{one.subject_text}'", row["revoked_at"])
            if not level:
                return

    async def _revoked_cas(self, subject: bytes) -> Sequence[tuple[Certificate, int]]:
        """Return the revoked CAs with a subject (DER), and when they were revoked."""
        wanted = store.subject_digest(subject)
        found = await self._remembered.all(store.REVOKED_CAS_NAMED, _revoked_ca, subject_digest=wanted)
        return [one for one in found if one[0].subject_der == subject]

    async def _named(self, subjects: set[bytes]) -> list[Certificate]:
        if self.on_record is None:
            return []
        return [one for subject in subjects for one in await self.on_record(subject)]

    async def check_issuer(self, issuer: Certificate) -> None:
        """Raise `IssuerRevokedError` if the CA that is about to sign, or a CA above it, was revoked."""
        digest = digest_of(issuer)
        try:
            for row in await self._remembered.all(store.REVOCATION, dict, **store.wanted(issuer), key_digest=digest):
                raise _revoked(issuer, "it or its key", row["revoked_at"])
            await self._check_above(issuer, ())
        except CertificateRevokedError as error:
            at = error.facts["revoked_at"]
            raise IssuerRevokedError(subject=issuer.subject_text, revoked_at=at) from error

    async def certificate(
        self, thumbprint: Thumbprint, principal: Principal, reason: RevocationReason = RevocationReason.UNSPECIFIED
    ) -> tuple[IssuedCertificate, ...]:
        """Revoke a certificate, its key and all other certificates of that key.

        Return them as they were before.

        Raise `CertificateUnknownError`, `AlreadyRevokedError`.
        """

        async def targets() -> list[IssuedCertificate]:
            first = await self._find(thumbprint)
            if first is None:
                raise CertificateUnknownError(wanted=thumbprint.hex())
            if first.is_revoked:
                raise AlreadyRevokedError(wanted=thumbprint.hex())
            return [first, *(one for one in await self._of_keys([first], reason) if one != first)]

        taken = await self._revoke(targets, principal, reason)
        return await self._with_rest(taken, lambda: self._of_keys(taken[:1], reason), principal, reason)

    async def device(
        self, name: str, principal: Principal, reason: RevocationReason, presented: Iterable[Thumbprint] = ()
    ) -> tuple[tuple[IssuedCertificate, ...], list[Thumbprint]]:
        """Revoke a device's certificates, their keys, and the certificates in `presented`.

        These are all valid certificates, or the last one if none is valid. The name matches in any spelling. Return
        the device's revoked certificates, and the revoked ones of `presented`. Raise `DeviceNotAliveError` when there
        are none.
        """
        others = await self.presented(presented)
        await self.others(others, name, principal, reason)

        async def left() -> list[IssuedCertificate]:
            found = await self.alive(name)
            more = await self._of_keys(found, reason)
            return [*found, *(one for one in more if one not in found)]

        async def targets() -> list[IssuedCertificate]:
            found = await left()
            if not found and not others:
                raise DeviceNotAliveError(name=name)
            return found

        taken = await self._revoke(targets, principal, reason)
        return await self._with_rest(taken, left, principal, reason), others

    async def alive(self, name: str) -> list[IssuedCertificate]:
        """Return every valid certificate of a name in any spelling.

        If there is none, return the last one, which is usable for late renewal.
        """
        return await self._live(store.LIVE_OF_NAME, name=fold(name)) or await self._last(name)

    async def each_alive(self, name: str) -> AsyncIterator[IssuedCertificate]:
        """Yield the certificates of `alive`, page by page."""
        asked: dict[str, Any] = {"name": fold(name), "beyond_end": self.clock.micros(), "beyond": _LAST, "limit": PAGE}
        page = await self._live(store.LIVE_PAGE, **asked)
        for one in page or await self._last(name):
            yield one
        while page:
            await asyncio.sleep(0)  # yield to others
            last = page[-1].certificate
            asked |= {"beyond_end": to_micros(last.not_after), "beyond": last.thumbprint}
            page = await self._live(store.LIVE_PAGE, **asked)
            for one in page:
                yield one

    async def presented(self, thumbprints: Iterable[Thumbprint]) -> list[Thumbprint]:
        """Return the certificates of other CAs that are not revoked by thumbprint.

        A CA of this server is never included, whatever device record names it: its revocation requires dual control.
        """
        ours = {one.thumbprint for one in self.hierarchy.certificates}
        others = [one for one in thumbprints if one not in ours and await self._find(one) is None]
        return [one for one in others if not await self.is_revoked(one)]

    async def is_revoked(self, thumbprint: Thumbprint) -> bool:
        """Return whether a certificate of any issuer was revoked.

        Another CA's certificate is identified by its thumbprint.
        """
        known = await self._find(thumbprint)
        return await self._is_key_revoked(thumbprint) if known is None else known.is_revoked

    async def taken_back(self, name: str, presented: Iterable[Thumbprint]) -> list[ForeignRevocation]:
        """Return revoked certificates of other CAs: those in `presented`, and all of a name, latest first.

        A certificate is identified by its thumbprint, even if no device has it anymore; a key by its digest.
        """
        rows = [row for one in presented if (row := await self.database.one(store.KEY, key_digest=one)) is not None]
        rows += await self.database.all(store.OTHERS_TAKEN_BACK, name=fold(name))
        found = {bytes(row["key_digest"]): row for row in rows if row["revoked_at"] is not None}
        return [
            ForeignRevocation(
                Thumbprint(digest), from_micros(row["revoked_at"]), RevocationReason(row["revocation_reason"])
            )
            for digest, row in found.items()
        ]

    async def is_lost(self, name: str) -> bool:
        """Return whether a name was revoked with its device."""
        return await self.lost_since(name) is not None

    async def lost_since(self, name: str) -> datetime | None:
        """Return since when a name is revoked with its device, or None."""
        row = await self.database.one(store.NAME, name=fold(name))
        return None if row is None or row["lost_at"] is None else from_micros(row["lost_at"])

    async def lose(self, name: str, principal: Principal, reason: RevocationReason) -> None:
        """Revoke a name: no certificate is issued for it until an operator releases it."""
        known = fold(name)
        changes = Changes().run(store.ADD_NAME, name=known, version=0, lost_at=None)
        changes.run(store.LOSE_NAME, key_name=known, lost_at=self.clock.micros())
        await self.database.commit(changes.audit(principal.actor, "name.lose", known, reason=reason.value))

    async def others(
        self, thumbprints: Sequence[Thumbprint], name: str, principal: Principal, reason: RevocationReason
    ) -> None:
        """Revoke certificates of other CAs, known only by thumbprint."""
        facts: dict[str, Any] = {"revoked_at": self.clock.micros(), "revocation_reason": reason.value}
        changes = Changes()
        for one in thumbprints:
            changes.run(store.ADD_KEY, key_digest=one, name=fold(name), revoked_at=None, revocation_reason=None)
            changes.run(store.REVOKE_KEY, key_key_digest=one, **facts)
            # Its key is unknown here, so it is revoked by its thumbprint, also after a restore.
            told = {"thumbprint": one.hex(), "key": one.hex(), "reason": reason.value}
            changes.audit(principal.actor, "certificate.revoke", fold(name), **told)
            changes.event(CertificateRevoked(fold(name), one))
        if thumbprints:
            await self.database.commit(changes)

    async def _is_key_revoked(self, digest: bytes) -> bool:
        row = await self.database.one(store.KEY, key_digest=digest)
        return row is not None and row["revoked_at"] is not None

    async def of_key(self, certificate: Certificate) -> list[IssuedCertificate]:
        """Return the valid certificates of a certificate's key, including itself."""
        return await self._live(store.LIVE_OF_KEY, key_digest=digest_of(certificate))

    async def key(
        self, certificate: Certificate, principal: Principal, reason: RevocationReason
    ) -> tuple[IssuedCertificate, ...]:
        """Revoke a certificate's key, independent of the issuer; return this CA's certificates of it.

        These are revoked as well.
        """
        digest, name = digest_of(certificate), fold(certificate.subject_cn or "")

        # The key first: from then on no certificate is issued for it.
        now = self.clock.micros()
        changes = Changes().run(store.ADD_KEY, key_digest=digest, name=name, revoked_at=None, revocation_reason=None)
        changes.run(store.REVOKE_KEY, key_key_digest=digest, revoked_at=now, revocation_reason=reason.value)
        is_ca = certificate.is_ca and reason is not RevocationReason.SUPERSEDED
        if is_ca:
            changes.run(store.ADD_REVOKED_CA, **store.revoked_ca_row(certificate, digest, now))
        told = {"ca": certificate.der.hex()} if is_ca else {}  # data for revoking it again later
        changes.audit(principal.actor, "key.revoke", name, key=digest.hex(), reason=reason.value, **told)
        await self.database.commit(changes.event(CertificateRevoked(name, key=digest, is_ca=is_ca)))

        def left() -> Awaitable[list[IssuedCertificate]]:
            return self._live(store.LIVE_OF_KEY, key_digest=digest)

        return await self._with_rest(await self._revoke(left, principal, reason), left, principal, reason)

    def superseding_changes(self, unused: IssuedCertificate, actor: Principal) -> Changes:
        """Return the changes that revoke an unused certificate, for the commit that issues its successor."""
        return self._changes([unused], actor, RevocationReason.SUPERSEDED, {})

    async def _revoke(
        self, targets: Callable[[], Awaitable[list[IssuedCertificate]]], principal: Principal, reason: RevocationReason
    ) -> tuple[IssuedCertificate, ...]:
        async def attempt() -> tuple[IssuedCertificate, ...]:
            names: dict[str, int] = {}
            # The versions first: a later issuance makes the commit fail, and the next read includes it.
            while (found := await targets()) and not names.keys() >= (wanted := {fold(one.device_id) for one in found}):
                names |= {name: await self._version(name) for name in wanted - names.keys()}
            await self.database.commit(self._changes(found, principal, reason, names))
            return tuple(found)

        return await retry_on_conflict(attempt, after=NameMovedError, attempts=ATTEMPTS)

    async def _with_rest(
        self,
        certificates: tuple[IssuedCertificate, ...],
        left: Callable[[], Awaitable[list[IssuedCertificate]]],
        principal: Principal,
        reason: RevocationReason,
    ) -> tuple[IssuedCertificate, ...]:
        """Revoke the remaining certificates page by page; return all that were revoked."""
        while await left():
            certificates += await self._revoke(left, principal, reason)
        return certificates

    async def _version(self, name: str) -> int:
        row = await self.database.one(store.NAME, name=name)
        return 0 if row is None else int(row["version"])

    def _changes(
        self,
        certificates: Sequence[IssuedCertificate],
        principal: Principal,
        reason: RevocationReason,
        names: Mapping[str, int],
    ) -> Changes:
        changes, now = Changes(), self.clock.micros()
        for name, version in names.items():
            moved = NameMovedError(name=name)
            changes.run(store.ADD_NAME, name=name, version=0, lost_at=None)
            changes.run(store.MOVE_NAME, expect=1, otherwise=moved, key_name=name, key_version=version)
        facts: dict[str, Any] = {"revoked_at": now, "revocation_reason": reason.value}
        for one in certificates:
            thumbprint, digest = one.certificate.thumbprint, digest_of(one.certificate)
            moved = NameMovedError(name=one.device_id)
            changes.run(store.REVOKE, expect=1, otherwise=moved, key_thumbprint=thumbprint, **facts)
            changes.run(store.SPOIL_CRL, key_thumbprint=thumbprint)
            changes.merge(store.counted(one, store.VALID, -1)).merge(store.counted(one, store.TAKEN_BACK))
            is_ca = one.certificate.is_ca and reason is not RevocationReason.SUPERSEDED
            if reason is not RevocationReason.SUPERSEDED:
                changes.run(store.REVOKE_KEY, key_key_digest=digest, **facts)
            if is_ca:
                changes.run(store.ADD_REVOKED_CA, **store.revoked_ca_row(one.certificate, digest, now))
            told = {"thumbprint": thumbprint.hex(), "reason": reason.value}
            told |= {} if reason is RevocationReason.SUPERSEDED else {"key": digest.hex()}
            told |= {"ca": one.certificate.der.hex()} if is_ca else {}  # data for revoking it again by both
            changes.audit(principal.actor, "certificate.revoke", one.device_id, **told)
            key = b"" if reason is RevocationReason.SUPERSEDED else digest
            changes.event(CertificateRevoked(one.device_id, thumbprint, key, is_ca))
        return changes

    async def _of_keys(
        self, certificates: Sequence[IssuedCertificate], reason: RevocationReason
    ) -> list[IssuedCertificate]:
        if reason is RevocationReason.SUPERSEDED:
            return []
        more: dict[Thumbprint, IssuedCertificate] = {}
        for digest in dict.fromkeys(digest_of(one.certificate) for one in certificates):
            more |= {one.certificate.thumbprint: one for one in await self._live(store.LIVE_OF_KEY, key_digest=digest)}
        return list(more.values())

    async def _live(self, statement: Statement, **key: object) -> list[IssuedCertificate]:
        rows = await self.database.all(statement, after=self.clock.micros(), **key)
        return [store.INVENTORY.of(row) for row in rows]

    async def _last(self, name: str) -> list[IssuedCertificate]:
        """Return the last expired certificate of a name, unless it was revoked.

        An offline device may use it for late renewal.
        """
        rows = await self.database.all(store.BY_DEVICE, name=fold(name))
        return [one for one in map(store.INVENTORY.of, rows[:1]) if not one.is_revoked]

    async def _find(self, thumbprint: Thumbprint) -> IssuedCertificate | None:
        row = await self.database.one(store.BY_THUMBPRINT, thumbprint=thumbprint)
        return None if row is None else store.INVENTORY.of(row)


def digest_of(certificate: Certificate) -> bytes:
    """Return the digest of a certificate's key; of the complete certificate if its key type is not supported."""
    try:
        return key_digest(certificate.spki_der)
    except (ValueError, UnsupportedAlgorithm):
        return certificate.thumbprint


def _revoked_ca(row: Row) -> tuple[Certificate, int]:
    return parse_der(row["der"]), row["revoked_at"]


def _revoked(leaf: Certificate, what: str, at_micros: int) -> CertificateRevokedError:
    return CertificateRevokedError(
        thumbprint=leaf.thumbprint.hex(),
        device_id=leaf.subject_cn or leaf.subject_text,
        what=what,
        revoked_at=from_micros(at_micros),
    )


def _issued(authority: Certificate, certificate: Certificate, verdicts: Signatures) -> bool:
    return authority.subject_der == certificate.issuer_der and verdicts.is_signed_by(certificate, authority)
