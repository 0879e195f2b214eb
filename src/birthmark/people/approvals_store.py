"""The table of what waits for a second person, and its statements."""

from sqlalchemy import Index, bindparam

from birthmark.people.approvals_model import Approval
from birthmark.store import insert
from birthmark.store.keyed import change, find, remove
from birthmark.store.records import Records

APPROVALS = Records(Approval, user="user_name", right="needs")
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
