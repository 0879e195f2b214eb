"""Certificate authority service: decide, sign, record, and return the certificate after the commit."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from cryptography import x509

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import store
from birthmark.ca.crls import RevocationLists
from birthmark.ca.domain_events import CertificateIssued
from birthmark.ca.external_ca_port import ExternalCa, issuer_of
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.model import IssuedCertificate, LiveCertificate, SubjectStatus, key_digest
from birthmark.ca.pkcs11_keys import run_signing
from birthmark.ca.revocation import ATTEMPTS, NameMovedError, OnRecord, Revocations, digest_of
from birthmark.ca.rules.certificate_name_policy import (
    ca_subject,
    check_taken_over,
    granted_names,
    granted_serial_number,
    granted_subject,
    names_in,
)
from birthmark.ca.rules.issuance_eligibility import check_alive, decide, name_asked_for
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ConflictError, NotFoundError
from birthmark.pki.certificate_profiles import (
    DEVICE,
    EDGE_ISSUING_CA,
    FOR_REQUESTS,
    ISSUING_CA,
    CertificateProfile,
    Purpose,
)
from birthmark.pki.certificates import Certificate, Thumbprint, is_signed_by
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.issuance import BACKDATING, LeafIssuer, issue, new_serial
from birthmark.pki.names_and_registration_ids import fold
from birthmark.pki.revocation_urls import DistributionPoints
from birthmark.store import Changes, Database, device_name_prefix_index, from_micros, retry_on_conflict, to_micros

_NAMED = 10


class ProfileUnknownError(NotFoundError):
    """The certificate profile does not exist."""

    code = "ca.profile_unknown"
    message = "The certificate profile '{name}' does not exist; existing profiles: {known}"
    cause = (
        "The certificate profile '{name}' does not exist; existing profiles: {known}. To add a profile, add a "
        "[ca.profiles.NAME] table to the configuration."
    )
    fix = "Use an existing profile: `birthmark ca issue device-1 --cert-profile device`."
    known: str
    name: str


class NameNotHeldError(NotFoundError):
    """No valid certificate has this name."""

    code = "ca.name_not_held"
    cause = (
        "No valid certificate has the name '{name}', so any client with a credential for this name can request a "
        "certificate."
    )
    fix = "To list the certificates of this name: `birthmark pki ls {name}`."
    name: str


def profile_of(profiles: Mapping[str, CertificateProfile], name: str) -> CertificateProfile:
    """Return the profile with that name. Raise `ProfileUnknownError`, which lists the profiles."""
    if (known := profiles.get(name)) is None:
        raise ProfileUnknownError(name=name, known=", ".join(sorted(profiles)))
    return known


@dataclass(slots=True)
class CertificateAuthority:
    """Certificate authority with a hierarchy and a database."""

    hierarchy: Hierarchy
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    lifetimes: dict[str, timedelta] = field(default_factory=dict)
    """Lifetimes by profile name that override the profile's own."""
    subject: Mapping[str, str] = field(default_factory=dict)
    """Subject attributes that the operator sets for every device, by short name (O, OU, C, ST, L)."""
    profiles: Mapping[str, CertificateProfile] = field(default_factory=lambda: FOR_REQUESTS, repr=False)
    """Profiles available to requests, by name."""
    places: DistributionPoints | None = None
    """CRL distribution points and AIA URLs of this server, if reachable by relying parties."""
    told_beyond: timedelta = timedelta(days=7)
    """Certificates with a longer lifetime contain these URLs, unless their profile overrides it."""
    own_names: tuple[x509.GeneralName, ...] = ()
    """Names of this server; a device's own CA, such as a gateway's, must not sign any of them."""
    _noted: set[Thumbprint] = field(default_factory=set, init=False, repr=False)
    upstream: ExternalCa | None = None
    """External CA that replaces the local CAs, except for server certificates."""
    on_record: OnRecord | None = field(default=None, repr=False)
    """Returns the registered CAs of other issuers with a subject (DER), so that devices need not send them."""
    revocations: Revocations = field(init=False, repr=False)
    lists: RevocationLists = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.revocations = Revocations(self.hierarchy, self.database, self.clock, self.on_record)
        self.lists = RevocationLists(self.hierarchy, self.database, self.clock)

    def profile(self, name: str) -> CertificateProfile:
        """Return the profile with that name. Raise `ProfileUnknownError`, which lists the profiles."""
        return profile_of(self.profiles, name)

    def issuer_for(self, profile: CertificateProfile) -> LeafIssuer:
        """Return the CA that signs certificates of a profile; create it on demand."""
        now = self.clock.now()
        return self.hierarchy.issuer(profile.purpose, now=now, entropy=self.entropy, points=self.places)

    def places_for(self, profile: CertificateProfile, lifetime: timedelta) -> DistributionPoints | None:
        """Return the CRL distribution points and AIA URLs of a certificate, or None."""
        is_told = lifetime > self.told_beyond if profile.revocation is None else profile.revocation
        return self.places if is_told else None

    def certificates_for(self, profile: CertificateProfile) -> tuple[Certificate, ...]:
        """Return the minimal chain above a certificate of a profile, issuer first and root last."""
        if self.upstream is not None and profile.purpose is not Purpose.SERVERS:
            return self.upstream.certificates()
        return self.hierarchy.above(self.issuer_for(profile))

    async def issue(
        self,
        request: CertificateRequest,
        principal: Principal,
        profile: CertificateProfile = DEVICE,
        *,
        san: Sequence[x509.GeneralName] = (),
        lifetime: timedelta | None = None,
        also: Callable[[Certificate], Changes | Awaitable[Changes]] = lambda _issued: Changes(),
        issued_certificate: IssuedCertificate | None = None,
        most_alive: int | None = None,
    ) -> tuple[Certificate, ...]:
        """Return the new certificate and the CAs above it, root last, after the commit.

        `san` has the operator's names; the profile decides on those in the request. The changes that `also` returns are
        part of the same commit. `held` is the presented certificate, if it was looked up already. `most_alive` limits
        the valid certificates of a name. Raise `PolicyError`, `ForbiddenError` or `ConflictError` from `rules`.
        """
        made: list[Certificate] = []  # of an external CA, requested once
        if issued_certificate is None and principal.thumbprint is not None:
            issued_certificate = await self.find(principal.thumbprint)

        async def attempt() -> tuple[Certificate, ...]:
            asked = name_asked_for(request, principal, profile)
            standing, taken_back_at = await self._standing(request, asked, issued_certificate, most_alive or 0)
            device_id = decide(request, principal, profile, standing)
            check_alive(device_id, standing.alive, most_alive)
            if issued_certificate is not None:  # revoked since authentication?
                await self.revocations.check_found(issued_certificate.certificate, taken_back_at)
            is_alive = lifetime or self.lifetimes.get(profile.name) or profile.lifetime
            subject = self._subject(request, device_id, principal, profile, issued_certificate)
            names = san or _names(request, principal, profile, issued_certificate)
            if self.upstream is not None and profile.purpose is not Purpose.SERVERS:
                if not made:
                    made.append(await self.upstream.issue(request, subject, profile, is_alive))
                check_taken_over(made[0], request.names, names, profile)
                above = self.upstream.certificates()
                await record(made[0], device_id, issuer_of(made[0], above), standing)
                return (made[0], *above)
            issuer = self.issuer_for(profile)
            if issuer.certificate.thumbprint not in self._noted:
                await self.note_issuers()
            await self.revocations.check_issuer(issuer.certificate)
            signed = partial(
                issue,
                profile,
                subject,
                request.public_key,
                issuer=issuer,
                serial=new_serial(self.entropy),
                now=self.clock.now(),
                lifetime=None if profile.is_endless and is_alive == profile.lifetime else is_alive,
                san=names,
                points=self.places_for(profile, is_alive),
                excluded=self.own_names,
            )
            certificate = await run_signing(issuer.private_key, signed)
            await record(certificate, device_id, issuer.certificate, standing)
            return (certificate, *self.hierarchy.above(issuer))

        async def record(
            certificate: Certificate, device_id: str, issuer: Certificate, standing: SubjectStatus
        ) -> None:
            issued = IssuedCertificate(
                certificate, device_id, profile.name, principal.actor, parent=principal.thumbprint
            )
            row = store.row_of(issued, issuer=issuer.thumbprint, key_digest=key_digest(request.spki_der))
            is_renewal = issued_certificate is not None and (
                fold(issued_certificate.device_id),
                issued_certificate.profile,
            ) == (row["name"], profile.name)
            changes = _changes(row, issued, standing, issued_certificate if is_renewal else None)
            more = also(certificate)
            await self.database.commit(changes.merge(more if isinstance(more, Changes) else await more))

        return await retry_on_conflict(attempt, after=NameMovedError, attempts=ATTEMPTS)

    async def find(self, thumbprint: Thumbprint) -> IssuedCertificate | None:
        """Return the issued certificate with this thumbprint, or None."""
        row = await self.database.one(store.BY_THUMBPRINT, thumbprint=thumbprint)
        return None if row is None else store.INVENTORY.of(row)

    async def is_devices_own(self, ca: Certificate) -> bool:
        """Return whether a CA was issued here to a device, such as an IoT Edge gateway.

        The device controls what it signs. Every CA signed by our device and gateway CAs counts, even without an
        inventory row, as after a restore.
        """
        ours = self.hierarchy.certificates
        if not ca.is_ca or ca in ours:
            return False
        if any(not one.is_self_issued and is_signed_by(ca, one) for one in ours):
            return True
        row = await self.database.one(store.BY_EITHER_THUMBPRINT, **store.wanted(ca))
        return row is not None and row["profile"] not in {ISSUING_CA.name, EDGE_ISSUING_CA.name}

    def registration_changes(self, certificate: Certificate, now: datetime) -> Changes:
        """Return the changes that record a certificate's use in a device registration.

        They have no effect for a certificate that was not issued here.
        """
        at, thumbprint = to_micros(now), certificate.thumbprint
        return Changes().run(store.REGISTERED, key_thumbprint=thumbprint, registered_at=at)

    async def presented(self, leaf: Certificate) -> tuple[IssuedCertificate, int | None] | None:
        """Return the issued certificate for `leaf`, and when its key was revoked; None if not issued here."""
        row = await self.database.one(store.PRESENTED, **store.wanted(leaf), key_digest=digest_of(leaf))
        if row is None:
            return None
        issued = store.INVENTORY.of(row, certificate=leaf) if row["der"] == leaf.der else store.INVENTORY.of(row)
        return issued, row["key_revoked_at"]

    async def newer(
        self, than: IssuedCertificate, in_use: Collection[Thumbprint]
    ) -> tuple[list[IssuedCertificate], frozenset[Thumbprint]]:
        """Return newer, used certificates of the same name, and the thumbprints of those that requested others.

        Candidates are the certificates that it requested, and those requested with the same parent that were
        registered. `in_use` has the certificates by which the device is registered elsewhere. Revoked certificates do
        not count.
        """
        name, own = fold(than.device_id), than.certificate
        rows = [row for one in in_use for row in await self.database.all(store.BY_THUMBPRINT, thumbprint=one)]
        for parent in (own.thumbprint, than.parent):
            if parent is not None:
                rows += await self.database.all(store.REGISTERED_BELOW, name=name, parent=parent)
        asked = await self.database.all(store.ASKED_BELOW, name=name, parent=own.thumbprint)
        parents = {Thumbprint(row["thumbprint"]) for row in asked}
        if await self.database.one(store.HAS_ASKED, name=name, parent=own.thumbprint) is not None:
            parents.add(own.thumbprint)
        by_thumbprint = {row["thumbprint"]: row for row in (*rows, *asked) if row["name"] == name}
        found = [store.INVENTORY.of(row) for row in by_thumbprint.values()]
        newer = [
            one
            for one in found
            if one.certificate.not_before >= own.not_before and one.certificate != own and not one.is_revoked
        ]
        return newer, frozenset(parents)

    async def taken_back_since(self, issued: IssuedCertificate) -> datetime | None:
        """Return when another certificate of the name was revoked after this one was issued.

        Superseded certificates are ignored.
        """
        certificate = issued.certificate
        began = certificate.not_before + min(BACKDATING, (certificate.not_after - certificate.not_before) / 11)
        return await self._revoked_since(issued.device_id, began)

    async def is_revoked_since(self, name: str, moment: datetime) -> bool:
        """Return whether a certificate of a name was revoked since `moment`, ignoring superseded ones."""
        return await self._revoked_since(name, moment) is not None

    async def _revoked_since(self, name: str, moment: datetime) -> datetime | None:
        row = await self.database.one(store.TAKEN_BACK_SINCE, name=fold(name), since=to_micros(moment))
        return None if row is None else from_micros(row["revoked_at"])

    async def search(self, query: str) -> list[IssuedCertificate]:
        """Return certificates by thumbprint, serial number (both hex) or device ID in any case, newest first."""
        rows = list(await self.database.all(store.BY_DEVICE, name=fold(query)))
        plain = "".join(one for one in query if one.isprintable() and one not in ": ").lower()  # as in Windows
        try:
            number = bytes.fromhex(plain if len(plain) % 2 == 0 else "0" + plain)
        except ValueError:
            return [store.INVENTORY.of(row) for row in rows]
        rows += await self.database.all(store.BY_THUMBPRINT, thumbprint=number)
        rows += await self.database.all(store.BY_SERIAL, serial=f"{int.from_bytes(number):x}")
        return [store.INVENTORY.of(row) for row in rows]

    async def of_name(self, name: str) -> list[IssuedCertificate]:
        """Return the last 100 certificates that were issued to a name, in any spelling."""
        return [store.INVENTORY.of(row) for row in await self.database.all(store.BY_DEVICE, name=fold(name))]

    async def names_below(self, parent: Thumbprint) -> list[str]:
        """Return the first names, case-folded, that were requested with a certificate."""
        found = [""]
        while len(found) <= _NAMED and (
            row := await self.database.one(store.NEXT_NAME_BELOW, parent=parent, beyond=found[-1])
        ):
            found.append(row["name"])
        return found[1:]

    async def latest(self, limit: int = 100) -> list[IssuedCertificate]:
        """Return the inventory, latest expiry first."""
        return [store.INVENTORY.of(row) for row in await self.database.all(store.LATEST, limit=limit)]

    async def release(self, name: str, principal: Principal) -> list[str]:
        """Release a name: a credential for any name may claim it with a new key.

        Issued certificates remain valid. A name that was revoked with its device can be requested again. Return the
        thumbprints, in hex, of the certificates that held it. Raise `NameNotHeldError`.
        """
        rows = await self.database.all(store.HOLDERS, name=fold(name), after=self.clock.micros())
        held = [row["thumbprint"].hex() for row in rows]
        if not held and not await self.revocations.is_lost(name):
            raise NameNotHeldError(name=name)
        changes = Changes().run(store.RELEASE_NAME, key_name=fold(name)).run(store.FIND_NAME, key_name=fold(name))
        await self.database.commit(changes.audit(principal.actor, "name.release", fold(name), thumbprints=held))
        return held

    async def crl(self, issuer: LeafIssuer | None = None) -> bytes:
        """Return the DER CRL of `issuer` (default: the issuing CA); regenerate it after changes."""
        return (await self.lists.of(issuer or self.hierarchy.issuing)).der

    async def live_of(self, spki_der: bytes) -> list[IssuedCertificate]:
        """Return the valid certificates of a key."""
        now, digest = self.clock.micros(), key_digest(spki_der)
        rows = await self.database.all(store.LIVE_OF_KEY, key_digest=digest, after=now)
        return [store.INVENTORY.of(row) for row in rows]

    async def note_issuers(self) -> None:
        """Add the subordinate CAs to the inventory."""
        for purpose, issuer in self.hierarchy.issuers.items():
            if issuer.certificate.thumbprint not in self._noted:
                await self.note(EDGE_ISSUING_CA if purpose == Purpose.EDGE else ISSUING_CA, issuer.certificate)
                self._noted.add(issuer.certificate.thumbprint)

    async def note(self, profile: CertificateProfile, *certificates: Certificate) -> None:
        """Add this installation's own certificates to the inventory.

        Their revocation status is then available.
        """
        for one in certificates:
            above = next((ca for ca in self.hierarchy.certificates if is_signed_by(one, ca)), None)
            if above is None or one.is_self_signed or await self.find(one.thumbprint) is not None:
                continue
            issued = IssuedCertificate(one, one.subject_cn or one.subject_text, profile.name, "server")
            row = store.row_of(issued, issuer=above.thumbprint, key_digest=key_digest(one.spki_der), is_own=True)
            changes = Changes().run(store.ADD, **row).merge(store.counted(issued, store.VALID))
            changes.audit("server", "certificate.issue", issued.device_id, thumbprint=one.thumbprint.hex())
            with suppress(ConflictError):  # another process did it
                await self.database.commit(changes)

    async def _standing(
        self, request: CertificateRequest, asked: str | None, certificate: IssuedCertificate | None, limit: int
    ) -> tuple[SubjectStatus, int | None]:
        """Return the state of a request's key and name, and when `held` was revoked.

        It is read in one statement. A later change makes the commit fail, and the retry reads it.
        """
        rows = await self.database.all(
            store.STANDING,
            name=fold(asked or ""),
            asked=asked or "",
            asked_digest=key_digest(request.spki_der),
            after=self.clock.micros(),
            most=limit,
            **(
                dict.fromkeys(("thumbprint", *store.TWINS), b"")
                if certificate is None
                else store.wanted(certificate.certificate)
            ),
            key_digest=b"" if certificate is None else digest_of(certificate.certificate),
        )
        version, alive, taken_back_at, holder, revoked_at, lost_at = 0, 0, None, None, None, None
        live = []
        for row in rows:
            match row["about"]:
                case "name":
                    version = row["number"]
                case "alive":
                    alive = row["number"]
                case "lost":
                    lost_at = from_micros(row["number"])
                case "key":
                    holder, revoked_at = row["name"], row["number"]
                case "live":
                    live.append(LiveCertificate(Thumbprint(row["thumbprint"]), row["name"], row["key_digest"]))
                case _:
                    taken_back_at = row["number"]
        key_revoked_at = None if revoked_at is None else from_micros(revoked_at)
        return SubjectStatus(holder, key_revoked_at, live, version, lost_at, alive), taken_back_at

    def _subject(
        self,
        request: CertificateRequest,
        device_id: str,
        principal: Principal,
        profile: CertificateProfile,
        certificate: IssuedCertificate | None,
    ) -> x509.Name:
        is_operator = principal.kind is PrincipalKind.OPERATOR
        if profile.is_ca and not is_operator:
            return ca_subject(device_id, {**self.subject, **profile.subject})
        number = None
        if profile.has_serial_number:
            before = (
                None if certificate is None or certificate.device_id != device_id else certificate.certificate.subject
            )
            number = granted_serial_number(profile, device_id, request.subject, before, by_operator=is_operator)
        return granted_subject(request.subject, {**self.subject, **profile.subject}, serial_number=number)


