"""What operators look at by `birthmark aws`: one thing, certificate, group or policy whole, lists, and searches."""

from collections.abc import Callable
from typing import Any

import pytest

from support.aws.clients import until
from support.aws.device import Enrolled, document, statement
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]


def shown(server: RunningServer, *words: str) -> dict[str, Any]:
    (row,) = server.rows("aws", *words)
    return row


def test_a_thing_is_shown_whole_with_how_its_client_stands(server: RunningServer, iot: Any, enroll: Enroll) -> None:
    thing = enroll("pump-1", statement("iot:Connect"))
    iot.update_thing(thingName="pump-1", attributePayload={"attributes": {"site": "7"}})
    site = iot.create_thing_group(thingGroupName="site-7")["thingGroupArn"]
    iot.add_thing_to_thing_group(thingName="pump-1", thingGroupName="site-7")
    iot.create_policy(policyName="of-site-7", policyDocument=document(statement("iot:Publish")))
    iot.attach_policy(policyName="of-site-7", target=site)
    with thing.device_5() as device:
        device("start")
        device("connected")
        found = shown(server, "thing", "show", "pump-1")
        assert found["connection"]["connected"]
    assert (found["attributes"], found["groups"]) == ({"site": "7"}, ["site-7"])
    assert found["policies_by_groups"] == {"groups": ["site-7"], "policies": ["of-site-7"]}
    (held,) = found["certificates"]
    assert (held["certificate"], held["status"], held["policies"]) == (thing.certificate_id, "ACTIVE", ["pump-1"])
    until(lambda: not shown(server, "thing", "show", "pump-1")["connection"]["connected"])
    assert "reason" in shown(server, "thing", "show", "pump-1")["connection"]


def test_a_certificate_is_shown_whole(server: RunningServer, iot: Any, enroll: Enroll) -> None:
    thing = enroll("pump-2")
    iot.update_certificate(certificateId=thing.certificate_id, newStatus="INACTIVE")
    found = shown(server, "certificate", "show", thing.certificate_id)
    assert (found["status"], found["things"], found["policies"]) == ("INACTIVE", ["pump-2"], ["pump-2"])
    assert found["pem"].startswith("-----BEGIN CERTIFICATE-----")
    assert not found["claim"]


def test_groups_and_policies_are_listed_and_shown_with_what_hangs_on_them(
    server: RunningServer, iot: Any, enroll: Enroll
) -> None:
    thing = enroll("pump-3")
    above = iot.create_thing_group(thingGroupName="plant")["thingGroupArn"]
    iot.create_thing_group(thingGroupName="hall", parentGroupName="plant")
    iot.add_thing_to_thing_group(thingName="pump-3", thingGroupName="hall")
    iot.attach_policy(policyName="pump-3", target=above)
    assert {("hall", "plant"), ("plant", None)} <= {
        (row["group"], row["parent"]) for row in server.rows("aws", "group", "ls")
    }
    assert shown(server, "group", "show", "plant")["groups"] == ["hall"]
    assert shown(server, "group", "show", "plant")["policies"] == ["pump-3"]
    assert shown(server, "group", "show", "hall")["things"] == ["pump-3"]
    assert "pump-3" in {row["policy"] for row in server.rows("aws", "policy", "ls")}
    found = shown(server, "policy", "show", "pump-3")
    assert (found["certificates"], found["groups"]) == ([thing.certificate_id], ["plant"])
    assert found["document"]["Statement"][0]["Action"] == "iot:*"


def test_a_list_that_is_longer_than_a_page_is_listed_whole(server: RunningServer, iot: Any) -> None:
    names = {f"many-{number:03}" for number in range(120)}
    for name in names:
        iot.create_thing_group(thingGroupName=name)
    assert names <= {row["group"] for row in server.rows("aws", "group", "ls")}


def test_a_search_says_how_the_index_is_switched_on_and_finds_then(
    server: RunningServer, iot: Any, enroll: Enroll
) -> None:
    thing = enroll("pump-4")
    iot.update_thing(thingName="pump-4", attributePayload={"attributes": {"hall": "4"}})
    refused = server.attempt("aws", "search", "attributes.hall:4")
    assert refused.returncode != 0
    assert "update-indexing-configuration" in " ".join(refused.stderr.split())
    iot.update_indexing_configuration(
        thingIndexingConfiguration={
            "thingIndexingMode": "REGISTRY_AND_SHADOW",
            "thingConnectivityIndexingMode": "STATUS",
        },
        thingGroupIndexingConfiguration={"thingGroupIndexingMode": "ON"},
    )
    until(lambda: server.attempt("aws", "search", "attributes.hall:4").returncode == 0)
    (row,) = server.rows("aws", "search", "attributes.hall:4")
    assert (row["thing"], row["attributes"]) == ("pump-4", {"hall": "4"})
    with thing.device_5() as device:
        device("start")
        device("connected")
        until(lambda: server.rows("aws", "search", "attributes.hall:4 AND connectivity.connected:true"))
    iot.create_thing_group(thingGroupName="searched")
    until(lambda: server.rows("aws", "search", "--groups", "thingGroupName:searched"))
    assert "awsiot.query_invalid" in server.attempt("aws", "search", "(").stderr


@pytest.mark.parametrize("kind", ["thing", "group", "policy"])
def test_what_is_not_there_is_not_found(server: RunningServer, kind: str) -> None:
    assert server.attempt("aws", kind, "show", "nobody").returncode == 3
