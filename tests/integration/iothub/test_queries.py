"""Queries of a hub's twins, on both engines: by terms that are written behind the commits, and never out of date."""

import asyncio
import base64
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from birthmark.iothub import twin_index_store, wire
from birthmark.iothub.model import C2dMessage
from birthmark.iothub.service import queries, twin_index
from birthmark.iothub.service import twin_search as search
from birthmark.iothub.service.queries import QueryMarkerError
from birthmark.iothub.service.twin_search import IndexBehindError, QueryTooBroadError
from birthmark.net.fair_scheduler import Backlog
from birthmark.store import Changes
from birthmark.store.table_statements import MAX_LIST_VALUES
from support.azure.query_world import SAS, a_world

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("is_indexed", [False, True], ids=["before-the-index", "by-the-index"])
async def test_twins_are_found_by_what_they_hold(database_url: str, *, is_indexed: bool) -> None:
    async with a_world(database_url) as world:
        await world.has("pump-1", {"site": "north", "floor": 3}, {"load": 0.5, "on": True, "net": {"kind": "lte"}})
        await world.has("pump-2", {"site": "south", "floor": 10}, {"load": 7, "on": False})
        await world.has("valve-1", {"site": "north"})
        if is_indexed:
            await world.iothub.index.index_all()
            assert await world.iothub.index.unindexed() == 0
        for where, names in {
            "tags.site = 'north'": ["pump-1", "valve-1"],
            "tags.site = 'north' AND properties.reported.load < 1": ["pump-1"],
            "tags.floor > 3": ["pump-2"],
            "tags.floor >= 3 AND tags.floor <= 3": ["pump-1"],
            "properties.reported.on": ["pump-1"],
            "properties.reported.on = false OR tags.floor = 3": ["pump-1", "pump-2"],
            "tags.site IN ['south', 'east']": ["pump-2"],
            "tags.site NIN ['south']": ["pump-1", "valve-1"],
            "is_defined(properties.reported.net)": ["pump-1"],
            "NOT is_defined(tags.floor)": ["valve-1"],
            "tags.site != 'north'": ["pump-2"],
            "STARTS_WITH(tags.site, 'so')": ["pump-2"],
            "STARTSWITH(deviceId, 'pump-')": ["pump-1", "pump-2"],
            "deviceId IN ['valve-1', 'none', 'pump-1']": ["pump-1", "valve-1"],
            "properties.reported.net.kind = 'lte'": ["pump-1"],
            "status = 'enabled' AND tags.site = 'south'": ["pump-2"],
            "properties.reported.$version > 1": ["pump-1", "pump-2"],
        }.items():
            assert await world.found(where) == names, where


