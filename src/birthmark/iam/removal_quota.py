"""How many devices one person may take away within a day: beyond, a second person has to allow more.

It is counted in the commit that takes a device off the record or revokes it, wherever it was asked for (the operator
interface, or a cloud's own): the commit does not hold where nothing is left. Whoever holds the data directory needs
nobody.

One count is for a person and all whom that one let in, and so on: whoever makes users and signs in as them takes no
more by it. It outlives its user for the rest of its day.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from birthmark.actor import Takes
from birthmark.errors import PolicyError
from birthmark.iam import store
from birthmark.store import to_micros
from birthmark.store.unit_of_work import Write

DAY = timedelta(days=1)
MOST_A_DAY = 100
_TAKING = {
    "device.revoke",
    "iothub.device_delete",
    "awsiot.thing_delete",
    "awsiot.certificate_delete",
    "awsiot.certificate_renew",
    "dps.enrollment_delete",
    "dps.registration_delete",
    "dps.release",
    "certificate.revoke",
    "key.revoke",
}
"""Actions of the audit trail, each of which takes something away from a device for good."""
_STATUS = "awsiot.certificate_status"


class TooManyTakenError(PolicyError):
    """The user's daily limit of device removals is reached."""

    code = "people.too_many_taken"
    cause = "{user} and the users invited by {user} have removed {most} devices within a day, the limit for one user."
    fix = "Ask another administrator to allow more: `birthmark user allow {user} {most}`"
    for_a_person = "another user has to approve"
    most: int
    user: str


_USER = "user:"


def holder_of(user: str, let_in_by: str) -> str:
    """Return whose count it is: the user's, or that of whoever let the user in."""
    return let_in_by.removeprefix(_USER) if let_in_by.startswith(_USER) else user


def inviter_of(actor: str, let_in_by: str) -> str:
    """Return who lets in whom this actor invites: the person with whom it began, or the actor."""
    return let_in_by if let_in_by.startswith(_USER) else str(actor)


def takes_of(user: str, most: int, now: datetime) -> Takes:
    """Return what counts the devices that a user takes away."""

    def takes(action: str, detail: Mapping[str, object]) -> Write | None:
        if action not in _TAKING and not (action == _STATUS and detail.get("status") == "REVOKED"):
            return None
        row = {"user_name": user, "remaining": most - 1, "until": to_micros(now + DAY), "now": to_micros(now)}
        return Write(store.TAKE, row, 1, TooManyTakenError(user=user, most=most))

    return takes
