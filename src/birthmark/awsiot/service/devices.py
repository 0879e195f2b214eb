"""Who a connection is, and what it may do: certificate, thing and policies, read together."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from birthmark.auth.principals import Caller
from birthmark.awsiot.model import Account, CertificateId, CertificateStatus, DeviceCertificate
from birthmark.awsiot.rules.policy import Decision, Outcome, Permissions, PolicyDeniedError, parse_policy
from birthmark.awsiot.rules.trial import Trial
from birthmark.awsiot.rules.variables import Facts, Visitor, facts_of
from birthmark.awsiot.service.certificates import Certificates, RevocationCheck
from birthmark.awsiot.service.policies import Policies
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import registry as store
from birthmark.clock import Clock
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.pki.chains import check_dates
from birthmark.store import Database

_OF_CONNECTION = frozenset({"aws:sourceip", "aws:securetransport", "iot:connectattributes"})
_PATTERN = re.compile(r"[*?]|\$\{")  # what a policy reads as more than itself


class NoCertificateError(UnauthenticatedError):
    """No certificate was shown."""

    code = "awsiot.no_certificate"
    cause = "A client ({thing}) connected without a certificate; AWS IoT knows devices by their certificate."
    fix = (
        "Give the client its certificate and key (for a secure element: mtls_with_pkcs11), and check that both are "
        'read. With both, this publishes: `curl -sS --cacert "$SSL_CERT_FILE" --cert "$X509_CERT_FILE" '
        '--key "$X509_KEY_FILE" --data hello "$AWS_ENDPOINT_URL_IOT_DATA_PLANE/topics/hello?qos=1"`'
    )
    thing: str


class AuthorizerNotServedError(NoCertificateError):
    """A custom authorizer was to decide."""

    code = "awsiot.authorizer_not_served"
    cause = "A client ({thing}) connected with a user name or a password and no certificate, for a custom authorizer."
    fix = (
        "Custom authorizers are not served here. Register a certificate for the device: "
        "`aws iot create-keys-and-certificate --set-as-active`"
    )


class CertificateUnknownError(UnauthenticatedError):
    """The certificate is not registered."""

    code = "awsiot.certificate_unknown"
    cause = "The client {thing} showed the certificate {certificate_id} ({common_name}), which is not registered."
    fix = (
        "Put the device on record, as a thing that may do what an example policy allows: "
        '`birthmark device enroll --to aws --cert "$X509_CERT_FILE"`. '
        "A client of IoT Hub comes here when it has no user name: it is HOST/DEVICE/?api-version=2021-04-12."
    )
    certificate_id: str
    common_name: str
    thing: str


class FirstContactNotServedError(CertificateUnknownError):
    """A certificate of a registered CA that is not registered itself."""

    code = "awsiot.first_contact_not_served"
    cause = (
        "The client {thing} showed the certificate {certificate_id} ({common_name}). Its CA {ca_id} is on record; that "
        "a certificate is registered when it is first shown (JITR, JITP) is not served."
    )
    fix = (
        "Register it, its CA is on record already: "
        '`aws iot register-certificate --certificate-pem "$(cat "$X509_CERT_FILE")" --status ACTIVE`'
    )
    ca_id: str


class CertificateInactiveError(ForbiddenError):
    """A registered certificate that is not ACTIVE."""

    code = "awsiot.certificate_inactive"
    message = "The certificate is {status}"
    cause = "The client {thing} showed the certificate {certificate_id}, whose status is {status}."
    fix = "`aws iot update-certificate --certificate-id {certificate_id} --new-status ACTIVE`, if it may connect."
    certificate_id: str
    status: str
    thing: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A visitor who was let in: by which certificate, as which thing, with which permissions.

    `permissions` is None for an operator's access key, which may do everything in its account.
    """

    principal: str
    certificate_id: CertificateId | None
    thing: str | None
    permissions: Permissions | None
    policies: frozenset[str] = frozenset()
    receives: dict[str, bool] = field(default_factory=dict)
    """Topics of messages that were to go out, and whether they might: the first that `permissions` remembers."""
    groups: frozenset[str] = frozenset()
    """The thing's groups, with those above them: their policies count, too."""
    caller: Caller | None = field(default=None, repr=False)
    """The person, where it is one, for what hangs on more than the operation's name."""

    @property
    def asks_time(self) -> bool:
        """What it allows now it may not allow later."""
        return self.permissions is not None and self.permissions.asks_time


