"""Registration of a device: attestation, allocation, and its device at the hub, in one commit."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from birthmark.auth.sas import derive_device_key
from birthmark.ca.rules.issuance_eligibility import KeyTakenError
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.dps import store
from birthmark.dps.model import (
    INITIAL,
    REASSIGNED,
    Claim,
    Enrollment,
    Instance,
    Registration,
    SymmetricKey,
    X509Individual,
)
from birthmark.dps.ports import CertificateInventory, CertificateIssuer, HubIdentity, HubRegistry
from birthmark.dps.rules.registration import MIGRATED, RESET, check_csr, decide
from birthmark.dps.rules.tiers import ThrottledOperation
from birthmark.dps.service.attester import AttestedClaim, Attester, add_instance_facts, find_registration
from birthmark.dps.service.certificate_issuance import NO_ISSUER, CertificateIssuance, IssuanceContext, issued_at
from birthmark.dps.service.custom_allocation import AllocationDecision
from birthmark.dps.service.enrollments import EnrollmentChangedError, Enrollments
from birthmark.dps.service.instances_and_authorization import Instances
from birthmark.dps.service.registration_audit_filter import AuditFilter
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError, ThrottledError
from birthmark.pki.names_and_registration_ids import parse_registration_id
from birthmark.store import Changes, Database, retry_on_conflict


class RegistrationNotFoundError(NotFoundError):
    """The device has no such registration or operation."""

    code = "dps.registration_not_found"
    message = "{registration_id} is not registered{detail}"
    cause = "Scope {scope} has no registration {registration_id}{detail}."
    fix = "Register the device. List devices and unassigned enrollments: `birthmark device ls`."
    detail: str
    registration_id: str
    scope: str


class RegistrationBusyError(ThrottledError):
    """Concurrent registrations conflict."""

    code = "dps.registration_busy"
    cause = "Several requests write the same registration or device at the same time."
    fix = (
        "Retry, as the SDKs do automatically. If the error persists, two devices have the same name; find the second "
        "device."
    )


_ATTEMPTS = 5


class Registrations:
    """Registrations of all instances."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        *,
        instances: Instances,
        enrollments: Enrollments,
        hubs: HubRegistry,
        inventory: CertificateInventory | None = None,
        issuer: CertificateIssuer = NO_ISSUER,
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._instances = instances
        self._enrollments = enrollments
        self._hubs = hubs
        self._inventory = inventory
        self.issuing = CertificateIssuance(database, issuer)
        self.attester = Attester(
            database, clock, entropy, instances=instances, enrollments=enrollments, inventory=inventory
        )
        self._audit = AuditFilter(hubs)
        self.count = 0  # of new and repeated registrations

    async def register(self, claim: Claim, verdict: AttestedClaim | None = None) -> Registration:
        """Attest and assign the device, and create it at its hub. The result is durable.

        `verdict` is an earlier one of the same claim, used while it is fresh.
        """
        if verdict is None or verdict.claim != claim or not self.attester.is_fresh(verdict):
            verdict = await self.attester.attest(claim)
        registration_id = parse_registration_id(claim.registration_id)
        self.attester.take_room(verdict.instance, registration_id, "")
        self._instances.take(ThrottledOperation.REGISTRATION, verdict.instance)
        problem: ConflictError | None = None
        choosing = AllocationDecision(self._enrollments, self._hubs, claim)
        for _ in range(_ATTEMPTS):
            # The enrollment may have changed since an earlier attempt.
            attested = verdict if problem is None else await self.attester.attest(claim)
            attested = replace(attested, claim=claim)
            instance, enrollment = attested.instance, attested.enrollment
            present = await self.find(instance, registration_id)
            with add_instance_facts(instance):
                if (problem := await choosing.call_webhook_if_due(instance, enrollment, present)) is not None:
                    continue
                enrollment, payload = choosing.apply_choice(enrollment, present)
                now = self._clock.now()
                registration = decide(
                    enrollment,
                    registration_id,
                    present,
                    instance.hubs,
                    spelling=claim.spelling,
                    thumbprint=None if claim.leaf is None else claim.leaf.thumbprint,
                    operation_id=f"5.{self._entropy.token(8).hex()}.{new_uuid(self._entropy)}",
                    etag=f'"{self._entropy.token(8).hex()}"',
                    now=now,
                )
            registration = await self._with_actual_substatus(present, registration)
            if claim.csr is not None:
                with add_instance_facts(instance):
                    check_csr(enrollment, registration_id, claim.csr)
            identity, kept = self._identity(attested)
            registration = replace(registration, **kept, **_NOTHING_ISSUED, payload=payload)
            identity = replace(
                identity,
                twin=enrollment.twin,
                maker=_registration_actor(instance, registration_id),
                proved=(*identity.thumbprints, *identity.keys),
                is_individual=not enrollment.is_group,
            )
            write = await self._writing(attested, registration, present, now)
            try:
                at_hub = partial(self._hub_changes, present, now=now, migrates=enrollment.migrates)
                if enrollment.policy is None:
                    with add_instance_facts(instance):
                        provisioned = await at_hub(registration, identity)
                    await self._database.commit(write(registration).merge(provisioned))
                else:
                    at = registration.hub if present is None else present.hub
                    standing = await self._hubs.get_device_status(at, registration.device_id)
                    case = IssuanceContext(enrollment, claim, present, registration, identity, standing, at_hub, now)
                    with add_instance_facts(instance):
                        registration = await self.issuing.commit(case, write)
            except KeyTakenError:
                raise
            except ConflictError as error:  # a concurrent write for this name or device: decide again on its result
                problem = error
                continue
            self.count += 1
            return registration
        raise RegistrationBusyError(retry_after_s=1) from problem

    async def _writing(
        self, attested: AttestedClaim, decided: Registration, present: Registration | None, now: datetime
    ) -> Callable[[Registration], Changes]:
        """Return a repeatable function for the changes of a registration, except for its device at the hub."""
        instance, enrollment, claim = attested.instance, attested.enrollment, attested.claim
        is_news = await self._audit.should_record(present, decided)
        is_first = present is None

        def write(registration: Registration) -> Changes:
            if not self.attester.is_current(attested):
                raise ChangedMeanwhileError(what="The enrollment")
            changes = require_unchanged_enrollment(instance, enrollment, registration.registration_id)
            changes.merge(_written(instance, registration, present))
            if attested.tpm is not None:
                changes.merge(self.attester.tpms.drop_candidate_roots(instance, registration.registration_id))
            if self._inventory is not None and claim.leaf is not None:
                changes.merge(self._inventory.registered(claim.leaf, now))
            issued = issued_at(registration, now)
            if is_news or issued:
                changes.count(store.FIGURE, instance.id_scope, since=None).audit(
                    "device",
                    "dps.register",
                    registration.registration_id,
                    scope=instance.id_scope,
                    enrollment=enrollment.id,
                    hub=registration.hub,
                    thumbprint=None if claim.leaf is None else claim.leaf.thumbprint.hex(),
                    **_created(registration, is_first=is_first),
                    **issued,
                )
            return changes

        return write

    async def _with_actual_substatus(self, present: Registration | None, registration: Registration) -> Registration:
        """Return the registration with the substatus found at its hubs: device known, or no data to migrate."""
        is_new = present is None or present.created_at != registration.created_at
        if (
            is_new
            and registration.substatus == INITIAL
            and await self._hubs.has(registration.hub, registration.device_id)
        ):
            return replace(registration, substatus=REASSIGNED)
        if present is None or registration.substatus != MIGRATED or present.hub.lower() == registration.hub.lower():
            return registration
        there_is = await self._hubs.has(present.hub, present.device_id)
        return registration if there_is else replace(registration, substatus=RESET)

    async def _hub_changes(
        self,
        present: Registration | None,
        registration: Registration,
        identity: HubIdentity,
        *,
        now: datetime,
        migrates: bool,
    ) -> Changes:
        """Return the changes that create the device at its hub; after a hub change, it is moved from the old one."""
        if present is None or present.hub.lower() == registration.hub.lower():
            return await self._hubs.provision(registration.hub, registration.device_id, identity, now)
        if present.device_id != registration.device_id:
            changes = await self._hubs.forget(present.hub, present.device_id, identity.maker)
            return changes.merge(await self._hubs.provision(registration.hub, registration.device_id, identity, now))
        return await self._hubs.move(
            registration.device_id, present.hub, registration.hub, identity, now, with_twin=migrates
        )

    def _identity(self, attested: AttestedClaim) -> tuple[HubIdentity, Mapping[str, Any]]:
        """Return the device's credentials at its hub, and the TPM data that the registration stores."""
        if attested.tpm is None:
            return _identity(attested.enrollment, attested.claim), _NO_TPM
        key, kept = self.attester.tpms.hub_key(attested.tpm)
        return HubIdentity(keys=(key,), iot_edge=attested.enrollment.is_edge), kept

    async def operation(self, claim: Claim, operation_id: str) -> Registration:
        """Return the registration that `operation_id` created. Raise `RegistrationNotFoundError`."""
        attested = await self.attester.attest(claim)
        self._instances.take(ThrottledOperation.POLL, attested.instance, claim.registration_id.lower())
        found = await self.get(attested.instance, claim.registration_id)
        if found.operation_id != operation_id:
            raise RegistrationNotFoundError(
                registration_id=claim.registration_id, scope=claim.id_scope, detail=" for that operation id"
            )
        return found

    async def find(self, instance: Instance, registration_id: str) -> Registration | None:
        """Return the registration, or None."""
        return await find_registration(self._database, instance, registration_id)

    async def get(self, instance: Instance, registration_id: str) -> Registration:
        """Return the registration. Raise `RegistrationNotFoundError`."""
        found = await self.find(instance, registration_id)
        if found is None:
            raise RegistrationNotFoundError(registration_id=registration_id, scope=instance.id_scope, detail="")
        return found

    async def of_page(self, instance: Instance, after: str, limit: int) -> Mapping[str, Registration]:
        """Return the registrations of a page of individual enrollments, by ID."""
        rows = await self._database.all(store.REGISTRATIONS_OF_PAGE, scope=instance.id_scope, after=after, limit=limit)
        return {row["registration_id"]: store.REGISTRATIONS.of(row) for row in rows}

    async def of_group(self, instance: Instance, group_id: str, after: str, limit: int) -> list[Registration]:
        """Return a group's registrations in order of ID, after `after`."""
        rows = await self._database.all(
            store.LIST_GROUP_REGISTRATIONS,
            scope=instance.id_scope,
            group_id=group_id.lower(),
            after=after,
            limit=limit,
        )
        return [store.REGISTRATIONS.of(row) for row in rows]

    async def delete(
        self, instance: Instance, registration_id: str, if_match: str | None = None, *, actor: str
    ) -> None:
        """Delete a registration; the device may register again if its enrollment allows it.

        Raise `RegistrationNotFoundError`, or `EnrollmentChangedError` for another ETag.
        """
        etag = (if_match or "*").strip('"')

        async def decide() -> None:
            found, changes = await self._forgetting(instance, registration_id)
            if etag not in {"*", found.etag.strip('"')}:
                raise EnrollmentChangedError(enrollment=found.registration_id, etag=etag)
            changes.audit(actor, "dps.registration_delete", found.registration_id, scope=instance.id_scope)
            await self._database.commit(changes)

        await retry_on_conflict(decide)

    async def release(self, instance: Instance, registration_id: str, *, actor: str) -> Registration:
        """Release a name: delete its registration and its device at the hub. Return the registration.

        The name is then available to the next enrollment. Raise `RegistrationNotFoundError`.
        """

        async def decide() -> Registration:
            found, changes = await self._forgetting(instance, registration_id)
            maker = _registration_actor(instance, found.registration_id)
            changes.merge(await self._hubs.forget(found.hub, found.device_id, maker))
            changes.audit(actor, "dps.release", found.registration_id, scope=instance.id_scope, hub=found.hub)
            await self._database.commit(changes)
            return found

        return await retry_on_conflict(decide)

    async def _forgetting(self, instance: Instance, registration_id: str) -> tuple[Registration, Changes]:
        found = await self.get(instance, registration_id)
        return found, Changes().run(
            store.DELETE_REGISTRATION,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The registration"),
            scope=instance.id_scope,
            registration_id=found.registration_id,
            etag=found.etag,
        )


