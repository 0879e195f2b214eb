"""Least-privilege permissions of each command at the clouds.

AWS: IAM actions (service authorization reference, AWS IoT). Azure: permissions of the shared access policies of a
provisioning service and of a hub.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class FleetTask(StrEnum):
    """Task at a cloud."""

    ENROLL = "enroll"
    DRY_RUN = "dry-run"
    UNDO = "undo"
    LIST = "list"
    REMOVE = "remove"
    FOLLOW = "follow"
    MOVE = "move"
    REVOKE = "revoke"


_LOOK: Sequence[str] = (
    *(
        "ListThings",
        "ListCertificates",
        "ListThingPrincipals",
        "DescribeCertificate",
        "ListAttachedPolicies",
        "DescribeThing",
    ),
    *("ListThingGroupsForThing", "GetPolicy", "DescribeThingType", "DescribeThingGroup"),
)
_WRITE: Sequence[str] = (
    *("DescribeEndpoint", "CreateThing", "UpdateThing", "RegisterCertificateWithoutCA"),
    *("UpdateCertificate", "AttachPolicy", "AddThingToThingGroup", "AttachThingPrincipal"),
)
_AFTER_A_FAILURE = ("DeleteThing", "DeleteCertificate", "DetachPolicy")
_SEEN = ("ListThingPrincipals", "DescribeCertificate", "GetThingConnectivityData")

AWS: Mapping[FleetTask, Sequence[str]] = {
    FleetTask.ENROLL: (*_LOOK, *_WRITE, *_AFTER_A_FAILURE),
    FleetTask.DRY_RUN: _LOOK,
    FleetTask.UNDO: (
        *("DescribeEndpoint", "ListThingPrincipals", "DescribeCertificate", "ListPrincipalThings"),
        *("ListAttachedPolicies", "DescribeThing", "ListThingGroupsForThing", "UpdateThing"),
        *("RemoveThingFromThingGroup", "DetachThingPrincipal", "DetachPolicy", "UpdateCertificate"),
        *("DeleteCertificate", "DeleteThing"),
    ),
    FleetTask.LIST: ("ListCertificates", "ListThings", "ListThingPrincipals"),
    FleetTask.REMOVE: (
        *("ListThingPrincipals", "ListPrincipalThings", "UpdateCertificate", "ListAttachedPolicies"),
        *("DetachThingPrincipal", "DetachPolicy", "DeleteCertificate", "DeleteThing"),
    ),
    FleetTask.FOLLOW: _SEEN,
    FleetTask.REVOKE: ("ListThingPrincipals", "DescribeCertificate", "ListPrincipalThings", "UpdateCertificate"),
    FleetTask.MOVE: tuple(dict.fromkeys((*_LOOK, *_WRITE, *_AFTER_A_FAILURE, *_SEEN, "ListPrincipalThings"))),
}

_READ, _WRITE_RECORDS = "Enrollment Read", "Enrollment Write"
AZURE: Mapping[FleetTask, Sequence[str]] = {
    FleetTask.ENROLL: (_READ, _WRITE_RECORDS),
    FleetTask.DRY_RUN: (_READ,),
    FleetTask.UNDO: (_READ, _WRITE_RECORDS),
    FleetTask.LIST: (_READ,),
    FleetTask.REMOVE: (_READ, _WRITE_RECORDS),
    FleetTask.FOLLOW: (_READ,),
    FleetTask.MOVE: (_READ, _WRITE_RECORDS),
    FleetTask.REVOKE: (_READ, _WRITE_RECORDS, "Registration Status Read"),
}
HUB: Mapping[FleetTask, Sequence[str]] = {
    FleetTask.FOLLOW: ("Registry Read",),
    FleetTask.MOVE: ("Registry Read", "Registry Write"),
    FleetTask.REVOKE: ("Registry Read", "Registry Write"),
}


def iam_policy(work: FleetTask) -> dict[str, Any]:
    """Return the IAM policy document that allows this work."""
    actions = sorted(f"iot:{action}" for action in AWS[work])
    statement = {"Sid": "Birthmark", "Effect": "Allow", "Action": actions, "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def azure_rights(work: FleetTask) -> dict[str, Sequence[str]]:
    """Return the permissions for a task: of the provisioning service, and of the hub if used."""
    return {"provisioning service": AZURE[work]} | ({"hub": HUB[work]} if work in HUB else {})
