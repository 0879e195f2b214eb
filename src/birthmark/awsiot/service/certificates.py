"""Device certificates: register (without a CA or by a registered one), issue, change status, delete."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from birthmark.awsiot.domain_events import CertificateChanged
from birthmark.awsiot.model import (
    CertificateId,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    RegisteredCa,
    parse_certificate_id,
    parse_single_pem,
)
from birthmark.awsiot.rules.policy import are_of_one_device
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.store import certificates_and_access_keys as store
from birthmark.awsiot.store import policies as policy_store
from birthmark.awsiot.store import registry as registry_store
from birthmark.ca.pkcs11_keys import run_signing
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import (
    ChangedMeanwhileError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ThrottledError,
    UnauthenticatedError,
)
from birthmark.fair_semaphore import FairSemaphore
from birthmark.pki.certificate_profiles import DEVICE
from birthmark.pki.certificates import Certificate, is_signed_by, parse_pem
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import LeafIssuer, issue, new_serial
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.pem_armor import unarmor
from birthmark.store import Changes, retry_on_conflict
from birthmark.store.pagination import Page, every, page_of

AT_ONCE = 2
MAX_OF_ONE = 16
"""Maximum number of pending key generations per principal."""
_BITS, _EXPONENT = 2048, 65537


class TooManyOwnedError(ThrottledError):
    """The claim certificate or access key has requested too many certificates."""

    code = "awsiot.too_many_owned"
    cause = "{principal} reached its limit: {limit} certificates {what}."
    fix = (
        "Retry in 1 minute; the server deletes unused certificates within an hour. Check which clients request "
        "certificates: `birthmark why`"
    )
    limit: int
    principal: str
    what: str


@dataclass(slots=True)
class RsaKeys:
    """Generates RSA keys with limited concurrency, taking turns between principals."""

    _turns: FairSemaphore = field(default_factory=lambda: FairSemaphore(AT_ONCE))
    _waiting: Counter[str] = field(default_factory=Counter)

    async def make(self, principal: str) -> rsa.RSAPrivateKey:
        """Return a new key. Raise `TooManyOwnedError` at a principal's limit of pending keys."""
        if self._waiting[principal] >= MAX_OF_ONE:
            what = "with keys in generation"
            raise TooManyOwnedError(limit=MAX_OF_ONE, principal=principal, what=what, retry_after_s=5)
        self._waiting[principal] += 1
        try:
            async with self._turns.of(principal):
                return await asyncio.to_thread(rsa.generate_private_key, _EXPONENT, _BITS)
        finally:
            self._waiting[principal] -= 1
            if not self._waiting[principal]:
                del self._waiting[principal]


_SUBJECT = name_of("AWS IoT Certificate")
_UNTIL = datetime.fromisoformat("2049-12-31T23:59:59+00:00")
_MIN_RSA_BITS = 2048
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
"""Accepted curves of registered certificates and CSRs (API reference, CreateCertificateFromCsr)."""
_SETTABLE = {CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED}
_FAR = 2**62
_MOST_THINGS = 20
"""Maximum things of a certificate whose groups are checked; with more, it counts as wide."""


class UnknownCertificateError(NotFoundError):
    """The certificate does not exist."""

    code = "awsiot.unknown_certificate"
    cause = "The certificate {certificate_id} does not exist."
    fix = "List certificates: `aws iot list-certificates`. The ID is the SHA-256 thumbprint of the certificate."
    certificate_id: str


class CertificateExistsError(ConflictError):
    """The certificate is already provisioned or registered."""

    code = "awsiot.certificate_exists"
    cause = "The certificate {certificate_id} is already registered."
    fix = (
        "Use the registered certificate. Show the registered certificate: `aws iot describe-certificate "
        "--certificate-id {certificate_id}`"
    )
    certificate_id: str


class CertificateRefusedError(InvalidRequestError):
    """The certificate cannot be registered."""

    code = "awsiot.certificate_refused"
    message = "The certificate cannot be registered: {detail}"
    fix = (
        "Register a valid certificate with an RSA key of at least 2048 bits or an EC key (P-256, P-384, or P-521). "
        "To issue such a certificate: `birthmark ca issue device --dir ca`"
    )
    detail: str


class CertificateStateError(ConflictError):
    """The certificate must be deactivated (not ACTIVE) before deletion."""

    code = "awsiot.certificate_state"
    cause = "Certificate {certificate_id} is {status}; ACTIVE certificates cannot be deleted."
    fix = (
        "Deactivate the certificate first: `aws iot update-certificate --certificate-id {certificate_id} "
        "--new-status INACTIVE`"
    )
    certificate_id: str
    status: str


