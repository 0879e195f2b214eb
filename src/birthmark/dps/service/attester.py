"""Attestation: the enrollment to which a device belongs, by its proof."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.dps import store
from birthmark.dps.domain_events import AuthorityChanged, GroupChanged, InstancesChanged
from birthmark.dps.model import Claim, Enrollment, Instance, Registration, TpmKeys
from birthmark.dps.ports import CertificateInventory
from birthmark.dps.rules import attestation
from birthmark.dps.rules.tpm_attestation import TpmNotEnrolledError
from birthmark.dps.service.enrollment_group_lookup import Groups
from birthmark.dps.service.enrollments import Enrollments
from birthmark.dps.service.instances_and_authorization import Instances
from birthmark.dps.service.tpm_challenges_and_srks import Tpms
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.net.quota_key import share_of
from birthmark.pki.names_and_registration_ids import parse_registration_id
from birthmark.rate_limits import RateLimits
from birthmark.store import Database
from birthmark.store.database import Heard


class RegistrationThrottledError(ThrottledError):
    """The device registers too often."""

    code = "dps.throttled"
    cause = "{registration_id} registered more than {burst} times in succession, more often than once every {wait_s} s."
    fix = "Wait {wait_s} s or for the Retry-After time. Check whether the device restarts repeatedly."
    burst: str
    registration_id: str
    wait_s: str


BURST, EVERY_S = 30, 2
# How long a verdict counts for the next request on the same connection: a CONNECT and its register are milliseconds
# apart. Operator changes take effect at once, from any worker.
_VERDICT_S = 1.0
_BY_WHICH = (AuthorityChanged, GroupChanged, InstancesChanged)
"""Events that may change a verdict; an individual enrollment is checked in the commit."""


@dataclass(frozen=True, slots=True)
class AttestedClaim:
    """A proven claim and its enrollment. `at` is monotonic time; `heard` is the number of events so far."""

    instance: Instance
    enrollment: Enrollment
    claim: Claim
    at: float
    heard: int
    tpm: TpmKeys | None = None
    """The TPM that signed the token."""


class Attester:
    """Attests claims at every provisioning service."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        *,
        instances: Instances,
        enrollments: Enrollments,
        inventory: CertificateInventory | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._instances = instances
        self._enrollments = enrollments
        self._inventory = inventory
        self._groups = Groups(database, inventory)
        self.tpms = Tpms(database, clock, entropy)
        self._heard = 0  # events that may change a verdict
        database.on_events(self._hear)
        # Per scope and proven name.
        self._limits = RateLimits(burst=BURST, per_s=1 / EVERY_S, max_addresses=16384)

    async def attest(self, claim: Claim) -> AttestedClaim:
        """Return the enrollment that `claim` proves; raise the reason for a failed proof."""
        began = self._clock.monotonic(), self._heard  # a write during the check outdates the verdict
        instance = self._instances.by_scope(claim.id_scope)
        with add_instance_facts(instance):
            try:
                attested = await self._attest_at(instance, claim, began)
            except attestation.EnrollmentDisabledError as disabled:
                raise await self._explain_disabled(disabled) from disabled
            await self._check_device(attested.enrollment, claim)
        return attested

    async def _explain_disabled(
        self, disabled: attestation.EnrollmentDisabledError
    ) -> attestation.EnrollmentDisabledError:
        """Return the refusal of a disabled enrollment; that of a revoked device has its own."""
        if self._inventory is None or not await self._inventory.is_lost(disabled.registration_id):
            return disabled
        return attestation.DeviceTakenBackError(
            enrollment=disabled.enrollment, options=disabled.options, registration_id=disabled.registration_id
        )

    async def _check_device(self, enrollment: Enrollment, claim: Claim) -> None:
        """Raise `DeviceTakenBackError` for a revoked device, also under an enrollment created since."""
        if self._inventory is None:
            return
        for name in {claim.registration_id, (None if enrollment.is_group else enrollment.device_id) or ""} - {""}:
            if await self._inventory.is_lost(name):
                raise attestation.DeviceTakenBackError(enrollment=enrollment.id, options="", registration_id=name)

    async def _attest_at(self, instance: Instance, claim: Claim, began: tuple[float, int]) -> AttestedClaim:
        registration_id = parse_registration_id(claim.registration_id)
        now = self._clock.now()
        individual = await self._enrollments.find(instance.id_scope, registration_id, is_group=False)
        if individual is not None and isinstance(individual.attestation, TpmKeys):
            attestation.check_enabled(individual, claim)
            present = await find_registration(self._database, instance, registration_id)
            proven = await self.tpms.check(instance, individual.attestation, present, claim)
            return replace(await self._attested(instance, individual, claim, began), tpm=proven)
        if individual is not None:
            attestation.check_individual(individual, claim, now)
            return await self._attested(instance, individual, claim, began)
        is_by_token = claim.leaf is None and bool(claim.token)
        find = self._groups.of_token if is_by_token else self._groups.of_certificate
        return await self._attested(instance, await find(instance.id_scope, claim, now), claim, began)

    async def challenge(self, claim: Claim) -> bytes | None:
        """Return the challenge for the TPM of `claim`; None if no challenge is required.

        Raise `AttestationError` for a TPM that is not enrolled.
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
        with add_instance_facts(instance):
            try:
                attestation.check_enabled(found, claim)
            except attestation.EnrollmentDisabledError as disabled:
                raise await self._explain_disabled(disabled) from disabled
        present = await find_registration(self._database, instance, registration_id)
        return await self.tpms.challenge(
            instance,
            found.attestation,
            present,
            claim,
            # By source address: the public keys of a TPM are not secret, and a third party must not use up the device's
            # quota.
            before_writing=lambda: self.take_room(instance, registration_id, f"tpm {share_of(claim.address)}"),
        )

    async def _attested(
        self, instance: Instance, enrollment: Enrollment, claim: Claim, began: tuple[float, int]
    ) -> AttestedClaim:
        if self._inventory is not None and claim.leaf is not None:
            await self._inventory.check(claim.leaf, claim.chain)
        return AttestedClaim(instance, enrollment, claim, *began)

    def is_fresh(self, verdict: AttestedClaim) -> bool:
        """Return whether a verdict is recent, and no worker has changed a group or CA since."""
        is_fresh = self._database.sharing.is_fresh() and self._clock.monotonic() - verdict.at <= _VERDICT_S
        return is_fresh and self.is_current(verdict)

    def is_current(self, verdict: AttestedClaim) -> bool:
        """Return whether no event has occurred since that may change the verdict."""
        return verdict.heard == self._heard

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - port signature
        del is_sure
        self._heard += any(isinstance(event, _BY_WHICH) for _, event in events)

    def take_room(self, instance: Instance, registration_id: str, what: str) -> None:
        name = f"{instance.id_scope} {registration_id.lower()} {what}"
        if not self._limits.has_room(name, self._clock.monotonic()):
            facts: dict[str, Any] = {"registration_id": registration_id, "burst": BURST, "wait_s": EVERY_S}
            raise RegistrationThrottledError(retry_after_s=EVERY_S, **facts)


async def find_registration(database: Database, instance: Instance, registration_id: str) -> Registration | None:
    """Return a registration, or None."""
    row = await database.one(store.GET_REGISTRATION, scope=instance.id_scope, registration_id=registration_id.lower())
    return None if row is None else store.REGISTRATIONS.of(row)


@contextmanager
def add_instance_facts(instance: Instance) -> Iterator[None]:
    """Add the instance to an error, so that its fix names the provisioning service."""
    try:
        yield
    except BirthmarkError as error:
        error.add_facts(instance=instance.name, options=instance.as_option)
        raise
