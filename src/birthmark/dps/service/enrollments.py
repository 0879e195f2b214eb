"""Enrollment records: create, read, update, delete, list by page."""

import base64
from collections.abc import Sequence

import msgspec

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.dps import store, wire
from birthmark.dps.domain_events import EnrollmentChanged, GroupChanged
from birthmark.dps.enrollment_document import AttestationMechanism, EnrollmentDocument, SymmetricKeys
from birthmark.dps.model import TAKEN_BACK, Enrollment, IdScope, Instance, X509Individual
from birthmark.dps.ports import CertificateIssuer, HubRegistry
from birthmark.dps.rules.enrollment_validation import (
    EnrollmentInvalidError,
    certificates_of,
    complete,
    enrollment_of,
    policy_of,
)
from birthmark.dps.service.allocation_webhooks import AllocationWebhooks
from birthmark.dps.service.certificate_issuance import NO_ISSUER
from birthmark.dps.service.instances_and_authorization import UnknownInstanceError
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError
from birthmark.pki.certificates import Certificate
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.store import Changes, Database, device_name_prefix_index, retry_on_conflict


class EnrollmentNotFoundError(NotFoundError):
    """The enrollment does not exist."""

    code = "dps.enrollment_not_found"
    message = "Enrollment {enrollment} not found"
    cause = "Scope {scope} has no {kind} enrollment {enrollment}."
    fix = "List enrollments: `birthmark device ls`."
    enrollment: str
    kind: str
    scope: str


class EnrollmentExistsError(ConflictError):
    """The enrollment exists already."""

    code = "dps.enrollment_exists"
    message = "Enrollment {enrollment} already exists"
    cause = "The enrollment {enrollment} already exists."
    fix = "Send the enrollment with the mode `update`, or choose another ID. List enrollments: `birthmark device ls`"
    enrollment: str


class EnrollmentChangedError(ConflictError):
    """The enrollment has changed since it was read."""

    code = "dps.enrollment_changed"
    cause = "The enrollment {enrollment} has changed since the etag {etag} was read."
    fix = "Read the enrollment again and repeat the change. List enrollments: `birthmark device ls`"
    enrollment: str
    etag: object


