"""Registry events and those of subscriptions, heard by the vendor's SDK; ARNs in the region that was asked."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from birthmark.awsiot.service.registry_events import ANNOUNCED
from support.aws.device import Enrolled, statement

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]
KINDS = tuple(ANNOUNCED)
PARTS = (
    "thing",
    "thingGroup",
    "thingGroupHierarchy",
    "thingGroupMembership",
    "thingType",
    "thingTypeAssociation",
)


def switch(iot: Any, *, on: bool, kinds: tuple[str, ...] = KINDS) -> None:
    iot.update_event_configurations(eventConfigurations={kind: {"Enabled": on} for kind in kinds})


def test_what_becomes_of_the_registry_is_told_where_it_is_switched_on(iot: Any, enroll: Enroll) -> None:
    with enroll("listener", statement("iot:*")).device_5() as device:
        device("start")
        device("connected")
        assert device("subscribe", topics=[f"$aws/events/{part}/#" for part in PARTS])
        iot.create_thing(thingName="not-told")
        switch(iot, on=True)
        iot.create_thing_type(thingTypeName="kind")
        iot.create_thing(thingName="t", thingTypeName="kind", attributePayload={"attributes": {"a": "1"}})
        iot.update_thing(thingName="t", removeThingType=True)
        iot.create_thing_group(thingGroupName="g")
        iot.create_thing_group(thingGroupName="h", parentGroupName="g")
        iot.add_thing_to_thing_group(thingName="t", thingGroupName="h")
        iot.remove_thing_from_thing_group(thingName="t", thingGroupName="h")
        iot.delete_thing_group(thingGroupName="h")
        iot.deprecate_thing_type(thingTypeName="kind")
        iot.delete_thing(thingName="t")
        switch(iot, on=False)
        iot.create_thing(thingName="not-told-either")
        wanted = [
            ("thingType/kind/created", "CREATED"),
            ("thing/t/created", "CREATED"),
            ("thingTypeAssociation/thing/t/kind", "ADDED"),
            ("thing/t/updated", "UPDATED"),
            ("thingTypeAssociation/thing/t/kind", "REMOVED"),
            ("thingGroup/g/created", "CREATED"),
            ("thingGroup/h/created", "CREATED"),
            ("thingGroupHierarchy/thingGroup/g/childThingGroup/h/added", "ADDED"),
            ("thingGroupMembership/thingGroup/h/thing/t/added", "ADDED"),
            ("thingGroupMembership/thingGroup/h/thing/t/removed", "REMOVED"),
            ("thingGroup/h/deleted", "DELETED"),
            ("thingGroupHierarchy/thingGroup/g/childThingGroup/h/removed", "REMOVED"),
            ("thingType/kind/updated", "UPDATED"),
            ("thing/t/deleted", "DELETED"),
        ]
        heard = [device("received")["ok"] for _ in wanted]
        told = [json.loads(one["payload"]) for one in heard]
        topics = [one["topic"].removeprefix("$aws/events/") for one in heard]
        assert list(zip(topics, [one["operation"] for one in told], strict=True)) == wanted
        assert told[1]["attributes"] == {"a": "1"}
        assert told[1]["eventType"] == "THING_EVENT"
        assert told[6]["rootToParentThingGroups"] == ["g"]
        iot.create_thing_group(thingGroupName="after")
        switch(iot, on=True, kinds=("THING",))
        iot.create_thing(thingName="last")
        assert device("received")["ok"]["topic"] == "$aws/events/thing/last/created"
        switch(iot, on=False)


def test_what_is_switched_on_is_told_and_what_nobody_announces_is_refused(iot: Any) -> None:
    switch(iot, on=True, kinds=("THING_TYPE",))
    known = iot.describe_event_configurations()
    assert known["eventConfigurations"]["THING_TYPE"] == {"Enabled": True}
    assert known["eventConfigurations"]["JOB"] == {"Enabled": False}
    assert known["creationDate"] <= known["lastModifiedDate"]
    with pytest.raises(ClientError) as caught:
        switch(iot, on=True, kinds=("POLICY",))
    assert "does not implement eventConfigurations.POLICY of UpdateEventConfigurations" in str(caught.value)
    switch(iot, on=False, kinds=("THING_TYPE", "POLICY"))


def test_who_subscribes_is_told(enroll: Enroll) -> None:
    with (
        enroll("watches", statement("iot:*")).device_5() as watcher,
        enroll("asks", statement("iot:*")).device_5() as device,
    ):
        for one in (watcher, device):
            one("start")
            one("connected")
        watcher("subscribe", topics=["$aws/events/subscriptions/+/asks"])
        device("subscribe", topics=["a/b", "c/#"])
        device("unsubscribe", topics=["a/b"])
        for what, topics in (("subscribed", ["a/b", "c/#"]), ("unsubscribed", ["a/b"])):
            heard = watcher("received")["ok"]
            assert heard["topic"] == f"$aws/events/subscriptions/{what}/asks"
            told = json.loads(heard["payload"])
            assert (told["clientId"], told["eventType"], told["topics"]) == ("asks", what, topics)


def test_arns_name_the_region_that_was_asked(client: Callable[..., Any]) -> None:
    for region in ("ap-northeast-1", "eu-central-1"):
        iot = client(region_name=region)
        made = iot.create_thing_group(thingGroupName="regional")
        assert made["thingGroupArn"] == f"arn:aws:iot:{region}:000000000000:thinggroup/regional"
        assert iot.list_thing_groups(namePrefixFilter="regional")["thingGroups"][0]["groupArn"] == made["thingGroupArn"]
        iot.tag_resource(resourceArn=made["thingGroupArn"], tags=[{"Key": region, "Value": "asked"}])
    there = client(region_name="sa-east-1").list_tags_for_resource(resourceArn=made["thingGroupArn"])
    assert [one["Key"] for one in there["tags"]] == ["ap-northeast-1", "eu-central-1"]
