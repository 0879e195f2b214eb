"""Enrollment group of a device: by the CAs above its certificate, or by the key that signed its token.

Groups and CAs are few and every registration needs them, so they are cached in memory.
"""

from collections.abc import Sequence
from datetime import datetime

from birthmark.dps import store
from birthmark.dps.domain_events import AuthorityChanged, GroupChanged
from birthmark.dps.model import Claim, Enrollment, EnrollmentSigner, IdScope, SymmetricKey
from birthmark.dps.ports import CertificateInventory
from birthmark.dps.rules import attestation
from birthmark.dps.rules.enrollment_validation import enrollment_of
from birthmark.dps.service.enrollments import EnrollmentNotFoundError
from birthmark.errors import UnauthenticatedError
from birthmark.net.fair_scheduler import Backlog
from birthmark.net.quota_key import share_of
from birthmark.pki.path_validation import MAX_BAG, SignatureCache, Signatures, decide_in_steps
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.store import Database
from birthmark.store.database import Row
from birthmark.store.reloading_cache import RowCache


class Groups:
    """Enrollment groups of all provisioning services, for attestation."""

    def __init__(self, database: Database, inventory: CertificateInventory | None = None) -> None:
        self._inventory = inventory
        self._remembered = RowCache(database, GroupChanged, AuthorityChanged)
        self._signatures = SignatureCache()

    async def of_certificate(self, scope: IdScope, claim: Claim, now: datetime) -> Enrollment:
        """Return the group whose CA issued the claim's certificate. Raise the reason if there is none."""
        attestation.check_leaf(claim, now)
        signers, authorities = await self._issuers_of(scope, claim)

        def find(signatures: Signatures) -> attestation.GroupHit:  # repeated after each signature check
            return attestation.find_group(claim, signers, authorities, signatures, now)

        try:
            hit = await Backlog.running().run_decision(decide_in_steps(find, self._signatures), share_of(claim.address))
        except attestation.IntermediateNotSentError as missing:
            some = await self._remembered.all(store.SOME_SIGNERS, store.SIGNERS.of, scope=scope)
            raise attestation.judge_missing_issuer(missing, claim, some) from missing
        for ca in hit.through:
            if self._inventory is not None and await self._inventory.is_devices_own(ca):
                raise attestation.DeviceCaNotTrustedError(
                    registration_id=claim.registration_id, subject=ca.subject_text, group=hit.group_id
                )
        asked = {"scope": scope, "kind": "group", "id": hit.group_id}
        found = await self._remembered.all(store.GET_ENROLLMENT, _enrollment_of, **asked)
        if not found:  # just deleted
            raise EnrollmentNotFoundError(enrollment=hit.group_id, scope=scope, kind="group")
        attestation.check_enabled(found[0], claim)
        return found[0]

    async def of_token(self, scope: IdScope, claim: Claim, now: datetime) -> Enrollment:
        """Return the symmetric-key group whose derived key signed the claim's token.

        Raise the reason if there is none.
        """
        problem = None
        for group in await self._remembered.all(store.ALL_GROUPS, _enrollment_of, scope=scope):
            if isinstance(group.attestation, SymmetricKey):
                try:
                    attestation.check_group(group, claim, now)
                except attestation.EnrollmentDisabledError as error:
                    problem = error
                except UnauthenticatedError:
                    continue
                else:
                    return group
        raise problem or attestation.TokenNotEnrolledError(registration_id=claim.registration_id, scope=claim.id_scope)

    async def _issuers_of(
        self, scope: IdScope, claim: Claim
    ) -> tuple[Sequence[EnrollmentSigner], Sequence[CaCertificate]]:
        """Return signers and CAs whose subject is the issuer of any presented certificate, and their issuers."""
        presented = [c for c in (claim.leaf, *claim.chain[:MAX_BAG]) if c is not None]
        names = list(dict.fromkeys(store.subject_digest(c.issuer_der) for c in presented))
        signers: list[EnrollmentSigner] = []
        for name in names:
            asked = {"scope": scope, "subject_digest": name}
            signers += await self._remembered.all(store.SIGNERS_NAMED, store.SIGNERS.of, **asked)
        authorities: dict[str, CaCertificate] = {}
        for name in dict.fromkeys([*names, *(store.subject_digest(s.certificate.issuer_der) for s in signers)]):
            asked = {"scope": scope, "subject_digest": name}
            found = await self._remembered.all(store.AUTHORITIES_NAMED, store.AUTHORITIES.of, **asked)
            authorities |= {authority.name: authority for authority in found}
        return signers, list(authorities.values())


def _enrollment_of(row: Row) -> Enrollment:
    return enrollment_of(store.document_of(row))
