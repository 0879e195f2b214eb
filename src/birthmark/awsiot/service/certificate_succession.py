"""Certificate renewal: the new certificate, a new principal, inherits policies and things from the old one.

The old certificate is deactivated once the new one connects, so there is no gap. A certificate that several things
share stays active for the others. The predecessor is known for renewals by this installation's CA; for all others, an
operator specifies it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.awsiot.model import (
    CertificateId,
    CertificateMode,
    CertificateStatus,
    DeviceCertificate,
    PrincipalType,
    RegisteredCa,
)
from birthmark.awsiot.rules.policy import are_of_one_device
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.certificates import Certificates, check, insert_changes, retry_if_registered
from birthmark.awsiot.service.policies import Policies
from birthmark.awsiot.service.policies import attaching as policy_attaching
from birthmark.awsiot.service.thing_principals import attachment_changes
from birthmark.awsiot.store import certificates_and_access_keys as store
from birthmark.awsiot.store import registry as registry_store
from birthmark.errors import ChangedMeanwhileError, ConflictError
from birthmark.pki.certificates import Certificate
from birthmark.store import Changes, retry_on_conflict

Predecessors = Callable[[Certificate], Awaitable[Sequence[str]]]
"""Returns the IDs of the certificates that a certificate renewed, latest first; none if it is no renewal."""
_MAX_THINGS = 100
_OVER = CertificateStatus.INACTIVE


class NoSuccessorError(ConflictError):
    """Nothing can be transferred from the old certificate."""

    code = "awsiot.no_successor"
    message = "Certificate {certificate_id} cannot be replaced: {detail}"
    fix = "Show the certificate's details: `aws iot describe-certificate --certificate-id {certificate_id}`"
    certificate_id: str
    detail: str


@dataclass(slots=True)
class Renewals(AccountService):
    """Transfers attachments to renewed certificates and deactivates the old ones."""

    certificates: Certificates
    policies: Policies
    predecessors: Predecessors | None = None

    async def register_renewed(self, leaf: Certificate) -> DeviceCertificate | None:
        """Return a renewal of a registered, ACTIVE certificate, registered like its predecessor; otherwise None."""
        if self.predecessors is None:
            return None
        for certificate_id in await self.predecessors(leaf):
            old = await self.certificates.find(certificate_id)
            if old is not None and old.certificate.subject_cn == leaf.subject_cn:  # not a registrar: it requests all
                is_good = old.status is CertificateStatus.ACTIVE and old.claim is None
                return await self._carried(old.id, leaf, actor=f"certificate:{old.id}") if is_good else None
        return None

    async def carry(self, certificate_id: CertificateId, leaf: Certificate, *, actor: str) -> DeviceCertificate:
        """Register a successor with the policies and things of the old certificate. Raise `NoSuccessorError`."""
        return await self._carried(certificate_id, leaf, actor=actor)

    async def _carried(self, certificate_id: CertificateId, leaf: Certificate, *, actor: str) -> DeviceCertificate:
        async def decide() -> DeviceCertificate:
            old = await self.certificates.get(certificate_id)
            if old.status is not CertificateStatus.ACTIVE or old.claim is not None:
                detail = "it is a claim" if old.claim is not None else f"it is {old.status.value}"
                raise NoSuccessorError(certificate_id=old.id, detail=detail)
            if (present := await self.certificates.find(leaf.thumbprint.hex())) is not None:
                if present.replaces == old.id:
                    return present  # another connection was faster
                raise NoSuccessorError(certificate_id=old.id, detail=f"{present.id} is registered already")
            check(leaf, self.clock.now())
            cas: Sequence[RegisteredCa] = await self.certificates.cas_of(leaf)
            mode, ca_id = (CertificateMode.SNI_ONLY, None) if not cas else (cas[0].mode, cas[0].id)
            with retry_if_registered():
                made = await self.certificates.prepare_registration(
                    leaf, CertificateStatus.ACTIVE, mode, ca_id, replaces=old.id
                )
            seen: dict[str, Any] = {"key_id": old.id, "key_customer_version": old.customer_version}
            changes = Changes().run(store.IS_STILL_SO, expect=1, **seen).merge(insert_changes(made, actor=actor))
            for name, document in await self.policies.documents_of(old.id):
                is_wide = not are_of_one_device([document])
                changes.merge(policy_attaching(name, made.id, is_new=True, is_wide=is_wide, actor=actor))
            for row in await self._things(old.id):
                kind = PrincipalType(row["kind"])
                changes.merge(attachment_changes(row["thing"], made.id, kind, is_new=True, actor=actor))
            changes.audit(actor, "awsiot.certificate_renew", old.id, by=made.id)
            await self.database.commit(changes)
            return made

        return await retry_on_conflict(decide, attempts=4)

    async def retire_predecessor(self, certificate_id: str) -> None:
        """Deactivate the predecessor of a certificate that has connected."""
        made = await self.certificates.find(certificate_id)
        if made is None or made.replaces is None:
            return
        old = await self.certificates.find(made.replaces)
        things = () if old is None else await self._things(old.id)
        if len(things) > 1:
            return  # others use it
        changes = Changes().run(store.REPLACED, expect=1, key_id=made.id, key_replaces=made.replaces, replaces=None)
        if old is not None and old.status is CertificateStatus.ACTIVE:
            actor = f"certificate:{made.id}"
            changes.merge(self.certificates.status_changes(old, _OVER, actor=actor))
            if await self._is_reenrollment(old, made):
                for thing in (row["thing"] for row in things):
                    changes.run(registry_store.DETACH, thing=thing, certificate_id=old.id)
                    changes.audit(actor, "awsiot.thing_detach", thing, certificate_id=old.id)
        try:
            await self.database.commit(changes)
        except ChangedMeanwhileError:  # another connection was faster, or the old certificate changed
            return

    async def _is_reenrollment(self, old: DeviceCertificate, certificate: DeviceCertificate) -> bool:
        """Return whether a device lost the old certificate and enrolled again with its key instead of renewing."""
        if old.certificate.spki_der != certificate.certificate.spki_der:
            return False
        return self.predecessors is None or old.id not in await self.predecessors(certificate.certificate)

    async def _things(self, certificate_id: str) -> Sequence[Any]:
        return await self.database.all(
            registry_store.THINGS_OF, certificate_id=certificate_id, after="", limit=_MAX_THINGS
        )