class PendingActivationError(ConflictError):
    """RegisterCertificate cannot set the status PENDING_ACTIVATION."""

    code = "awsiot.pending_activation"
    message = "Not allowed to register certificate with PENDING_ACTIVATION status"
    cause = (
        "The request would register a certificate with the status PENDING_ACTIVATION, which only just-in-time "
        "registration sets."
    )
    fix = (
        "Register the certificate as ACTIVE or INACTIVE. Show the operation's parameters: `aws iot "
        "register-certificate-without-ca help`"
    )


class CaInactiveError(ConflictError):
    """The registered CA of the certificate is not ACTIVE."""

    code = "awsiot.ca_inactive"
    message = "The CA certificate {ca_id} is not ACTIVE"
    cause = "The certificate was signed by the registered CA {ca_id}, which is INACTIVE."
    fix = "Activate the CA: `aws iot update-ca-certificate --certificate-id {ca_id} --new-status ACTIVE`"
    ca_id: str


class EndpointRetiredError(InvalidRequestError):
    """AWS retired this endpoint type."""

    code = "awsiot.endpoint_retired"
    message = "{answer}"
    cause = "A client requested an endpoint type that AWS IoT retired: {answer}"
    fix = "Request the current type: `aws iot describe-endpoint --endpoint-type iot:Data-ATS`"
    answer: str


class CertificateInUseError(ConflictError):
    """The certificate has attached things or policies."""

    code = "awsiot.certificate_in_use"
    message = "{detail} must be detached before deletion."
    cause = "Certificate {certificate_id} cannot be deleted: {detail} are attached."
    fix = (
        "Detach all things and policies first: `export ARN=$(aws iot describe-certificate --certificate-id "
        "{certificate_id} --query certificateDescription.certificateArn --output text); aws iot "
        'list-principal-things --principal "$ARN" --query "things[]" --output text | xargs -rn1 aws iot '
        'detach-thing-principal --principal "$ARN" --thing-name; aws iot list-attached-policies --target "$ARN" '
        '--query "policies[].policyName" --output text | xargs -rn1 aws iot detach-policy --target "$ARN" '
        "--policy-name`"
    )
    certificate_id: str
    detail: str


class StatusInvalidError(InvalidRequestError):
    """The status cannot be set by a client."""

    code = "awsiot.status_invalid"
    message = "Invalid status {status!r}"
    fix = "Use ACTIVE, INACTIVE or REVOKED. Show the operation's parameters: `{command}`"
    command: str = "?"
    status: str


RevocationCheck = Callable[[Certificate, Sequence[Certificate]], Awaitable[None]]
"""Raises if a certificate, presented with a chain, is known to be revoked in this installation."""


