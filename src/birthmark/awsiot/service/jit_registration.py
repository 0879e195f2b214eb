"""Just-in-time registration (JITR) and provisioning (JITP) of a registered CA's certificates.

See the developer guide, "Automatic/just-in-time registration" and "Just-in-time provisioning". The first connection is
always closed; a registered device reconnects. The holder of a CA's key can sign without limit, so number and rate of
certificates per CA are bounded.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.x509.oid import NameOID, ObjectIdentifier

from birthmark.awsiot.model import (
    Account,
    CertificateStatus,
    DeviceCertificate,
    RegisteredCa,
    TemplateType,
)
from birthmark.awsiot.ports import TopicPublisher
from birthmark.awsiot.rules.provisioning_plan_model import RegistrationFailedError, TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import ParsedTemplate, parse_template
from birthmark.awsiot.rules.template_functions import CERTIFICATE_ID
from birthmark.awsiot.service.certificates import CertificateExistsError, Certificates, check, insert_changes
from birthmark.awsiot.service.device_authorization import (
    CertificateInactiveError,
    CertificateUnknownError,
    FirstContactOffError,
)
from birthmark.awsiot.service.provisioning_templates import ProvisioningTemplates
from birthmark.awsiot.service.thing_registration import ThingRegistration, ThingTakenError
from birthmark.awsiot.store import provisioning as provisioning_store
from birthmark.broker.model import BrokerMessage
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ForbiddenError, NotFoundError, PolicyError, ThrottledError
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import check_dates
from birthmark.pki.signature_malleability import twins_of
from birthmark.store import Database, to_micros

MAX_PER_CA = 1_000_000
PER_SECOND = 1_000
"""Limit per CA and process."""
_COUNT_S = 10.0
_MAX_KNOWN = 1_000
_SUBJECT: dict[str, ObjectIdentifier] = {
    "Country": NameOID.COUNTRY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
    "StateName": NameOID.STATE_OR_PROVINCE_NAME,
    "CommonName": NameOID.COMMON_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
}


class FirstConnectionRegisteredError(ForbiddenError):
    """The device was registered; the next connection succeeds."""

    code = "awsiot.registered_now"
    message = "The device was registered and must connect again"
    cause = (
        "The client {thing} connected for the first time, with a certificate of the CA {ca_id}. Just-in-time "
        "provisioning created its resources and closed the connection, as AWS does."
    )
    fix = "No action is needed: the next connection succeeds. List things: `birthmark aws thing ls`"
    ca_id: str
    certificate_id: str
    thing: str


class RegisteredPendingError(CertificateInactiveError):
    """The certificate was registered and must be activated."""

    code = "awsiot.registered_pending"
    message = "The certificate was registered and is waiting for activation"
    cause = (
        "The client {thing} connected for the first time, with a certificate of the CA {ca_id}, which has no "
        "template. The server registered the certificate {certificate_id} as {status} and published an event on "
        "$aws/events/certificates/registered/{ca_id}."
    )
    fix = (
        "Activate the certificate: `aws iot update-certificate --certificate-id {certificate_id} --new-status ACTIVE`."
    )
    ca_id: str


class OtherFormError(CertificateUnknownError):
    """The certificate is a registered one with a differently encoded signature."""

    code = "awsiot.other_form"
    cause = (
        "The client {thing} presented a copy of the certificate {known} ({common_name}) whose signature is encoded "
        "differently. Anyone can produce such a copy. The original is registered, so the copy is not a new device."
    )
    fix = (
        "Use the original certificate, as its CA signed it. Show the original certificate: `aws iot "
        "describe-certificate --certificate-id {known}`"
    )
    known: str


class CaFullError(PolicyError):
    """The CA has the maximum number of auto-registered certificates."""

    code = "awsiot.ca_full"
    cause = "The CA {ca_id} has {count} registered certificates; the limit for auto-registration is {limit}."
    fix = (
        "Check the CA's certificates: `aws iot list-certificates-by-ca --ca-certificate-id {ca_id}`. If you do not "
        "recognize these certificates, deactivate the CA."
    )
    ca_id: str
    count: int
    limit: int


class CaTooFastError(ThrottledError):
    """The CA registers new certificates too fast."""

    code = "awsiot.ca_too_fast"
    cause = "More than {limit} certificates of the CA {ca_id} connected for the first time within one second."
    fix = (
        "The clients reconnect automatically. Check whether the clients are yours: `aws iot list-certificates-by-ca "
        "--ca-certificate-id {ca_id}`. If they are not yours, deactivate the CA."
    )
    ca_id: str
    limit: int


@dataclass(slots=True)
class _Pace:
    """Registrations of one CA: recent ones since `second`, and the total as of `counted_at`."""

    second: int = 0
    within: int = 0
    counted_at: float = float("-inf")
    count: int = 0


@dataclass(slots=True)
class JitRegistration:
    """Registers certificates of registered CAs."""

    account: Account
    database: Database
    clock: Clock
    certificates: Certificates
    provisioning: ThingRegistration
    templates: ProvisioningTemplates
    audience: Callable[[], TopicPublisher]
    """Publisher of registration events."""
    per_ca: int = MAX_PER_CA
    per_second: int = PER_SECOND
    _paces: OrderedDict[str, _Pace] = field(default_factory=OrderedDict)

    async def register_first_contact(
        self, leaf: Certificate, cas: Sequence[RegisteredCa], client_id: str, source_ip: str
    ) -> NoReturn:
        """Register a certificate signed by one of these CAs, as configured by the CA. Raise the outcome."""
        certificate_id = leaf.thumbprint.hex()
        told = {
            "thing": client_id,
            "certificate_id": certificate_id,
            "common_name": leaf.subject_cn or "without a name",
        }
        ca = next((one for one in cas if one.is_active and one.auto_registration), None)
        if ca is None:
            why = "and it is INACTIVE" if not any(one.is_active for one in cas) else "and auto-registration is disabled"
            raise FirstContactOffError(ca_id=cas[0].id, why=why, **told)
        for twin in twins_of(leaf):
            if twin != leaf.thumbprint and await self.certificates.find(twin.hex()) is not None:
                raise OtherFormError(known=twin.hex(), **told)
        now = self.clock.now()
        check_dates(leaf, now)
        check_dates(ca.certificate, now)
        check(leaf, now)
        await self._check_pace(ca)
        template = await self._template(ca)
        status = CertificateStatus.PENDING_ACTIVATION if template is None else CertificateStatus.ACTIVE
        try:
            own = await self.certificates.prepare_registration(leaf, status, ca.mode, ca.id)
            if template is None:
                await self._registered(ca, own, source_ip)
                raise RegisteredPendingError(
                    ca_id=ca.id, status=own.status.value, thing=client_id, certificate_id=own.id
                )
            await self._provisioned(ca, template, own, client_id)
        except CertificateExistsError:  # another connection was faster
            known = await self.certificates.get(certificate_id)
            if known.status is CertificateStatus.ACTIVE:
                raise FirstConnectionRegisteredError(ca_id=ca.id, thing=client_id, certificate_id=known.id) from None
            raise CertificateInactiveError(
                thing=client_id, certificate_id=known.id, status=known.status.value
            ) from None

    async def _registered(self, ca: RegisteredCa, own: DeviceCertificate, source_ip: str) -> None:
        """Register a certificate and announce it for activation."""
        exists = CertificateExistsError(certificate_id=own.id)
        await self.database.commit(insert_changes(own, exists, actor=f"ca:{ca.id}"))
        self._paces.setdefault(ca.id, _Pace()).count += 1  # may be dropped by now
        await self._announce(own, ca.id, None, source_ip)

    async def announce_pending(self, certificate: DeviceCertificate, source_ip: str) -> None:
        """Announce a certificate that connects while it awaits activation."""
        if certificate.status is CertificateStatus.PENDING_ACTIVATION and certificate.ca_id is not None:
            await self._announce(
                certificate, certificate.ca_id, str(to_micros(certificate.created_at) // 1000), source_ip
            )

    async def _announce(self, own: DeviceCertificate, ca_id: str, registered_ms: str | None, source_ip: str) -> None:
        """Publish the registration event; the first event has no registration time (AWS, measured 2026-09)."""
        event = {
            "certificateId": own.id,
            "caCertificateId": ca_id,
            "timestamp": self.clock.micros() // 1000,
            "certificateStatus": own.status.value,
            "awsAccountId": self.account.account_id,
            "certificateRegistrationTimestamp": registered_ms,
            "sourceIp": source_ip,
        }
        message = BrokerMessage(f"$aws/events/certificates/registered/{ca_id}", json.dumps(event).encode(), 1)
        if (waiting := self.audience().publish((message,), _ignore_result)) is not None:
            await waiting

    async def _provisioned(
        self, ca: RegisteredCa, template: ParsedTemplate, own: DeviceCertificate, client_id: str
    ) -> NoReturn:
        actor = f"ca:{ca.id}"
        try:
            made = await self.provisioning.register(
                template.plan(parameters_of(own.certificate)), actor=actor, own=own, is_known=False, only_own=True
            )
        except (RegistrationFailedError, ThingTakenError) as error:
            error.add_facts(thing=client_id, certificate_id=own.id)
            raise
        self._paces.setdefault(ca.id, _Pace()).count += 1  # may be dropped by now
        raise FirstConnectionRegisteredError(ca_id=ca.id, thing=made.thing or client_id, certificate_id=own.id)

    async def _template(self, ca: RegisteredCa) -> ParsedTemplate | None:
        """Return the template of a CA; None if it only registers. Raise `RegistrationFailedError`."""
        config = {} if ca.registration is None else json.loads(ca.registration)
        name, body = config.get("templateName"), config.get("templateBody")
        detail = None
        try:
            if name is not None:
                template, version = await self.templates.version(name)
                body = version.body
                if not template.is_enabled or template.kind is not TemplateType.JITP:
                    detail = f"the template {name} is disabled or is not a JITP template"
            if detail is None:
                return None if body is None else parse_template(body)
        except (NotFoundError, TemplateInvalidError) as error:
            detail = str(error)
        raise RegistrationFailedError(step=f"registrationConfig of the CA {ca.id}", detail=detail.rstrip("."))

    async def _check_pace(self, ca: RegisteredCa) -> None:
        """Raise `CaFullError` or `CaTooFastError` if the CA exceeds its limits."""
        pace = self._paces.setdefault(ca.id, _Pace())
        self._paces.move_to_end(ca.id)
        while len(self._paces) > _MAX_KNOWN:
            self._paces.popitem(last=False)
        second = int(self.clock.monotonic())
        if pace.second != second:
            pace.second, pace.within = second, 0
        pace.within += 1
        if pace.within > self.per_second:
            raise CaTooFastError(ca_id=ca.id, limit=self.per_second, retry_after_s=1)
        if pace.counted_at + _COUNT_S < self.clock.monotonic():
            pace.counted_at = self.clock.monotonic()
            row = await self.database.one(provisioning_store.OF_CA_COUNT, ca_id=ca.id)
            pace.count = 0 if row is None else row["count"]
        if pace.count >= self.per_ca:
            raise CaFullError(ca_id=ca.id, count=pace.count, limit=self.per_ca)


def parameters_of(certificate: Certificate) -> dict[str, str]:
    """Return a certificate's template parameters; attributes that occur more than once are omitted."""
    found = {CERTIFICATE_ID: certificate.thumbprint.hex()}
    for name, oid in _SUBJECT.items():
        values = certificate.subject.get_attributes_for_oid(oid)
        if len(values) == 1:
            found[f"AWS::IoT::Certificate::{name}"] = str(values[0].value)
    return found


def _ignore_result(problem: BaseException | None) -> None:
    del problem
