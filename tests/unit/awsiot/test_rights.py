"""Which right each operation takes of a person: none that changes something passes for a look."""

import pytest

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.http.operation_routing_and_request_members import OPERATIONS
from birthmark.awsiot.rules.operation_rights import right_for

# What has a body or changes something, and yet only looks: by method alone these would be taken for changes.
ASKED_BY_POST = {"SearchIndex", "DescribeThingGroup", "ListThings", "TestAuthorization"}

# The first changes something, the other gives a URL by which anybody reads.
MORE_THAN_A_LOOK = {"ConfirmTopicRuleDestination", "ListThingRegistrationTaskReports"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_what_is_read_takes_a_look_and_all_else_more(operation: object) -> None:
    name, method = operation.name, operation.method  # type: ignore[attr-defined]
    if method == "GET" and name not in MORE_THAN_A_LOOK:
        assert right_for(name) is Right.READ
    elif name not in ASKED_BY_POST and not name.startswith(("Describe", "Get", "List", "Search")):
        assert right_for(name) is not Right.READ


def test_what_takes_back_decides_on_trust_or_makes_rights_takes_the_right_for_it() -> None:
    assert right_for("UpdateCertificate") is Right.REVOKE
    assert right_for("UpdateCertificate", "REVOKED") is right_for("UpdateCertificate", "INACTIVE") is Right.REVOKE
    assert right_for("UpdateCertificate", "ACTIVE") is Right.ENROLL
    assert right_for("DeleteCertificate", "ACTIVE") is Right.REVOKE
    assert right_for("RegisterCACertificate") is Right.TRUST
    assert right_for("CreatePolicy") is Right.ADMINISTER
    assert right_for("CreateAuthorizer") is right_for("ClearDefaultAuthorizer") is Right.TRUST
    assert right_for("UpdateRoleAlias") is Right.ADMINISTER
    assert right_for("Publish") is right_for("TestInvokeAuthorizer") is Right.OPERATE
    assert right_for("UpdateIndexingConfiguration") is right_for("UpdateEventConfigurations") is Right.ADMINISTER
    assert right_for("Publish") is right_for("DeleteConnection") is Right.OPERATE
    assert right_for("TestAuthorization") is Right.READ
    assert right_for("TagResource") is right_for("CreateThingGroup") is Right.ENROLL
    assert right_for("CreateDynamicThingGroup") is Right.OPERATE  # a hundred of them fill the account
    assert right_for("CreateThing") is Right.ENROLL


def test_every_name_that_is_listed_is_an_operation() -> None:
    known = {one.name for one in OPERATIONS}
    assert {"UpdateCertificate", "DeleteCertificate", "CreatePolicyVersion", "DeleteConnection"} <= known
