"""Thing groups below one another with their policies, and tags, as the real boto3 uses them."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.device import ARN, Enrolled, document, statement

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]
DENIED = 0x87
TALK = document(statement("iot:Publish"))


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def group(iot: Any, name: str, **more: Any) -> str:
    return str(iot.create_thing_group(thingGroupName=name, **more)["thingGroupArn"])


def test_a_policy_of_a_group_above_reaches_the_connection_of_a_thing_below(iot: Any, enroll: Enroll) -> None:
    thing = enroll("grouped", statement("iot:Connect"))
    upper = group(iot, "site")
    group(iot, "line", parentGroupName="site")
    iot.create_policy(policyName="may-talk", policyDocument=TALK)
    iot.attach_policy(policyName="may-talk", target=upper)
    iot.add_thing_to_thing_group(thingName="grouped", thingGroupName="line")
    with thing.device_5() as device:
        device("start")
        device("connected")
        assert device("publish", topic="grouped/data", payload="x") == {"ok": 0}
    found = iot.get_effective_policies(thingName="grouped", principal=thing.arn)["effectivePolicies"]
    assert [one["policyName"] for one in found] == ["grouped", "may-talk"]
    assert iot.list_targets_for_policy(policyName="may-talk")["targets"] == [upper]
    assert refused(iot.delete_policy, policyName="may-talk") == "DeleteConflictException"


def test_live_connections_hear_what_becomes_of_their_groups(iot: Any, enroll: Enroll) -> None:
    thing = enroll("live", statement("iot:Connect"))
    iot.create_policy(policyName="live-talk", policyDocument=TALK)
    arn, names = group(iot, "live-group"), {"thingName": "live", "thingGroupName": "live-group"}
    acts: list[tuple[Callable[[], Any], int]] = [
        (lambda: None, DENIED),
        (lambda: iot.attach_policy(policyName="live-talk", target=arn), DENIED),
        (lambda: iot.add_thing_to_thing_group(**names), 0),
        (lambda: iot.detach_policy(policyName="live-talk", target=arn), DENIED),
        (lambda: iot.attach_policy(policyName="live-talk", target=arn), 0),
        (lambda: iot.update_thing_groups_for_thing(thingName="live", thingGroupsToRemove=["live-group"]), DENIED),
        (lambda: iot.add_thing_to_thing_group(**names), 0),
        (lambda: iot.delete_thing_group(thingGroupName="live-group"), DENIED),
    ]
    with thing.device_5() as device:
        device("start")
        device("connected")
        for act, wanted in acts:
            act()
            end = time.monotonic() + 5  # another worker hears of it a moment later
            while (told := device("publish", topic="live/data", payload="x")) != {"ok": wanted}:
                assert time.monotonic() < end, (told, wanted)
    assert iot.list_targets_for_policy(policyName="live-talk")["targets"] == []


def test_groups_stand_seven_deep_and_a_thing_in_ten(iot: Any) -> None:
    group(iot, "deep-1")
    for number in range(2, 8):
        group(iot, f"deep-{number}", parentGroupName=f"deep-{number - 1}")
    call = {"thingGroupName": "deep-8", "parentGroupName": "deep-7"}
    assert refused(iot.create_thing_group, **call) == "InvalidRequestException"
    assert refused(iot.create_thing_group, thingGroupName="x", parentGroupName="none") == "ResourceNotFoundException"
    assert refused(iot.delete_thing_group, thingGroupName="deep-6") == "InvalidRequestException"
    iot.create_thing(thingName="everywhere")
    for number in range(11):
        group(iot, f"wide-{number}")
    names = [f"wide-{number}" for number in range(10)]
    iot.update_thing_groups_for_thing(thingName="everywhere", thingGroupsToAdd=names)
    one_more = {"thingName": "everywhere", "thingGroupName": "wide-10"}
    assert refused(iot.add_thing_to_thing_group, **one_more) == "LimitExceededException"
    iot.update_thing_groups_for_thing(
        thingName="everywhere", thingGroupsToAdd=["wide-10"], thingGroupsToRemove=["wide-0"]
    )


def test_tags_are_kept_page_by_page_and_go_with_what_carries_them(iot: Any) -> None:
    arn = group(iot, "tagged")
    many = [{"Key": f"key-{number:02}", "Value": str(number)} for number in range(50)]
    iot.tag_resource(resourceArn=arn, tags=many)
    pages = iot.get_paginator("list_tags_for_resource").paginate(resourceArn=arn)
    assert [one for page in pages for one in page["tags"]] == many
    one_more = [{"Key": "one more", "Value": ""}]
    assert refused(iot.tag_resource, resourceArn=arn, tags=one_more) == "LimitExceededException"
    for bad in ({"Key": "aws:x", "Value": "1"}, {"Key": "a\0", "Value": "1"}):
        assert refused(iot.tag_resource, resourceArn=arn, tags=[bad]) == "InvalidRequestException"
    iot.delete_thing_group(thingGroupName="tagged")
    assert refused(iot.list_tags_for_resource, resourceArn=arn) == "ResourceNotFoundException"
    assert refused(iot.tag_resource, resourceArn=arn, tags=one_more) == "ResourceNotFoundException"
    group(iot, "tagged")
    assert iot.list_tags_for_resource(resourceArn=arn)["tags"] == []


def test_what_is_made_twice_alike_is_one_also_with_tags(iot: Any) -> None:
    given = {"thingTypeName": "twice", "tags": [{"Key": "a", "Value": "1"}]}
    first = iot.create_thing_type(**given)
    assert iot.create_thing_type(**given)["thingTypeId"] == first["thingTypeId"]
    other = given | {"tags": [{"Key": "a", "Value": "2"}]}
    assert refused(iot.create_thing_type, **other) == "ResourceAlreadyExistsException"


def test_a_pem_comes_back_as_it_was_given(iot: Any) -> None:
    made = iot.create_keys_and_certificate()
    pem = made["certificatePem"]
    iot.delete_certificate(certificateId=made["certificateId"])
    given = "subject=CN = a device\n" + pem.replace("\n", "\r\n")
    known = iot.register_certificate_without_ca(certificatePem=given)
    told = iot.describe_certificate(certificateId=known["certificateId"])["certificateDescription"]
    assert told["certificatePem"] == given
    assert ARN in known["certificateArn"]
