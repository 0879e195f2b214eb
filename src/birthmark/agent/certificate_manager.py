"""Certificate lifecycle: issue missing certificates, renew before expiry, and prove each one before use.

The proof depends on the certificate's purpose. A device identity registers and connects to the hub; its caller does
that between `fresh` and `commit`. An EST identity must be accepted by the EST server. Fetching the CA certificates
proves nothing, because that endpoint is public, so the new identity enrolls once for itself. A CA is proven by its
chain.

Every step can be interrupted. A key whose certificate may already be issued is requested again with the same CSR. A
server that has already issued, or that requires approval first, then finds the request again.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from birthmark.agent.certificate_slot import HeldIdentity, Slot, fits
from birthmark.agent.certificate_sources import (
    CertificateNameError,
    CertificateSource,
    EstProof,
    IssuedChain,
    NotAuthorityError,
    request_for,
    subject_of,
)
from birthmark.agent.config.model import AzureIssuance, EstIssuance
from birthmark.agent.key_store import HeldKey
from birthmark.agent.managed_certificate_list import CertificateUse, ManagedCertificate, est_identity_of
from birthmark.agent.preloaded_and_issued_identities import IdentityStore
from birthmark.agent.renewal_policy import Renewal, chance_of, renew_at, spread
from birthmark.agent.state_directory import DEVICE_ID, next_of
from birthmark.agent.trusted_clock import TOLERANCE
from birthmark.dps.client import DpsRefusedError, DpsRejectedError
from birthmark.errors import BirthmarkError, ForbiddenError, UnauthenticatedError
from birthmark.est.client import (
    EstServerAnswerError,
    EstServerBusyError,
    EstServerForbiddenError,
    EstServerUnauthenticatedError,
)
from birthmark.est.wire import REJECTED
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import parse_csr
from birthmark.supervised_tasks import run_in_thread

log = logging.getLogger(__name__)

_ACCEPTED, _BAD_REQUEST = 202, 400
_EARLY_EVERY_S = 300.0
_REFUSALS = (EstServerUnauthenticatedError, EstServerForbiddenError, DpsRefusedError)
"""Refusals by the service itself; an unauthenticated server does not count as the service."""


class ConfirmTime(Protocol):
    """Callable that confirms the time; see `timely.TimeServers.confirm`."""

    async def __call__(self, *, is_over: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class CertificateManager:
    """Manages the certificates of one agent; `now_for` returns the time for validating a certificate."""

    identities: IdentityStore
    source: CertificateSource
    managed: Mapping[str, ManagedCertificate]
    now_for: Callable[[HeldIdentity], datetime]
    on_issued: Callable[[ManagedCertificate, IssuedChain], None]
    planned: Callable[[ManagedCertificate, Certificate], datetime | None]
    """Renewal time that the issuer suggested for a certificate; None if there is none."""
    confirm_time: ConfirmTime
    begins_in: Callable[[HeldIdentity], timedelta]
    """Time until a certificate becomes valid, by server time; zero if no server has provided the time."""
    monotonic: Callable[[], float]
    register: Callable[[HeldIdentity], Awaitable[object]]
    """Registers the device with a certificate that authenticates it to the provisioning service."""
    _early_asked_at: dict[str, float] = field(default_factory=dict, init=False)
    """Time of the last request to replace a certificate that is not yet valid, in monotonic seconds, by ID."""

    def slot(self, certificate_id: str) -> Slot:
        return self.identities.slot(certificate_id)

    def recover(self) -> None:
        """Complete or clean up interrupted operations; those that cannot be completed now are retried later."""
        for certificate_id in self.managed:
            try:
                self.slot(certificate_id).recover()
            except BirthmarkError as error:
                log.warning("agent.not_recovered", extra={"id": certificate_id, "code": error.code})

    async def ensure(self, managed: ManagedCertificate) -> HeldIdentity:
        """Return a usable certificate; issue one if it is missing, expired, or for another name.

        A certificate that is not yet valid (the issuer's clock is ahead) is not usable either. The agent periodically
        requests another and keeps the current one until it succeeds.
        """
        slot = self.slot(managed.id)
        current = slot.current()
        if current is None or not self._is_named(managed, current):
            return self._put_to_use(slot, await self.fresh(managed, current))
        await self.confirm_time(is_over=self.is_expired(current))
        if self.is_expired(current):
            return self._put_to_use(slot, await self.fresh(managed, current))
        if not self._is_early(managed, current):
            return current
        log.warning(
            "certificate.not_begun", extra={"id": managed.id, "not_before": current.leaf.not_before.isoformat()}
        )
        try:
            return self._put_to_use(slot, await self.fresh(managed, current))
        except BirthmarkError as error:
            log.info("certificate.not_replaced", extra={"id": managed.id, "code": error.code})
            return current

    async def renew(self, managed: ManagedCertificate, *, is_key_over: bool = False) -> HeldIdentity:
        """Renew an EST identity or a CA, which prove themselves; on failure, keep the old one."""
        slot = self.slot(managed.id)
        current = slot.current()
        fresh = await self.fresh(managed, current, is_key_over=is_key_over)
        if managed.kind is CertificateUse.EST and current is not None and not self.is_expired(current):
            fresh = await self._confirm_at_est_server(managed, fresh)
        return self._put_to_use(slot, fresh)

    async def fresh(
        self, managed: ManagedCertificate, current: HeldIdentity | None, *, is_key_over: bool = False
    ) -> HeldIdentity:
        """Return a certificate to prove: a pending one that is not proven yet, otherwise a new one.

        `is_key_over` requires a new key even if the configuration reuses keys. It also skips pending certificates,
        because they may be revoked.
        """
        slot = self.slot(managed.id)
        pending = None if is_key_over else self.unproven(managed)
        if pending is not None and (current is None or self.is_expired(current)):
            pending = await self._find_usable_pending(managed, pending)
        if pending is not None:
            return pending
        key, request = await self._next_request(managed, slot, current, is_key_over=is_key_over)
        try:
            answered = await self.source.issue(managed, key, request, current, self.proofs)
        except BirthmarkError as error:
            if _is_final(error):
                with contextlib.suppress(BirthmarkError):
                    slot.drop_pending()
            raise
        slot.save(answered.chain)
        log.info("certificate.issued", extra={"id": managed.id, "thumbprint": answered.chain[0].thumbprint.hex()})
        self.on_issued(managed, answered)
        return HeldIdentity(answered.chain, key)

    def unproven(self, managed: ManagedCertificate) -> HeldIdentity | None:
        """Return the pending, unproven certificate unless it is due for renewal itself."""
        pending = self.slot(managed.id).pending()
        if pending is None or not self._is_named(managed, pending) or self.now_for(pending) >= self._due(pending):
            return None
        if self.begins_in(pending) > TOLERANCE:
            return None
        return pending

    async def proofs(
        self, managed: ManagedCertificate, est: EstIssuance, current: HeldIdentity | None
    ) -> AsyncIterator[EstProof]:
        """Yield the proofs for a request to an EST server, the best one first."""
        pair = est.auth.pair
        if pair is None or not pair.is_bootstrap:  # a password or its own identity
            if pair is None and current is not None:
                yield self._proof(current)
            yield EstProof(None if pair is None else self.identities.preloaded(pair).for_links())
            return
        if (asking := est_identity_of(managed)) is None:
            device = self.slot(DEVICE_ID).current() if DEVICE_ID in self.managed else None
            for held in (current, device):
                if held is not None:
                    yield self._proof(held)
            yield EstProof(self.identities.preloaded(pair).for_links())
            return
        async for proof in self._by_est_identity(asking, current):
            yield proof

    async def _by_est_identity(
        self, asking: ManagedCertificate, current: HeldIdentity | None
    ) -> AsyncIterator[EstProof]:
        identity = self.slot(asking.id).current()
        refusal: BirthmarkError | None = None
        is_new = identity is None
        if identity is None:
            try:
                identity = await self.ensure(asking)
            except (UnauthenticatedError, ForbiddenError) as error:
                refusal = error
        is_expired = identity is not None and self.is_expired(identity)
        if identity is not None and not is_expired:
            yield self._proof(identity)
        if current is not None:
            yield self._proof(current)
        if identity is not None and is_expired:
            yield self._proof(identity)
        if refusal is not None:
            raise refusal
        if not is_new:  # no valid credential left: bootstrap again
            yield self._proof(self._put_to_use(self.slot(asking.id), await self.fresh(asking, None)))

    # ---- facts

    def is_expired(self, identity: HeldIdentity) -> bool:
        return self.now_for(identity) > identity.leaf.not_after

    def is_unfinished(self, certificate_id: str) -> bool:
        """Return whether a renewal is incomplete."""
        slot = self.slot(certificate_id)
        return slot.pending() is not None or slot.waiting() is not None

    def renew_at(self, managed: ManagedCertificate, identity: HeldIdentity) -> datetime | None:
        """Return when a certificate should be renewed; None for never."""
        leaf, renewal = identity.leaf, managed.renewal
        if renewal is None:
            return None
        at = renew_at(leaf.not_before, leaf.not_after, renewal.threshold)
        retry = renewal.retry.of(leaf.not_after - leaf.not_before)
        configured = spread(at, leaf.not_after, retry, chance_of(leaf.thumbprint))
        planned = self.planned(managed, leaf)  # inside the issuer's window: keep the threshold
        return configured if planned is None else min(configured, planned)

    # ---- inside

    def _due(self, identity: HeldIdentity) -> datetime:
        return renew_at(identity.leaf.not_before, identity.leaf.not_after, Renewal().threshold)

    def _is_early(self, managed: ManagedCertificate, identity: HeldIdentity) -> bool:
        """Return whether to request another certificate because this one is not yet valid; rate limited."""
        if self.begins_in(identity) <= TOLERANCE:
            return False
        now, before = self.monotonic(), self._early_asked_at.get(managed.id)
        if before is not None and now - before < _EARLY_EVERY_S:
            return False
        self._early_asked_at[managed.id] = now
        return True

    def _is_named(self, managed: ManagedCertificate, identity: HeldIdentity) -> bool:
        """Return whether the name matches; only checked for device certificates, as DPS identifies devices by it.

        The EST server chooses the names of other certificates.
        """
        return managed.kind is not CertificateUse.DEVICE or identity.leaf.subject_cn == managed.issued.common_name

    def _proof(self, identity: HeldIdentity) -> EstProof:
        return EstProof(identity.for_links(), self.is_expired(identity))

    async def _next_request(
        self, managed: ManagedCertificate, slot: Slot, current: HeldIdentity | None, *, is_key_over: bool
    ) -> tuple[HeldKey, bytes]:
        """Return the key and CSR of an unanswered request, otherwise new ones."""
        waiting = slot.waiting()
        if waiting is not None and parse_csr(waiting[1]).subject == subject_of(managed.issued):
            is_of_old_key = is_key_over and current is not None and fits(current.leaf, waiting[0])
            if not is_of_old_key:
                return waiting
        slot.drop_pending()
        # A secure element takes seconds to generate an RSA key, and the service manager enforces a start timeout.
        key = await run_in_thread(lambda: self._key(managed, current, is_over=is_key_over))
        request = request_for(managed, key)
        if isinstance(managed.issued.by, EstIssuance | AzureIssuance):
            slot.keep_request(request)
        return key, request

    def _key(self, managed: ManagedCertificate, current: HeldIdentity | None, *, is_over: bool) -> HeldKey:
        """Return the key to certify.

        A preconfigured key, such as a secure element's own, is reused and never replaced.
        """
        keys = self.identities.keys
        if keys.is_preloaded(managed.id):
            return keys.open(managed.id)
        rotates = is_over or managed.renewal is None or managed.renewal.rotate_key
        # A key without its certificate still belongs to the name.
        kept = keys.find(managed.id) if current is None or not rotates else None
        return kept or keys.create(next_of(managed.id))

    async def _confirm_at_est_server(self, managed: ManagedCertificate, fresh: HeldIdentity) -> HeldIdentity:
        """Return a new identity that the EST server accepts.

        The identity enrolls for the same key. Raise if the server refuses it.
        """
        try:
            answered = await self.source.ask(managed, request_for(managed, fresh.key), EstProof(fresh.for_links()))
        except EstServerBusyError as error:
            if error.status == _ACCEPTED:  # authenticated, approval pending
                return fresh
            raise
        except _REFUSALS:
            with contextlib.suppress(BirthmarkError):
                self.slot(managed.id).drop_pending()
            raise
        self.slot(managed.id).save(answered.chain)
        self.on_issued(managed, answered)
        return HeldIdentity(answered.chain, fresh.key)

    async def _find_usable_pending(self, managed: ManagedCertificate, pending: HeldIdentity) -> HeldIdentity | None:
        """Return the pending certificate as the last resort; None if it is refused, in which case it is dropped.

        An unreachable or untrusted server does not count as a refusal; the certificate is then used as is.
        """
        try:
            if managed.kind is CertificateUse.EST:
                return await self._confirm_at_est_server(managed, pending)
            if managed.kind is CertificateUse.DEVICE:
                await self.register(pending)
        except _REFUSALS as error:
            log.warning("certificate.not_proven", extra={"id": managed.id, "code": error.code})
            self.slot(managed.id).drop_pending()
            return None
        except BirthmarkError as error:
            log.info("certificate.unproven", extra={"id": managed.id, "code": error.code})
        return pending

    def _put_to_use(self, slot: Slot, fresh: HeldIdentity) -> HeldIdentity:
        slot.commit()
        return slot.current() or fresh


def _is_final(error: BirthmarkError) -> bool:
    """Return whether the EST server or DPS answered and an identical retry cannot succeed.

    If another host answered, or none could be reached, the key may be one that an operator approved or that used up a
    one-time password. An operator who rejected a request can still approve that same request.
    """
    if isinstance(error, EstServerForbiddenError):
        return not error.text.startswith(REJECTED)
    if isinstance(error, EstServerAnswerError):
        return error.status == _BAD_REQUEST
    final = EstServerUnauthenticatedError | CertificateNameError | NotAuthorityError | DpsRejectedError
    return isinstance(error, final)
