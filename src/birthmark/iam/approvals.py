"""Dual control for irreversible operations: one user requests, another with the same right approves.

The requester repeats the same request after the approval. An approval covers one request of one user, once, within a
day. Both must have the right when the operation runs. The local administrator needs no approval, as the files can be
changed anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from birthmark.auth.principals import Caller
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError, NotFoundError, PolicyError, ThrottledError
from birthmark.iam import approvals_model as store
from birthmark.iam.approvals_model import Approval, ApprovalRequest, SamePersonError, require_local_invitation
from birthmark.iam.missing_right_errors import check_whole, require_right
from birthmark.iam.service import People
from birthmark.store import Changes, Database, to_micros

GOOD_FOR = timedelta(days=1)
_MOST_OF_ONE = 100
_LATER_S = 3600
_ID_BYTES = 4
MACHINE = ""
"""Approver name of the local administrator."""


class ApprovalRequiredError(PolicyError):
    """The operation is irreversible and needs a second approval."""

    code = "people.second_person_wanted"
    cause = "{what} This operation is irreversible and needs a second approval; only {user} has agreed so far."
    fix = (
        "Ask another user with the right to {right} at {place} to review the operation and run `birthmark approval "
        "approve {id}`. Then repeat the operation."
    )
    for_a_person = "another user has to approve the operation"
    id: str
    place: str
    right: str
    user: str
    what: str


class ApprovalRejectedError(PolicyError):
    """Another user rejected the request."""

    code = "people.approval_rejected"
    cause = "{who} rejected the request of {user}: {what}"
    fix = "Contact {who}. To request the approval again, repeat the operation."
    for_a_person = "another user has to approve the request"
    user: str
    what: str
    who: str


class ApprovalMissingError(NotFoundError):
    """No approval with this ID is pending."""

    code = "people.approval_missing"
    message = "Approval {id} is not pending"
    cause = "No approval with the ID {id} is pending: the approval was decided, was used, or has expired."
    fix = "List approvals: `birthmark approval ls`"
    id: str


class TooManyAskedError(ThrottledError):
    """The user has too many pending approvals."""

    code = "people.too_many_approvals"
    cause = "{user} has {count} pending approvals, the maximum."
    fix = (
        "Ask another user to decide the pending approvals, or wait until they expire after one day. List approvals: "
        "`birthmark approval ls`"
    )
    for_a_person = "another user has to decide the approvals"
    count: int
    user: str


@dataclass(frozen=True, slots=True)
class Approvals:
    """Pending and decided approvals."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    people: People = field(repr=False)

    async def check(self, caller: Caller, request: ApprovalRequest) -> None:
        """Use up another user's approval of this request, or record the request as pending.

        Raise `SecondPersonWantedError`, `ApprovalRejectedError`, `TooManyAskedError`, `PlaceMissingError`.
        """
        if caller.user is None:
            return
        require_local_invitation(caller)
        now, digest = self.clock.now(), request.digest(caller.user)
        row = await self.database.one(store.BY_DIGEST, digest=digest)
        known = None if row is None else store.APPROVALS.of(row)
        if known is not None and (known.ends_at <= now or (known.is_approved and not self._can_still_approve(known))):
            known = None  # request again
        if known is None:
            known = await self._ask(caller.user, digest, request, now, actor=caller.actor)
        if known.is_approved:
            again = ChangedMeanwhileError(what="The approved request")
            changes = Changes().run(store.REDEEM, expect=1, otherwise=again, digest=digest, is_approved=1)
            changes.audit(caller.actor, "people.approval_use", known.id, approved_by=known.decided_by or "operator")
            await self.database.commit(changes)
            return
        if known.is_approved is False:
            await self.database.commit(Changes().run(store.REMOVE, digest=digest))
            raise ApprovalRejectedError(who=known.decided_by or "operator", user=caller.user, what=known.what)
        raise ApprovalRequiredError(
            id=known.id, user=caller.user, what=known.what, right=known.right.value, place=known.place
        )

    async def waiting(self) -> Sequence[Approval]:
        """Return pending approvals, oldest first."""
        now = to_micros(self.clock.now())
        return [store.APPROVALS.of(row) for row in await self.database.all(store.WAITING, now=now)]

    async def decide(self, approval_id: str, caller: Caller, *, is_approved: bool) -> Approval:
        """Approve or reject a pending request.

        Raise `ApprovalMissingError`, `SamePersonError`, `NarrowedTokenError`, `RightMissingError`.
        """
        if is_approved:
            check_whole(caller)
        missing = ApprovalMissingError(id=approval_id[:64])
        row = await self.database.one(store.BY_ID, id=approval_id)
        if row is None:
            raise missing
        known = store.APPROVALS.of(row)
        if known.decided_by is not None or known.ends_at <= self.clock.now():
            raise missing
        if caller.user == known.user and is_approved:
            raise SamePersonError(user=known.user, right=known.right.value, place=known.place)
        if is_approved:
            require_local_invitation(caller)
        require_right(caller, known.right, known.place)
        decided = replace(known, decided_by=caller.user or MACHINE, is_approved=is_approved)
        told = store.APPROVALS.row(decided)
        changes = Changes().run(
            store.DECIDE,
            expect=1,
            otherwise=missing,
            key_id=known.id,
            decided_by=told["decided_by"],
            is_approved=told["is_approved"],
        )
        verb = "approve" if is_approved else "reject"
        changes.audit(caller.actor, f"people.approval_{verb}", known.id, user=known.user, what=known.what)
        await self.database.commit(changes)
        return decided

    async def _ask(self, user: str, digest: str, request: ApprovalRequest, now: datetime, *, actor: str) -> Approval:
        waiting = [one for one in await self.waiting() if one.user == user]
        if len(waiting) >= _MOST_OF_ONE:
            raise TooManyAskedError(count=len(waiting), user=user, retry_after_s=_LATER_S)
        made = Approval(
            digest,
            self.entropy.token(_ID_BYTES).hex(),
            user,
            request.what,
            request.method,
            request.path,
            request.body,
            request.right,
            request.place,
            now,
            now + GOOD_FOR,
        )
        changes = self.people.places.guard_scope(request.place)
        changes.run(store.PURGE, now=to_micros(now)).run(store.REMOVE, digest=digest)
        changes.run(store.ADD, **store.APPROVALS.row(made))
        changes.audit(actor, "people.approval_ask", made.id, method=made.method, path=made.path, what=made.what)
        await self.database.commit(changes)
        return made

    def _can_still_approve(self, approval: Approval) -> bool:
        """Return whether the approver still has the right to approve."""
        if approval.decided_by == MACHINE:
            return True
        return self.people.rights(approval.decided_by or "").allow(approval.right, approval.place)