async def test_a_query_goes_on_behind_the_last_device_of_a_page(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(7):
            await world.has(f"d-{number}", {"site": "a"})
        await world.iothub.index.index_all()
        text, marker, pages = "SELECT deviceId FROM devices WHERE tags.site = 'a'", None, []
        while True:
            answer = await world.asked(text, marker, 3)
            pages.append([row["deviceId"] for row in answer.rows])
            if (marker := answer.marker) is None:
                break
        assert pages == [["d-0", "d-1", "d-2"], ["d-3", "d-4", "d-5"], ["d-6"]]


async def test_top_bounds_all_pages_together(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(5):
            await world.has(f"d-{number}", {})
        first = await world.asked("SELECT TOP 3 deviceId FROM devices", None, 2)
        second = await world.asked("SELECT TOP 3 deviceId FROM devices", first.marker, 2)
        assert ([len(first.rows), len(second.rows)], second.marker) == ([2, 1], None)


async def test_a_page_of_large_twins_has_fewer_and_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_PAGE_BYTES", 3000)
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for number in range(7):
            await world.has(f"d-{number}", {"large": "x" * 1000})
        sizes: list[int] = []
        marker = None
        while not sizes or marker is not None:
            answer = await world.asked("SELECT TOP 6 * FROM devices", marker)
            sizes.append(len(answer.rows))
            marker = answer.marker
        assert sum(sizes) == 6
        assert max(sizes) <= 3


@pytest.mark.parametrize(
    "asked", ["SELECT {} FROM devices", "SELECT COUNT() AS n, {} FROM devices GROUP BY deviceId, tags"]
)
async def test_a_page_is_as_large_as_its_answer_whatever_each_twin_is_made_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(queries, "MAX_PAGE_BYTES", 3000)
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for number in range(7):
            await world.has(f"d-{number}", {"large": "x" * 100})
        text = asked.format(", ".join(f"tags AS a{one}" for one in range(15)))
        first = await world.asked(text)
        second = await world.asked(text, first.marker)
        assert [len(first.rows), len(second.rows)] == [2, 2]


async def test_a_marker_of_another_query_or_of_nobody_is_refused(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for name in "ab":
            await world.has(name, {})
        marker = (await world.asked("SELECT * FROM devices", None, 1)).marker
        for text, given in (("SELECT deviceId FROM devices", marker), ("SELECT * FROM devices", "b2xk")):
            with pytest.raises(QueryMarkerError):
                await world.asked(text, given, 1)


async def test_what_changed_is_found_as_it_is_before_and_after_it_is_indexed(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a", "old": 1})
        await world.iothub.index.index_all()
        await world.iothub.twins.desire(
            world.hub, "d", {"tags": {"site": "b", "old": None}}, None, replaces=False, actor="test"
        )
        for _ in range(2):
            assert await world.found("tags.site = 'a'") == []
            assert await world.found("tags.site = 'b'") == ["d"]
            assert await world.found("is_defined(tags.old)") == []
            await world.iothub.index.index_all()
        assert await world.terms("d") == {("t.site", "sb")}


async def test_where_very_many_changed_they_are_found_as_they_were(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_MOST_WAITING", 0)
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"})
        await world.has("new", {"site": "b"})
        await world.iothub.index.index_all()
        await world.iothub.twins.desire(world.hub, "d", {"tags": {"site": "b"}}, None, replaces=False, actor="test")
        await world.has("newest", {"site": "b"})  # never indexed: always looked at
        assert await world.found("tags.site = 'b'") == ["new", "newest"]
        await world.iothub.index.index_all()
        assert await world.found("tags.site = 'b'") == ["d", "new", "newest"]


async def test_a_device_that_is_gone_leaves_no_terms_and_the_next_of_its_name_has_its_own(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"})
        await world.iothub.index.index_all()
        await world.iothub.registry.remove(world.hub, "d", None, actor="test")
        assert await world.terms("d") == set()
        await world.has("d", {"site": "b"})
        assert (await world.found("tags.site = 'a'"), await world.found("tags.site = 'b'")) == ([], ["d"])


async def test_a_device_removed_while_it_is_indexed_leaves_no_terms(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"})
        read = await world.database.all(twin_index_store.NEXT_UNINDEXED, state=3, hub="", device_id="", limit=1)
        await world.iothub.registry.remove(world.hub, "d", None, actor="test")
        for portion in twin_index.portions_for(read[0], set()):
            await world.database.commit(portion)
        assert await world.terms("d") == set()


async def test_a_twin_changed_while_it_is_indexed_is_indexed_again(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"})
        read = await world.database.all(twin_index_store.NEXT_UNINDEXED, state=3, hub="", device_id="", limit=1)
        await world.iothub.twins.desire(world.hub, "d", {"tags": {"site": "b"}}, None, replaces=False, actor="test")
        for portion in twin_index.portions_for(read[0], set()):
            await world.database.commit(portion)
        assert await world.iothub.index.unindexed() == 1
        await world.iothub.index.index_all()
        assert await world.terms("d") == {("t.site", "sb")}


async def test_the_mark_of_a_twin_stays_until_the_last_portion_of_its_terms_is_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_index, "MOST_WRITES", 10)
    async with a_world(database_url) as world:
        await world.has("d", {f"t{number}": number for number in range(25)})
        (read,) = await world.database.all(twin_index_store.NEXT_UNINDEXED, state=3, hub="", device_id="", limit=1)
        counts = []
        for portion in twin_index.portions_for(read, set()):
            await world.database.commit(portion)
            counts.append((len(await world.terms("d")), await world.iothub.index.unindexed()))
        assert counts == [(10, 1), (20, 1), (25, 0)]


async def test_no_commit_of_the_index_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for number in range(5):
            await world.has(f"d-{number}", {}, {f"x{n}": n for n in range(900)})
        commit = world.database.commit

        def measured(changes: Changes) -> Awaitable[None]:
            sizes.append(len(changes.writes))
            return commit(changes)

        monkeypatch.setattr(world.database, "commit", measured)
        await world.iothub.index.index_all()
        assert (sum(sizes), max(sizes) <= 2 * twin_index.MOST_WRITES) == (5 * 900 + 10, True)


async def test_a_hub_that_is_deleted_takes_its_terms_along(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"})
        await world.iothub.index.index_all()
        await world.iothub.hubs.delete("main", actor="test")
        assert await world.terms("d") == set()


async def test_none_waits_for_twins_that_change_all_the_time(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for number in range(MAX_LIST_VALUES):
            await world.has(f"busy-{number:03}", {})
        await world.has("quiet", {"site": "a"})
        for _ in range(2):
            for number in range(MAX_LIST_VALUES):
                body = {"tags": {"n": _}}
                await world.iothub.twins.desire(world.hub, f"busy-{number:03}", body, None, replaces=False, actor="t")
            await world.iothub.index.index_batch()
        assert await world.terms("quiet") == {("t.site", "sa")}


async def test_a_twin_with_more_values_than_are_indexed_is_found_by_each(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("many", {}, {f"x{n}": n for n in range(1001)})
        await world.has("few", {}, {"x1000": 5})
        await world.iothub.index.index_all()
        assert await world.terms("many") == set()
        assert await world.iothub.index.unindexed() == 0
        assert await world.found("properties.reported.x1000 >= 5") == ["few", "many"]


async def test_what_would_read_too_much_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_READ", 3)
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for number in range(5):
            await world.has(f"d-{number}", {"n": number})
        await world.iothub.index.index_all()
        with pytest.raises(QueryTooBroadError):
            await world.found("NOT is_defined(tags.n)")
        assert await world.found("tags.n = 4") == ["d-4"]
        monkeypatch.setattr(search, "_MOST_WAITING", 0)
        await world.has("e", {"n": 1})
        with pytest.raises(IndexBehindError):
            await world.found("NOT is_defined(tags.n)")


async def test_a_query_ends_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EACH", 1)
    monkeypatch.setattr(search, "MAX_S", -1.0)
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        await world.has("d", {})
        with pytest.raises(QueryTooBroadError):
            await world.found("tags.n = 4")


class Peer:
    owner = "user:looker"


@pytest.mark.parametrize("begin", ["SELECT deviceId", "SELECT COUNT()"])
async def test_the_loop_looks_at_others_while_conditions_are_asked_of_twins(tmp_path: Path, begin: str) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        for number in range(200):
            await world.has(f"d{number}", {"text": "x" * 3000})
        where = " AND ".join(["NOT contains(tags.text, 'yyyyyyyyyyyy')"] * 90)
        asked = Backlog.running().account_steps(world.asked(f"{begin} FROM devices WHERE {where}"), Peer())
        task, pieces, before = asyncio.create_task(asked), list[float](), time.thread_time()
        while not task.done():
            await asyncio.sleep(0)
            pieces.append(time.thread_time() - before)
            before += pieces[-1]
        assert max(pieces) < sum(one for one in pieces if one > 0.0005) / 3  # the others are this test's own


async def test_many_twins_are_counted_and_grouped(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(6):
            await world.has(f"d-{number}", {"site": "ab"[number % 2]}, {"load": number})
        items = "tags.site AS site, COUNT() AS n, MAX(properties.reported.load) AS most"
        text = f"SELECT {items} FROM devices GROUP BY tags.site"
        answer = await world.asked(text)
        assert (answer.rows, answer.item_type) == (
            [{"site": "a", "n": 3, "most": 4}, {"site": "b", "n": 3, "most": 5}],
            "Raw",
        )
        first = await world.asked(text, None, 1)
        second = await world.asked(text, first.marker, 1)
        assert [*first.rows, *second.rows] == answer.rows
        assert second.marker is None
        assert (await world.asked("SELECT COUNT() AS all FROM devices")).rows == [{"all": 6}]
        assert (await world.asked("SELECT COUNT() AS some FROM devices WHERE tags.site = 'a'")).rows == [{"some": 3}]


async def test_who_is_connected_and_how_many_messages_wait_is_asked_for(database_url: str) -> None:
    async with a_world(database_url) as world:
        for name in ("here", "there"):
            await world.has(name, {})
        world.connected.names.add("here")
        await world.iothub.c2d.send(
            world.hub, "there", C2dMessage(b"x", {}, {}), message_id="", feedback="", expiry=None, actor="test"
        )
        assert await world.found("connectionState = 'Connected'") == ["here"]
        assert await world.found("cloudToDeviceMessageCount > 0") == ["there"]
        shown = (await world.asked("SELECT * FROM devices")).rows
        assert [(row["connectionState"], row["cloudToDeviceMessageCount"]) for row in shown] == [
            ("Connected", 0),
            ("Disconnected", 1),
        ]


@pytest.mark.parametrize("has_devices", [True, False])
async def test_where_nobody_is_connected_nobody_is_found(database_url: str, has_devices: bool) -> None:
    async with a_world(database_url) as world:
        if has_devices:
            await world.has("d", {"n": 1})
            await world.has("other", {"n": 2})
        await world.iothub.index.index_all()
        assert await world.found("connectionState = 'Connected'") == []
        assert await world.found("connectionState IN ['Connected']") == []
        assert await world.found("connectionState = 'Connected' AND tags.n = 1") == []
        assert await world.found("connectionState = 'Connected' OR tags.n = 1") == (["d"] if has_devices else [])


async def test_who_is_connected_is_found_however_many_are_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_READ", 4)
    monkeypatch.setattr(search, "EACH", 2)
    async with a_world(database_url) as world:
        for number in range(9):
            await world.has(f"d-{number}", {"n": number})
        await world.iothub.index.index_all()
        world.connected.names |= {"d-7", "d-8", "gone"}
        assert await world.found("connectionState = 'Connected'") == ["d-7", "d-8"]
        assert await world.found("connectionState = 'Connected' AND tags.n = 8") == ["d-8"]
        assert await world.found("connectionState = 'Connected' OR tags.n = 2") == ["d-2", "d-7", "d-8"]


async def test_a_page_of_named_devices_goes_on_though_some_are_gone(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EACH", 2)
    async with a_world(database_url) as world:
        for number in range(0, 9, 2):
            await world.has(f"d-{number}", {})
        names = ", ".join(f"'d-{number}'" for number in range(9))
        text = f"SELECT deviceId FROM devices WHERE deviceId IN [{names}]"
        first = await world.asked(text, None, 3)
        second = await world.asked(text, first.marker, 3)
        found = [row["deviceId"] for row in (*first.rows, *second.rows)]
        assert (found, second.marker) == (["d-0", "d-2", "d-4", "d-6", "d-8"], None)


async def test_a_whole_twin_is_as_the_twin_route_shows_it_and_has_no_keys(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"}, {"x": 1})
        (shown,) = (await world.asked("SELECT * FROM devices WHERE deviceId = 'd'")).rows
        device = await world.iothub.registry.device(world.hub, "d")
        twin = await world.iothub.twins.get(world.hub, "d")
        assert shown == wire.twin_json(twin, device, is_connected=False)
        assert base64.b64encode(device.authentication.primary_key or b"").decode() not in str(shown)


async def test_a_hub_without_modules_or_jobs_finds_none(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        assert (await world.asked("SELECT * FROM devices.modules")).rows == []
        assert (await world.asked("SELECT COUNT() AS n FROM devices.modules")).rows == [{"n": 0}]
        assert (await world.asked("SELECT * FROM devices.jobs")).rows == []


async def test_no_hub_finds_what_another_has(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "a"})
        await world.iothub.index.index_all()
        world.hub = await world.iothub.hubs.create("other", "other.example", actor="test")
        await world.has("e", {"site": "a"})
        assert await world.found("tags.site = 'a'") == ["e"]


async def test_modules_are_found_by_their_twins_and_no_query_of_devices_finds_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "EACH", 2)
    async with a_world(database_url) as world:
        twins, modules = world.iothub.twins, world.iothub.registry.modules
        for number in range(3):
            await world.has(f"d-{number}", {"site": "a"})
            device = await world.iothub.registry.device(world.hub, f"d-{number}")
            for name in ("filter", "meter"):
                await modules.put(device, name, SAS, actor="test")
            body = {"tags": {"site": "a", "n": number}}
            await twins.desire(world.hub, f"d-{number}/meter", body, None, replaces=False, actor="test")
        for _ in range(2):
            text = "SELECT deviceId FROM devices.modules WHERE moduleId = 'meter'"
            first = await world.asked(text, None, 2)
            second = await world.asked(text, first.marker, 2)
            assert [row["deviceId"] for row in (*first.rows, *second.rows)] == ["d-0", "d-1", "d-2"]
            (whole,) = (await world.asked("SELECT * FROM devices.modules WHERE tags.n = 1")).rows
            assert (whole["deviceId"], whole["moduleId"], whole["tags"]["site"]) == ("d-1", "meter", "a")
            text = "SELECT COUNT() AS n FROM devices.modules WHERE is_defined(tags.n) AND connectionState = 'Connected'"
            world.connected.names = {"d-2/meter"}
            assert (await world.asked(text)).rows == [{"n": 1}]
            assert await world.found("tags.site = 'a'") == ["d-0", "d-1", "d-2"]
            assert await world.found("connectionState = 'Connected'") == []
            await world.iothub.index.index_all()
        await world.iothub.registry.remove(world.hub, "d-1", None, actor="test")
        assert (await world.terms("d-1"), await world.terms("d-1/meter")) == (set(), set())
        assert await world.terms("d-2/meter") != set()
        monkeypatch.setattr(search, "MAX_READ", 4)
        with pytest.raises(QueryTooBroadError):
            await world.asked("SELECT * FROM devices.modules WHERE moduleId = 'none'")
