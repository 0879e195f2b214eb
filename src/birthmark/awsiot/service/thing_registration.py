"""Registration of a device from a provisioning template.

Thing, certificate, policies and attachments are one commit.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from birthmark.awsiot.domain_events import CertificateChanged
from birthmark.awsiot.model import (
    Account,
    CertificateId,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    PrincipalType,
    Thing,
    parse_attributes,
    parse_certificate_id,
    parse_thing_name,
)
from birthmark.awsiot.rules.policy import are_of_one_device
from birthmark.awsiot.rules.provisioning_plan_model import (
    CertificatePlan,
    Override,
    PolicyPlan,
    ProvisioningPlan,
    RegistrationFailedError,
    ResourceConflictsError,
    ThingPlan,
)
from birthmark.awsiot.rules.provisioning_templates import ParsedTemplate
from birthmark.awsiot.service.certificates import (
    CURVES,
    CertificateExistsError,
    CertificateRefusedError,
    Certificates,
    check,
    insert_changes,
    retry_if_registered,
)
from birthmark.awsiot.service.policies import MAX_ATTACHED, Policies, UnknownPolicyError
from birthmark.awsiot.service.policies import attaching as policy_attaching
from birthmark.awsiot.service.thing_groups import ThingGroups
from birthmark.awsiot.service.thing_principals import attachment_changes
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import certificates_and_access_keys as certificate_store
from birthmark.awsiot.store import policies as policy_store
from birthmark.awsiot.store import provisioning as store
from birthmark.awsiot.store import registry as registry_store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError, UnavailableError
from birthmark.pki.certificates import parse_pem
from birthmark.pki.csr import parse_csr
from birthmark.pki.pem_armor import unarmor
from birthmark.store import Changes, Database, retry_on_conflict

_ATTEMPTS = 4
_MAX_GROUPS = 10
_MOST_DOCUMENTS = 200
"""Maximum number of thing group policies that are checked; more policies count as broad permissions."""
_MAX_OWN = 5
PENDING = CertificateStatus.PENDING_ACTIVATION


class ThingTakenError(ConflictError):
    """The thing belongs to a device with a different certificate."""

    code = "awsiot.thing_taken"
    message = "Thing {thing} already has a different certificate"
    cause = (
        "A device with certificate {certificate_id} requested to become thing {thing}, which has certificate "
        "{other}. A new certificate cannot claim another device's thing, so nothing was changed."
    )
    fix = (
        "If this is the same device with a new certificate, detach the old certificate and retry: `aws iot "
        'detach-thing-principal --thing-name {thing} --principal "$(aws iot describe-certificate --certificate-id '
        '{other} --query certificateDescription.certificateArn --output text)"`'
    )
    certificate_id: str
    other: str
    thing: str


@dataclass(frozen=True, slots=True)
class RegisteredThing:
    """A registered device.

    `resources` maps each logical name in the template to the resource's kind and name.
    """

    certificate: DeviceCertificate | None
    thing: str | None
    resources: Mapping[str, tuple[str, str]]
    device_configuration: Mapping[str, Any]

    def to_response(self, account: Account) -> dict[str, Any]:
        """Return the RegisterThing response."""
        pem = "" if self.certificate is None else self.certificate.certificate.pem()
        return {
            "certificatePem": pem,
            "resourceArns": {logical: account.arn(*one) for logical, one in self.resources.items()},
        }


@dataclass(slots=True)
class _RegistrationWrites:
    """Pending writes of a registration."""

    actor: str
    changes: Changes
    resources: dict[str, tuple[str, str]]
    telling: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Events to publish after the commit."""


def _conflicts(thing: Thing, of: str) -> ResourceConflictsError:
    command = f"aws iot describe-thing --thing-name {thing.name}"
    return ResourceConflictsError(resource=f"Thing {thing.name}", property=of, thing=thing.name, command=command)


