"""A device registers: attest, allocate, and make it a device of its hub, in one commit."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from birthmark.auth.sas import derive_device_key
from birthmark.ca.rules.issuance import KeyTakenError
from birthmark.clock import Clock, Entropy, new_uuid
from birthmark.dps import store
from birthmark.dps.events import AuthorityChanged, GroupChanged, InstancesChanged
from birthmark.dps.model import (
    INITIAL,
    REASSIGNED,
    Claim,
    Enrollment,
    Instance,
    Registration,
    SymmetricKey,
    TpmKeys,
    X509Individual,
)
from birthmark.dps.ports import CertificateInventory, CertificateIssuer, HubIdentity, HubRegistry
from birthmark.dps.rules import attestation
from birthmark.dps.rules.registration import MIGRATED, RESET, check_csr, decide
from birthmark.dps.rules.tiers import Paced
from birthmark.dps.rules.tpm import TpmNotEnrolledError
from birthmark.dps.service.allocating import Choosing
from birthmark.dps.service.enrollments import EnrollmentChangedError, Enrollments
from birthmark.dps.service.groups import Groups
from birthmark.dps.service.instances import Instances
from birthmark.dps.service.issuing import NO_ISSUER, Case, Issuing, issued_at
from birthmark.dps.service.tpms import Tpms
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError, NotFoundError, ThrottledError
from birthmark.net.share import share_of
from birthmark.pki.names import parse_registration_id
from birthmark.rate_limits import RateLimits
from birthmark.store import Changes, Database, decided_again
from birthmark.store.database import Heard


class RegistrationNotFoundError(NotFoundError):
    """No registration under that id, or not of that operation."""

    code = "dps.registration_not_found"
    message = "{registration_id} is not registered{detail}"
    cause = "There is no registration {registration_id} in scope {scope}{detail}."
    fix = "Let the device register; `birthmark device ls` shows who is unassigned."
    detail: str
    registration_id: str
    scope: str


class RegistrationBusyError(ThrottledError):
    """Too many register at once."""

    code = "dps.registration_busy"
    cause = "The same registration or device is written by several at the same moment."
    fix = "Try again, as the SDKs do by themselves. If it stays, two devices have one name: look for the second."


class RegistrationThrottledError(ThrottledError):
    """Too many registrations."""

    code = "dps.throttled"
    cause = "{registration_id} registered more than {burst} times in a row, faster than once in {wait_s} s."
    fix = (
        "Wait {wait_s} s, or as long as Retry-After says. A device that registers so often probably starts anew again."
    )
    burst: str
    registration_id: str
    wait_s: str


BURST, EVERY_S = 30, 2
_TOLD_AGAIN = timedelta(hours=1)
_MAX_TOLD = 10_000
_ATTEMPTS = 5
# How long a verdict counts for the request that follows it on the same connection: a CONNECT and its register are
# milliseconds apart. What an operator changes takes effect at once, whichever worker does it.
_VERDICT_S = 1.0
_BY_WHICH = (AuthorityChanged, GroupChanged, InstancesChanged)
"""By these a verdict may be another; an enrollment of its own is looked at in the commit."""


@dataclass(frozen=True, slots=True)
class Attested:
    """A claim whose proof holds, and the enrollment it belongs to. `at` is monotonic time; `heard` counts events."""

    instance: Instance
    enrollment: Enrollment
    claim: Claim
    at: float
    heard: int
    tpm: TpmKeys | None = None
    """The TPM that signed the token."""


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
        self._told: OrderedDict[tuple[object, ...], datetime] = OrderedDict()  # what changed, and when a row said so
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._instances = instances
        self._enrollments = enrollments
        self._hubs = hubs
        self._inventory = inventory
        self.issuing = Issuing(database, issuer)
        self._groups = Groups(database, inventory)
        self._tpms = Tpms(database, clock, entropy)
        self._heard = 0  # events by which a verdict may be another
        database.on_events(self._hear)
        self.count = 0  # of those that were made or made again
        # Per scope and name, once proven.
        self._limits = RateLimits(burst=BURST, per_s=1 / EVERY_S, max_addresses=16384)

    async def attest(self, claim: Claim) -> Attested:
        """Return the enrollment that `claim` proves to belong to, else raise why not."""
        began = self._clock.monotonic(), self._heard  # what is written while it looks makes the verdict an old one
        instance = self._instances.by_scope(claim.id_scope)
        with _naming(instance):
            try:
                attested = await self._attest_at(instance, claim, began)
            except attestation.EnrollmentDisabledError as disabled:
                if self._inventory is not None and await self._inventory.is_lost(claim.registration_id):
                    raise attestation.DeviceTakenBackError(
                        enrollment=disabled.enrollment,
                        options=disabled.options,
                        registration_id=disabled.registration_id,
                    ) from disabled
                raise
            await self._check_device(attested.enrollment, claim)
        return attested

    async def _check_device(self, enrollment: Enrollment, claim: Claim) -> None:
        """Raise `DeviceTakenBackError` where the device was revoked, also by an enrollment that was made since."""
        if self._inventory is None:
            return
        for name in {claim.registration_id, (None if enrollment.is_group else enrollment.device_id) or ""} - {""}:
            if await self._inventory.is_lost(name):
                raise attestation.DeviceTakenBackError(enrollment=enrollment.id, options="", registration_id=name)

    async def _attest_at(self, instance: Instance, claim: Claim, began: tuple[float, int]) -> Attested:
        registration_id = parse_registration_id(claim.registration_id)
        now = self._clock.now()
        individual = await self._enrollments.find(instance.id_scope, registration_id, is_group=False)
        if individual is not None and isinstance(individual.attestation, TpmKeys):
            attestation.check_enabled(individual, claim)
            present = await self.find(instance, registration_id)
            proven = await self._tpms.check(instance, individual.attestation, present, claim)
            return replace(await self._attested(instance, individual, claim, began), tpm=proven)
        if individual is not None:
            attestation.check_individual(individual, claim, now)
            return await self._attested(instance, individual, claim, began)
        is_by_token = claim.leaf is None and bool(claim.token)
        find = self._groups.of_token if is_by_token else self._groups.of_certificate
        return await self._attested(instance, await find(instance.id_scope, claim, now), claim, began)

    async def challenge(self, claim: Claim) -> bytes | None:
        """Return what the TPM of `claim` has to open before it registers; None where it need not.

        Raise `AttestationError` for a TPM that is not on record.
        """
        if claim.tpm is None or claim.token:
            return None
        instance = self._instances.by_scope(claim.id_scope)
        registration_id = parse_registration_id(claim.registration_id)
        found = await self._enrollments.find(instance.id_scope, registration_id, is_group=False)
        if found is None and claim.leaf is None:
            raise TpmNotEnrolledError(
                registration_id=claim.registration_id,
                scope=instance.id_scope,
                endorsement_key=claim.tpm.endorsement.base64,
                options=instance.as_option,
            )
        if found is None or not isinstance(found.attestation, TpmKeys):
            return None
        with _naming(instance):
            attestation.check_enabled(found, claim)
        present = await self.find(instance, registration_id)
        return await self._tpms.challenge(
            instance,
            found.attestation,
            present,
            claim,
            # By where it comes from: anybody may send the public keys of a TPM, and not use up its own turns.
            before_writing=lambda: self._take_room(instance, registration_id, f"tpm {share_of(claim.address)}"),
        )

    async def _attested(
        self, instance: Instance, enrollment: Enrollment, claim: Claim, began: tuple[float, int]
    ) -> Attested:
        if self._inventory is not None and claim.leaf is not None:
            await self._inventory.check(claim.leaf, claim.chain)
        return Attested(instance, enrollment, claim, *began)

    async def register(self, claim: Claim, verdict: Attested | None = None) -> Registration:
        """Attest, assign, record, and make the device known to its hub. Durable when it returns.

        `verdict` is an earlier one of the same claim; it counts while it is fresh.
        """
        if verdict is None or verdict.claim != claim or not self._counts(verdict):
            verdict = await self.attest(claim)
        registration_id = parse_registration_id(claim.registration_id)
        self._take_room(verdict.instance, registration_id, "")
        self._instances.take(Paced.REGISTRATION, verdict.instance)
        problem: ConflictError | None = None
        choosing = Choosing(self._enrollments, self._hubs, claim)
        for _ in range(_ATTEMPTS):
            attested = verdict if problem is None else await self.attest(claim)  # its enrollment may be another by now
            attested = replace(attested, claim=claim)
            instance, enrollment = attested.instance, attested.enrollment
            present = await self.find(instance, registration_id)
            with _naming(instance):
                if (problem := await choosing.interrupted(instance, enrollment, present)) is not None:
                    continue
                enrollment, payload = choosing.applied(enrollment, present)
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
            registration = await self._truly(present, registration)
            if claim.csr is not None:
                with _naming(instance):
                    check_csr(enrollment, registration_id, claim.csr)
            identity, kept = self._identity(attested)
            registration = replace(registration, **kept, **_NOTHING_ISSUED, payload=payload)
            identity = replace(
                identity,
                twin=enrollment.twin,
                maker=_maker(instance, registration_id),
                proved=(*identity.thumbprints, *identity.keys),
                is_individual=not enrollment.is_group,
            )
            write = await self._writing(attested, registration, present, now)
            try:
                at_hub = partial(self._at_its_hub, present, now=now, migrates=enrollment.migrates)
                if enrollment.policy is None:
                    with _naming(instance):
                        provisioned = await at_hub(registration, identity)
                    await self._database.commit(write(registration).merge(provisioned))
                else:
                    at = registration.hub if present is None else present.hub
                    standing = await self._hubs.standing(at, registration.device_id)
                    case = Case(enrollment, claim, present, registration, identity, standing, at_hub, now)
                    with _naming(instance):
                        registration = await self.issuing.commit(case, write)
            except KeyTakenError:
                raise
            except ConflictError as error:  # another was faster, of this name or of this device: decide on what it left
                problem = error
                continue
            self.count += 1
            return registration
        raise RegistrationBusyError(retry_after_s=1) from problem

    async def _writing(
        self, attested: Attested, decided: Registration, present: Registration | None, now: datetime
    ) -> Callable[[Registration], Changes]:
        """Return what gives the changes of a registration, but for its device's at the hub; it may be called again."""
        instance, enrollment, claim = attested.instance, attested.enrollment, attested.claim
        is_news = await self._is_news(present, decided)

        def write(registration: Registration) -> Changes:
            if attested.heard != self._heard:
                raise ChangedMeanwhileError(what="The enrollment")
            changes = while_enrolled(instance, enrollment, registration.registration_id)
            changes.merge(_written(instance, registration, present))
            if attested.tpm is not None:
                changes.merge(self._tpms.forgetting(instance, registration.registration_id))
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
                    **issued,
                )
            return changes

        return write

    async def _is_news(self, present: Registration | None, made: Registration) -> bool:
        """Say whether a registration goes into the audit trail.

        One that says what the last one said does so once an hour: rows are kept for ever, and a device that registers
        at each start, or as often as it may, would fill the disk with them.
        """
        if present is None or made.updated_at - present.updated_at >= _TOLD_AGAIN:
            return True
        kept = (present.hub, present.device_id, present.thumbprint, present.group_id)
        if kept != (said := (made.hub, made.device_id, made.thumbprint, made.group_id)):
            return self._is_told_first((made.registration_id, *said), made.updated_at)
        return not await self._hubs.has(made.hub, made.device_id)

    def _is_told_first(self, said: tuple[object, ...], at: datetime) -> bool:
        """Say whether this was not told within the hour: a device with two certificates may show them by turns."""
        before = self._told.pop(said, None)
        self._told[said] = at if before is None or at - before >= _TOLD_AGAIN else before
        if len(self._told) > _MAX_TOLD:
            self._told.popitem(last=False)
        return before is None or at - before >= _TOLD_AGAIN

    async def _truly(self, present: Registration | None, made: Registration) -> Registration:
        """Return a registration that says what it finds at its hub: the device already, or no data to take along."""
        is_new = present is None or present.created_at != made.created_at
        if is_new and made.substatus == INITIAL and await self._hubs.has(made.hub, made.device_id):
            return replace(made, substatus=REASSIGNED)
        if present is None or made.substatus != MIGRATED or present.hub.lower() == made.hub.lower():
            return made
        there_is = await self._hubs.has(present.hub, present.device_id)
        return made if there_is else replace(made, substatus=RESET)

    async def _at_its_hub(
        self, present: Registration | None, made: Registration, identity: HubIdentity, *, now: datetime, migrates: bool
    ) -> Changes:
        """Return the changes that let the hub know the device; of another hub than before it is taken away there."""
        if present is None or present.hub.lower() == made.hub.lower():
            return await self._hubs.provision(made.hub, made.device_id, identity, now)
        if present.device_id != made.device_id:
            changes = await self._hubs.forget(present.hub, present.device_id, identity.maker)
            return changes.merge(await self._hubs.provision(made.hub, made.device_id, identity, now))
        return await self._hubs.move(made.device_id, present.hub, made.hub, identity, now, with_twin=migrates)

    def _counts(self, verdict: Attested) -> bool:
        """Say whether a verdict is fresh, and no group or CA was written since, by whichever worker."""
        is_fresh = self._database.sharing.is_fresh() and self._clock.monotonic() - verdict.at <= _VERDICT_S
        return is_fresh and verdict.heard == self._heard

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - as the port has it
        del is_sure
        self._heard += any(isinstance(event, _BY_WHICH) for _, event in events)

    def _take_room(self, instance: Instance, registration_id: str, what: str) -> None:
        name = f"{instance.id_scope} {registration_id.lower()} {what}"
        if not self._limits.has_room(name, self._clock.monotonic()):
            facts: dict[str, Any] = {"registration_id": registration_id, "burst": BURST, "wait_s": EVERY_S}
            raise RegistrationThrottledError(retry_after_s=EVERY_S, **facts)

    def _identity(self, attested: Attested) -> tuple[HubIdentity, Mapping[str, Any]]:
        """Return how the device proves itself at its hub, and what the registration keeps of its TPM."""
        if attested.tpm is None:
            return _identity(attested.enrollment, attested.claim), _NO_TPM
        key, kept = self._tpms.hub_key(attested.tpm)
        return HubIdentity(keys=(key,), iot_edge=attested.enrollment.is_edge), kept

    async def operation(self, claim: Claim, operation_id: str) -> Registration:
        """Return the registration that `operation_id` made. Raise `RegistrationNotFoundError`."""
        attested = await self.attest(claim)
        self._instances.take(Paced.POLL, attested.instance, claim.registration_id.lower())
        found = await self.get(attested.instance, claim.registration_id)
        if found.operation_id != operation_id:
            raise RegistrationNotFoundError(
                registration_id=claim.registration_id, scope=claim.id_scope, detail=" for that operation id"
            )
        return found

    async def find(self, instance: Instance, registration_id: str) -> Registration | None:
        """Return the registration, or None."""
        row = await self._database.one(
            store.GET_REGISTRATION, scope=instance.id_scope, registration_id=registration_id.lower()
        )
        return None if row is None else store.REGISTRATIONS.of(row)

    async def get(self, instance: Instance, registration_id: str) -> Registration:
        """Return the registration. Raise `RegistrationNotFoundError`."""
        found = await self.find(instance, registration_id)
        if found is None:
            raise RegistrationNotFoundError(registration_id=registration_id, scope=instance.id_scope, detail="")
        return found

    async def of_page(self, instance: Instance, after: str, limit: int) -> Mapping[str, Registration]:
        """Return the registrations, by id, of a page of individual enrollments."""
        rows = await self._database.all(store.REGISTRATIONS_OF_PAGE, scope=instance.id_scope, after=after, limit=limit)
        return {row["registration_id"]: store.REGISTRATIONS.of(row) for row in rows}

    async def of_group(self, instance: Instance, group_id: str, after: str, limit: int) -> list[Registration]:
        """Return a group's registrations in order of id, those greater than `after`."""
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
        """Forget a registration; the device may register again if its enrollment allows.

        Raise `RegistrationNotFoundError`, or `EnrollmentChangedError` for another etag.
        """
        etag = (if_match or "*").strip('"')

        async def decide() -> None:
            found, changes = await self._forgetting(instance, registration_id)
            if etag not in {"*", found.etag.strip('"')}:
                raise EnrollmentChangedError(enrollment=found.registration_id, etag=etag)
            changes.audit(actor, "dps.registration_delete", found.registration_id, scope=instance.id_scope)
            await self._database.commit(changes)

        await decided_again(decide)

    async def release(self, instance: Instance, registration_id: str, *, actor: str) -> Registration:
        """Let a name go: forget its registration and the device that it made at its hub. Return what was registered.

        Whoever is enrolled for the name next may have it. Raise `RegistrationNotFoundError`.
        """

        async def decide() -> Registration:
            found, changes = await self._forgetting(instance, registration_id)
            maker = _maker(instance, found.registration_id)
            changes.merge(await self._hubs.forget(found.hub, found.device_id, maker))
            changes.audit(actor, "dps.release", found.registration_id, scope=instance.id_scope, hub=found.hub)
            await self._database.commit(changes)
            return found

        return await decided_again(decide)

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


@contextmanager
def _naming(instance: Instance) -> Iterator[None]:
    """Let a refusal whose fix is at a provisioning service name that one."""
    try:
        yield
    except BirthmarkError as error:
        error.add_facts(instance=instance.name, options=instance.as_option)
        raise


def _maker(instance: Instance, registration_id: str) -> str:
    return f"dps:{instance.id_scope}/{registration_id}"


def while_enrolled(instance: Instance, enrollment: Enrollment, registration_id: str) -> Changes:
    """Return what a commit begins with that holds while the enrollment is as it was read."""
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
    """Return how the device proves itself at its hub: by what passed here."""
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
