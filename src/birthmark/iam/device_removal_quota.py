"""Daily quota of device removals per user; beyond it, another user has to allow more.

The commit that deletes or revokes a device counts against the quota, through the operator interface and the vendors'
APIs. The commit fails if the quota is used up. The local administrator has no quota.

A user shares one quota with all users invited by that user, directly or indirectly. Creating users and signing in as
them does not extend it. The quota outlives its user for the rest of the day.
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
"""Audit actions that permanently remove a device or its credentials."""
_STATUS = "awsiot.certificate_status"


class TooManyTakenError(PolicyError):
    """The user's daily limit of device removals is reached."""

    code = "people.too_many_taken"
    cause = "{user} and the users invited by {user} have removed {most} devices within a day, the limit for one user."
    fix = "Ask another administrator to allow more removals: `birthmark user allow {user} {most}`"
    for_a_person = "another administrator has to raise the limit"
    most: int
    user: str


_USER = "user:"


def holder_of(user: str, let_in_by: str) -> str:
    """Return the owner of a user's quota: the inviting user if there is one, or the user."""
    return let_in_by.removeprefix(_USER) if let_in_by.startswith(_USER) else user


def inviter_of(actor: str, let_in_by: str) -> str:
    """Return the inviter to record for users that this actor invites: the actor's own inviter, or the actor."""
    return let_in_by if let_in_by.startswith(_USER) else str(actor)


def takes_of(user: str, limit: int, now: datetime) -> Takes:
    """Return the hook that counts a user's device removals against the quota."""

    def takes(action: str, detail: Mapping[str, object]) -> Write | None:
        if action not in _TAKING and not (action == _STATUS and detail.get("status") == "REVOKED"):
            return None
        row = {"user_name": user, "remaining": limit - 1, "until": to_micros(now + DAY), "now": to_micros(now)}
        return Write(store.TAKE, row, 1, TooManyTakenError(user=user, most=limit))

    return takes
