"""Registered CA certificates, and the registration code for proof of possession."""

from dataclasses import dataclass, replace

from birthmark.awsiot.model import CertificateId, CertificateMode, RegisteredCa, parse_single_pem
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.store import certificates_and_access_keys as store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ChangedMeanwhileError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.pki.ca_possession_proof import check_possession
from birthmark.pki.certificates import Certificate, parse_pem
from birthmark.pki.path_validation import check_dates
from birthmark.store import Changes
from birthmark.store.pagination import Page, page_of


class UnknownCaError(NotFoundError):
    """The CA certificate does not exist."""

    code = "awsiot.unknown_ca"
    cause = "The CA certificate {certificate_id} does not exist."
    fix = "List CA certificates: `aws iot list-ca-certificates`."
    certificate_id: str


class CaExistsError(ConflictError):
    """The CA certificate is already registered."""

    code = "awsiot.ca_exists"
    cause = "The CA certificate {certificate_id} is already registered."
    fix = (
        "Use the registered CA certificate. Show the registered certificate: `aws iot describe-ca-certificate "
        "--certificate-id {certificate_id}`"
    )
    certificate_id: str


class CaRefusedError(InvalidRequestError):
    """The CA certificate cannot be registered."""

    code = "awsiot.ca_refused"
    message = "The CA certificate cannot be registered: {detail}"
    fix = (
        "Use a CA certificate (basicConstraints CA:TRUE) that has not expired. In DEFAULT mode, add "
        '`--verification-certificate file://proof.pem`. To create the proof: `birthmark ca verify-possession "$(aws '
        'iot get-registration-code --query registrationCode --output text)" --dir ca --out proof.pem`. Without a '
        "proof, set --certificate-mode SNI_ONLY."
    )
    detail: str


class CaStateError(ConflictError):
    """The CA certificate is still ACTIVE."""

    code = "awsiot.ca_state"
    message = "CA Certificate must be deactivated (not ACTIVE) before deletion. Id: {certificate_id}"
    cause = "The CA certificate {certificate_id} is ACTIVE."
    fix = (
        "Deactivate the CA certificate first: `aws iot update-ca-certificate --certificate-id {certificate_id} "
        "--new-status INACTIVE`"
    )
    certificate_id: str


class NoRegistrationCodeError(NotFoundError):
    """There is no registration code."""

    code = "awsiot.no_registration_code"
    cause = "The account has no registration code."
    fix = "Create a registration code: `aws iot get-registration-code`."


@dataclass(slots=True)
class CertificateAuthorities(AccountService):
    """The CA certificates of the account."""

    account_id: str

    async def registration_code(self) -> str:
        """Return the account's code, created on first use."""
        while (row := await self.database.one(store.CODE, account=self.account_id)) is None:
            code = self.entropy.token(32).hex()  # used unless another worker is faster
            await self.database.commit(Changes().run(store.ADD_CODE, account=self.account_id, code=code))
        return str(row["code"])

    async def delete_registration_code(self, *, actor: str) -> None:
        """Delete the code; the next one differs. Raise `NoRegistrationCodeError`."""
        missing = NoRegistrationCodeError()
        changes = Changes().run(store.DROP_CODE, expect=1, otherwise=missing, account=self.account_id)
        await self.database.commit(changes.audit(actor, "awsiot.registration_code_delete", self.account_id))

    async def get(self, ca_id: str) -> RegisteredCa:
        """Return a CA. Raise `UnknownCaError`."""
        row = await self.database.one(store.GET_CA, id=ca_id)
        if row is None:
            raise UnknownCaError(certificate_id=ca_id)
        return store.CAS.of(row)

    async def register(
        self,
        pem: str,
        verification_pem: str | None,
        mode: CertificateMode,
        *,
        is_active: bool,
        auto_registration: bool,
        registration: str | None,
        tags: Tags = NO_TAGS,
        actor: str,
    ) -> RegisteredCa:
        """Register a CA. Raise `CaRefusedError`, `PossessionNotProvenError` or `CaExistsError`."""
        certificate = parse_pem(pem)
        if not certificate.is_ca:
            raise CaRefusedError(detail="it is not a CA's (CA:TRUE)")
        check_dates(certificate, self.clock.now())
        await self._check_possession(certificate, verification_pem, mode)
        ca_id = CertificateId(certificate.thumbprint.hex())
        now, generation_id = self.clock.now(), new_uuid(self.entropy)
        made = RegisteredCa(
            ca_id,
            certificate,
            is_active,
            mode,
            auto_registration,
            registration,
            now,
            now,
            1,
            generation_id,
            parse_single_pem(pem),
        )
        exists = CaExistsError(certificate_id=ca_id)
        changes = Changes().run(store.ADD_CA, expect=1, otherwise=exists, **store.ca_row(made))
        changes.merge(written("cacert", ca_id, tags))
        await self.database.commit(changes.audit(actor, "awsiot.ca_add", ca_id, mode=mode.value))
        return made

    async def update(
        self,
        ca_id: str,
        *,
        is_active: bool | None,
        auto_registration: bool | None,
        registration: str | None,
        remove_registration: bool,
        actor: str,
    ) -> None:
        """Change a CA; None leaves a value unchanged. Raise `UnknownCaError`."""
        known = await self.get(ca_id)
        made = replace(
            known,
            is_active=known.is_active if is_active is None else is_active,
            auto_registration=known.auto_registration if auto_registration is None else auto_registration,
            registration=None if remove_registration else registration or known.registration,
            modified_at=self.clock.now(),
            customer_version=known.customer_version + 1,
        )
        changes = Changes().run(
            store.UPDATE_CA,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The CA certificate"),
            key_id=known.id,
            key_customer_version=known.customer_version,
            **store.CAS.row(made),
        )
        told = {"active": made.is_active, "auto_registration": made.auto_registration}
        await self.database.commit(changes.audit(actor, "awsiot.ca_update", known.id, **told))

    async def delete(self, ca_id: str, *, actor: str) -> None:
        """Remove an inactive CA. Raise `UnknownCaError` or `CaStateError`."""
        known = await self.get(ca_id)
        active = CaStateError(certificate_id=known.id)
        if known.is_active:
            raise active
        changes = (
            Changes()
            .run(store.DELETE_CA, expect=1, otherwise=active, id=known.id)
            .merge(tag_deletes("cacert", known.id))
        )
        await self.database.commit(changes.audit(actor, "awsiot.ca_delete", known.id))

    async def page(self, after: str | None, size: int, *, ascending: bool) -> Page[RegisteredCa]:
        """Return a page of CA certificates by ID."""
        query = store.LIST_CAS if ascending else store.LIST_CAS_DOWN
        rows = await self.database.all(query, after=after or "", limit=size + 1)
        return page_of([store.CAS.of(row) for row in rows], size, [row["id"] for row in rows])

    async def _check_possession(self, ca: Certificate, verification_pem: str | None, mode: CertificateMode) -> None:
        if verification_pem is None:
            if mode is CertificateMode.DEFAULT:
                raise CaRefusedError(detail="the verification certificate is missing")
            return
        if mode is CertificateMode.SNI_ONLY:
            raise CaRefusedError(detail="a verification certificate requires DEFAULT mode")
        row = await self.database.one(store.CODE, account=self.account_id)
        if row is None:
            raise NoRegistrationCodeError
        check_possession(parse_pem(verification_pem), ca, row["code"], self.clock.now())
