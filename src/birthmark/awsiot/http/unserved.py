"""What operations that are served take and do nothing with: told by name, before anything is done.

A member that is dropped in silence looks like one that is kept. Which are kept, and where each can be read back, the
tests hold over all of the service models.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from birthmark.awsiot.http.table import Operation
from birthmark.awsiot.model import MemberNotServedError
from birthmark.members import says_something

UNSERVED: Mapping[str, frozenset[str]] = {
    "CreateThingType": frozenset({"thingTypeProperties.mqtt5Configuration"}),
    "UpdateThingType": frozenset({"thingTypeProperties.mqtt5Configuration"}),
    "GetEffectivePolicies": frozenset({"cognitoIdentityPoolId"}),
    "TestAuthorization": frozenset({"cognitoIdentityPoolId"}),
    "GetConnection": frozenset({"includeSocketInformation"}),
    "GetThingConnectivityData": frozenset({"includeSocketInformation"}),
    "ListCACertificates": frozenset({"templateName"}),
    "CreateJob": frozenset({"namespaceId", "destinationPackageVersions"}),
    "CreateJobTemplate": frozenset({"destinationPackageVersions"}),
    "UpdateJob": frozenset({"namespaceId"}),
    "ListJobs": frozenset({"thingGroupId", "namespaceId"}),
    **dict.fromkeys(
        ("AssociateTargetsWithJob", "DeleteJob", "DeleteJobExecution", "ListJobExecutionsForThing"),
        frozenset({"namespaceId"}),
    ),
    "ListPolicyPrincipals": frozenset({"ascendingOrder"}),
    "ListPrincipalPolicies": frozenset({"ascendingOrder"}),
}
"""By operation, members (a dot goes into a structure) that nothing here heeds."""
_NOTHING = frozenset({"false", "False", "DISABLE"})
"""Texts that ask for nothing."""


def check_served(operation: Operation, query: Mapping[str, str], body: Mapping[str, Any]) -> None:
    """Raise `MemberNotServedError` for the first member that would be dropped."""
    for member in _dropped(operation, query, body):
        raise MemberNotServedError(member=member[:100], operation=operation.name)


def _dropped(operation: Operation, query: Mapping[str, str], body: Mapping[str, Any]) -> Iterator[str]:
    known = {member.wire for member in operation.members if member.place == "body"}
    yield from (name for name, value in body.items() if name not in known and says_something(value))
    for path in sorted(UNSERVED.get(operation.name, ())):
        first, _, second = path.partition(".")
        member = operation.by_name[first]
        value = query.get(member.wire) if member.place == "querystring" else body.get(member.wire)
        if second:
            value = value.get(second) if isinstance(value, dict) else None
        if says_something(value) and str(value) not in _NOTHING:
            yield path