@dataclass(slots=True)
class Certificates(AccountService):
    """The certificates of the account. `issuer` returns the CA that signs for the service."""

    issuer: Callable[[], LeafIssuer]
    revocations: RevocationCheck | None = None
    keys: RsaKeys = field(default_factory=RsaKeys)

    async def get(self, certificate_id: str) -> DeviceCertificate:
        """Return a certificate. Raise `UnknownCertificateError`."""
        if (known := await self.find(certificate_id)) is None:
            raise UnknownCertificateError(certificate_id=certificate_id)
        return known

    async def find(self, certificate_id: str) -> DeviceCertificate | None:
        """Return a certificate or None."""
        row = await self.database.one(store.GET, id=certificate_id)
        return None if row is None else store.CERTIFICATES.of(row)

    async def register(self, pem: str, status: CertificateStatus, *, actor: str) -> DeviceCertificate:
        """Register a certificate without its CA. Raise `CertificateExistsError`."""
        certificate = parse_pem(pem)
        check(certificate, self.clock.now())
        return await self._add(certificate, status, CertificateMode.SNI_ONLY, None, pem=pem, actor=actor)

    async def register_by_ca(
        self, pem: str, ca_pem: str | None, status: CertificateStatus, *, actor: str
    ) -> DeviceCertificate:
        """Register a certificate that a registered CA signed. Raise `CertificateRefusedError`."""
        certificate = parse_pem(pem)
        check(certificate, self.clock.now())
        cas = await self.cas_of(certificate)
        if ca_pem is not None:
            wanted = parse_pem(ca_pem)
            cas = [ca for ca in cas if ca.certificate == wanted]
        if not cas:
            raise CertificateRefusedError(detail="no registered CA signed it")
        if not any(ca.is_active for ca in cas):
            raise CaInactiveError(ca_id=cas[0].id)
        ca = next(ca for ca in cas if ca.is_active)
        return await self._add(certificate, status, ca.mode, ca.id, pem=pem, actor=actor)

    async def cas_of(self, certificate: Certificate) -> list[RegisteredCa]:
        """Return the registered CAs that signed a certificate, oldest first."""
        rows = await every(self.database, store.CAS_BY_SUBJECT_PAGE, "id", subject=certificate.issuer_der)
        rows.sort(key=lambda row: row["created_at"])
        return [ca for ca in map(store.CAS.of, rows) if is_signed_by(certificate, ca.certificate)]

    async def create_from_csr(self, csr: str, status: CertificateStatus, *, actor: str) -> DeviceCertificate:
        """Sign a CSR's key with a subject chosen by the service. Raise `InvalidRequestError` of `pki.csr`."""
        made = await self.issue(parse_csr(unarmor(csr.encode()), CURVES).public_key)
        return await self._add(made, status, CertificateMode.DEFAULT, None, actor=actor)

    async def create_with_keys(
        self, status: CertificateStatus, *, actor: str
    ) -> tuple[DeviceCertificate, rsa.RSAPrivateKey]:
        """Generate an RSA key and its certificate; the key is only in the response and not stored."""
        key = await self.keys.make(str(actor))
        known = await self._add(await self.issue(key.public_key()), status, CertificateMode.DEFAULT, None, actor=actor)
        return known, key

    async def set_status(
        self,
        certificate_id: str,
        status: CertificateStatus,
        *,
        actor: str,
        may_bring_back: Callable[[], None] = lambda: None,
    ) -> None:
        """Change a status; leaving ACTIVE ends its connections. Raise `StatusInvalidError`.

        `may_bring_back` raises if the caller may not reactivate a revoked certificate.
        """
        known = await self.get(certificate_id)
        if known.status is CertificateStatus.REVOKED and status is not CertificateStatus.REVOKED:
            may_bring_back()
        if status not in _SETTABLE:
            raise StatusInvalidError(status=status.value)
        is_wide = status is CertificateStatus.ACTIVE and await self.has_wide_access(known.id)
        await self.database.commit(self.status_changes(known, status, is_wide=is_wide, actor=actor))

    async def has_wide_access(self, certificate_id: CertificateId) -> bool:
        """Return whether its policies, or its things' groups, grant more than access to the connecting device."""
        rows = list(await self.database.all(policy_store.DOCUMENTS_OF, target=certificate_id))
        things = await self.database.all(
            registry_store.THINGS_OF, certificate_id=certificate_id, after="", limit=_MOST_THINGS + 1
        )
        for thing in things[:_MOST_THINGS]:
            rows += await self.database.all(registry_store.GROUPS_AND_DOCUMENTS_OF, thing=thing["thing"])
        documents = (row["document"] for row in rows if row["document"] is not None)
        return len(things) > _MOST_THINGS or not are_of_one_device(documents)

    def status_changes(
        self, certificate: DeviceCertificate, status: CertificateStatus, *, is_wide: bool = False, actor: str
    ) -> Changes:
        """Return the writes that set a certificate's status, conditional on its current state.

        A pending certificate is then no longer pending; a claim for a trusted user keeps its expiry.
        """
        until = None if certificate.claim is None else store.CERTIFICATES.row(certificate)["until"]
        changes = Changes().run(
            store.UPDATE_STATUS,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The certificate"),
            key_id=certificate.id,
            key_customer_version=certificate.customer_version,
            status=status.value,
            modified_at=self.clock.micros(),
            customer_version=certificate.customer_version + 1,
            until=until,
        )
        told = {"status": status.value} | ({"wide": True} if is_wide else {})
        changes.audit(actor, "awsiot.certificate_status", certificate.id, **told)
        return changes.event(CertificateChanged(certificate.id, status.value))

    async def delete(self, certificate_id: str, *, force: bool, actor: str) -> None:
        """Remove a certificate. Raise `CertificateStateError` or `CertificateInUseError`."""
        await retry_on_conflict(lambda: self._delete(certificate_id, force=force, actor=actor))

    async def _delete(self, certificate_id: str, *, force: bool, actor: str) -> None:
        known = await self.get(certificate_id)
        if known.status is CertificateStatus.ACTIVE:
            raise CertificateStateError(certificate_id=known.id, status=known.status.value)
        if await self.database.all(registry_store.THINGS_OF, certificate_id=known.id, after="", limit=1):
            raise CertificateInUseError(certificate_id=known.id, detail="Things")
        policies = await self.database.all(policy_store.POLICIES_OF, target=known.id, after="", limit=1)
        if policies and not force:
            raise CertificateInUseError(certificate_id=known.id, detail="Certificate policies")
        changes = Changes().run(policy_store.CERTIFICATE_IS_THERE, expect=1, key_id=known.id)
        if force:
            changes.run(policy_store.DETACH_ALL, target=known.id)
        changes.run(registry_store.DELETE_CERTIFICATE, expect=1, id=known.id)
        changes.audit(actor, "awsiot.certificate_delete", known.id)
        await self.database.commit(changes.event(CertificateChanged(known.id, "DELETED")))

    async def page(
        self, after: str, size: int, *, ascending: bool, ca_id: CertificateId | None = None
    ) -> Page[DeviceCertificate]:
        """Return certificates by age; `after` is `MICROS:ID` of the last one seen."""
        at, last = (0, "") if ascending else (_FAR, "")
        if after:
            micros, _, text = after.partition(":")
            at, last = (int(micros) if micros.isdigit() else at), parse_certificate_id(text)
        query = (store.BY_AGE if ca_id is None else store.BY_AGE_OF_CA)[ascending]
        rows = await self.database.all(query, at=at, after=last, limit=size + 1, ca_id=ca_id)
        return page_of(
            [store.CERTIFICATES.of(row) for row in rows], size, [f"{r['created_at']}:{r['id']}" for r in rows]
        )

    async def _add(
        self,
        certificate: Certificate,
        status: CertificateStatus,
        mode: CertificateMode,
        ca_id: CertificateId | None,
        *,
        pem: str = "",
        actor: str,
    ) -> DeviceCertificate:
        if status not in _SETTABLE:
            raise StatusInvalidError(status=status.value)
        known = await self.prepare_registration(certificate, status, mode, ca_id, pem=pem)
        exists = CertificateExistsError(certificate_id=known.id)
        await self.database.commit(insert_changes(known, exists, actor=actor))
        return known

    async def prepare_registration(
        self,
        certificate: Certificate,
        status: CertificateStatus,
        mode: CertificateMode,
        ca_id: CertificateId | None,
        *,
        pem: str = "",
        claim: str | None = None,
        until: datetime | None = None,
        replaces: str | None = None,
    ) -> DeviceCertificate:
        """Return a certificate that may be registered now.

        Raise `CertificateExistsError` or why it may not.
        """
        if self.revocations is not None:  # revoked by this installation's CA: certificate, key, or parent CA
            try:
                await self.revocations(certificate, ())
            except UnauthenticatedError as error:
                raise CertificateRefusedError(detail="it, its key or its CA was revoked") from error
        certificate_id = CertificateId(certificate.thumbprint.hex())
        now, generation_id = self.clock.now(), new_uuid(self.entropy)
        known = DeviceCertificate(
            *(certificate_id, certificate, status, mode, ca_id, now, now, 1, generation_id),
            claim=claim,
            until=until,
            replaces=replaces,
            pem=parse_single_pem(pem),
        )
        if await self.find(certificate_id) is not None:  # a rejected write costs other writes more than a read
            raise CertificateExistsError(certificate_id=certificate_id)
        return known

    async def issue(self, public_key: CertificatePublicKeyTypes) -> Certificate:
        """Issue a certificate that does not outlive the CA."""
        now = self.clock.now()
        lifetime = max(_UNTIL - now, timedelta(days=365))
        issuer, serial = self.issuer(), new_serial(self.entropy)
        sign = partial(issue, DEVICE, _SUBJECT, public_key, issuer=issuer, serial=serial, now=now, lifetime=lifetime)
        return await run_signing(issuer.private_key, sign)


