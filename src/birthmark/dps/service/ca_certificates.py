"""Registered CA certificates, and proof of possession of their keys."""

import base64
from collections.abc import Collection, Sequence
from dataclasses import replace

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.dps import store
from birthmark.dps.domain_events import AuthorityChanged
from birthmark.dps.model import IdScope
from birthmark.dps.service.instances_and_authorization import UnknownScopeError
from birthmark.errors import ChangedMeanwhileError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.pki.ca_possession_proof import which
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import check_dates
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.row_mapper import certificate_of


class UnknownAuthorityError(NotFoundError):
    """The provisioning service has no such CA certificate."""

    code = "dps.unknown_ca"
    message = "CA certificate {name} does not exist"
    cause = "The provisioning service has no CA certificate {name}."
    fix = "List CA certificates: `birthmark dps ca ls`. Add one: `birthmark dps ca create NAME FILE`."
    name: str


class AuthorityExistsError(ConflictError):
    """Another CA certificate has this name."""

    code = "dps.ca_exists"
    message = "The name {name} is in use"
    cause = "Another CA certificate is registered as {name}."
    fix = "Choose another name, or delete the existing certificate: `birthmark dps ca rm {name} --yes`."
    name: str


class AuthorityNotACAError(InvalidRequestError):
    """The certificate is not a CA certificate."""

    code = "dps.ca_not_a_ca"
    cause = "The certificate '{subject}' is not a CA certificate: it has no basicConstraints CA:TRUE."
    fix = (
        "Register the CA certificate, not a device certificate. To enroll the device: `birthmark device enroll "
        '--cert "$X509_CERT_FILE"`'
    )
    subject: str


class NoCodeError(ConflictError):
    """The CA has no verification code."""

    code = "dps.ca_no_code"
    cause = "The CA certificate {name} has no verification code."
    fix = (
        'Generate a code and sign it: `birthmark ca verify-possession "$(birthmark dps ca code {name})"{options} '
        "--dir ca --out proof.pem`"
    )
    name: str
    options: str = ""