class ThingRegistration:
    """Registers devices according to provisioning plans."""

    def __init__(
        self, database: Database, certificates: Certificates, things: Things, groups: ThingGroups, policies: Policies
    ) -> None:
        self._database = database
        self._certificates = certificates
        self._things = things
        self._groups = groups
        self._policies = policies

    async def register(
        self,
        plan: ProvisioningPlan,
        *,
        actor: str,
        own: DeviceCertificate | None = None,
        is_known: bool = True,
        only_own: bool = False,
        more: Changes | None = None,
        noting: Callable[[RegisteredThing], Changes] | None = None,
    ) -> RegisteredThing:
        """Register a device; write `more` and the changes that `noting` returns in the same commit.

        Raise `RegistrationFailedError`, `ThingTakenError`.

        `own` is the certificate whose private key the device proved; `is_known` means that it is already registered.
        The plan must not name a different certificate. With `only_own`, the device cannot register as a thing that has
        another certificate.
        """

        async def decide() -> RegisteredThing:
            making = _RegistrationWrites(actor, Changes(), {})
            certificate = await self._certificate(plan.certificate, own, making, is_known=is_known)
            for one in plan.policies:
                await self._policy(one, certificate, making, plan)
            thing = None if plan.thing is None else await self._thing(plan.thing, making)
            if thing is not None and certificate is not None and plan.certificate is not None:
                kind = PrincipalType.EXCLUSIVE if plan.certificate.is_exclusive else PrincipalType.NON_EXCLUSIVE
                await self._attach(thing, certificate, kind, making, only_own=only_own)
            name = None if thing is None else thing.name
            made = RegisteredThing(certificate, name, making.resources, plan.device_configuration)
            making.changes.merge(more or Changes())
            if noting is not None:
                making.changes.merge(noting(made))
            await self._database.commit(making.changes)
            for tell in making.telling:
                await tell()
            return made

        return await retry_on_conflict(decide, attempts=_ATTEMPTS)

    # ---- certificates

    async def _certificate(
        self,
        plan: CertificatePlan | None,
        own: DeviceCertificate | None,
        making: _RegistrationWrites,
        *,
        is_known: bool,
    ) -> DeviceCertificate | None:
        if plan is None:
            if own is not None:
                raise RegistrationFailedError(step="Resources", detail="the template has no AWS::IoT::Certificate")
            return None
        step = f"Resources.{plan.logical}"
        with _step(step):
            if own is None:
                made = await self._resolve_certificate(plan, making)
            elif plan.certificate_id is None or plan.certificate_id.lower() != own.id:
                raise RegistrationFailedError(step=step, detail="its CertificateId is not that of the device")
            elif is_known:
                made = await self._kept(plan, await self._certificates.get(own.id), making)
            else:
                made = replace(own, status=CertificateStatus(plan.status))
                exists = CertificateExistsError(certificate_id=made.id)
                making.changes.merge(insert_changes(made, exists, actor=making.actor))
        making.resources[plan.logical] = "cert", made.id
        return made

    async def _resolve_certificate(self, plan: CertificatePlan, making: _RegistrationWrites) -> DeviceCertificate:
        """Return the certificate of a plan.

        The plan has the ID of an existing certificate, its PEM text, or a CSR.
        """
        status = CertificateStatus(plan.status)
        if plan.certificate_id is not None:
            known = await self._certificates.get(parse_certificate_id(plan.certificate_id))
            return await self._kept(plan, known, making)
        if plan.csr is not None:
            certificate = await self._certificates.issue(parse_csr(unarmor(plan.csr.encode()), CURVES).public_key)
            made = await self._certificates.prepare_registration(certificate, status, CertificateMode.DEFAULT, None)
        else:
            certificate = parse_pem(plan.pem or "")
            if (present := await self._certificates.find(certificate.thumbprint.hex())) is not None:
                return await self._kept(plan, present, making)
            check(certificate, self._certificates.clock.now())
            cas = await self._certificates.cas_of(certificate)
            if plan.ca_pem is not None:
                wanted = parse_pem(plan.ca_pem)
                cas = [ca for ca in cas if ca.certificate == wanted]
            if not cas:
                raise CertificateRefusedError(detail="no registered CA signed it")
            ca, pem = cas[0], plan.pem or ""
            with retry_if_registered():
                made = await self._certificates.prepare_registration(certificate, status, ca.mode, ca.id, pem=pem)
        making.changes.merge(insert_changes(made, actor=making.actor))
        return made

    async def _kept(
        self, plan: CertificatePlan, certificate: DeviceCertificate, making: _RegistrationWrites
    ) -> DeviceCertificate:
        """Return a registered certificate with its new status."""
        if certificate.claim is not None:
            raise CertificateRefusedError(detail="it is a claim certificate, not a device's")
        wanted = CertificateStatus(plan.status)
        if (
            certificate.status is CertificateStatus.REVOKED
            and wanted is not certificate.status
            and plan.override is Override.REPLACE
        ):
            raise CertificateRefusedError(detail="it was revoked, and a template cannot reactivate it")
        if certificate.status is not PENDING:
            if plan.override is Override.FAIL and wanted is not certificate.status:
                command = f"aws iot describe-certificate --certificate-id {certificate.id}"
                raise ResourceConflictsError(
                    resource="The certificate", property="Status", thing=certificate.id, command=command
                )
            if plan.override is not Override.REPLACE or wanted is certificate.status:
                return certificate
        clock = self._certificates.clock
        made = replace(certificate, status=wanted, modified_at=clock.now(), until=None)
        made = replace(made, customer_version=certificate.customer_version + 1)
        making.changes.run(
            store.KEEP,
            expect=1,
            key_id=certificate.id,
            key_customer_version=certificate.customer_version,
            status=wanted.value,
            modified_at=clock.micros(),
            customer_version=made.customer_version,
            until=None,
        )
        is_wide = wanted is CertificateStatus.ACTIVE and await self._certificates.has_wide_access(certificate.id)
        told = {"status": wanted.value} | ({"wide": True} if is_wide else {})
        making.changes.audit(making.actor, "awsiot.certificate_status", certificate.id, **told)
        making.changes.event(CertificateChanged(certificate.id, wanted.value))
        return made

    # ---- policies

    async def grants_broad_access(self, template: ParsedTemplate) -> bool:
        """Return whether a template grants devices more than access to their own resources.

        Template parameters and anything that cannot be determined count as more. A thing may be in any group, because
        the device supplies its name.
        """
        try:
            plan = template.plan(dict.fromkeys(template.parameters, "any"))
            named = [one.name for one in plan.policies if one.document is None]
            documents = [one.document for one in plan.policies if one.document is not None]
            documents += (await self._policies.documents_named(named)).values()
            if plan.thing is not None:
                rows = await self._database.all(policy_store.DOCUMENTS_OF_GROUPS, limit=_MOST_DOCUMENTS)
                if len(rows) == _MOST_DOCUMENTS:
                    return True
                documents += [row["document"] for row in rows]
            return not are_of_one_device(documents)
        except BirthmarkError:
            return True

    async def _policy(
        self,
        plan: PolicyPlan,
        certificate: DeviceCertificate | None,
        making: _RegistrationWrites,
        provisioning_plan: ProvisioningPlan,
    ) -> None:
        step = f"Resources.{plan.logical}"
        if certificate is None:
            raise RegistrationFailedError(step=step, detail="the policy has no certificate to be attached to")
        if ("policy", plan.name) in making.resources.values():  # duplicate name in the template
            making.resources[plan.logical] = "policy", plan.name
            return
        with _step(step):
            try:
                document = (await self._policies.version(plan.name))[1].document
            except UnknownPolicyError:
                if (given := plan.document) is None:
                    raise
                _, changes = self._policies.new_policy_changes(plan.name, given, actor=making.actor)
                making.changes.merge(changes)
                document = given
            present = (await self._policies.attached(certificate.id, "", 2 * MAX_ATTACHED)).items
            if len({*present, *(one.name for one in provisioning_plan.policies)}) > MAX_ATTACHED:
                raise RegistrationFailedError(step=step, detail=f"a certificate has at most {MAX_ATTACHED} policies")
            is_new = plan.name not in present
            is_wide = not are_of_one_device([document])
            making.changes.merge(
                policy_attaching(plan.name, certificate.id, is_new=is_new, is_wide=is_wide, actor=making.actor)
            )
        making.resources[plan.logical] = "policy", plan.name

    # ---- things

    async def _thing(self, plan: ThingPlan, making: _RegistrationWrites) -> Thing:
        step = f"Resources.{plan.logical}"
        with _step(step):
            name = parse_thing_name(plan.name)
            attributes = parse_attributes(plan.attributes)
            if len(plan.groups) > _MAX_GROUPS:
                raise RegistrationFailedError(step=step, detail=f"a thing can be in at most {_MAX_GROUPS} groups")
            present = await self._things.find(name)
            if present is None:
                await self._things.types.check_usable(plan.type_name)
                entropy, clock = self._things.entropy, self._things.clock
                made = Thing(name, new_uuid(entropy), plan.type_name, attributes, None, 1, clock.now())
                making.changes.merge(await self._things.creation_changes(made, actor=making.actor))
                making.telling.append(partial(self._things.publish_created, made))
            else:
                made = await self._changed(plan, present, attributes, making)
            await self._join(plan, made, making, is_new=present is None)
        making.resources[plan.logical] = "thing", name
        return made

    async def _changed(
        self, plan: ThingPlan, present: Thing, attributes: Mapping[str, str], making: _RegistrationWrites
    ) -> Thing:
        """Return an existing thing with the plan's changes."""
        made = present
        wanted = dict(present.attributes)
        match plan.override("AttributePayload"):
            case Override.REPLACE:
                wanted = dict(attributes)
            case Override.MERGE:
                wanted = parse_attributes({**present.attributes, **attributes})
            case Override.FAIL if attributes != present.attributes:
                raise _conflicts(present, "AttributePayload")
        type_name = present.type_name
        match plan.override("ThingTypeName"):
            case Override.REPLACE:
                await self._things.types.check_usable(plan.type_name)
                type_name = plan.type_name
            case Override.FAIL if plan.type_name != present.type_name:
                raise _conflicts(present, "ThingTypeName")
        if (wanted, type_name) != (present.attributes, present.type_name):
            made = replace(present, attributes=wanted, type_name=type_name, version=present.version + 1)
            making.changes.merge(await self._things.update_changes(present, made, actor=making.actor))
            making.telling.append(partial(self._things.publish_updated, present, made))
        return made

    async def _join(self, plan: ThingPlan, thing: Thing, making: _RegistrationWrites, *, is_new: bool) -> None:
        """Add a thing to its groups; for an existing thing, follow the plan's override setting."""
        how = Override.MERGE if is_new else plan.override("ThingGroups")
        if how is Override.DO_NOTHING:
            return
        rows = (
            () if is_new else await self._database.all(registry_store.GROUPS_OF, thing=thing.name, after="", limit=100)
        )
        present = {str(row["thing_group"]) for row in rows}
        if how is Override.FAIL:
            if present != set(plan.groups):
                raise _conflicts(thing, "ThingGroups")
            return
        into = [group for group in plan.groups if group not in present]
        out_of = sorted(present - set(plan.groups)) if how is Override.REPLACE else []
        groups = await self._groups.changeable(into, out_of)
        making.changes.merge(await self._groups.membership_changes(thing.name, into, out_of, actor=making.actor))
        making.telling.append(partial(self._groups.publish_membership_events, thing, groups, into, out_of))

    async def _attach(
        self,
        thing: Thing,
        certificate: DeviceCertificate,
        kind: PrincipalType,
        making: _RegistrationWrites,
        *,
        only_own: bool,
    ) -> None:
        same = await self._database.one(registry_store.ATTACHMENT, thing=thing.name, certificate_id=certificate.id)
        with _step("Resources"):
            rows = await self._database.all(registry_store.THINGS_OF, certificate_id=certificate.id, after="", limit=2)
            others = [str(row["thing"]) for row in rows if row["thing"] != thing.name]
            is_alone = any(row["kind"] == PrincipalType.EXCLUSIVE.value for row in rows if row["thing"] != thing.name)
            if (
                (same is not None and same["kind"] != kind.value)
                or is_alone
                or (others and kind is PrincipalType.EXCLUSIVE)
            ):
                detail = (
                    f"the certificate is attached to {others[0] if others else thing.name} with another principal type"
                )
                raise RegistrationFailedError(step="Resources", detail=detail)
        is_wide = not are_of_one_device((await self._policies.of_groups(thing.name))[1].values())
        changes = attachment_changes(
            thing.name, certificate.id, kind, is_new=same is None, is_wide=is_wide, actor=making.actor
        )
        if only_own:
            making.changes.run(registry_store.THING_IS_THERE, expect=1, key_name=thing.name)
            kept = await self._replace_own(thing.name, certificate, making)
            who: dict[str, Any] = {"certificate_id": certificate.id, "kept": kept or certificate.id}
            making.changes.run(store.NOBODY_ELSES, expect=1, key_name=thing.name, **who)
        making.changes.merge(changes)

    async def _replace_own(
        self, thing: str, certificate: DeviceCertificate, making: _RegistrationWrites
    ) -> CertificateId | None:
        """Replace the device's earlier certificate with the same key, whose response the device lost.

        Return the certificate that stays until the new one connects: the requester has not proved possession of the
        key. A pending replacement that never connected is detached and deactivated immediately.

        Raise `ThingTakenError` for any other certificate, and for one that is not active.
        """
        kept: CertificateId | None = None
        rows = await self._database.all(registry_store.PRINCIPALS_OF, thing=thing, after="", limit=_MAX_OWN)
        for other in (str(row["certificate_id"]) for row in rows):
            if other == certificate.id:
                continue
            known = await self._certificates.get(other)
            is_its_own = known.certificate.spki_der == certificate.certificate.spki_der
            is_second = known.replaces is None and kept is not None
            if not is_its_own or known.status is not CertificateStatus.ACTIVE or is_second:
                raise ThingTakenError(thing=thing, certificate_id=certificate.id, other=other)
            if known.replaces is None:
                kept = known.id
                continue
            making.changes.run(registry_store.DETACH, thing=thing, certificate_id=other)
            making.changes.audit(making.actor, "awsiot.thing_detach", thing, certificate_id=other)
            making.changes.merge(
                self._certificates.status_changes(known, CertificateStatus.INACTIVE, actor=making.actor)
            )
        if kept is not None:
            making.changes.run(certificate_store.REPLACES, expect=1, key_id=certificate.id, replaces=kept)
        return kept


@contextlib.contextmanager
def _step(step: str) -> Iterator[None]:
    """Add the resource's template path to any error raised while it is created."""
    try:
        yield
    except (RegistrationFailedError, ResourceConflictsError, ThingTakenError, ChangedMeanwhileError, UnavailableError):
        raise
    except BirthmarkError as error:
        raise RegistrationFailedError(step=step, detail=str(error).rstrip(".")) from error
