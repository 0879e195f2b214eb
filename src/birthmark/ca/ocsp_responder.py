"""OCSP responder: returns the recorded status of a certificate, signed by a delegated responder of its CA.

A response without a nonce is cached until the certificate's status changes or a quarter of its lifetime is left.
Responses with a nonce, or about unknown serial numbers, cannot be cached. They are signed up to the address's limit in
`may_sign`; beyond it, a cached response or "try later" is returned.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.ca import store
from birthmark.ca.crls import revocation_of
from birthmark.ca.domain_events import CertificateRevoked
from birthmark.ca.pkcs11_keys import run_signing
from birthmark.ca.service import CertificateAuthority
from birthmark.pki.certificate_profiles import OCSP
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.issuance import LeafIssuer, issue, new_serial
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.ocsp import (
    CertId,
    OcspRequest,
    OcspResponse,
    OcspStatus,
    UnsignedStatus,
    build_answer,
    ids_of,
    parse_request,
)
from birthmark.pki.revocation_urls import name_of_key
from birthmark.store.database import Heard
from birthmark.store.reloading_cache import UNSURE_S

LIFETIME = timedelta(hours=24)
MAX_KEPT = 16_384
_RENEW_BEFORE = OCSP.lifetime / 2


@dataclass(slots=True)
class OcspResponder:
    """OCSP responders of all CAs."""

    ca: CertificateAuthority
    may_sign: Callable[[str], bool] = field(repr=False)
    """Consumes one signature of an address's rate limit; returns False if it is exhausted."""
    signed: int = field(default=0, init=False)
    _kept: OrderedDict[CertId, tuple[OcspResponse, Thumbprint]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )
    _named: dict[Thumbprint, set[CertId]] = field(default_factory=dict, init=False, repr=False)
    _issuers: dict[tuple[str, bytes, bytes], LeafIssuer] = field(default_factory=dict, init=False, repr=False)
    _looked_at: frozenset[Thumbprint] = field(default=frozenset(), init=False, repr=False)
    _responders: dict[Thumbprint, LeafIssuer] = field(default_factory=dict, init=False, repr=False)
    _changes: int = field(default=0, init=False, repr=False)
    _unsure_until: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.ca.database.on_events(self._hear)

    def __len__(self) -> int:
        return len(self._kept)

    async def answer(self, der: bytes, address: str) -> OcspResponse | UnsignedStatus:
        """Return the response to a request. Raise `OcspMalformedError`."""
        request = parse_request(der)
        now = self.ca.clock.now()
        if request.nonce is None and (kept := self._fresh(request.asked, now)) is not None:
            return kept
        issuers = [self._issuer(one) for one in request.asked]
        issuer = issuers[0] if issuers else None
        if issuer is None or any(one is not issuer for one in issuers):
            return UnsignedStatus.UNAUTHORIZED
        if self.may_sign(address):
            return await self._signed(request, issuer, now)
        return self._fresh(request.asked, now) or UnsignedStatus.TRY_LATER

    def _fresh(self, cert_ids: Sequence[CertId], now: datetime) -> OcspResponse | None:
        if len(cert_ids) != 1 or (kept := self._kept.get(cert_ids[0])) is None:
            return None
        answer, _ = kept
        return answer if answer.this_update <= now < answer.next_update - LIFETIME / 4 else None

    def _issuer(self, cert_id: CertId) -> LeafIssuer | None:
        """Return the CA that issued the certificate, or None; CAs may be added on demand or by a rollover."""
        if cert_id.issuer not in self._issuers:
            issuers = {one.certificate.thumbprint: one for one in self.ca.hierarchy.issuers.values()}
            if issuers.keys() == self._looked_at:
                return None
            self._looked_at = frozenset(issuers)
            self._issuers = {name: one for one in issuers.values() for name in ids_of(one.certificate)}
        return self._issuers.get(cert_id.issuer)

    async def _signed(self, request: OcspRequest, issuer: LeafIssuer, now: datetime) -> OcspResponse:
        changes = self._changes
        found = [(asked, await self._status(asked, issuer)) for asked in request.asked]
        responder = await self._responder(issuer, now)
        this_update = now.replace(microsecond=0)
        wanted = OcspResponse(b"", this_update, min(this_update + LIFETIME, responder.certificate.not_after))
        statuses = [(asked, status) for asked, (status, _) in found]
        made = build_answer(responder, statuses, wanted, nonce=request.nonce)
        self.signed += 1
        # Otherwise the response may show the state before a change.
        is_sure = changes == self._changes and self.ca.clock.monotonic() >= self._unsure_until
        thumbprint = found[0][1][1]
        if len(found) == 1 and request.nonce is None and thumbprint is not None and is_sure:
            self._keep(request.asked[0], made, thumbprint)
        return made

    async def _status(self, cert_id: CertId, issuer: LeafIssuer) -> tuple[OcspStatus, Thumbprint | None]:
        name = issuer.certificate.thumbprint
        row = await self.ca.database.one(store.STATUS, issuer=name, serial=f"{cert_id.serial:x}")
        if row is None:
            return OcspStatus(is_known=False), None
        revocation = None if row["revoked_at"] is None else revocation_of(cert_id.serial, row)
        return OcspStatus(is_known=True, revocation=revocation), Thumbprint(bytes(row["thumbprint"]))

    def _keep(self, cert_id: CertId, response: OcspResponse, thumbprint: Thumbprint) -> None:
        self._kept[cert_id] = (response, thumbprint)
        self._kept.move_to_end(cert_id)
        self._named.setdefault(thumbprint, set()).add(cert_id)
        if len(self._kept) > MAX_KEPT:
            self._drop(next(iter(self._kept)))

    def _drop(self, cert_id: CertId) -> None:
        _, thumbprint = self._kept.pop(cert_id)
        names = self._named[thumbprint]
        names.discard(cert_id)
        if not names:
            del self._named[thumbprint]

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - port signature
        revoked = [event for _, event in events if isinstance(event, CertificateRevoked)]
        if not revoked:
            return
        self._changes += 1
        for event in revoked:
            for asked in list(self._named.get(Thumbprint(event.thumbprint), ())):
                self._drop(asked)
        if not is_sure:
            self._kept.clear()
            self._named.clear()
            self._unsure_until = self.ca.clock.monotonic() + UNSURE_S

    async def _responder(self, issuer: LeafIssuer, now: datetime) -> LeafIssuer:
        """Return the delegated responder of a CA; replace it before it expires.

        It is also replaced if it starts in the future because the clock was ahead, unless a new one would not start
        earlier.
        """

        def is_good(leaf_issuer: LeafIssuer) -> bool:
            certificate, above = leaf_issuer.certificate, issuer.certificate
            return (
                certificate.issuer_der == above.subject_der
                and certificate.not_before <= max(now, above.not_before)
                and now < certificate.not_after - _RENEW_BEFORE
            )

        def make() -> LeafIssuer:
            key, serial = ec.generate_private_key(ec.SECP256R1()), new_serial(self.ca.entropy)
            subject = name_of(f"OCSP {self.ca.entropy.token(3).hex().upper()}")
            return LeafIssuer(issue(OCSP, subject, key.public_key(), issuer=issuer, serial=serial, now=now), key)

        name = issuer.certificate.thumbprint
        known = self._responders.get(name)
        if known is None or not is_good(known):
            file = f"ocsp-{name_of_key(issuer.certificate)[:16]}"
            known = await run_signing(issuer.private_key, lambda: self.ca.hierarchy.keeper.pair(file, is_good, make))
            await self.ca.note(OCSP, known.certificate)
            self._responders[name] = known
        return known