def _names(
    request: CertificateRequest,
    principal: Principal,
    profile: CertificateProfile,
    certificate: IssuedCertificate | None,
) -> Sequence[x509.GeneralName]:
    """Return the requested names that the profile allows; a renewal keeps its names."""
    if profile.names is None:
        return ()
    is_renewal = (
        certificate is not None and certificate.device_id == request.subject_cn and certificate.profile == profile.name
    )
    return granted_names(
        request.names,
        profile,
        general_names=names_in(certificate.certificate) if certificate is not None and is_renewal else (),
        by_operator=principal.kind is PrincipalKind.OPERATOR,
    )


def _changes(
    row: Mapping[str, Any], issued: IssuedCertificate, standing: SubjectStatus, renewed: IssuedCertificate | None
) -> Changes:
    name, digest, thumbprint = row["name"], row["key_digest"], issued.certificate.thumbprint.hex()
    moved = partial(NameMovedError, name=issued.device_id)
    changes = Changes()
    if not standing.version:
        changes.run(store.ADD_NAME, name=name, version=0, lost_at=None).merge(
            device_name_prefix_index.found(store.PLACE, name)
        )
    if standing.key_holder is None:
        changes.run(store.ADD_KEY, key_digest=digest, name=name, revoked_at=None, revocation_reason=None)
    told = {} if renewed is None else {"renews": renewed.certificate.thumbprint.hex()}
    if renewed is not None:
        changes.count(store.RENEWALS, issued.profile, since=None)
    return (
        changes.run(store.MOVE_NAME, expect=1, otherwise=moved, key_name=name, key_version=standing.version)
        # Assigned or revoked since the read: the next read shows which.
        .run(store.HOLD_KEY, expect=1, otherwise=moved, key_key_digest=digest, key_name=name)
        .run(store.ADD, **row)
        .merge(store.counted(issued, store.VALID))
        .audit(
            issued.requested_by,
            "certificate.issue",
            issued.device_id,
            thumbprint=thumbprint,
            serial=row["serial"],
            profile=issued.profile,
            key=digest.hex(),
            **told,
        )
        .event(CertificateIssued(issued.device_id, issued.certificate.thumbprint, issued.profile))
    )
