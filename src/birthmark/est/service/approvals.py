"""Requests that an operator approves (RFC 7030 section 4.2.3: 202 and Retry-After until then).

A request is identified by caller, name, key and profile, because a client may create a new CSR for each attempt. An
approved request is answered again for a day after the first response, which may have been lost.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from birthmark.auth.principals import Principal
from birthmark.clock_and_entropy import Clock, ClockStability
from birthmark.errors import ForbiddenError, NotFoundError, ThrottledError
from birthmark.est import store
from birthmark.est.model import WaitingRequest
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names_and_registration_ids import fold
from birthmark.store import Changes, Database, to_micros
from birthmark.store.pagination import every
from birthmark.untrusted_json_and_text import printable

MAX_WAITING = 10_000
MAX_WAITING_OF_ONE = 1000
"""Maximum number of waiting requests of a caller that may request any name."""
RETRY_S = 60
KEPT = timedelta(days=30)
"""Retention period, from the last request or from the decision."""
RENEWED = timedelta(days=1)
"""Maximum age of the stored time of the last request, so that not every request causes a write."""
AGAIN = timedelta(days=1)
"""Time after the first response in which the same request is answered again."""
RevokedSince: TypeAlias = Callable[[str, datetime], Awaitable[bool]]
_ID_CHARS = 32  # 128 bits: equal ids would be approved together


class ApprovalPendingError(ThrottledError):
    """The request is waiting for an operator."""

    code = "est.approval_pending"
    message = "The request {id} is waiting for an operator's approval"
    cause = "'{device_id}' requested a certificate ({profile}), which requires an operator's approval."
    fix = (
        "Approve the request: `birthmark pki request approve {id}`. The device then receives the certificate with "
        "its next request. To reject the request: `… reject {id}`."
    )
    device_id: str
    id: str
    profile: str


class ApprovalRejectedError(ForbiddenError):
    """An operator rejected this request."""

    code = "est.approval_rejected"
    cause = "An operator rejected the request {id} of '{device_id}' at {decided_at}."
    fix = "Approve the request: `birthmark pki request approve {id}`."
    decided_at: str
    device_id: str
    id: str


class TooManyWaitingError(ThrottledError):
    """Too many requests are waiting for an operator."""

    code = "est.too_many_waiting"
    cause = "{whose} has the maximum of {limit} waiting requests."
    fix = "Approve or reject waiting requests. List them: `birthmark pki request ls`."
    device_id: str
    limit: int
    whose: str


class RequestUnknownError(NotFoundError):
    """The request does not exist."""

    code = "est.request_unknown"
    cause = (
        "No request {id} is waiting. The request never existed, its certificate was fetched more than a day ago, or "
        "the device sent nothing for 30 days."
    )
    fix = "List waiting requests: `birthmark pki request ls`."
    id: str


@dataclass(frozen=True, slots=True)
class EnrollmentApprovals:
    """Queue of requests for approval, and an operator's decisions."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    revoked_since: RevokedSince | None = field(default=None, repr=False)
    """Returns whether a credential of a name was revoked since a time; a new approval is then required."""
    _steadiness: ClockStability = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_steadiness", ClockStability(self.clock))

    async def check(
        self, request: CertificateRequest, principal: Principal, profile: CertificateProfile, address: str
    ) -> Changes:
        """Return the changes for the commit of an approved request.

        Raise `ApprovalPendingError`, `ApprovalRejectedError` or `TooManyWaitingError`.
        """
        name, key = principal.device_id or request.subject_cn or "", _key(request, principal, profile)
        pending = ApprovalPendingError(id=key, device_id=name, profile=profile.name, retry_after_s=RETRY_S)
        row, now = await self.database.one(store.WAITING, id=key), self.clock.now()
        known = None if row is None else store.WAITING_RECORDS.of(row)
        if known is None or await self._is_over(known):
            await self._put(
                known, WaitingRequest(key, fold(name), principal.actor, profile.name, address, request.der, now)
            )
        else:
            if known.is_approved:
                return Changes().run(store.FETCH_APPROVED, expect=1, otherwise=pending, key_id=key, at=to_micros(now))
            if known.decided_at is not None:
                raise ApprovalRejectedError(id=key, device_id=name, decided_at=known.decided_at.isoformat())
            if now - known.asked_at >= RENEWED and self._steadiness.is_steady():
                await self.database.commit(Changes().run(store.ASKED_AGAIN, key_id=key, at=to_micros(now)))
        raise pending

    async def _is_over(self, request: WaitingRequest) -> bool:
        """Return whether an approval has expired: fetched long ago, or followed by a revocation for the name."""
        if not request.is_approved or request.decided_at is None:
            return False
        if (
            request.fetched_at is not None
            and request.fetched_at + AGAIN < self.clock.now()
            and self._steadiness.is_steady()
        ):
            return True
        since = request.fetched_at or request.decided_at
        return self.revoked_since is not None and await self.revoked_since(request.name, since)

    async def _put(self, over: WaitingRequest | None, request: WaitingRequest) -> None:
        """Store a waiting request in place of an earlier one, and remove old requests if the queue is full."""
        told = {"device_id": request.name}
        if self._steadiness.is_steady():
            before, fetched_before = to_micros(request.asked_at - KEPT), to_micros(request.asked_at - AGAIN)
            await self.database.commit(Changes().run(store.PURGE_WAITING, before=before, fetched_before=fetched_before))
        own = [one for one in await self.of_name(request.name) if one.actor == request.actor]
        changes = Changes() if over is None else _dropping(over)
        if request.id not in {one.id for one in own} and len(own) >= store.MAX_WAITING_PER_NAME:
            decided = [one for one in own if one.decided_at is not None and (one.fetched_at or not one.is_approved)]
            if not decided:  # approved ones wait for their client
                raise TooManyWaitingError(whose=f"'{request.name}'", limit=len(own), retry_after_s=RETRY_S, **told)
            oldest = min(decided, key=lambda one: (one.fetched_at is None, one.asked_at))  # rejections stay longest
            changes.merge(_dropping(oldest))
        waiting = await self.database.one(store.COUNT_WAITING, actor=request.actor)
        count, of_actor = (0, 0) if waiting is None else (waiting["count"], waiting["of_actor"])
        if of_actor >= MAX_WAITING_OF_ONE:
            whose = f"{request.actor}, which requests certificates for many names,"
            raise TooManyWaitingError(whose=whose, limit=MAX_WAITING_OF_ONE, retry_after_s=RETRY_S, **told)
        if count >= MAX_WAITING:
            raise TooManyWaitingError(whose="The server", limit=MAX_WAITING, retry_after_s=RETRY_S, **told)
        await self.database.commit(changes.run(store.ADD_WAITING, **store.WAITING_RECORDS.row(request)))

    async def page(self, after: str, limit: int) -> list[WaitingRequest]:
        """Return requests that were not fetched yet, after the ID `after`."""
        rows = await self.database.all(store.WAITING_PAGE, after=after, limit=limit)
        return [store.WAITING_RECORDS.of(row) for row in rows]

    async def of_name(self, name: str) -> list[WaitingRequest]:
        """Return a device's waiting requests, and decided ones that may still be answered."""
        rows = await every(self.database, store.WAITING_OF_NAME_PAGE, "id", name=fold(name))
        return sorted(map(store.WAITING_RECORDS.of, rows), key=lambda one: one.asked_at)

    async def decide(self, approval_id: str, *, is_approved: bool, actor: str) -> WaitingRequest:
        """Approve or reject a request, also an answered one; return it with the time of its first response.

        Raise `RequestUnknownError`.
        """
        facts: Mapping[str, Any] = {"decided_at": self.clock.micros(), "is_approved": int(is_approved)}
        unknown = RequestUnknownError(id=printable(approval_id))
        changes = Changes().run(store.DECIDE, expect=1, otherwise=unknown, key_id=approval_id, **facts)
        row = await self.database.one(store.WAITING, id=approval_id)
        if row is None:
            raise unknown
        known = store.WAITING_RECORDS.of(row)
        verb = "approve" if is_approved else "reject"
        changes.audit(
            actor, f"est.request.{verb}", known.name, id=approval_id, asked_by=known.actor, profile=known.profile
        )
        await self.database.commit(changes)
        return replace(known, is_approved=is_approved)


def _dropping(decided: WaitingRequest) -> Changes:
    at = None if decided.decided_at is None else to_micros(decided.decided_at)
    return Changes().run(store.DROP_DECIDED, id=decided.id, decided_at=at)


def _key(request: CertificateRequest, principal: Principal, profile: CertificateProfile) -> str:
    parts = (
        principal.actor.encode(),
        profile.name.encode(),
        request.subject.public_bytes(),
        request.subject_alt_name or b"",
        request.spki_der,
    )
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:_ID_CHARS]
