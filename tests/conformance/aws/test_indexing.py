"""Fleet indexing and dynamic groups as the real boto3 uses them."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.device import Enrolled, document, statement

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def index(iot: Any, **more: Any) -> None:
    """Switch everything on, and wait until it is built."""
    things = {"thingIndexingMode": "REGISTRY_AND_SHADOW", "thingConnectivityIndexingMode": "STATUS", **more}
    iot.update_indexing_configuration(
        thingIndexingConfiguration=things, thingGroupIndexingConfiguration={"thingGroupIndexingMode": "ON"}
    )
    end = time.monotonic() + 20
    while iot.describe_index(indexName="AWS_Things")["indexStatus"] != "ACTIVE":
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def fleet() -> dict[str, bool]:
    return {}


@pytest.fixture
def indexed(iot: Any, client: Callable[..., Any], fleet: dict[str, bool]) -> Iterator[Any]:
    """Ten pumps made before the index was, ten after it."""
    if not fleet:
        data = client("iot-data")
        assert refused(iot.search_index, queryString="*") == "IndexNotReadyException"
        iot.create_thing_type(thingTypeName="pump")
        iot.create_thing_group(thingGroupName="hall", thingGroupProperties={"thingGroupDescription": "the hall"})
        iot.create_thing_group(thingGroupName="corner", parentGroupName="hall")
        for number in range(20):
            if number == 10:
                index(iot, namedShadowIndexingMode="ON", filter={"namedShadowNames": ["lamp"]})
            name = f"pump-{number:02}"
            attributes = {"site": str(number % 4), "load": f"{number / 2}"}
            iot.create_thing(thingName=name, thingTypeName="pump", attributePayload={"attributes": attributes})
            if number % 5 == 0:
                iot.add_thing_to_thing_group(thingName=name, thingGroupName="corner")
            shadow = {"state": {"reported": {"on": number % 2 == 0, "deep": {"level": number}}}}
            data.update_thing_shadow(thingName=name, payload=json.dumps(shadow))
            lamp = {"state": {"desired": {"color": "red" if number < 5 else "blue"}}}
            data.update_thing_shadow(thingName=name, shadowName="lamp", payload=json.dumps(lamp))
        iot.create_thing(thingName="other", attributePayload={"attributes": {"note": "a:b"}})
        fleet["made"] = True
    yield iot


def found(iot: Any, query: str, **more: Any) -> list[int]:
    names = [one["thingName"] for one in iot.search_index(queryString=query, **more)["things"]]
    return [int(name.removeprefix("pump-")) for name in names if name.startswith("pump-")]


EVERY = list(range(20))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("*", EVERY),
        ("thingName:pump-03", [3]),
        ("thingName:pump-1*", EVERY[10:]),
        ("pump-1*", EVERY[10:]),
        ("pump", EVERY),
        ("thingTypeName:pump AND attributes.site:1", EVERY[1::4]),
        ("thingTypeName:pump NOT attributes.site:1", [one for one in EVERY if one % 4 != 1]),
        ("NOT thingTypeName:pump", []),
        ("attributes.site:1 OR attributes.site:2", [one for one in EVERY if one % 4 in {1, 2}]),
        ("attributes.load > 8.5", [18, 19]),
        ("attributes.load:[2 TO 3]", [4, 5, 6]),
        ("attributes.load:{2 TO 3}", [5]),
        ("attributes.load < 10 AND attributes.load >= 9", [18, 19]),
        ("thingGroupNames:corner", [0, 5, 10, 15]),
        ("corner", [0, 5, 10, 15]),
        ("shadow.reported.on:true AND thingName:pump-0*", [0, 2, 4, 6, 8]),
        ("shadow.reported.deep.level:[3 TO 4]", [3, 4]),
        ("shadow.name.lamp.desired.color:red", [0, 1, 2, 3, 4]),
        ("shadow.name.lamp.hasDelta:true AND attributes.site:0", [0, 4, 8, 12, 16]),
        ("(attributes.site:0 OR attributes.site:1) AND NOT (thingName:pump-0* OR shadow.reported.on:false)", [12, 16]),
        ("connectivity.connected:true", []),
        ("attributes.site:none", []),
    ],
)
def test_a_search_finds_what_fits(indexed: Any, query: str, wanted: list[int]) -> None:
    assert found(indexed, query) == wanted


def test_pages_hold_all_once(indexed: Any) -> None:
    for query in ("thingName:pump*", "attributes.site:1 OR attributes.load > 1", "NOT attributes.site:3"):
        whole, pages, token = found(indexed, query), list[int](), None
        while True:
            page = indexed.search_index(queryString=query, maxResults=3, **({"nextToken": token} if token else {}))
            names = [one["thingName"] for one in page["things"] if one["thingName"].startswith("pump")]
            pages += [int(name.removeprefix("pump-")) for name in names]
            if (token := page.get("nextToken")) is None:
                break
        assert pages == whole


def test_what_is_found_is_told_whole(indexed: Any) -> None:
    (one,) = indexed.search_index(queryString="thingName:pump-05")["things"]
    assert one["thingTypeName"] == "pump"
    assert one["thingGroupNames"] == ["corner"]
    assert one["attributes"] == {"site": "1", "load": "2.5"}
    shadow = json.loads(one["shadow"])
    assert shadow["reported"] == {"on": False, "deep": {"level": 5}}
    assert shadow["name"]["lamp"]["desired"] == {"color": "blue"}
    groups = indexed.search_index(indexName="AWS_ThingGroups", queryString="parentGroupNames:hall")["thingGroups"]
    assert [one["thingGroupName"] for one in groups] == ["corner"]
    (hall,) = indexed.search_index(indexName="AWS_ThingGroups", queryString='description:"the hall"')["thingGroups"]
    assert hall["thingGroupDescription"] == "the hall"


def test_changes_are_found_at_once(indexed: Any, client: Callable[..., Any]) -> None:
    indexed.create_thing(thingName="pump-99", attributePayload={"attributes": {"site": "new"}})
    assert found(indexed, "attributes.site:new") == [99]
    indexed.update_thing(thingName="pump-99", attributePayload={"attributes": {"site": "newer"}})
    assert found(indexed, "attributes.site:new") == []
    indexed.add_thing_to_thing_group(thingName="pump-99", thingGroupName="hall")
    assert found(indexed, "thingGroupNames:hall") == [99]
    indexed.remove_thing_from_thing_group(thingName="pump-99", thingGroupName="hall")
    assert found(indexed, "thingGroupNames:hall") == []
    data = client("iot-data")
    data.update_thing_shadow(thingName="pump-99", payload=json.dumps({"state": {"reported": {"x": "here"}}}))
    assert found(indexed, "shadow.reported.x:here") == [99]
    data.delete_thing_shadow(thingName="pump-99")
    assert found(indexed, "shadow.reported.x:here") == []
    indexed.delete_thing(thingName="pump-99")
    assert found(indexed, "attributes.site:newer") == []


def test_who_is_connected_is_found(indexed: Any, enroll: Enroll) -> None:
    def names(query: str) -> list[str]:
        return [one["thingName"] for one in indexed.search_index(queryString=query)["things"]]

    def until(query: str, wanted: list[str]) -> None:
        end = time.monotonic() + 10
        while names(query) != wanted:
            assert time.monotonic() < end, names(query)
            time.sleep(0.05)

    with enroll("dialer", statement("iot:*")).device_5() as device:
        device("start")
        device("connected")
        until("connectivity.connected:true", ["dialer"])
        (one,) = indexed.search_index(queryString="thingName:dialer")["things"]
        assert one["connectivity"]["connected"] is True
        device("stop")
    until("connectivity.connected:false", ["dialer"])
    until("connectivity.disconnectReason:CONNECTION_LOST", ["dialer"])  # the SDK says no word when it stops


def test_statistics_and_cardinality(indexed: Any) -> None:
    told = indexed.get_statistics(queryString="thingTypeName:pump", aggregationField="attributes.load")["statistics"]
    assert (told["count"], told["minimum"], told["maximum"], told["average"]) == (20, 0.0, 9.5, 4.75)
    assert indexed.get_cardinality(queryString="pump", aggregationField="attributes.site")["cardinality"] == 4
    assert refused(indexed.get_cardinality, queryString="*", aggregationField="nonsense") == "InvalidQueryException"


def test_percentiles_and_buckets(indexed: Any) -> None:
    asked = {"queryString": "thingTypeName:pump", "aggregationField": "attributes.load"}
    told = indexed.get_percentiles(**asked, percents=[0, 50, 100])["percentiles"]
    assert told == [{"percent": 0, "value": 0}, {"percent": 50, "value": 4.75}, {"percent": 100, "value": 9.5}]
    assert [one["percent"] for one in indexed.get_percentiles(**asked)["percentiles"]] == [1, 5, 25, 50, 75, 95, 99]
    assert indexed.get_percentiles(**asked | {"aggregationField": "thingTypeName"})["percentiles"] == []
    terms = {"termsAggregation": {"maxBuckets": 3}}
    told = indexed.get_buckets_aggregation(
        **asked | {"aggregationField": "attributes.site"}, bucketsAggregationType=terms
    )
    assert told["totalCount"] == 20
    assert [one["count"] for one in told["buckets"]] == [5, 5, 5]


def test_bad_queries_are_refused_by_name(indexed: Any) -> None:
    for query in ("(", "thingName:", "nothing:1", "a AND"):
        assert refused(indexed.search_index, queryString=query) == "InvalidQueryException"
    assert refused(indexed.search_index, queryString="*", indexName="Other") == "ResourceNotFoundException"
    assert refused(indexed.search_index, queryString="*", queryVersion="1999-01-01") == "InvalidRequestException"
    assert refused(indexed.search_index, queryString="*", maxResults=501) == "InvalidRequestException"


def test_a_dynamic_group_has_what_its_query_finds(indexed: Any) -> None:
    made = indexed.create_dynamic_thing_group(
        thingGroupName="loaded",
        queryString="attributes.load > 8",
        thingGroupProperties={"thingGroupDescription": "much to do"},
        tags=[{"Key": "a", "Value": "1"}],
    )
    assert (made["indexName"], made["queryString"]) == ("AWS_Things", "attributes.load > 8")
    names = ["pump-17", "pump-18", "pump-19"]
    assert indexed.list_things_in_thing_group(thingGroupName="loaded")["things"] == names
    groups = indexed.list_thing_groups_for_thing(thingName="pump-18")["thingGroups"]
    assert [one["groupName"] for one in groups] == ["loaded"]
    told = indexed.describe_thing_group(thingGroupName="loaded")
    assert (told["status"], told["queryString"]) == ("ACTIVE", "attributes.load > 8")
    changed = {"thingGroupName": "loaded", "thingGroupProperties": {}, "queryString": "attributes.load > 9"}
    assert refused(indexed.update_dynamic_thing_group, **changed, expectedVersion=7) == "VersionConflictException"
    assert indexed.update_dynamic_thing_group(**changed)["version"] == 2
    assert indexed.list_things_in_thing_group(thingGroupName="loaded")["things"] == names[2:]
    put = {"thingGroupName": "loaded", "thingName": "other"}
    assert refused(indexed.add_thing_to_thing_group, **put) == "InvalidRequestException"
    below = {"thingGroupName": "below", "parentGroupName": "loaded"}
    assert refused(indexed.create_thing_group, **below) == "InvalidRequestException"
    indexed.create_policy(policyName="dynamic", policyDocument=document(statement("iot:*")))
    hung = {"policyName": "dynamic", "target": made["thingGroupArn"]}
    assert refused(indexed.attach_policy, **hung) == "InvalidRequestException"
    assert refused(indexed.delete_dynamic_thing_group, thingGroupName="hall") == "InvalidRequestException"
    indexed.delete_dynamic_thing_group(thingGroupName="loaded")
    assert refused(indexed.describe_thing_group, thingGroupName="loaded") == "ResourceNotFoundException"


def test_a_page_of_large_shadows_ends_early_and_goes_on(indexed: Any, client: Callable[..., Any]) -> None:
    data, names = client("iot-data"), [f"large-{number:03}" for number in range(160)]
    payload = json.dumps({"state": {"reported": {"text": "x" * 7_800}}})
    for name in names:
        indexed.create_thing(thingName=name)
        data.update_thing_shadow(thingName=name, payload=payload)
    first = indexed.search_index(queryString="thingName:large-*", maxResults=250)
    second = indexed.search_index(queryString="thingName:large-*", maxResults=250, nextToken=first["nextToken"])
    assert [one["thingName"] for one in first["things"] + second["things"]] == names
    assert "nextToken" not in second


def test_what_is_switched_off_is_found_no_more(indexed: Any) -> None:
    assert indexed.list_indices()["indexNames"] == ["AWS_ThingGroups", "AWS_Things"]
    told = indexed.get_indexing_configuration()["thingIndexingConfiguration"]
    assert told["filter"] == {"namedShadowNames": ["lamp"]}
    index(indexed, thingIndexingMode="REGISTRY", thingConnectivityIndexingMode="OFF")
    assert indexed.describe_index(indexName="AWS_Things")["schema"] == "REGISTRY"
    assert found(indexed, "attributes.site:1") == EVERY[1::4]
    assert found(indexed, "shadow.reported.on:true") == []
    indexed.update_indexing_configuration(thingIndexingConfiguration={"thingIndexingMode": "OFF"})
    assert refused(indexed.search_index, queryString="*") == "IndexNotReadyException"
    assert indexed.list_indices()["indexNames"] == ["AWS_ThingGroups"]
