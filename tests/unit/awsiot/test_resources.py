"""On which resources an operation acts, for policies of access keys."""

import json
from typing import Any

import pytest

from birthmark.awsiot.http.operation_routing_and_request_members import OPERATIONS, AwsRequest
from birthmark.awsiot.http.policy_resources import _BY_ARN, _IN_BODY, _KINDS, resources_of
from support.aws.account import ACCOUNT, OPERATOR

BY_NAME = {one.name: one for one in OPERATIONS}
CERT = ACCOUNT.arn("cert", "00" * 32)


def of(operation: str, names: dict[str, str] | None = None, headers: dict[str, str] | None = None, **body: Any) -> Any:
    raw = json.dumps(body).encode()
    call = AwsRequest(BY_NAME[operation], names or {}, {}, headers or {}, raw, "x", OPERATOR, print, ACCOUNT)
    return resources_of(ACCOUNT, call)


@pytest.mark.parametrize(
    ("operation", "names", "body", "resources"),
    [
        ("CreateThing", {"thingName": "a"}, {}, [ACCOUNT.arn("thing", "a")]),
        ("ListThings", {}, {}, ["*"]),
        ("CreateKeysAndCertificate", {}, {}, ["*"]),
        ("UpdateCertificate", {"certificateId": "00"}, {}, [ACCOUNT.arn("cert", "00")]),
        ("DescribeCACertificate", {"caCertificateId": "00"}, {}, [ACCOUNT.arn("cacert", "00")]),
        ("AttachPolicy", {"policyName": "p"}, {"target": CERT}, [CERT]),
        ("CreatePolicyVersion", {"policyName": "p"}, {}, [ACCOUNT.arn("policy", "p")]),
        ("DeleteRoleAlias", {"roleAlias": "r"}, {}, [ACCOUNT.arn("rolealias", "r")]),
        ("SetDefaultAuthorizer", {}, {"authorizerName": "d"}, [ACCOUNT.arn("authorizer", "d")]),
        (
            "AddThingToThingGroup",
            {},
            {"thingName": "a", "thingGroupName": "g"},
            [ACCOUNT.arn("thing", "a"), ACCOUNT.arn("thinggroup", "g")],
        ),
        (
            "UpdateThingGroupsForThing",
            {},
            {"thingName": "a", "thingGroupsToAdd": ["g"], "thingGroupsToRemove": ["h"]},
            [ACCOUNT.arn("thing", "a"), ACCOUNT.arn("thinggroup", "g"), ACCOUNT.arn("thinggroup", "h")],
        ),
        (
            "CreateJob",
            {"jobId": "j"},
            {"targets": [ACCOUNT.arn("thing", "a").replace("us-east-1", "eu-west-1"), ACCOUNT.arn("thinggroup", "g")]},
            [ACCOUNT.arn("job", "j"), ACCOUNT.arn("thing", "a"), ACCOUNT.arn("thinggroup", "g")],
        ),
        (
            "AssociateTargetsWithJob",
            {"jobId": "j"},
            {"targets": [ACCOUNT.arn("thinggroup", "g")]},
            [ACCOUNT.arn("job", "j"), ACCOUNT.arn("thinggroup", "g")],
        ),
        (
            "CancelJobExecution",
            {"jobId": "j", "thingName": "a"},
            {},
            [ACCOUNT.arn("job", "j"), ACCOUNT.arn("thing", "a")],
        ),
    ],
)
def test_an_operation_acts_on_what_it_names(
    operation: str, names: dict[str, str], body: dict[str, Any], resources: list[str]
) -> None:
    assert of(operation, names, **body) == resources


def test_who_attaches_a_certificate_acts_on_it() -> None:
    assert of("AttachThingPrincipal", {"thingName": "a"}, {"x-amzn-principal": CERT}) == [CERT]


def test_what_is_listed_is_in_the_service_model() -> None:
    assert set(_IN_BODY) | _BY_ARN <= set(BY_NAME)
    wires = {member.wire for one in OPERATIONS for member in one.members}
    assert set(_KINDS) <= wires


def test_an_arn_of_another_region_is_the_same_resource() -> None:
    elsewhere = CERT.replace("us-east-1", "eu-west-1")
    assert of("AttachPolicy", {"policyName": "p"}, target=elsewhere) == [CERT]


@pytest.mark.parametrize(
    ("kind", "operation", "member"),
    [("cert", "DescribeCertificate", "certificateId"), ("cacert", "DescribeCACertificate", "caCertificateId")],
)
def test_a_certificate_is_the_same_resource_however_its_id_is_written(kind: str, operation: str, member: str) -> None:
    known = [ACCOUNT.arn(kind, "ab" * 32)]
    assert of(operation, {member: "AB" * 32}) == known
    assert of("TagResource", resourceArn=ACCOUNT.arn(kind, "Ab" * 32), tags=[]) == known
    assert of("AttachPolicy", {"policyName": "p"}, target=ACCOUNT.arn(kind, "Ab" * 32)) == known


@pytest.mark.parametrize("operation", ["AddThingToThingGroup", "RemoveThingFromThingGroup"])
def test_what_is_named_by_its_arn_alone_is_the_same_resource(operation: str) -> None:
    thing, group = ACCOUNT.arn("thing", "a"), ACCOUNT.arn("thinggroup", "g")
    elsewhere = group.replace("us-east-1", "eu-west-1")
    assert of(operation, thingName="a", thingGroupArn=elsewhere) == [thing, group]
    assert of(operation, thingArn=thing, thingGroupName="g") == [thing, group]


def test_what_has_a_name_keeps_its_letter_case() -> None:
    group = ACCOUNT.arn("thinggroup", "Pumps")
    assert of("TagResource", resourceArn=group, tags=[]) == [group]
    assert of("DescribeThing", {"thingName": "Pump"}) == [ACCOUNT.arn("thing", "Pump")]