@contextmanager
def retry_if_registered() -> Iterator[None]:
    """Convert `CertificateExistsError` to a retry, if another request registered the certificate concurrently."""
    try:
        yield
    except CertificateExistsError as error:
        raise ChangedMeanwhileError(what=f"The certificate {error.certificate_id}") from error


def insert_changes(
    certificate: DeviceCertificate,
    otherwise: CertificateExistsError | None = None,
    *,
    is_wide: bool = False,
    actor: str,
) -> Changes:
    """Return the writes that add a certificate; the commit raises `otherwise` if it exists.

    `is_wide` marks a claim whose devices get more permissions than those limited to the connecting device.
    """
    changes = Changes().run(store.ADD, expect=1, otherwise=otherwise, **store.CERTIFICATES.row(certificate))
    told = {"status": certificate.status.value, "mode": certificate.mode.value} | ({"wide": True} if is_wide else {})
    return changes.audit(actor, "awsiot.certificate_add", certificate.id, **told)


def check(certificate: Certificate, now: datetime) -> None:
    """Raise `CertificateRefusedError` for an expired certificate or an unsupported key type."""
    if now > certificate.not_after:
        raise CertificateRefusedError(detail="it has expired")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        return
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVES):
        return
    raise CertificateRefusedError(detail="its key is of another kind or size")