def _created(registration: Registration, *, is_first: bool) -> dict[str, Any]:
    """Return the audit details of a registration that created its device at the hub."""
    if not is_first or registration.substatus == REASSIGNED:
        return {}
    is_named_so = registration.device_id == registration.registration_id
    return {"created": True} if is_named_so else {"created": True, "device_id": registration.device_id}


def _registration_actor(instance: Instance, registration_id: str) -> str:
    return f"dps:{instance.id_scope}/{registration_id}"


def require_unchanged_enrollment(instance: Instance, enrollment: Enrollment, registration_id: str) -> Changes:
    """Return a write guard that requires the enrollment to be unchanged."""
    kind = "group" if enrollment.is_group else "individual"
    read: dict[str, Any] = {
        "key_scope": instance.id_scope,
        "key_kind": kind,
        "key_id": enrollment.id,
        "key_etag": enrollment.etag,
    }
    if not enrollment.is_group:
        return Changes().run(store.STILL_ENROLLED, expect=1, **read)
    return Changes().run(store.STILL_OF_GROUP, expect=1, **read, key_registration_id=registration_id.lower())


def _written(instance: Instance, registration: Registration, present: Registration | None) -> Changes:
    row = {"scope": instance.id_scope} | store.REGISTRATIONS.row(registration)
    if present is None:
        return Changes().run(store.ADD_REGISTRATION, **row)
    scope, registration_id = row.pop("scope"), row.pop("registration_id")
    return Changes().run(
        store.REPLACE_REGISTRATION,
        expect=1,
        key_scope=scope,
        key_registration_id=registration_id,
        key_etag=present.etag,
        **row,
    )


_NOTHING_ISSUED: Mapping[str, Any] = dict.fromkeys(("issued_key", "issued_by", "issued_at", "issued_chain"))
_NO_TPM: Mapping[str, Any] = dict.fromkeys(("endorsement_key", "storage_root_key", "authentication_key"))


def _identity(enrollment: Enrollment, claim: Claim) -> HubIdentity:
    """Return the device's credentials at its hub, from the proof that was accepted."""
    match enrollment.attestation:
        case SymmetricKey(keys):
            if enrollment.is_group:
                keys = tuple(derive_device_key(key, claim.registration_id) for key in keys)
            return HubIdentity(keys=keys, iot_edge=enrollment.is_edge)
        case X509Individual(thumbprints):
            return HubIdentity(thumbprints, iot_edge=enrollment.is_edge)
        case _:
            presented = () if claim.leaf is None else (claim.leaf.thumbprint,)
            return HubIdentity(presented, iot_edge=enrollment.is_edge)
