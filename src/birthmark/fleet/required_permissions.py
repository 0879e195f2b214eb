"""What each command needs to be allowed at the clouds, and no more.

AWS: actions of IAM (service authorization reference, AWS IoT). Azure: permissions of the shared access policies of a
provisioning service and of a hub.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any


class Work(StrEnum):
    """What is done at a cloud."""

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

AWS: Mapping[Work, Sequence[str]] = {
    Work.ENROLL: (*_LOOK, *_WRITE, *_AFTER_A_FAILURE),
    Work.DRY_RUN: _LOOK,
    Work.UNDO: (
        *("DescribeEndpoint", "ListThingPrincipals", "DescribeCertificate", "ListPrincipalThings"),
        *("ListAttachedPolicies", "DescribeThing", "ListThingGroupsForThing", "UpdateThing"),
        *("RemoveThingFromThingGroup", "DetachThingPrincipal", "DetachPolicy", "UpdateCertificate"),
        *("DeleteCertificate", "DeleteThing"),
    ),
    Work.LIST: ("ListCertificates", "ListThings", "ListThingPrincipals"),
    Work.REMOVE: (
        *("ListThingPrincipals", "ListPrincipalThings", "UpdateCertificate", "ListAttachedPolicies"),
        *("DetachThingPrincipal", "DetachPolicy", "DeleteCertificate", "DeleteThing"),
    ),
    Work.FOLLOW: _SEEN,
    Work.REVOKE: ("ListThingPrincipals", "DescribeCertificate", "ListPrincipalThings", "UpdateCertificate"),
    Work.MOVE: tuple(dict.fromkeys((*_LOOK, *_WRITE, *_AFTER_A_FAILURE, *_SEEN, "ListPrincipalThings"))),
}

_READ, _WRITE_RECORDS = "Enrollment Read", "Enrollment Write"
AZURE: Mapping[Work, Sequence[str]] = {
    Work.ENROLL: (_READ, _WRITE_RECORDS),
    Work.DRY_RUN: (_READ,),
    Work.UNDO: (_READ, _WRITE_RECORDS),
    Work.LIST: (_READ,),
    Work.REMOVE: (_READ, _WRITE_RECORDS),
    Work.FOLLOW: (_READ,),
    Work.MOVE: (_READ, _WRITE_RECORDS),
    Work.REVOKE: (_READ, _WRITE_RECORDS, "Registration Status Read"),
}
HUB: Mapping[Work, Sequence[str]] = {
    Work.FOLLOW: ("Registry Read",),
    Work.MOVE: ("Registry Read", "Registry Write"),
    Work.REVOKE: ("Registry Read", "Registry Write"),
}


def iam_policy(work: Work) -> dict[str, Any]:
    """Return the IAM policy document that allows this work."""
    actions = sorted(f"iot:{action}" for action in AWS[work])
    statement = {"Sid": "Birthmark", "Effect": "Allow", "Action": actions, "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def azure_rights(work: Work) -> dict[str, Sequence[str]]:
    """Return the permissions that this work needs: of the provisioning service, and of the hub where it is asked."""
    return {"provisioning service": AZURE[work]} | ({"hub": HUB[work]} if work in HUB else {})
