"""Tags, groups in groups and the index on both engines, with others in between."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select

from birthmark.awsiot.model import CertificateStatus, PrincipalType, ThingName, target_of_group
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service import AwsIot, fleet_index, thing_groups
from birthmark.awsiot.service.fleet_index import IndexNotReadyError, SearchTooBroadError
from birthmark.awsiot.service.tags import TooManyTagsError
from birthmark.awsiot.service.thing_groups import (
    ThingGroupDepthError,
    ThingGroupInUseError,
    TooManyDynamicGroupsError,
    TooManyThingGroupsError,
    UnknownThingGroupError,
)
from birthmark.awsiot.store.index_queries import terms
from birthmark.awsiot.wire.index_query import SearchIndex, parse_query
from birthmark.store import statement
from support.aws.account import ME, POLICY, an_aws_account
from support.pki.pki_builders import a_device
from support.store.between import before_the_next_commit

pytestmark = pytest.mark.integration
NONE: Mapping[str, Any] = {"description": None, "attributes": None}


@asynccontextmanager
async def a_line(database_url: str) -> AsyncIterator[AwsIot]:
    """An account with three groups in a line and two things."""
    async with an_aws_account(database_url) as (aws, _):
        above = None
        for name in ("site", "hall", "line"):
            await aws.thing_groups.create(ThingName(name), None, None, above, **ME)
            above = name
        for name in ("a", "b"):
            await aws.things.create(ThingName(name), {"kind": name}, None, None, **ME)
        yield aws
        await aws.index.stop()


async def found(aws: AwsIot, query: str, place: SearchIndex = SearchIndex.THINGS) -> list[str]:
    return list((await aws.index.search(place, parse_query(query, place), "", 100)).items)


async def test_a_group_that_got_a_child_stays(database_url: str) -> None:
    async with a_line(database_url) as aws:
        database = aws.things.database
        before_the_next_commit(database, lambda: aws.thing_groups.create(ThingName("new"), None, None, "line", **ME))
        with pytest.raises(ThingGroupInUseError):
            await aws.thing_groups.delete("line", None, **ME)
        assert await aws.thing_groups.line("new") == ["site", "hall", "line"]


async def test_below_a_group_that_went_nothing_is_made(database_url: str) -> None:
    async with a_line(database_url) as aws:
        before_the_next_commit(aws.things.database, lambda: aws.thing_groups.delete("line", None, **ME))
        with pytest.raises(UnknownThingGroupError):
            await aws.thing_groups.create(ThingName("new"), None, None, "line", **ME)


async def test_groups_stand_seven_deep(database_url: str) -> None:
    async with a_line(database_url) as aws:
        above = "line"
        for number in range(4, 8):
            await aws.thing_groups.create(ThingName(f"g{number}"), None, None, above, **ME)
            above = f"g{number}"
        with pytest.raises(ThingGroupDepthError):
            await aws.thing_groups.create(ThingName("g8"), None, None, above, **ME)


async def test_of_two_groups_for_the_last_place_a_thing_comes_into_one(database_url: str) -> None:
    async with a_line(database_url) as aws:
        for number in range(11):
            await aws.thing_groups.create(ThingName(f"w{number}"), None, None, None, **ME)
        await aws.thing_groups.change_membership("a", [f"w{number}" for number in range(9)], [], **ME)
        before_the_next_commit(aws.things.database, lambda: aws.thing_groups.add("w9", "a", **ME))
        with pytest.raises(TooManyThingGroupsError):
            await aws.thing_groups.add("w10", "a", **ME)
        assert len((await aws.thing_groups.groups_of("a", "", 100)).items) == 10


async def test_policies_of_all_groups_above_reach_a_connection(database_url: str) -> None:
    async with a_line(database_url) as aws:
        device = a_device().certificate
        known = await aws.certificates.register(device.pem(), CertificateStatus.ACTIVE, **ME)
        await aws.attachments.attach("a", known.id, PrincipalType.NON_EXCLUSIVE, **ME)
        await aws.policies.create("p", POLICY, **ME)
        await aws.policies.attach("p", target_of_group("site"), **ME)
        visitor = ConnectionContext(device, "a", "192.0.2.1", "")
        assert not (await aws.devices.admit(visitor)).policies
        await aws.thing_groups.add("line", "a", **ME)
        grant = await aws.devices.admit(visitor)
        assert grant.policies == {"p"}
        assert grant.groups == {"site", "hall", "line"}
        assert (await aws.policies.reaching(known.id, "", 10)).items == ["p"]
        assert (await aws.policies.reaching(target_of_group("line"), "", 10)).items == ["p"]
        assert (await aws.thing_groups.things_in("site", "", 10, recursive=True)).items == ["a"]
        below = await aws.thing_groups.page("", 10, "", parent="site")
        assert [one.name for one in below.items] == ["hall", "line"]


async def test_tags_of_two_are_both_kept_and_no_more_than_fit(database_url: str) -> None:
    async with a_line(database_url) as aws:
        database = aws.things.database
        before_the_next_commit(database, lambda: aws.tags.add("thinggroup", "site", {"b": "2"}, **ME))
        await aws.tags.add("thinggroup", "site", {"a": "1"}, **ME)
        assert await aws.tags.of("thinggroup", "site") == {"a": "1", "b": "2"}
        many = {f"k{number}": "" for number in range(48)}
        before_the_next_commit(database, lambda: aws.tags.add("thinggroup", "site", many, **ME))
        with pytest.raises(TooManyTagsError):
            await aws.tags.add("thinggroup", "site", {"c": "3"}, **ME)


async def test_a_group_that_went_gets_no_tags(database_url: str) -> None:
    async with a_line(database_url) as aws:
        before_the_next_commit(aws.things.database, lambda: aws.thing_groups.delete("line", None, **ME))
        with pytest.raises(UnknownThingGroupError):
            await aws.tags.add("thinggroup", "line", {"a": "1"}, **ME)
        await aws.thing_groups.create(ThingName("line"), None, None, None, **ME)
        assert await aws.tags.of("thinggroup", "line") == {}


async def test_what_was_there_and_what_comes_is_found_on_both_engines(database_url: str) -> None:
    async with a_line(database_url) as aws:
        with pytest.raises(IndexNotReadyError):
            await found(aws, "*")
        await aws.thing_groups.add("line", "a", **ME)
        await aws.index.configure({"thingIndexingMode": "REGISTRY"}, {"thingGroupIndexingMode": "ON"}, actor="test")
        await aws.index.wait_until_built()
        await aws.things.create(ThingName("z"), {"kind": "b", "load": "-2.5"}, None, None, **ME)
        for query, wanted in (
            ("*", ["a", "b", "z"]),
            ("thingGroupNames:line", ["a"]),
            ("attributes.kind:b", ["b"]),
            ("attributes.kind:*", ["a", "b"]),
            ("attributes.load < 0", []),
            ("NOT attributes.kind:a", ["b"]),
            ("a OR b", ["a", "b"]),
            ("attributes.kind:a OR attributes.kind:[b TO c]", ["a", "b"]),
        ):
            names = [name for name in await found(aws, query) if name != "z"]
            assert names == [name for name in wanted if name != "z"], query
        assert await found(aws, "thingGroupName:*", SearchIndex.GROUPS) == ["hall", "line", "site"]
        assert await found(aws, "parentGroupNames:hall", SearchIndex.GROUPS) == ["line"]
        await aws.thing_groups.delete("line", None, **ME)
        assert await found(aws, "thingGroupNames:line") == []


async def test_who_is_slower_than_the_switch_decides_again(database_url: str) -> None:
    async with a_line(database_url) as aws:

        async def switch() -> None:
            await aws.index.configure({"thingIndexingMode": "REGISTRY"}, None, actor="test")

        before_the_next_commit(aws.things.database, switch)
        await aws.things.create(ThingName("c"), {"kind": "c"}, None, None, **ME)
        await aws.index.wait_until_built()
        assert await found(aws, "attributes.kind:c") == ["c"]
        before_the_next_commit(
            aws.things.database,
            lambda: aws.things.update("c", {"kind": "d"}, None, merge=False, remove_type=False, expected=None, **ME),
        )
        await aws.index.configure({"thingIndexingMode": "REGISTRY"}, None, actor="test")
        await aws.index.wait_until_built()
        assert (await found(aws, "attributes.kind:c"), await found(aws, "attributes.kind:d")) == ([], ["c"])


async def test_who_was_connected_when_the_only_worker_ended_is_so_no_more(database_url: str) -> None:
    async with a_line(database_url) as aws:
        status = {"thingIndexingMode": "REGISTRY", "thingConnectivityIndexingMode": "STATUS"}
        await aws.index.configure(status, None, actor="test")
        await aws.index.wait_until_built()
        await aws.index.note_presence("a", at_ms=1, reason=None)
        await aws.index.note_presence("b", at_ms=2, reason="CONNECTION_LOST")
        await aws.index.note_presence("nobody", at_ms=3, reason=None)
        assert await found(aws, "connectivity.connected:true") == ["a"]
        rows = await aws.index._database.all(statement(select(terms.c.subject).where(terms.c.subject == "nobody")))
        assert rows == [], "whoever is no thing leaves nothing"
        await aws.index.mark_all_disconnected()
        assert await found(aws, "connectivity.connected:true") == []
        assert await found(aws, "connectivity.connected:false") == ["a", "b"]
        assert await found(aws, "connectivity.timestamp > 1") == ["b"]


async def test_a_search_that_would_read_too_much_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_line(database_url) as aws:
        await aws.index.configure({"thingIndexingMode": "REGISTRY"}, None, actor="test")
        await aws.index.wait_until_built()
        for number in range(20):
            await aws.things.create(ThingName(f"t{number:02}"), {"site": "7"}, None, None, **ME)
        query = parse_query("attributes.site:7 AND NOT attributes.site:*")
        assert (await aws.index.search(SearchIndex.THINGS, query, "", 10)).items == []
        monkeypatch.setattr(fleet_index, "MAX_READ", 15)
        with pytest.raises(SearchTooBroadError):
            await aws.index.search(SearchIndex.THINGS, query, "", 10)
        with pytest.raises(SearchTooBroadError):
            await aws.index.values(SearchIndex.THINGS, parse_query("attributes.site:7"), "attributes.site")


async def test_of_two_dynamic_groups_for_the_last_place_one_is_made(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_line(database_url) as aws:
        monkeypatch.setattr(thing_groups, "MAX_DYNAMIC", 1)
        query: dict[str, Any] = {"query": '{"queryString": "*"}', **ME}
        make = aws.thing_groups.create
        before_the_next_commit(aws.things.database, lambda: make(ThingName("d1"), None, None, None, **query))
        with pytest.raises(TooManyDynamicGroupsError):
            await make(ThingName("d2"), None, None, None, **query)
        await aws.thing_groups.delete("d1", None, **ME)
        await make(ThingName("d2"), None, None, None, **query)