@dataclass(frozen=True, slots=True)
class Devices:
    """Lets visitors in."""

    account: Account
    database: Database
    clock: Clock
    certificates: Certificates
    things: Things
    policies: Policies
    revocations: RevocationCheck | None = None

    async def admit(self, visitor: Visitor) -> Grant:
        """Return what a visitor may do. Raise why the certificate does not let it in."""
        leaf, client_id = visitor.leaf, visitor.client_id
        who = client_id or "over HTTPS"
        if leaf is None:
            raise NoCertificateError(thing=who)
        certificate_id = CertificateId(leaf.thumbprint.hex())
        known = await self.certificates.find(certificate_id)
        if known is None:
            told = {"thing": who, "common_name": leaf.subject_cn or "without a common name"}
            if (ca_id := await self.certificates.ca_of(leaf)) is not None:
                raise FirstContactNotServedError(certificate_id=certificate_id, ca_id=ca_id, **told)
            raise CertificateUnknownError(certificate_id=certificate_id, **told)
        _check_active(known, who)
        check_dates(leaf, self.clock.now())
        if self.revocations is not None:
            await self.revocations(leaf, visitor.chain)
        name = await self.thing_of(certificate_id, client_id)
        thing = None if name is None else await self.things.find(name)
        documents = dict(await self.policies.documents_of(certificate_id))
        groups: frozenset[str] = frozenset()
        if name is not None:
            groups, of_groups = await self.policies.of_groups(name)
            documents |= of_groups
        policies = [parse_policy(policy, document) for policy, document in documents.items()]
        permissions = Permissions(policies, facts_of(leaf, visitor, thing))
        names = frozenset(documents)
        return Grant(certificate_id, certificate_id, name, permissions, names, permissions.receives, groups=groups)

    async def check_stands(self, certificate_id: CertificateId, client_id: str) -> None:
        """Raise why a certificate that let a client in would let none in now."""
        if (known := await self.certificates.find(certificate_id)) is None:
            raise CertificateUnknownError(certificate_id=certificate_id, thing=client_id, common_name="removed since")
        _check_active(known, client_id)
        if self.revocations is not None:
            await self.revocations(known.certificate, ())

    async def tested(
        self, certificate_id: CertificateId | None, client_id: str | None, add: Sequence[str], skip: Sequence[str]
    ) -> Trial:
        """Return what can be tried of a certificate with its policies and its thing's, some added and some left out.

        Raise `NotFoundError` for a certificate or a policy that is not there.
        """
        documents = await self.policies.documents_named(add)
        await self.policies.documents_named(skip)
        facts = Facts() if client_id is None else Facts({"iot:clientid": (client_id,)})
        if certificate_id is not None:
            known = await self.certificates.get(certificate_id)
            documents |= await self.policies.documents_of(certificate_id)
            name = await self.thing_of(certificate_id, client_id)
            if name is not None:
                documents |= (await self.policies.of_groups(name))[1]
            thing = None if name is None else await self.things.find(name)
            facts = facts_of(known.certificate, Visitor(known.certificate, client_id, "", ""), thing)
            values = {key: texts for key, texts in facts.values.items() if key not in _OF_CONNECTION}
            facts = Facts(values)
        policies = [parse_policy(name, documents[name]) for name in sorted(documents) if name not in skip]
        return Trial(policies, facts, self.clock.now())

    def check(self, grant: Grant, action: str, kind: str, name: str, client_id: str = "") -> None:
        """Raise `PolicyDeniedError` unless the grant allows `action` on this client, topic or topicfilter."""
        if grant.permissions is None:
            return
        resource = self.account.arn(kind, name)
        decision = grant.permissions.decide(action, resource, self.clock.now())
        if not decision.is_allowed:
            raise PolicyDeniedError(
                action=action,
                resource=resource,
                hint=decision.hint,
                command=self._allowing(decision, action, resource, grant.certificate_id or ""),
                certificate_id=grant.certificate_id or "",
                thing=client_id or "over HTTPS",
            )

    def _allowing(self, decision: Decision, action: str, resource: str, certificate_id: str) -> str:
        """Return the command that allows it, or where it cannot be allowed as it stands, shows what denies it."""
        target = self.account.arn("cert", certificate_id)
        if decision.outcome is Outcome.EXPLICIT_DENY or _PATTERN.search(resource):  # would allow more than was asked
            return f"aws iot list-attached-policies --target {target}"
        statement = {"Effect": "Allow", "Action": action, "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]}, ensure_ascii=False)
        name = f"allow-{hashlib.sha256(document.encode()).hexdigest()[:12]}"
        return (
            f"aws iot create-policy --policy-name {name} --policy-document {shlex.quote(document)} && "
            f"aws iot attach-policy --policy-name {name} --target {target}"
        )

    def may_receive(self, grant: Grant, topic: str) -> bool:
        """Say whether a message may go out; iot:Receive is asked at every delivery, and its refusal nobody's error."""
        if (known := grant.receives.get(topic)) is not None:
            return known
        if grant.permissions is None:
            return True
        return grant.permissions.may_receive(topic, self.account.arn("topic", topic), self.clock.now())

    async def thing_of(self, certificate_id: str, client_id: str | None) -> str | None:
        """The thing of that client id, when attached; else the one thing the certificate belongs to exclusively."""
        if client_id is not None:
            row = await self.database.one(store.ATTACHMENT, thing=client_id, certificate_id=certificate_id)
            if row is not None:
                return client_id
        row = await self.database.one(store.EXCLUSIVE_THING_OF, certificate_id=certificate_id)
        return None if row is None else str(row["thing"])


def _check_active(known: DeviceCertificate, who: str) -> None:
    if known.status is not CertificateStatus.ACTIVE:
        raise CertificateInactiveError(thing=who, certificate_id=known.id, status=known.status.value)
