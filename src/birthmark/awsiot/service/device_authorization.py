"""Device authorization: identity and permissions of a connection from certificate, thing, and policies."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from birthmark.auth.principals import Caller
from birthmark.awsiot.model import Account, CertificateId, CertificateStatus, DeviceCertificate, RegisteredCa
from birthmark.awsiot.rules.custom_authorizers import AuthorizerDeniedError, AuthorizerRequest, AuthorizerVerdict
from birthmark.awsiot.rules.policy import (
    AuthDecision,
    ConnectionPermissions,
    KeyDeniedError,
    PolicyDecision,
    PolicyDeniedError,
    PolicySimulation,
    claim_policies,
    parse_policy,
)
from birthmark.awsiot.rules.policy_variables import ConnectionContext, PolicyVariables, facts_of
from birthmark.awsiot.rules.temporary_credentials import CredentialSession
from birthmark.awsiot.service.certificate_succession import Renewals
from birthmark.awsiot.service.certificates import Certificates, RevocationCheck
from birthmark.awsiot.service.policies import Policies
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import registry as store
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import check_dates
from birthmark.store import Database


class JitPort(Protocol):
    """Registers certificates of a registered CA at their first connection (JITR)."""

    async def register_first_contact(
        self, leaf: Certificate, cas: Sequence[RegisteredCa], client_id: str, source_ip: str
    ) -> NoReturn:
        """Register a certificate signed by one of these CAs, as configured by the CA. Raise the outcome."""
        ...

    async def announce_pending(self, certificate: DeviceCertificate, source_ip: str) -> None:
        """Announce a certificate that connects while it awaits activation."""
        ...


_OF_CONNECTION = frozenset({"aws:sourceip", "aws:securetransport", "iot:connectattributes"})
_OF_A_CLAIM = (
    "A claim certificate can only provision devices. After provisioning, connect the device with the certificate "
    "that it received. If {certificate_id} is a device's own: `birthmark aws certificate claim {certificate_id} "
    "--undo`"
)
_PATTERN = re.compile(r"[*?]|\$\{")  # special characters of policies


class NoCertificateError(UnauthenticatedError):
    """The client presented no certificate."""

    code = "awsiot.no_certificate"
    cause = "A client ({thing}) connected without a certificate; AWS IoT authenticates devices with certificates."
    fix = (
        "Configure the client with its certificate and key (for a secure element: mtls_with_pkcs11), and check that "
        'the client can read both. To publish with a certificate and key: `curl -sS --cacert "$SSL_CERT_FILE" --cert '
        '"$X509_CERT_FILE" --key "$X509_KEY_FILE" --data hello "$AWS_ENDPOINT_URL_IOT_DATA_PLANE/topics/hello?qos=1"`'
    )
    thing: str


class CertificateUnknownError(UnauthenticatedError):
    """The certificate is not registered."""

    code = "awsiot.certificate_unknown"
    cause = "The client {thing} presented the certificate {certificate_id} ({common_name}), which is not registered."
    fix = (
        "Register the device as a thing with an example policy: `birthmark device enroll --to aws --cert "
        '"$X509_CERT_FILE"`. To register the CA of many devices, see docs/howto/aws-first-contact.md. IoT Hub '
        "clients reach this endpoint if they send no user name; set the user name to "
        "HOST/DEVICE/?api-version=2021-04-12."
    )
    certificate_id: str
    common_name: str
    thing: str


class FirstContactOffError(CertificateUnknownError):
    """The certificate's CA does not auto-register certificates."""

    code = "awsiot.first_contact_off"
    cause = (
        "The client {thing} presented the certificate {certificate_id} ({common_name}), which is not registered. Its "
        "CA {ca_id} is registered, {why}."
    )
    fix = (
        "Register the certificate, whose CA is already registered: `aws iot register-certificate --certificate-pem "
        '"$(cat "$X509_CERT_FILE")" --status ACTIVE`. Alternatively, enable auto-registration for all devices of '
        "this CA: `aws iot update-ca-certificate --certificate-id {ca_id} --new-status ACTIVE "
        "--new-auto-registration-status ENABLE`"
    )
    ca_id: str
    why: str


