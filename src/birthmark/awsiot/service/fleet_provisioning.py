"""Fleet provisioning by claim: a certificate for a device without its own.

See the developer guide, "Device provisioning MQTT API" and "Provisioning devices that don't have device certificates".

An issued certificate is PENDING_ACTIVATION and expires after an hour. Its ownership token is stored as a digest, and is
valid once and only for its requester. A claim certificate can only provision devices, whatever its policies allow. One
for a trusted user is limited from the start, any other from its first request, unless it belongs to a thing.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from birthmark.awsiot.domain_events import CertificateChanged, GrantsChanged
from birthmark.awsiot.model import (
    Account,
    CertificateId,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    OwnedCertificate,
    ProvisioningTemplate,
    TemplateType,
    is_certificate_id,
)
from birthmark.awsiot.ports import FunctionCaller, Functions
from birthmark.awsiot.rules.provisioning_plan_model import RegistrationFailedError
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.rules.template_functions import CERTIFICATE_ID
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.certificates import CURVES, Certificates, TooManyOwnedError, insert_changes
from birthmark.awsiot.service.provisioning_templates import ProvisioningTemplates, hook_arn
from birthmark.awsiot.service.thing_registration import RegisteredThing, ThingRegistration
from birthmark.awsiot.store import policies as policy_store
from birthmark.awsiot.store import provisioning as store
from birthmark.awsiot.wire.provisioning import parse_hook_answer
from birthmark.errors import ChangedMeanwhileError, ForbiddenError, InvalidRequestError
from birthmark.pki.csr import parse_csr
from birthmark.pki.pem_armor import unarmor
from birthmark.rate_limits import RateLimits
from birthmark.store import Changes

OWNED_FOR = timedelta(hours=1)
CLAIM_FOR = timedelta(minutes=5)
MAX_OWNED = 1_000
"""Maximum number of unused certificates per claim certificate."""
BURST, PER_SECOND = 200, 20
"""Rate limit per claim certificate: burst, and certificates per second."""
_SWEEP_S = 15.0


class OwnershipTokenError(InvalidRequestError):
    """The certificate ownership token is not valid."""

    code = "awsiot.ownership_token"
    message = "Certificate ownership token is not valid: {detail}"
    cause = "The client {thing} used an ownership token with the template {template}: {detail}."
    fix = (
        "Request a new certificate and use its ownership token. A token is valid once, for one hour, on the "
        "connection or client ID that received the token. Print an example: `birthmark aws template example`"
    )
    detail: str
    template: str
    thing: str


class HookRefusedError(ForbiddenError):
    """The pre-provisioning hook denied the device."""

    code = "awsiot.hook_refused"
    message = "The pre-provisioning hook denied the device: {detail}"
    cause = (
        "The client {thing} requested provisioning with the template {template}, and the template's hook {arn} "
        "denied the request: {detail}."
    )
    fix = (
        "Check the hook's logic and the device's parameters. Show the template: `birthmark aws template show "
        "{template}`"
    )
    arn: str
    detail: str
    template: str
    thing: str


class ReplyTopicNotSubscribedError(InvalidRequestError):
    """The client is not subscribed to the response topic."""

    code = "awsiot.answer_unheard"
    cause = "The client {thing} sent a request without a subscription to {topic}; the response is lost."
    fix = (
        "Subscribe to both response topics (accepted and rejected), and wait for the SUBACK before you send the "
        "request. Print an example: `birthmark aws template example`"
    )
    thing: str
    topic: str


class MqttRequiredError(InvalidRequestError):
    """Certificate requests are available over MQTT only."""

    code = "awsiot.nobody_to_answer"
    message = "Certificate requests are available over MQTT only"
    cause = "A client published to {topic} over HTTPS; the server can send the response only over an MQTT connection."
    fix = (
        "Connect over MQTT, subscribe to the response topics, and publish the request on that connection. Print an "
        "example: `birthmark aws template example`"
    )
    topic: str


@dataclass(frozen=True, slots=True)
class ProvisioningCaller:
    """Caller of fleet provisioning: certificate or access key, and client ID."""

    principal: str
    client_id: str


def _too_many(asker: ProvisioningCaller, limit: int, what: str, retry_after_s: int) -> TooManyOwnedError:
    return TooManyOwnedError(limit=limit, principal=asker.principal, what=what, retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True)
class IssuedCredentials:
    """Credentials for a device; `private_key` is None if it has its own."""

    certificate: DeviceCertificate
    token: str = field(repr=False)
    private_key: rsa.RSAPrivateKey | None = field(repr=False)


@dataclass(slots=True)
class Claims(AccountService):
    """Issues certificates to devices, and registers things for ownership tokens."""

    account: Account
    certificates: Certificates
    templates: ProvisioningTemplates
    provisioning: ThingRegistration
    functions: Functions
    pace: RateLimits = field(default_factory=lambda: RateLimits(BURST, PER_SECOND))
    """Rate limit per claim, so that one cannot use up its devices' quota at once."""

    async def create_from_csr(self, asker: ProvisioningCaller, csr: str) -> IssuedCredentials:
        """Issue a certificate for a CSR. Raise `InvalidRequestError` of `pki.csr`, `TooManyOwnedError`."""
        public_key = parse_csr(unarmor(csr.encode(errors="replace")), CURVES).public_key
        await self._check_room(asker)
        return await self._give(asker, public_key, None)

    async def create_keys(self, asker: ProvisioningCaller) -> IssuedCredentials:
        """Generate a key and its certificate; the key is only in the response and not stored."""
        await self._check_room(asker)
        key = await self.certificates.keys.make(asker.principal)
        return await self._give(asker, key.public_key(), key)

    async def _check_room(self, asker: ProvisioningCaller) -> None:
        if not self.pace.has_room(asker.principal, self.clock.monotonic()):
            raise _too_many(asker, PER_SECOND, f"a second, after the first {BURST}", 1)
        row = await self.database.one(store.OWNED_COUNT, principal=asker.principal, now=self.clock.micros())
        count = 0 if row is None else row["count"]
        if count >= MAX_OWNED:
            raise _too_many(asker, MAX_OWNED, "that no device uses yet", 60)

    async def _give(
        self, asker: ProvisioningCaller, public_key: Any, private_key: rsa.RSAPrivateKey | None
    ) -> IssuedCredentials:
        until = self.clock.now() + OWNED_FOR
        certificate = await self.certificates.issue(public_key)
        made = await self.certificates.prepare_registration(
            certificate, CertificateStatus.PENDING_ACTIVATION, CertificateMode.DEFAULT, None, until=until
        )
        token = self.entropy.token(48).hex()
        owned = OwnedCertificate(made.id, _digest(token), asker.principal, asker.client_id, until)
        changes = insert_changes(made, actor=f"certificate:{asker.principal}").run(
            store.ADD_OWNED, **store.OWNED.row(owned)
        )
        if is_certificate_id(asker.principal):
            asking = await self.certificates.find(asker.principal)
            if asking is not None and asking.claim is None:  # now a claim certificate, unless a thing has it
                changes.run(store.MARK_CLAIM, key_id=asking.id, claim="").event(GrantsChanged(asking.id))
        await self.database.commit(changes)
        return IssuedCredentials(made, token, private_key)

    async def provision(
        self, asker: ProvisioningCaller, name: str, token: str, parameters: Mapping[str, str]
    ) -> RegisteredThing:
        """Register the thing of an issued certificate with a template.

        Raise `OwnershipTokenError`, `HookRefusedError`, `RegistrationFailedError`, `ThingTakenError`.
        """
        told = {"template": name[:36], "thing": asker.client_id}
        template, version = await self.templates.version(name)
        if template.kind is not TemplateType.FLEET_PROVISIONING or not template.is_enabled:
            detail = "it is switched off" if not template.is_enabled else "it is for just-in-time provisioning"
            raise RegistrationFailedError(step=f"the template {name}", detail=detail, **told)
        owned = await self._owned(asker, token, told)
        own = await self.certificates.get(owned.certificate_id)
        given = {**parameters, CERTIFICATE_ID: own.id}
        arn = hook_arn(template.hook)
        if arn is not None:
            given |= await self._allowed(arn, template, own, asker, parameters)
            await self._owned(asker, token, told)  # check again: hooks may be slow
        try:
            return await self.provisioning.register(
                parse_template(version.body).plan(given),
                actor=f"certificate:{asker.principal}",
                own=own,
                only_own=arn is None,  # a hook, if present, decides on name ownership
                more=Changes().run(
                    store.DROP_OWNED, expect=1, otherwise=_used(told), certificate_id=owned.certificate_id
                ),
            )
        except RegistrationFailedError as error:
            error.add_facts(**told)
            raise

    async def _owned(self, asker: ProvisioningCaller, token: str, values: Mapping[str, str]) -> OwnedCertificate:
        """Return the certificate to which an ownership token belongs. Raise `OwnershipTokenError`."""
        if not token:
            raise OwnershipTokenError(detail="Certificate ownership token cannot be empty", **values)
        row = await self.database.one(store.BY_DIGEST, digest=_digest(token))
        if row is None:
            raise _used(values)
        owned = store.OWNED.of(row)
        if owned.until <= self.clock.now():
            raise OwnershipTokenError(detail="it is older than an hour", **values)
        if (owned.principal, owned.client_id) != (asker.principal, asker.client_id):
            raise OwnershipTokenError(detail="it was issued to another client", **values)
        return owned

    async def _allowed(
        self,
        arn: str,
        template: ProvisioningTemplate,
        own: DeviceCertificate,
        asker: ProvisioningCaller,
        parameters: Mapping[str, str],
    ) -> Mapping[str, str]:
        """Return the parameters that a pre-provisioning hook changes.

        Raise `HookRefusedError`, or why it cannot be called.
        """
        told = {"template": template.name, "thing": asker.client_id, "arn": arn}
        event = {
            "claimCertificateId": asker.principal,
            "certificateId": own.id,
            "certificatePem": own.certificate.pem(),
            "templateArn": self.account.arn("provisioningtemplate", template.name),
            "clientId": asker.client_id,
            "parameters": dict(parameters),
        }
        try:
            answer = parse_hook_answer(
                await self.functions.call(arn, event, FunctionCaller.UNAUTHENTICATED, asker.principal)
            )
        except msgspec.ValidationError as error:
            raise HookRefusedError(detail=f"its answer is not understood: {error}"[:200], **told) from error
        if not answer.allow_provisioning:
            raise HookRefusedError(detail="allowProvisioning is false", **told)
        overrides = answer.parameter_overrides or {}
        _, version = await self.templates.version(template.name)
        declared = parse_template(version.body).parameters
        if unknown := [name for name in overrides if name not in declared or name == CERTIFICATE_ID]:
            raise HookRefusedError(
                detail=f"it changes {unknown[0][:60]!r}, which the template does not declare", **told
            )
        return overrides

    async def claim_for(self, name: str, *, actor: str) -> tuple[DeviceCertificate, rsa.RSAPrivateKey, datetime]:
        """Create a claim certificate for a trusted user: 5 minutes, one template.

        Raise `UnknownTemplateError`.
        """
        template, version = await self.templates.version(name)
        if template.kind is not TemplateType.FLEET_PROVISIONING:
            raise RegistrationFailedError(step=f"the template {name}", detail="it is for just-in-time provisioning")
        is_wide = await self.provisioning.grants_broad_access(parse_template(version.body))
        key = await self.certificates.keys.make(str(actor))
        until = self.clock.now() + CLAIM_FOR
        made = await self.certificates.prepare_registration(
            await self.certificates.issue(key.public_key()),
            CertificateStatus.ACTIVE,
            CertificateMode.DEFAULT,
            None,
            claim=template.name,
            until=until,
        )
        await self.database.commit(insert_changes(made, is_wide=is_wide, actor=actor))
        return made, key, until

    async def set_claim(self, certificate_id: CertificateId, *, is_claim: bool, actor: str) -> None:
        """Mark a certificate as a claim, or unmark it. Raise `UnknownCertificateError`."""
        known = await self.certificates.get(certificate_id)
        changes = Changes().run(store.SET_CLAIM, expect=1, key_id=known.id, claim="" if is_claim else None)
        is_wide = not is_claim and await self.certificates.has_wide_access(known.id)
        told = {"claim": is_claim} | ({"wide": True} if is_wide else {})
        changes.audit(actor, "awsiot.certificate_claim", known.id, **told)
        await self.database.commit(changes.event(GrantsChanged(known.id)))

    async def keep_sweeping(self) -> None:
        """Remove unused certificates while the server runs."""
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_S)

    async def sweep(self) -> int:
        """Remove unprovisioned certificates and expired claims; return their number."""
        now = self.clock.micros()
        rows = await self.database.all(store.DUE, now=now)
        for row in rows:
            found: dict[str, Any] = {"certificate_id": row["id"]}
            changes = Changes().run(store.DROP_DUE, expect=1, id=row["id"], now=now)
            changes.run(store.DROP_OWNED, **found).run(policy_store.DETACH_ALL, target=row["id"])
            changes.run(store.DETACH_THINGS, **found)
            changes.audit("server", "awsiot.certificate_delete", row["id"], reason="not used in time")
            with contextlib.suppress(ChangedMeanwhileError):  # provisioned, or another worker was faster
                await self.database.commit(changes.event(CertificateChanged(row["id"], "DELETED")))
        return len(rows)


def _used(values: Mapping[str, str]) -> OwnershipTokenError:
    return OwnershipTokenError(detail="it was used, is older than an hour, or was not issued by this server", **values)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
