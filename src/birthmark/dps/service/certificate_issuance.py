"""Certificate issuance at registration: a device with a CSR gets its certificate in the commit that registers it.

A device that registers again without a CSR keeps its issued certificate while it is valid, because its hub uses it.
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from birthmark.ca.cloud_device_issuance import Also, CertificateOrder, IssuingPolicyUnknownError
from birthmark.ca.model import key_digest
from birthmark.dps.model import Claim, Enrollment, Registration
from birthmark.dps.ports import CertificateIssuer, HubDeviceStatus, HubIdentity
from birthmark.dps.rules.registration import check_csr, is_repeated
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der
from birthmark.pki.csr import CertificateRequest
from birthmark.store import Changes, Database

Write = Callable[[Registration], Changes]
"""Returns the changes of a registration, except for its device at the hub."""


class NoIssuer:
    """Issuer of a provisioning service without a CA."""

    def check_policy(self, policy: str) -> None:
        """Reject every issuing policy. Raise `IssuingPolicyUnknownError`."""
        raise IssuingPolicyUnknownError(policy=policy, known="none")

    async def is_good(self, thumbprint: Thumbprint) -> bool:
        del thumbprint
        return False

    async def issue(self, order: CertificateOrder, also: Also) -> Sequence[Certificate]:
        """Reject every certificate order. Raise `IssuingPolicyUnknownError`."""
        del also
        raise IssuingPolicyUnknownError(policy=order.policy, known="none")


NO_ISSUER = NoIssuer()


AtHub = Callable[[Registration, HubIdentity], Awaitable[Changes]]
"""Returns the changes of a registration's device at the hub."""


@dataclass(frozen=True, slots=True)
class IssuanceContext:
    """A decided registration before a certificate is issued for it."""

    enrollment: Enrollment
    claim: Claim
    present: Registration | None
    decided: Registration
    identity: HubIdentity
    """Identity that results from the proof alone."""
    standing: HubDeviceStatus
    at_hub: AtHub
    now: datetime

    async def written(self, registration: Registration, identity: HubIdentity, write: Write) -> Changes:
        """Return the complete unit of work."""
        changes = await self.at_hub(registration, identity)
        return write(registration).merge(changes)


class CertificateIssuance:
    """Certificate issuance for registering devices."""

    def __init__(self, database: Database, issuer: CertificateIssuer) -> None:
        self._database = database
        self._issuer = issuer

    async def commit(self, case: IssuanceContext, write: Write) -> Registration:
        """Issue the requested certificate, commit it with the changes of `write`, and return the registration."""
        csr, standing = case.claim.csr, case.standing
        if csr is None:
            made = case.decided
            good = [one for one in (standing.in_use, standing.fresh) if one and await self._issuer.is_good(one)]
            identity = replace(case.identity, keeps=True) if good else case.identity
            await self._database.commit(await case.written(made, identity, write))
            return made
        policy = check_csr(case.enrollment, case.claim.registration_id, csr)
        if (made_before := await self._made_before(case, csr)) is not None:
            await self._database.commit(await case.written(made_before, replace(case.identity, keeps=True), write))
            return made_before
        return await self._issue(case, csr, policy, write)

    async def _made_before(self, case: IssuanceContext, csr: CertificateRequest) -> Registration | None:
        """Return the registration if this operation was already issued its chain, otherwise None."""
        present = case.present
        if present is None or not present.issued_chain:
            return None
        leaf = parse_der(base64.b64decode(present.issued_chain[0]))
        if leaf.thumbprint not in {case.standing.in_use, case.standing.fresh}:
            return None
        if not is_repeated(present, case.enrollment, key_digest(csr.spki_der), leaf.not_after, case.now):
            return None
        if not await self._issuer.is_good(leaf.thumbprint):
            return None
        kept = (present.issued_key, present.issued_by, present.issued_at, present.issued_chain)
        return _with_issued(case.decided, *kept)

    async def _issue(self, case: IssuanceContext, csr: CertificateRequest, policy: str, write: Write) -> Registration:
        made, standing = case.decided, case.standing
        old = standing.in_use
        bootstrap = set(case.identity.thumbprints)
        shown = None if case.claim.leaf is None else case.claim.leaf.thumbprint
        if old in bootstrap and shown in bootstrap:  # of two enrolled ones, the one it presents
            old = shown
        stays = old is not None and (old in bootstrap or await self._issuer.is_good(old))

        async def also(chain: Sequence[Certificate]) -> Changes:
            nonlocal made
            told = tuple(base64.b64encode(one.der).decode() for one in chain)
            made = _with_issued(case.decided, key_digest(csr.spki_der), policy, case.now, told)
            fresh = chain[0].thumbprint
            first = old if stays and old is not None else fresh
            identity = replace(case.identity, thumbprints=(first, fresh), keys=(), fresh=fresh)
            return await case.written(made, identity, write)

        known = {one for one in (old, standing.fresh) if one is not None} | bootstrap
        order = CertificateOrder(csr, policy, case.identity.maker, case.claim.leaf, known, standing.fresh)
        await self._issuer.issue(order, also)
        return made


def issued_at(registration: Registration, now: datetime) -> dict[str, str]:
    """Return the audit facts of a certificate that was just issued for a registration; otherwise an empty dict."""
    if not registration.issued_chain or registration.issued_at != now:
        return {}
    return {"issued": hashlib.sha256(base64.b64decode(registration.issued_chain[0])).hexdigest()}


def _with_issued(
    registration: Registration,
    key: bytes | None,
    by: str | None,
    timestamp: datetime | None,
    chain: tuple[str, ...] | None,
) -> Registration:
    return replace(registration, issued_key=key, issued_by=by, issued_at=timestamp, issued_chain=chain)
