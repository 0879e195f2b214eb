"""Keeping certificates: issue when there is none, renew before the end, and put nothing to use that was not proven.

How a next certificate is proven depends on what it is for. A device identity is registered and connects to the hub: its
caller does that, between `fresh` and `commit`. An EST identity must be believed by the EST server; that its CAs can be
fetched says nothing, for everybody may. So the new identity enrolls once, for itself. A CA is proven by its chain.

Each step may be interrupted. A key whose certificate may have been issued is asked for again, by the same request: a
server that has answered already, or lets somebody approve first, then finds it again.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from birthmark.agent.config.model import AzureIssuance, EstIssuance
from birthmark.agent.credential_store import HeldIdentity, Slot, fits
from birthmark.agent.identities import IdentityStore
from birthmark.agent.issuance import (
    CertificateNameError,
    CertificateSource,
    EstProof,
    IssuedChain,
    NotAuthorityError,
    request_for,
    subject_of,
)
from birthmark.agent.keys import HeldKey
from birthmark.agent.managed_certificates import CertificateUse, ManagedCertificate, est_identity_of
from birthmark.agent.paths import DEVICE_ID, next_of
from birthmark.agent.renewal_policy import Renewal, chance_of, renew_at, spread
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
from birthmark.supervised_tasks import beside

log = logging.getLogger(__name__)

_ACCEPTED, _BAD_REQUEST = 202, 400
_EARLY_EVERY_S = 300.0
_REFUSALS = (EstServerUnauthenticatedError, EstServerForbiddenError, DpsRefusedError)
"""What a service itself says; who could not be believed as that service said nothing."""


class ConfirmTime(Protocol):
    """See `timely.TimeServers.confirm`."""

    async def __call__(self, *, is_over: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class CertificateManager:
    """Keeps the certificates of one agent. `now_for` says what time it is, judged by a certificate."""

    identities: IdentityStore
    source: CertificateSource
    managed: Mapping[str, ManagedCertificate]
    now_for: Callable[[HeldIdentity], datetime]
    on_issued: Callable[[ManagedCertificate, IssuedChain], None]
    planned: Callable[[ManagedCertificate, Certificate], datetime | None]
    """When a certificate shall be renewed because its issuer said so."""
    confirm_time: ConfirmTime
    begins_in: Callable[[HeldIdentity], timedelta]
    """How long until a certificate begins, by a time that a server has told; nothing where none has."""
    monotonic: Callable[[], float]
    register: Callable[[HeldIdentity], Awaitable[object]]
    """Registers the device by a certificate, which proves it to the provisioning service."""
    _early_asked_at: dict[str, float] = field(default_factory=dict, init=False)
    """When another certificate was asked for in the place of one that had not begun, in monotonic seconds."""

    def slot(self, certificate_id: str) -> Slot:
        return self.identities.slot(certificate_id)

    def recover(self) -> None:
        """Finish or take away what an interruption left. Whatever cannot be done now is done another time."""
        for certificate_id in self.managed:
            try:
                self.slot(certificate_id).recover()
            except BirthmarkError as error:
                log.warning("agent.not_recovered", extra={"id": certificate_id, "code": error.code})

    async def ensure(self, managed: ManagedCertificate) -> HeldIdentity:
        """Return a usable certificate, issuing one where there is none, or it has expired, or is for another name.

        Nor is one usable that begins later: the clock of who issued it was ahead. Another is asked for, now and then;
        as long as there is none, that one stays.
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
        """Renew what proves itself: an EST identity or a CA. On failure the old one stays."""
        slot = self.slot(managed.id)
        current = slot.current()
        fresh = await self.fresh(managed, current, is_key_over=is_key_over)
        if managed.kind is CertificateUse.EST and current is not None and not self.is_expired(current):
            fresh = await self._believed(managed, fresh)
        return self._put_to_use(slot, fresh)

    async def fresh(
        self, managed: ManagedCertificate, current: HeldIdentity | None, *, is_key_over: bool = False
    ) -> HeldIdentity:
        """Return a certificate to prove: one that was issued before and could not be proven yet, else a new one.

        `is_key_over` asks for another key also where the configuration keeps it, and for none that was issued before:
        they may have been taken back.
        """
        slot = self.slot(managed.id)
        pending = None if is_key_over else self.unproven(managed)
        if pending is not None and (current is None or self.is_expired(current)):
            pending = await self._usable(managed, pending)
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
        """Return what was issued before, could not be proven yet, and is not to be renewed itself."""
        pending = self.slot(managed.id).pending()
        if pending is None or not self._is_named(managed, pending) or self.now_for(pending) >= self._due(pending):
            return None
        if self.begins_in(pending) > TOLERANCE:
            return None
        return pending

    async def proofs(
        self, managed: ManagedCertificate, est: EstIssuance, current: HeldIdentity | None
    ) -> AsyncIterator[EstProof]:
        """Say who asks an EST server for a certificate, the best proof first."""
        pair = est.auth.pair
        if pair is None or not pair.is_bootstrap:  # a password, or an identity of its own
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
        if not is_new:  # nobody believes what we have: be introduced again
            yield self._proof(self._put_to_use(self.slot(asking.id), await self.fresh(asking, None)))

    # ---- facts

    def is_expired(self, held: HeldIdentity) -> bool:
        return self.now_for(held) > held.leaf.not_after

    def is_unfinished(self, certificate_id: str) -> bool:
        """Say whether a renewal was begun and not brought to an end."""
        slot = self.slot(certificate_id)
        return slot.pending() is not None or slot.waiting() is not None

    def renew_at(self, managed: ManagedCertificate, held: HeldIdentity) -> datetime | None:
        """Return when a certificate should be renewed; None for never."""
        leaf, renewal = held.leaf, managed.renewal
        if renewal is None:
            return None
        at = renew_at(leaf.not_before, leaf.not_after, renewal.threshold)
        retry = renewal.retry.of(leaf.not_after - leaf.not_before)
        configured = spread(at, leaf.not_after, retry, chance_of(leaf.thumbprint))
        planned = self.planned(managed, leaf)  # in the issuer's window, which must not make a new threshold wait
        return configured if planned is None else min(configured, planned)

    # ---- inside

    def _due(self, held: HeldIdentity) -> datetime:
        return renew_at(held.leaf.not_before, held.leaf.not_after, Renewal().threshold)

    def _is_early(self, managed: ManagedCertificate, held: HeldIdentity) -> bool:
        """Say whether to ask for another certificate, as this one begins later; so many seconds apart."""
        if self.begins_in(held) <= TOLERANCE:
            return False
        now, before = self.monotonic(), self._early_asked_at.get(managed.id)
        if before is not None and now - before < _EARLY_EVERY_S:
            return False
        self._early_asked_at[managed.id] = now
        return True

    def _is_named(self, managed: ManagedCertificate, held: HeldIdentity) -> bool:
        """Only a device's name counts: DPS goes by it. What an EST server calls the others is its own affair."""
        return managed.kind is not CertificateUse.DEVICE or held.leaf.subject_cn == managed.issued.common_name

    def _proof(self, held: HeldIdentity) -> EstProof:
        return EstProof(held.for_links(), self.is_expired(held))

    async def _next_request(
        self, managed: ManagedCertificate, slot: Slot, current: HeldIdentity | None, *, is_key_over: bool
    ) -> tuple[HeldKey, bytes]:
        """Return key and request: those that were sent before and had no answer, else new ones."""
        waiting = slot.waiting()
        if waiting is not None and parse_csr(waiting[1]).subject == subject_of(managed.issued):
            is_of_old_key = is_key_over and current is not None and fits(current.leaf, waiting[0])
            if not is_of_old_key:
                return waiting
        slot.drop_pending()
        # A chip takes seconds for an RSA key, and a service manager counts them.
        key = await beside(lambda: self._key(managed, current, is_over=is_key_over))
        request = request_for(managed, key)
        if isinstance(managed.issued.by, EstIssuance | AzureIssuance):
            slot.keep_request(request)
        return key, request

    def _key(self, managed: ManagedCertificate, current: HeldIdentity | None, *, is_over: bool) -> HeldKey:
        """A key that the configuration gives, such as a chip's own, is certified again and never replaced."""
        keys = self.identities.keys
        if keys.is_preloaded(managed.id):
            return keys.open(managed.id)
        rotates = is_over or managed.renewal is None or managed.renewal.rotate_key
        # Without its certificate a key is still the name's.
        kept = keys.find(managed.id) if current is None or not rotates else None
        return kept or keys.create(next_of(managed.id))

    async def _believed(self, managed: ManagedCertificate, fresh: HeldIdentity) -> HeldIdentity:
        """Have the EST server believe a new identity: it enrolls, for the same key. Raise when it is refused."""
        try:
            answered = await self.source.ask(managed, request_for(managed, fresh.key), EstProof(fresh.for_links()))
        except EstServerBusyError as error:
            if error.status == _ACCEPTED:  # it was believed, and somebody shall approve
                return fresh
            raise
        except _REFUSALS:
            with contextlib.suppress(BirthmarkError):
                self.slot(managed.id).drop_pending()
            raise
        self.slot(managed.id).save(answered.chain)
        self.on_issued(managed, answered)
        return HeldIdentity(answered.chain, fresh.key)

    async def _usable(self, managed: ManagedCertificate, pending: HeldIdentity) -> HeldIdentity | None:
        """Return what was not proven yet, now that nothing else is left; None where it is refused, and so dropped.

        Who does not answer, or is not trusted, refuses nothing: then it is put to use as it is.
        """
        try:
            if managed.kind is CertificateUse.EST:
                return await self._believed(managed, pending)
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
    """Say whether the EST server, or the provisioning service, answered, and asking again the same way cannot help.

    Where another answered in its place, or nothing could be asked, the key may be one that an operator approved or a
    password for once was spent for. An operator who rejected a request can still approve that one.
    """
    if isinstance(error, EstServerForbiddenError):
        return not error.text.startswith(REJECTED)
    if isinstance(error, EstServerAnswerError):
        return error.status == _BAD_REQUEST
    final = EstServerUnauthenticatedError | CertificateNameError | NotAuthorityError | DpsRejectedError
    return isinstance(error, final)