class CertificateInactiveError(ForbiddenError):
    """The registered certificate is not ACTIVE."""

    code = "awsiot.certificate_inactive"
    message = "The certificate is {status}"
    cause = "The client {thing} presented the certificate {certificate_id}, whose status is {status}."
    fix = (
        "Activate the certificate: `aws iot update-certificate --certificate-id {certificate_id} --new-status ACTIVE`."
    )
    certificate_id: str
    status: str
    thing: str


class ClaimOverError(CertificateInactiveError):
    """The temporary claim certificate of a trusted user has expired."""

    code = "awsiot.claim_over"
    message = "The claim certificate has expired"
    cause = "The client {thing} presented the claim certificate {certificate_id}, which was valid for 5 minutes."
    fix = "Create another claim: `aws iot create-provisioning-claim --template-name {template}`"
    template: str


class ClaimClientIdError(ForbiddenError):
    """The claim certificate's client ID belongs to another client's session."""

    code = "awsiot.claim_client_id"
    cause = (
        "A client connected as {thing} with the claim certificate {certificate_id}. Another client has a session "
        "with this client ID, and a claim certificate cannot take over that session."
    )
    fix = "Use another client ID until the device has its own certificate. List names in use: `birthmark aws thing ls`"
    certificate_id: str
    thing: str


@dataclass(frozen=True, slots=True)
class AuthorizerContext:
    """Custom authorizer of a client, and the data to call it again."""

    authorizer: str
    presented: AuthorizerRequest = field(repr=False)
    visitor: ConnectionContext = field(repr=False)
    connection_id: str
    verdict: AuthorizerVerdict = field(repr=False)
    caches_http: bool


@dataclass(frozen=True, slots=True)
class ConnectionGrant:
    """An admitted client: certificate, thing, and permissions.

    `permissions` is None for an operator's access key, which may do everything in its account.
    """

    principal: str
    certificate_id: CertificateId | None
    thing: str | None
    permissions: ConnectionPermissions | None
    policies: frozenset[str] = frozenset()
    receives: dict[str, bool] = field(default_factory=dict)
    """Cached receive decisions by topic; the first cache of `permissions`."""
    replaces: bool = False
    """Whether its certificate renews one that is deactivated after this connection."""
    is_claim: bool = False
    """Whether it uses a claim certificate, which takes over no device's session."""
    groups: frozenset[str] = frozenset()
    """The thing's groups and their parents, whose policies also apply."""
    caller: Caller | None = field(default=None, repr=False)
    """The user, if any, for checks that depend on more than the operation."""
    authorized: AuthorizerContext | None = field(default=None, repr=False)
    """Custom authorizer of the client, if any."""
    session: CredentialSession | None = field(default=None, repr=False)
    """Temporary credentials of the signature, if any."""
    user: str = ""
    """Name of the access key's holder in refusals."""

    @property
    def is_operator(self) -> bool:
        """Return whether it is an access key or a user, not a device."""
        return self.certificate_id is None and self.authorized is None

    @property
    def identifier(self) -> str:
        """Principal identifier in events."""
        return self.principal if self.authorized is None else self.authorized.verdict.principal

    @property
    def asks_time(self) -> bool:
        """Whether its permissions may change over time."""
        return self.permissions is not None and self.permissions.asks_time