class Enrollments:
    """Individual enrollments and groups of all instances."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        hubs: HubRegistry,
        *,
        issuer: CertificateIssuer = NO_ISSUER,
        webhooks: AllocationWebhooks | None = None,
    ) -> None:
        """Create the service; `issuer` knows the issuing policies, `webhooks` the permitted allocation webhooks."""
        self._hubs = hubs
        self._issuer = issuer
        self.webhooks = webhooks or AllocationWebhooks()
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def find(self, scope: IdScope, enrollment_id: str, *, is_group: bool) -> Enrollment | None:
        """Return the enrollment, or None."""
        known = await self._document(scope, enrollment_id, is_group=is_group)
        return None if known is None else enrollment_of(known)

    async def document(self, scope: IdScope, enrollment_id: str, *, is_group: bool) -> EnrollmentDocument:
        """Return the document of an enrollment. Raise `EnrollmentNotFoundError`."""
        known = await self._document(scope, enrollment_id, is_group=is_group)
        if known is None:
            raise EnrollmentNotFoundError(enrollment=enrollment_id, scope=scope, kind=_kind(is_group))
        return known

    async def audit_key_display(self, scope: IdScope, shown: EnrollmentDocument, *, actor: str) -> None:
        """Record in the audit log that the actor is about to see the keys of an enrollment."""
        changes = Changes().audit(actor, "dps.enrollment_key_show", shown.id, scope=scope, kind=_kind(shown.is_group))
        await self._database.commit(changes)

    async def get(self, scope: IdScope, enrollment_id: str, *, is_group: bool) -> Enrollment:
        """Return the enrollment. Raise `EnrollmentNotFoundError`."""
        return enrollment_of(await self.document(scope, enrollment_id, is_group=is_group))

    async def group_certificates(self, scope: IdScope, group_id: str) -> Sequence[Certificate]:
        """Return the one or two signing certificates that a group itself contains. Raise `EnrollmentNotFoundError`."""
        group = await self.document(scope, group_id, is_group=True)
        carried = certificates_of(group)
        if not carried:
            raise EnrollmentInvalidError(enrollment=group_id, detail="it references a registered CA")
        return carried

    async def has_groups(self, scope: IdScope) -> bool:
        """Return whether any group exists."""
        return bool(await self.page(scope, is_group=True, after="", limit=1))

    async def own(self, scope: IdScope, registration_id: str) -> EnrollmentDocument | None:
        """Return the device's individual enrollment, or None."""
        return await self._document(scope, registration_id, is_group=False)

    async def page(self, scope: IdScope, *, is_group: bool, after: str, limit: int) -> Sequence[EnrollmentDocument]:
        """Return up to `limit` documents in order of ID, after `after`."""
        rows = await self._database.all(
            store.LIST_ENROLLMENTS, scope=scope, kind=_kind(is_group), after=after, limit=limit
        )
        return [store.document_of(row) for row in rows]

    async def put(
        self, instance: Instance, document: EnrollmentDocument, if_match: str | None, *, actor: str
    ) -> EnrollmentDocument:
        """Create or update the enrollment. Raise `InvalidRequestError` or `ConflictError`.

        Without an ETag the record is overwritten, as clients without ETags expect; with one it must match.
        """
        return await retry_on_conflict(lambda: self._put(instance, document, if_match, actor=actor))

    async def create(self, instance: Instance, document: EnrollmentDocument, *, actor: str) -> EnrollmentDocument:
        """Create the enrollment. Raise `EnrollmentExistsError`."""
        return await retry_on_conflict(lambda: self._put(instance, document, None, actor=actor, is_new=True))

    async def revoke_device(
        self, instance: Instance, registration_id: str, why: str, *, actor: str
    ) -> EnrollmentDocument:
        """Revoke a device's registration: disable its enrollment, and replace a symmetric key with a random one.

        Without an individual enrollment, create a disabled one, which takes precedence over every group.
        """

        async def decide() -> EnrollmentDocument:
            known = await self._document(instance.id_scope, registration_id, is_group=False)
            fresh = AttestationMechanism("symmetricKey", symmetric_key=self._fresh_keys())
            has_keys = known is None or known.attestation.symmetric_key is not None
            before = known or EnrollmentDocument(fresh, registration_id=registration_id)
            done = msgspec.structs.replace(
                before,
                provisioning_status="disabled",
                attestation=fresh if has_keys else before.attestation,
                optional_device_information={**(before.optional_device_information or {}), TAKEN_BACK: why},
            )
            return await self._put(instance, done, before.etag, actor=actor, is_new=known is None)

        return await retry_on_conflict(decide)

    def _fresh_keys(self) -> SymmetricKeys:
        return SymmetricKeys(*(base64.b64encode(self._entropy.token(64)).decode() for _ in range(2)))

    async def _document(self, scope: IdScope, enrollment_id: str, *, is_group: bool) -> EnrollmentDocument | None:
        row = await self._database.one(
            store.GET_ENROLLMENT, scope=scope, kind=_kind(is_group), id=enrollment_id.lower()
        )
        return None if row is None else store.document_of(row)

    async def _put(
        self,
        instance: Instance,
        enrollment_document: EnrollmentDocument,
        if_match: str | None,
        *,
        actor: str,
        is_new: bool = False,
    ) -> EnrollmentDocument:
        scope = instance.id_scope
        previous = await self._document(scope, enrollment_document.id, is_group=enrollment_document.is_group)
        if is_new and previous is not None:
            raise EnrollmentExistsError(enrollment=enrollment_document.id)
        etag = (if_match or "").strip('"')
        if etag and (previous is None or etag not in {"*", (previous.etag or "").strip('"')}):
            raise EnrollmentChangedError(enrollment=enrollment_document.id, etag=etag)
        done = complete(enrollment_document, previous, self._entropy)
        self._check(done, previous)
        now = wire.dps_time(self._clock.now())
        done = msgspec.structs.replace(
            done,
            etag=f'"{base64.b16encode(self._entropy.token(8)).decode().lower()}"',
            created_date_time_utc=previous.created_date_time_utc if previous else now,
            last_updated_date_time_utc=now,
        )
        document = msgspec.json.encode(done).decode()
        kind = _kind(done.is_group)
        told: dict[str, object] = {
            "scope": scope,
            "kind": kind,
            "status": done.provisioning_status,
            **_audit_facts(done),
        }
        gone = UnknownInstanceError(name=instance.name)
        changes = Changes().run(store.INSTANCE_IS_THERE, expect=1, otherwise=gone, key_id_scope=scope)
        if (asked := done.custom_allocation_definition) is not None:
            told["webhook"] = asked.host
        changes.audit(actor, "dps.enrollment_put", done.id, **told)
        if previous is None:
            changes.run(store.ADD_ENROLLMENT, scope=scope, kind=kind, id=done.id, document=document, etag=done.etag)
            if not done.is_group:
                changes.merge(device_name_prefix_index.found(store.place_of(scope), done.id))
        else:
            changes.run(
                store.REPLACE_ENROLLMENT,
                expect=1,
                otherwise=ChangedMeanwhileError(what="The enrollment"),
                key_scope=scope,
                key_kind=kind,
                key_id=done.id,
                key_etag=previous.etag,
                document=document,
                etag=done.etag,
            )
        if done.is_group:
            for name in _referenced(done):
                changes.run(
                    store.AUTHORITY_IS_THERE,
                    expect=1,
                    otherwise=_unnamed(done.id, name),
                    key_scope=scope,
                    key_name=name,
                )
            changes.run(store.DROP_SIGNERS, scope=scope, group_id=done.id)
            for certificate in await self._signers_of(scope, done):
                changes.run(
                    store.ADD_SIGNER,
                    scope=scope,
                    subject_digest=store.subject_digest(certificate.subject_der),
                    group_id=done.id,
                    thumbprint=certificate.thumbprint.hex(),
                    der=certificate.der,
                )
        await self._database.commit(changes.event(_changed(scope, done.id, is_group=done.is_group)))
        return done

    def _check(self, done: EnrollmentDocument, previous: EnrollmentDocument | None) -> None:
        """Check the policy, twin and webhook of an enrollment; raise the first error."""
        if (policy := policy_of(done)) is not None:
            self._issuer.check_policy(policy)
        if done.initial_twin:
            self._hubs.check_twin(done.id, done.initial_twin)
        webhook = done.custom_allocation_definition
        if webhook is not None and (previous is None or webhook != previous.custom_allocation_definition):
            self.webhooks.check(done.id, webhook.webhook_url)

    async def delete(
        self, scope: IdScope, enrollment_id: str, if_match: str | None, *, is_group: bool, actor: str
    ) -> None:
        """Remove the enrollment. Raise `NotFoundError` or `ConflictError`.

        Removing an individual enrollment removes its registration, so that a group can use the name. Registrations of a
        group remain, and no other group can take them over.
        """
        await retry_on_conflict(lambda: self._delete(scope, enrollment_id, if_match, is_group=is_group, actor=actor))

    async def _delete(
        self, scope: IdScope, enrollment_id: str, if_match: str | None, *, is_group: bool, actor: str
    ) -> None:
        found = await self.document(scope, enrollment_id, is_group=is_group)
        etag = (if_match or "*").strip('"')
        if etag not in {"*", (found.etag or "").strip('"')}:
            raise EnrollmentChangedError(enrollment=found.id, etag=etag)
        kind = _kind(is_group)
        changed = ChangedMeanwhileError(what="The enrollment")
        changes = Changes().run(
            store.DELETE_ENROLLMENT, expect=1, otherwise=changed, scope=scope, kind=kind, id=found.id, etag=found.etag
        )
        if is_group:
            changes.run(store.DROP_SIGNERS, scope=scope, group_id=found.id)
        else:
            changes.run(store.DELETE_OWN_REGISTRATION, scope=scope, registration_id=found.id)
            changes.run(store.DROP_ROOTS, scope=scope, registration_id=found.id)
            changes.merge(device_name_prefix_index.unindex_name(store.place_of(scope), found.id))
        changes.audit(actor, "dps.enrollment_delete", found.id, scope=scope, kind=kind)
        await self._database.commit(changes.event(_changed(scope, found.id, is_group=is_group)))

    async def _signers_of(self, scope: IdScope, group: EnrollmentDocument) -> list[Certificate]:
        found = certificates_of(group)
        for name in _referenced(group):
            row = await self._database.one(store.GET_AUTHORITY, scope=scope, name=name)
            if row is None:
                raise _unnamed(group.id, name)
            authority: CaCertificate = store.AUTHORITIES.of(row)
            found.append(authority.certificate)
        return found


def _referenced(group: EnrollmentDocument) -> Sequence[str]:
    """Return the names of registered CAs that a group refers to."""
    x509 = group.attestation.x509
    return x509.ca_references.names() if x509 is not None and x509.ca_references is not None else ()


def _unnamed(group: str, name: str) -> EnrollmentInvalidError:
    return EnrollmentInvalidError(enrollment=group, detail=f"no CA certificate named {name}")


def _kind(is_group: bool) -> str:  # noqa: FBT001 - kinds as in the database
    return "group" if is_group else "individual"


def _changed(scope: IdScope, name: str, *, is_group: bool) -> EnrollmentChanged | GroupChanged:
    return GroupChanged(scope, name) if is_group else EnrollmentChanged(scope, name)


def _audit_facts(document: EnrollmentDocument) -> dict[str, list[str]]:
    """Return an individual enrollment's certificate facts for the audit log, for checks of provenance."""
    attestation = enrollment_of(document).attestation
    if not isinstance(attestation, X509Individual):
        return {}
    return {"thumbprints": [one.hex() for one in attestation.thumbprints]}