class Authorities:
    """CA certificates of all instances."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def all(self, scope: IdScope) -> Sequence[CaCertificate]:
        """Return every CA certificate of an instance."""
        return [store.AUTHORITIES.of(row) for row in await self._database.all(store.LIST_AUTHORITIES, scope=scope)]

    async def named(self, scope: IdScope, subject: bytes) -> Sequence[Certificate]:
        """Return the registered or group CA certificates with this subject (DER)."""
        rows = await self._database.all(store.CAS_NAMED, scope=scope, subject_digest=store.subject_digest(subject))
        return [certificate_of(row["der"]) for row in rows]

    async def get(self, scope: IdScope, name: str) -> CaCertificate:
        """Return a CA certificate. Raise `UnknownAuthorityError`."""
        row = await self._database.one(store.GET_AUTHORITY, scope=scope, name=name)
        if row is None:
            raise UnknownAuthorityError(name=name)
        return store.AUTHORITIES.of(row)

    async def add(
        self,
        scope: IdScope,
        name: str,
        certificate: Certificate,
        *,
        is_verified: bool,
        actor: str,
        etag: str | None = None,
    ) -> CaCertificate:
        """Register a CA certificate; a repeated call has no effect. Raise `InvalidRequestError`, `ConflictError`.

        `etag` is that of the present record, `NOTHING` if none may exist.
        """
        if not certificate.is_ca:
            raise AuthorityNotACAError(subject=certificate.subject_text)
        now = self._clock.now()
        check_dates(certificate, now)

        async def decide() -> CaCertificate:
            row = await self._database.one(store.GET_AUTHORITY, scope=scope, name=name)
            present = None if row is None else store.AUTHORITIES.of(row)
            if present is not None:
                present.check_etag(etag)
            if present is None:
                made = CaCertificate(name, certificate, is_verified, None, self._etag(), now, now)
            elif present.certificate != certificate:
                raise AuthorityExistsError(name=name)
            elif present.is_verified or not is_verified:
                return present
            else:
                made = present.mark_verified(self._etag(), now)
            return await self._put(scope, made, present, actor, "dps.ca_add", verified=is_verified)

        return await retry_on_conflict(decide)

    async def new_code(self, scope: IdScope, name: str, *, actor: str, etag: str | None = None) -> CaCertificate:
        """Return a CA with a new verification code; an earlier code is void. Raise `AuthorityChangedError`."""
        code = self._entropy.token(24).hex().upper()

        async def decide() -> CaCertificate:
            present = await self.get(scope, name)
            present.check_etag(etag)
            made = present.with_code(code, self._etag(), self._clock.now())
            return await self._put(scope, made, present, actor, "dps.ca_code")

        return await retry_on_conflict(decide)

    async def verify(
        self, scope: IdScope, name: str, verification: Certificate, *, actor: str, etag: str | None = None
    ) -> CaCertificate:
        """Mark the CA as verified if a certificate contains the code. Raise `PossessionNotProvenError`."""

        async def decide() -> CaCertificate:
            present = await self.get(scope, name)
            present.check_etag(etag)
            if not present.verification_code:
                raise NoCodeError(name=name, options=which(present.certificate))
            made = present.proven(verification, present.verification_code, self._etag(), self._clock.now())
            return await self._put(scope, made, present, actor, "dps.ca_verify")

        return await retry_on_conflict(decide)

    async def remove(self, scope: IdScope, name: str, *, actor: str, etag: str | None = None) -> None:
        """Remove a CA certificate. Raise `UnknownAuthorityError`, `AuthorityChangedError`."""

        async def decide() -> None:
            present = await self.get(scope, name)
            present.check_etag(etag)
            changed = ChangedMeanwhileError(what="The CA certificate")
            changes = Changes().run(
                store.DELETE_AUTHORITY_AS, expect=1, otherwise=changed, scope=scope, name=name, etag=present.etag
            )
            changes.audit(actor, "dps.ca_remove", name, scope=scope).event(AuthorityChanged(scope, name))
            await self._database.commit(changes)

        await retry_on_conflict(decide)

    async def change_verification(
        self, scope: IdScope, certificates: Collection[Certificate], actor: str, *, is_trusted: bool
    ) -> Changes:
        """Return the changes that mark registered CA certificates as verified or as not verified."""
        changes, now = Changes(), self._clock.now()
        for one in await self.all(scope):
            if one.certificate in certificates and one.is_verified != is_trusted:
                made = replace(one, is_verified=is_trusted, updated_at=now, etag=self._etag())
                changes.merge(self._written(scope, made, one, actor, "dps.ca_trust", verified=is_trusted))
        return changes

    async def _put(
        self,
        scope: IdScope,
        ca: CaCertificate,
        present: CaCertificate | None,
        actor: str,
        action: str,
        **detail: object,
    ) -> CaCertificate:
        await self._database.commit(self._written(scope, ca, present, actor, action, **detail))
        return ca

    def _written(
        self,
        scope: IdScope,
        ca: CaCertificate,
        present: CaCertificate | None,
        actor: str,
        action: str,
        **detail: object,
    ) -> Changes:
        row = store.authority_row(scope, ca)
        if present is None:
            gone = UnknownScopeError(scope=scope, known="…")
            changes = Changes().run(store.INSTANCE_IS_THERE, expect=1, otherwise=gone, key_id_scope=scope)
            changes.run(store.ADD_AUTHORITY, **row)
        else:
            key = {f"key_{name}": row.pop(name) for name in ("scope", "name")}
            changed = ChangedMeanwhileError(what="The CA certificate")
            changes = Changes().run(
                store.REPLACE_AUTHORITY, expect=1, otherwise=changed, **key, key_etag=present.etag, **row
            )
        thumbprint = ca.certificate.thumbprint.hex()
        changes.audit(actor, action, ca.name, scope=scope, thumbprint=thumbprint, **detail)
        return changes.event(AuthorityChanged(scope, ca.name))

    def _etag(self) -> str:
        return base64.b64encode(self._entropy.token(8)).decode()
