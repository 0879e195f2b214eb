"""Taking back: a certificate, everything alive of a device, a key; and saying whether something was taken back.

A key that is revoked stays revoked: it is never certified again, and other certificates of it go with it. Only
`superseded` says that nothing is wrong with the key (RFC 5280 section 5.3.1), so there the key stays good.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm

from birthmark.auth.principals import Principal
from birthmark.ca import store
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.model import Issued, key_digest
from birthmark.clock import Clock
from birthmark.errors import ConflictError, NotFoundError, UnauthenticatedError
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der
from birthmark.pki.chains import MAX_BAG, MAX_DEPTH, SignatureCache
from birthmark.pki.crl import RevocationReason
from birthmark.pki.names import fold
from birthmark.pki.profiles import PROFILES
from birthmark.store import Changes, Database, from_micros, to_micros

REVOKED = "certificate.revoked"
_ATTEMPTS = 5


class CertificateUnknownError(NotFoundError):
    """This CA issued no such certificate."""

    code = "ca.certificate_unknown"
    cause = "The CA's inventory has no certificate {wanted}."
    fix = (
        "See what was issued: `birthmark ca show --dir ca` (or the directory of that CA), by thumbprint, serial "
        "number or device id."
    )


class DeviceNotAliveError(NotFoundError):
    """No live certificate bears the name."""

    code = "ca.device_not_alive"
    cause = "No certificate of '{name}' is alive: none was issued, or all have ended or were revoked."
    fix = "`birthmark est certificates {name}` lists what was issued for it."


class CertificateRevokedError(UnauthenticatedError):
    """A certificate, its key or a CA above it was taken back."""

    code = "ca.certificate_revoked"
    cause = "The certificate {thumbprint} of '{device_id}' is not good any more: {what} was revoked at {revoked_at}."
    fix = (
        "If the device is to be trusted again, let it get another by a password of its own, with a new key: "
        "`birthmark env --format aziot --registration-id {device_id}`."
    )


class AlreadyRevokedError(ConflictError):
    """The certificate is revoked already."""

    code = "ca.already_revoked"
    cause = "The certificate {wanted} was revoked before."
    fix = "Nothing needs to be done; `birthmark est certificates {wanted}` shows since when."


class NameMovedError(ConflictError):
    """Something was issued or revoked between the look and the commit; another look decides."""

    code = "ca.name_moved"
    cause = "Certificates of '{name}' are issued or revoked faster than this request could be decided."
    fix = "Nothing: send the request again."


@dataclass(slots=True)
class Revocations:
    """What was taken back by the CA of this database."""

    hierarchy: Hierarchy
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    _signatures: SignatureCache = field(default_factory=SignatureCache, repr=False)

    async def check(self, leaf: Certificate, bag: Sequence[Certificate] = ()) -> None:
        """Raise `CertificateRevokedError` if `leaf`, its key, or a CA above it was revoked here.

        `bag` is what came with it; CAs issued here are known without. Costs two look-ups while no CA is revoked.
        """
        row = await self.database.one(store.REVOCATION, thumbprint=leaf.thumbprint, key_digest=digest_of(leaf))
        if row is not None:
            raise _revoked(leaf, "it or its key", row["revoked_at"])
        root = self.hierarchy.root.certificate
        if await self.database.one(store.IS_A_CA_REVOKED, issuer=root.thumbprint) is None:
            return
        rows = await self.database.all(store.CAS, issuer=root.thumbprint)
        revoked = [(parse_der(row["der"]), row["revoked_at"]) for row in rows if row["revoked_at"] is not None]
        known = [*bag[:MAX_BAG], *(parse_der(row["der"]) for row in rows)]
        current = leaf
        for _ in range(MAX_DEPTH):
            for authority, at in revoked:
                if self._issued(authority, current):
                    raise _revoked(leaf, f"the CA '{authority.subject_text}'", at)
            above = next((one for one in known if one != current and self._issued(one, current)), None)
            if above is None:
                return
            current = above

    async def certificate(
        self, thumbprint: Thumbprint, principal: Principal, reason: RevocationReason
    ) -> tuple[Issued, ...]:
        """Revoke one, and with its key all others of that key. Raise `CertificateUnknownError`, `AlreadyRevokedError`.

        Return what was revoked, as it was before.
        """

        async def targets() -> list[Issued]:
            first = await self._find(thumbprint)
            if first is None:
                raise CertificateUnknownError("This CA issued no such certificate.", wanted=thumbprint.hex())
            if first.is_revoked:
                raise AlreadyRevokedError("The certificate is revoked already.", wanted=thumbprint.hex())
            return [first, *(one for one in await self._of_keys([first], reason) if one != first)]

        return await self._revoke(targets, principal, reason)

    async def device(self, name: str, principal: Principal, reason: RevocationReason) -> tuple[Issued, ...]:
        """Revoke every live certificate of a name, in any spelling, and their keys. Raise `DeviceNotAliveError`."""

        async def targets() -> list[Issued]:
            rows = await self.database.all(store.LIVE_OF_NAME, name=fold(name), after=to_micros(self.clock.now()))
            found = [one for row in rows if (one := await self._find(row["thumbprint"])) is not None]
            if not found:
                raise DeviceNotAliveError("No certificate of that device is alive.", name=name)
            more = await self._of_keys(found, reason)
            return [*found, *(one for one in more if one not in found)]

        return await self._revoke(targets, principal, reason)

    async def key(self, certificate: Certificate, principal: Principal, reason: RevocationReason) -> tuple[Issued, ...]:
        """Revoke the key of a certificate, whoever issued it, and what this CA certified of it. Return the latter."""
        digest, name = digest_of(certificate), fold(certificate.subject_cn or "")

        async def targets() -> list[Issued]:
            now = to_micros(self.clock.now())
            rows = await self.database.all(store.LIVE_OF_KEY, key_digest=digest, after=now)
            return [one for row in rows if (one := await self._find(row["thumbprint"])) is not None]

        # The key first: from then on nobody gets a certificate for it.
        now = to_micros(self.clock.now())
        changes = Changes().run(store.ADD_KEY, key_digest=digest, name=name, revoked_at=None, revocation_reason=None)
        changes.run(store.REVOKE_KEY, key_key_digest=digest, revoked_at=now, revocation_reason=reason.value)
        changes.audit(principal.actor, "key.revoke", name, key=digest.hex(), reason=reason.value)
        await self.database.commit(changes.event(REVOKED, device_id=name, thumbprint="", key=digest.hex(), ca=False))
        return await self._revoke(targets, principal, reason)

    async def _revoke(
        self, targets: Callable[[], Awaitable[list[Issued]]], principal: Principal, reason: RevocationReason
    ) -> tuple[Issued, ...]:
        last: ConflictError | None = None
        for _ in range(_ATTEMPTS):
            names: dict[str, int] = {}
            # The versions first: what is issued after this look makes the commit fail, and the next look takes it too.
            while (found := await targets()) and not names.keys() >= (wanted := {fold(one.device_id) for one in found}):
                names |= {name: await self._version(name) for name in wanted - names.keys()}
            try:
                await self.database.commit(self._changes(found, principal, reason, names))
            except NameMovedError as moved:
                last = moved
                continue
            return tuple(found)
        raise last or NameMovedError("Certificates changed meanwhile.", name="?")

    async def _version(self, name: str) -> int:
        row = await self.database.one(store.NAME, name=name)
        return 0 if row is None else int(row["version"])

    def _changes(
        self, found: Sequence[Issued], principal: Principal, reason: RevocationReason, names: Mapping[str, int]
    ) -> Changes:
        changes, now = Changes(), to_micros(self.clock.now())
        for name, version in names.items():
            moved = NameMovedError("Certificates changed meanwhile.", name=name)
            changes.run(store.ADD_NAME, name=name, version=0)
            changes.run(store.MOVE_NAME, expect=1, otherwise=moved, key_name=name, key_version=version)
        facts: dict[str, Any] = {"revoked_at": now, "revocation_reason": reason.value}
        for one in found:
            thumbprint, digest = one.certificate.thumbprint, digest_of(one.certificate)
            moved = NameMovedError("Certificates changed meanwhile.", name=one.device_id)
            changes.run(store.REVOKE, expect=1, otherwise=moved, key_thumbprint=thumbprint, **facts)
            if reason is not RevocationReason.SUPERSEDED:
                changes.run(store.REVOKE_KEY, key_key_digest=digest, **facts)
            wanted = thumbprint.hex()
            changes.audit(principal.actor, "certificate.revoke", one.device_id, thumbprint=wanted, reason=reason.value)
            changes.event(
                REVOKED,
                device_id=one.device_id,
                thumbprint=wanted,
                key="" if reason is RevocationReason.SUPERSEDED else digest.hex(),
                ca=PROFILES[one.profile].is_ca if one.profile in PROFILES else one.certificate.is_ca,
            )
        return changes

    async def _of_keys(self, found: Sequence[Issued], reason: RevocationReason) -> list[Issued]:
        if reason is RevocationReason.SUPERSEDED:
            return []
        more: dict[Thumbprint, Issued] = {}
        for digest in dict.fromkeys(digest_of(one.certificate) for one in found):
            rows = await self.database.all(store.LIVE_OF_KEY, key_digest=digest, after=to_micros(self.clock.now()))
            for row in rows:
                if (one := await self._find(row["thumbprint"])) is not None:
                    more[one.certificate.thumbprint] = one
        return list(more.values())

    async def _find(self, thumbprint: Thumbprint) -> Issued | None:
        row = await self.database.one(store.BY_THUMBPRINT, thumbprint=thumbprint)
        return None if row is None else store.issued_of(row)

    def _issued(self, authority: Certificate, certificate: Certificate) -> bool:
        return authority.subject == certificate.issuer and self._signatures.is_signed_by(certificate, authority)


def digest_of(certificate: Certificate) -> bytes:
    """Return the digest of a certificate's key; of the whole certificate for a key that nobody here can read."""
    try:
        return key_digest(certificate.spki_der)
    except (ValueError, UnsupportedAlgorithm):
        return certificate.thumbprint


def _revoked(leaf: Certificate, what: str, at_micros: int) -> CertificateRevokedError:
    return CertificateRevokedError(
        "The certificate was revoked.",
        thumbprint=leaf.thumbprint.hex(),
        device_id=leaf.subject_cn or leaf.subject_text,
        what=what,
        revoked_at=from_micros(at_micros),
    )