@dataclass(frozen=True, slots=True)
class Devices:
    """Admits clients. `first_contact` handles unregistered certificates of a registered CA."""

    account: Account
    database: Database
    clock: Clock
    certificates: Certificates
    things: Things
    policies: Policies
    revocations: RevocationCheck | None = None
    first_contact: JitPort | None = None
    renewals: Renewals | None = None

    async def admit(self, visitor: ConnectionContext, *, is_over_https: bool = False) -> ConnectionGrant:
        """Return a client's permissions. Raise why its certificate is refused.

        Over HTTPS no certificate is registered, regardless of the client ID.
        """
        leaf, client_id = visitor.leaf, visitor.client_id
        who = client_id or "over HTTPS"
        if leaf is None:
            raise NoCertificateError(thing=who)
        certificate_id = CertificateId(leaf.thumbprint.hex())
        known = await self.certificates.find(certificate_id)
        may_register = client_id is not None and not is_over_https
        if known is None and self.renewals is not None and may_register:
            known = await self.renewals.register_renewed(leaf)
        if known is None:
            told = {"thing": who, "common_name": leaf.subject_cn or "without a common name"}
            if cas := await self.certificates.cas_of(leaf):
                if self.first_contact is not None and may_register:
                    await self.first_contact.register_first_contact(leaf, cas, who, visitor.address)
                why = "but auto-registration requires a connection over MQTT"
                raise FirstContactOffError(certificate_id=certificate_id, ca_id=cas[0].id, why=why, **told)
            raise CertificateUnknownError(certificate_id=certificate_id, **told)
        if self.first_contact is not None and may_register:
            await self.first_contact.announce_pending(known, visitor.address)
        _check_active(known, who)
        check_dates(leaf, self.clock.now())
        if self.revocations is not None:
            await self.revocations(leaf, visitor.chain)
        if known.claim is not None:
            return await self._admit_claim(known, visitor, who)
        name = await self.thing_of(certificate_id, client_id)
        thing = None if name is None else await self.things.find(name)
        documents = dict(await self.policies.documents_of(certificate_id))
        groups: frozenset[str] = frozenset()
        if name is not None:
            groups, of_groups = await self.policies.of_groups(name)
            documents |= of_groups
        policies = [parse_policy(policy, document) for policy, document in documents.items()]
        permissions = ConnectionPermissions(policies, facts_of(leaf, visitor, thing))
        names = frozenset(documents)
        return ConnectionGrant(
            *(certificate_id, certificate_id, name, permissions, names, permissions.receives),
            groups=groups,
            replaces=known.replaces is not None,
        )

    async def _admit_claim(
        self, certificate: DeviceCertificate, visitor: ConnectionContext, principal: str
    ) -> ConnectionGrant:
        """Return a claim certificate's permissions: its policies, limited to provisioning."""
        claim = certificate.claim or ""
        if certificate.until is not None and certificate.until <= self.clock.now():
            raise ClaimOverError(thing=principal, certificate_id=certificate.id, status="over", template=claim)
        documents = await self.policies.documents_of(certificate.id)
        policies = [*claim_policies(claim), *(parse_policy(policy, document) for policy, document in documents)]
        permissions = ConnectionPermissions(policies, facts_of(certificate.certificate, visitor))
        names = frozenset(policy for policy, _ in documents)
        return ConnectionGrant(
            certificate.id, certificate.id, None, permissions, names, permissions.receives, is_claim=True
        )

    async def check_claims_name(self, claim: ConnectionGrant, client_id: str) -> None:
        """Raise `ClaimClientIdError` if a claim certificate would take over a device's session.

        A device that lost the response to its claim reconnects unchanged; it has no session to lose.
        """
        if await self.database.all(store.PRINCIPALS_OF, thing=client_id, after="", limit=1):
            raise ClaimClientIdError(thing=client_id, certificate_id=claim.principal)

    async def check_stands(self, certificate_id: CertificateId, client_id: str) -> DeviceCertificate:
        """Return a client's certificate. Raise why it would be refused now."""
        if (known := await self.certificates.find(certificate_id)) is None:
            raise CertificateUnknownError(certificate_id=certificate_id, thing=client_id, common_name="removed since")
        _check_active(known, client_id)
        if self.revocations is not None:
            await self.revocations(known.certificate, ())
        return known

    async def build_simulation(
        self, certificate_id: CertificateId | None, client_id: str | None, add: Sequence[str], skip: Sequence[str]
    ) -> PolicySimulation:
        """Return a policy simulation of a certificate.

        It contains the policies of the certificate and its thing, plus `add` and minus `skip`. Raise `NotFoundError`
        for a missing certificate or policy.
        """
        documents = await self.policies.documents_named(add)
        await self.policies.documents_named(skip)
        facts = PolicyVariables() if client_id is None else PolicyVariables({"iot:clientid": (client_id,)})
        if certificate_id is not None:
            known = await self.certificates.get(certificate_id)
            documents |= await self.policies.documents_of(certificate_id)
            name = await self.thing_of(certificate_id, client_id)
            if name is not None:
                documents |= (await self.policies.of_groups(name))[1]
            thing = None if name is None else await self.things.find(name)
            facts = facts_of(known.certificate, ConnectionContext(known.certificate, client_id, "", ""), thing)
            values = {key: texts for key, texts in facts.values.items() if key not in _OF_CONNECTION}
            facts = PolicyVariables(values)
        policies = [parse_policy(name, documents[name]) for name in sorted(documents) if name not in skip]
        return PolicySimulation(policies, facts, self.clock.now())

    def check(self, grant: ConnectionGrant, action: str, kind: str, name: str, client_id: str = "") -> None:
        """Raise `PolicyDeniedError` unless the grant allows `action` on this client, topic or topicfilter."""
        if grant.permissions is None:
            return
        self.check_resource(grant, action, self.account.arn(kind, name), client_id)

    def check_resource(self, grant: ConnectionGrant, action: str, resource: str, client_id: str = "") -> None:
        """Raise `PolicyDeniedError` unless the grant allows `action` on this ARN."""
        if grant.permissions is None:
            return
        decision = grant.permissions.decide(action, resource, self.clock.now())
        if not decision.is_allowed:
            raise self._denied(grant, decision, action, resource, client_id or "over HTTPS")

    def check_every(self, grant: ConnectionGrant, action: str, resource: str) -> None:
        """Raise `PolicyDeniedError` unless the grant allows `action` on every ARN that matches a `*`.

        Any Deny of the action then applies, regardless of its resource.
        """
        self.check_resource(grant, action, resource)
        if "*" in resource and grant.permissions is not None and (denied := grant.permissions.denial(action)):
            raise self._denied(grant, denied, action, resource, "over HTTPS")

    def _denied(
        self, grant: ConnectionGrant, decision: PolicyDecision, action: str, resource: str, thing: str
    ) -> PolicyDeniedError:
        told = {"action": action, "resource": resource, "hint": decision.hint, "thing": thing}
        if (by := grant.authorized) is not None:
            return AuthorizerDeniedError(authorizer=by.authorizer, command="", certificate_id="", **told)
        if grant.certificate_id is None:
            kind = "identity-based policy"
            denied = decision.outcome is AuthDecision.EXPLICIT_DENY
            because = (
                f"with an explicit deny in an {kind}" if denied else f"because no {kind} allows the {action} action"
            )
            return KeyDeniedError(user=grant.user, because=because, command="", certificate_id="", **told)
        certificate_id = grant.certificate_id
        command = self._fix_command(decision, action, resource, certificate_id)
        denied_to = PolicyDeniedError(command=command, certificate_id=certificate_id, **told)
        if grant.is_claim:
            denied_to.quote(fix=_OF_A_CLAIM.format(certificate_id=certificate_id))
        return denied_to

    def _fix_command(self, decision: PolicyDecision, action: str, resource: str, certificate_id: str) -> str:
        """Return the command that grants the permission, or lists the attached policies if that is not possible."""
        target = self.account.arn("cert", certificate_id)
        if decision.outcome is AuthDecision.EXPLICIT_DENY or _PATTERN.search(resource):  # would grant too much
            return f"aws iot list-attached-policies --target {target}"
        statement = {"Effect": "Allow", "Action": action, "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]}, ensure_ascii=False)
        name = f"allow-{hashlib.sha256(document.encode()).hexdigest()[:12]}"
        return (
            f"aws iot create-policy --policy-name {name} --policy-document {shlex.quote(document)} && "
            f"aws iot attach-policy --policy-name {name} --target {target}"
        )

    def may_receive(self, grant: ConnectionGrant, topic: str) -> bool:
        """Return whether a message may be delivered; iot:Receive is checked per delivery, and a denial is no error."""
        if (known := grant.receives.get(topic)) is not None:
            return known
        if grant.permissions is None:
            return True
        return grant.permissions.may_receive(topic, self.account.arn("topic", topic), self.clock.now())

    async def thing_of(self, certificate_id: str, client_id: str | None) -> str | None:
        """Return the attached thing named like the client ID, otherwise the certificate's exclusive thing."""
        if client_id is not None:
            row = await self.database.one(store.ATTACHMENT, thing=client_id, certificate_id=certificate_id)
            if row is not None:
                return client_id
        row = await self.database.one(store.EXCLUSIVE_THING_OF, certificate_id=certificate_id)
        return None if row is None else str(row["thing"])


def _check_active(certificate: DeviceCertificate, principal: str) -> None:
    if certificate.status is not CertificateStatus.ACTIVE:
        raise CertificateInactiveError(thing=principal, certificate_id=certificate.id, status=certificate.status.value)
