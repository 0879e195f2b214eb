"""Approval records and their statements."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Index, bindparam

from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import Caller
from birthmark.errors import ForbiddenError
from birthmark.store import insert
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, remove

BY_MACHINE = "operator"


class SamePersonError(ForbiddenError):
    """The requester cannot give the second approval."""

    code = "people.same_person"
    cause = "{user} requested the operation, so another user has to approve it."
    fix = "Ask another user with the right to {right} at {place} to approve the operation."
    for_a_person = "another user has to approve the operation"
    place: str
    right: str
    user: str


class LetInByPersonError(ForbiddenError):
    """The approver was invited remotely and could be the same person."""

    code = "people.let_in_by_person"
    cause = (
        "{by} admitted {who} with an invitation or a token. Both could be the same person, so {who} cannot give the "
        "second approval."
    )
    fix = "Invite {who} on the server's machine: `birthmark user invite {who}`"
    for_a_person = "the local administrator has to invite the user"
    by: str
    who: str


def require_local_invitation(caller: Caller) -> None:
    """Raise `LetInByPersonError` for a user who was not invited by the local administrator."""
    if caller.user is not None and caller.let_in_by != BY_MACHINE:
        raise LetInByPersonError(who=caller.user, by=caller.let_in_by)


MAX_BODY = 4096


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A request under dual control: its description, and the right it requires."""

    what: str
    method: str
    path: str
    body: str
    right: Right
    place: str

    def digest(self, user: str) -> str:
        """Return the digest that identifies this request of this user."""
        parts = f"{user}\0{self.method}\0{self.path}\0{self.body}"
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval: the request of one user, and the decision of another."""

    digest: str
    id: str
    user: str
    what: str
    method: str
    path: str
    body: str
    right: Right
    place: str
    asked_at: datetime
    ends_at: datetime
    decided_by: str | None = None
    is_approved: bool | None = None


APPROVALS = RowMapper(Approval, user="user_name", right="needs")
approvals = APPROVALS.table("people_approvals", "digest")
Index("people_approvals_id", approvals.c.id)
BY_DIGEST = find(approvals)
BY_ID = find(approvals, "id")
_UNDECIDED = approvals.c.decided_by.is_(None)
WAITING = find(approvals, _UNDECIDED, approvals.c.ends_at > bindparam("now"), order=approvals.c.asked_at)
ADD = insert(approvals)
REMOVE = remove(approvals)
REMOVE_OF, REMOVE_BY = remove(approvals, "user_name"), remove(approvals, "decided_by")
REMOVE_AT = remove(approvals, "place")
REDEEM = remove(approvals, "digest", "is_approved")
PURGE = remove(approvals, approvals.c.ends_at <= bindparam("now"))
DECIDE = change(approvals, ("decided_by", "is_approved"), "id", _UNDECIDED)
