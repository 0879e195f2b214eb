"""Each device is listed once, over every place that somebody may look at, and found by name, place and state."""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from birthmark.awsiot.model import ThingName
from birthmark.awsiot.store import registry
from birthmark.broker import store as broker_store
from birthmark.broker.namespace_sessions import Arrival, Namespace
from birthmark.ca import store as ca_store
from birthmark.devices import device_name_pages as scope_names
from birthmark.devices import search
from birthmark.devices.model import DeviceCounts, DeviceFilter, DeviceOrder, DeviceState, DeviceTotal, ListedDevice
from birthmark.devices.search import DeviceSearch
from birthmark.dps import store as dps_store
from birthmark.errors import ForbiddenError
from birthmark.iothub import store as hub_store
from birthmark.iothub.wire import DeviceBody
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.refusals import store as refusal_store
from birthmark.server.composition_root import ServerServices
from birthmark.store import Changes, Statement, device_name_prefix_index, open_database, statement
from birthmark.store.pagination import PageInvalidError
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters
from support.fakes import FakeClock
from support.kills.interleaved import answered, opened
from support.kills.interleaved_operations import DEVICE, ME, OPERATIONS, OPERATOR, by, fill, hub
from support.mqtt.broker_world import Client

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
CLOCK = FakeClock()


async def every(
    rooms: ServerServices, wanted: DeviceFilter, limit: int = 100, sees: Callable[[str], bool] = lambda _: True
) -> list[ListedDevice]:
    """Return all pages together."""
    told: list[ListedDevice] = []
    after: str | None = ""
    while after is not None:
        page = await DeviceSearch(rooms.devices, CLOCK).find(wanted, after, limit, sees=sees)
        assert len(page.items) <= limit
        told += page.items
        after = page.next
    return told


async def places(
    rooms: ServerServices, begin: str, sees: Callable[[str], bool] = lambda _: True
) -> dict[str, list[str]]:
    """Return devices with their places, and check that none is listed twice."""
    found = await every(rooms, DeviceFilter(begin), sees=sees)
    assert len({one.name for one in found}) == len(found)
    return {one.name: list(one.scopes) for one in found}


async def names(rooms: ServerServices, state: DeviceState | None, begin: str = "", **asked: Any) -> list[str]:
    """Return which devices are in a state, and check that pages of any size and the count agree."""
    wanted = DeviceFilter(begin, state=state, **asked)
    found = [one.name for one in await every(rooms, wanted)]
    assert await DeviceSearch(rooms.devices, CLOCK).count(wanted, sees=lambda _: True) in {
        None,
        DeviceTotal(len(found)),
    }
    for limit in (1, 2):
        assert [one.name for one in await every(rooms, wanted, limit)] == found
    return found


async def connect(space: Namespace, *clients: str) -> None:
    for client in clients:
        connection = Client(client)
        connection.attached = await space.connect(Arrival(client, connection, clean_start=True))


async def test_a_device_is_found_wherever_it_is_on_record(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["register own"])
        await answered(rooms, OPERATIONS["issue by password"])
        assert await places(rooms, "OWN") == {"own": ["dps/main", "hub/hub"]}
        assert await places(rooms, "1") == {"device-1": ["hub/hub"], "thing-1": ["aws"]}
        assert await places(rooms, "bou") == {"bound": ["server"]}
        assert await places(rooms, "own", lambda place: place == "hub/hub") == {"own": ["hub/hub"]}


@pytest.mark.parametrize("operation", ["remove the device", "remove the hub"])
async def test_what_is_removed_is_not_found(tmp_path: Path, operation: str) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS[operation])
        assert await places(rooms, "device") == {}


@pytest.mark.parametrize("begin", ["o", ""])
async def test_pages_follow_each_other_across_places(tmp_path: Path, begin: str) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["register own"])
        found = await every(rooms, DeviceFilter(begin))
        assert await every(rooms, DeviceFilter(begin), 1) == found
        assert len(found) > 1


async def test_without_a_beginning_all_are_listed_with_how_they_stand(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["issue by password"])
        await connect(rooms.hub_connections.space("hub"), "of-group")
        assert [(one.name, list(one.scopes), list(one.states)) for one in await every(rooms, DeviceFilter())] == [
            ("bound", ["server"], []),
            ("device-1", ["hub/hub"], [DeviceState.AWAY]),
            ("of-group", ["hub/hub"], [DeviceState.CONNECTED]),
            ("own", ["dps/main"], [DeviceState.UNASSIGNED]),
            ("thing-1", ["aws"], [DeviceState.AWAY]),
        ]
        assert await names(rooms, None, scope="hub/hub") == ["device-1", "of-group"]
        assert await names(rooms, None, scope="hub/other") == []


@pytest.mark.parametrize("begin", ["", "d", "of"])
async def test_who_is_connected_away_or_off_is_found_by_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    def of(*names: str) -> list[str]:
        return [name for name in names if name.startswith(begin)]

    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        for number in range(3):
            name = f"device-{number + 2}"
            await rooms.iothub.registry.put(hub(rooms), name, DeviceBody(name), by(DEVICE), None, **ME)
        await rooms.iothub.registry.set_enabled(hub(rooms), "device-3", is_enabled=False, **ME)
        await connect(rooms.hub_connections.space("hub"), "device-1", "of-group")
        await connect(rooms.aws_connections.space, "thing-1", "no-thing")
        connected = of("device-1", "of-group", "thing-1")
        assert await names(rooms, DeviceState.CONNECTED, begin) == connected
        assert await names(rooms, DeviceState.DISABLED, begin) == of("device-3")
        assert await names(rooms, DeviceState.AWAY, begin) == of("device-2", "device-4")
        monkeypatch.setattr(scope_names, "FEW", 0)  # many connections: any that are on record are looked at
        assert await names(rooms, DeviceState.CONNECTED, begin) == connected


@pytest.mark.parametrize("begin", ["", "o"])
async def test_who_is_connected_to_another_worker_is_found_by_its_row(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        space = rooms.hub_connections.space("hub")
        row: dict[str, Any] = dict.fromkeys(broker_store._LEFT_TO_CHANCE, 0) | {"tail": 0, "space": space.name}
        row |= {"will": None, "will_at": None, "expires_at": None, "gone": None}
        changes = Changes().run(broker_store.ADD, **row | {"client": "of-group", "owner": "another"})
        changes.run(broker_store.ADD, **row | {"client": "device-1", "owner": None})
        await rooms.database.commit(changes)
        monkeypatch.setattr(space, "is_alone", False)
        assert await names(rooms, DeviceState.CONNECTED, begin, scope="hub/hub") == ["of-group"]
        assert "of-group" not in await names(rooms, DeviceState.AWAY, begin)


@pytest.mark.parametrize("begin", ["", "own"])
async def test_who_never_registered_is_unassigned(database_url: str, tmp_path: Path, begin: str) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        assert await names(rooms, DeviceState.UNASSIGNED, begin) == ["own"]
        await answered(rooms, OPERATIONS["register own"])
        assert await names(rooms, DeviceState.UNASSIGNED, begin) == []


@pytest.mark.parametrize("begin", ["", "bou"])
async def test_whose_last_certificate_ends_soon_is_found(database_url: str, tmp_path: Path, begin: str) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock, database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["issue by password"])
        (issued,) = await rooms.authority.of_name("bound")
        left = issued.certificate.not_after - CLOCK.now()
        soon, sooner = left + timedelta(hours=1), left - timedelta(hours=1)
        assert await names(rooms, DeviceState.ENDING, begin, ending=soon) == ["bound"]
        assert await names(rooms, DeviceState.ENDING, begin, ending=sooner) == []
        clock.move(timedelta(days=1))
        await answered(rooms, OPERATIONS["issue by password"])  # renewed: the one that ends first is not the last
        if len(await rooms.authority.of_name("bound")) > 1:
            assert await names(rooms, DeviceState.ENDING, begin, ending=soon) == []


@pytest.mark.parametrize("begin", ["", "own", "D"])
async def test_who_was_refused_something_is_found_where_it_is_on_record(
    database_url: str, tmp_path: Path, begin: str
) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock, database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["register own"])
        for name in ("OWN", "device-1", "nobody", "own", "a\nb"):
            rooms.ledger.record(ForbiddenError(), address="192.0.2.1", device_id=name)
        await rooms.ledger.wait_until_written()
        fitting = [name for name in ("device-1", "own") if name.startswith(begin.lower())]
        assert await names(rooms, DeviceState.REFUSED, begin) == fitting
        found = await every(
            rooms, DeviceFilter(begin, state=DeviceState.REFUSED), sees=lambda place: place == "dps/main"
        )
        assert [one.name for one in found] == [name for name in fitting if name == "own"]
        later = DeviceSearch(rooms.devices, FakeClock())
        later.clock.move(timedelta(days=8))  # type: ignore[attr-defined]
        page = await later.find(DeviceFilter(begin, state=DeviceState.REFUSED), "", 100, sees=lambda _: True)
        assert page.items == []


@pytest.mark.parametrize("begin", ["", "ow"])
async def test_a_revoked_device_is_listed_once_as_revoked_whatever_its_places_say(
    database_url: str, tmp_path: Path, begin: str
) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["register own"])
        await rooms.authority.revocations.lose("own", OPERATOR, RevocationReason.KEY_COMPROMISE)
        (own,) = (one for one in await every(rooms, DeviceFilter()) if one.name == "own")
        assert own.states[0] is DeviceState.REVOKED
        assert list(own.scopes) == ["dps/main", "hub/hub", "server"]
        assert await names(rooms, DeviceState.REVOKED, begin) == ["own"]


async def test_a_device_that_the_hub_spells_with_capitals_is_one_row(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        await rooms.iothub.registry.put(hub(rooms), "Press-7", DeviceBody("Press-7"), by(DEVICE), None, **ME)
        await rooms.authority.revocations.lose("Press-7", OPERATOR, RevocationReason.KEY_COMPROMISE)
        assert "press-7" not in await names(rooms, None)
        assert await names(rooms, DeviceState.REVOKED) == ["Press-7"]


async def test_devices_are_listed_by_the_end_of_their_certificates(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["issue by password"])
        (found,) = await every(rooms, DeviceFilter(order=DeviceOrder.ENDS))
        (issued,) = await rooms.authority.of_name("bound")
        assert (found.name, found.ends) == ("bound", issued.certificate.not_after)
        assert await names(rooms, None, order=DeviceOrder.ENDS) == ["bound"]


async def test_when_a_device_was_seen_last_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        await connect(rooms.hub_connections.space("hub"), "device-1")
        seen = {one.name: one.last_seen for one in await every(rooms, DeviceFilter())}
        assert seen["device-1"] is not None
        assert seen["of-group"] is None


async def test_devices_are_listed_with_the_tags_of_their_twins_and_the_attributes_of_their_things(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        tags = {"site": "oslo", "line": {"number": 3, "shift": "night"}}
        await rooms.iothub.twins.desire(hub(rooms), "device-1", {"tags": tags}, None, replaces=False, **ME)
        await rooms.aws.things.create(ThingName("device-1"), {"site": "oslo", "maker": "acme"}, None, None, **ME)
        told = {one.name: one.tags for one in await every(rooms, DeviceFilter())}
        assert sorted(told["device-1"]) == ["line.number=3", "line.shift=night", "maker=acme", "site=oslo"]
        assert told["of-group"] == []
        at_hub = await every(rooms, DeviceFilter("device-1"), sees=lambda scope: scope == "hub/hub")
        assert [one.tags for one in at_hub] == [["site=oslo", "line.number=3", "line.shift=night"]]


async def test_of_very_many_devices_it_is_told_that_they_are_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_COUNTED", 2)
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        assert await DeviceSearch(rooms.devices, CLOCK).count(DeviceFilter(), sees=lambda _: True) == DeviceTotal(
            2, is_more=True
        )


@pytest.mark.parametrize("state", [DeviceState.AWAY, DeviceState.REFUSED, DeviceState.UNASSIGNED])
async def test_a_page_looks_at_so_many_names_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: DeviceState
) -> None:
    monkeypatch.setattr(search, "MAX_LOOKED", 4)
    monkeypatch.setattr(search, "_PAGE", 2)
    monkeypatch.setattr(search, "_FEWEST", 2)
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        await fill(rooms)
        for number in range(9):
            name = f"pump-{number}"
            await rooms.iothub.registry.put(hub(rooms), name, DeviceBody(name), by(DEVICE), None, **ME)
            rooms.ledger.record(ForbiddenError(), address="192.0.2.1", device_id=name)
        await rooms.ledger.wait_until_written()
        await connect(rooms.hub_connections.space("hub"), *(f"pump-{number}" for number in range(8)))
        pages = 0
        after: str | None = ""
        told: list[str] = []
        while after is not None:
            page = await DeviceSearch(rooms.devices, CLOCK).find(
                DeviceFilter(state=state), after, 100, sees=lambda _: True
            )
            told += [one.name for one in page.items]
            pages, after = pages + 1, page.next
        expected = {
            DeviceState.AWAY: ["device-1", "of-group", "pump-8", "thing-1"],
            DeviceState.REFUSED: [f"pump-{number}" for number in range(9)],
            DeviceState.UNASSIGNED: ["own"],
        }
        assert told == expected[state]
        assert pages > 1 or state is DeviceState.UNASSIGNED


@pytest.mark.parametrize("after", ["x", "[]", '["other","",""]', '["name","",1]', '["ending","",""]', "{}"])
async def test_what_is_no_place_in_the_list_is_refused(tmp_path: Path, after: str) -> None:
    async with opened(tmp_path, FakeClock()) as (rooms, _):
        with pytest.raises(PageInvalidError):
            await DeviceSearch(rooms.devices, CLOCK).find(DeviceFilter(), after, 1, sees=lambda _: True)


async def test_how_many_there_are_is_told_of_each_place_that_one_sees(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        await answered(rooms, OPERATIONS["disable the device"])
        await connect(rooms.hub_connections.space("hub"), "of-group")
        assert list(await rooms.devices.counts(sees=lambda _: True)) == [
            DeviceCounts("aws", on_record=1, connected=0),
            DeviceCounts("dps/main"),
            DeviceCounts("dps/spare"),
            DeviceCounts("hub/hub", on_record=2, connected=1, disabled=1),
            DeviceCounts("server"),
        ]
        assert [one.at for one in await rooms.devices.counts(sees=lambda place: place == "hub/hub")] == ["hub/hub"]


LISTS = (
    hub_store.NAMES_OF_DEVICES,
    hub_store.DEVICES_OFF,
    hub_store.DEVICES_NAMED,
    dps_store.NAMES_ENROLLED,
    dps_store.REGISTERED_NAMED,
    registry.NAMES_OF_THINGS,
    registry.THINGS_NAMED,
    ca_store.NAMES_OF_CERTIFICATES,
    ca_store.NAMES_NAMED,
    ca_store.NAMES_REVOKED,
    dps_store.ENROLLED_NAMED,
    ca_store.ENDING,
    ca_store.LAST_ENDS,
    broker_store.OWNED_PAGE,
    broker_store.OWNED_NAMED,
    refusal_store.SUBJECTS_PAGE,
    refusal_store.SUBJECTS_NAMED,
    device_name_prefix_index.WHOLE,
)


@pytest.mark.parametrize("asked", LISTS)
async def test_no_list_is_read_whole(tmp_path: Path, asked: Statement) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    compiled = asked.compiled("sqlite")
    sql = compiled.sql
    for _ in compiled.order:
        sql = sql.replace("?", "'1'", 1)
    plan = [str(row["detail"]) for row in await database.all(statement(text("EXPLAIN QUERY PLAN " + sql)))]
    await database.close()
    assert not [line for line in plan if "SCAN" in line or "FOR ORDER BY" in line], plan


MANY = 60_000


async def test_a_page_reads_a_few_pages_of_the_database(database_url: str) -> None:
    if "sqlite" in database_url:
        pytest.skip("it tells no pages")
    database = await open_database(database_url, FakeClock())
    filled = {
        "hub_devices": "'hub', 'pump-' || n, '', '', (n % 7000 > 0)::int, NULL, 'sas', NULL, NULL, NULL, NULL, 0, 0, 0",
        "refusal_subjects": "'pump-' || n % 9000, 'id-' || n, n",
        "dps_enrollments": "'scope', 'individual', 'pump-' || n, '{}', ''",
    }
    for table, columns in filled.items():
        fill = f"INSERT INTO {table} SELECT {columns} FROM generate_series(1, {MANY}) AS n"
        await database.commit(Changes().run(statement(text(fill.replace(":", r"\:")))))
        await database.commit(Changes().run(statement(text(f"ANALYZE {table}"))))
    named = list_parameters([f"pump-{number}" for number in range(MAX_LIST_VALUES)])
    asked: Mapping[Statement, Mapping[str, object]] = {
        hub_store.NAMES_OF_DEVICES: {"hub": "hub", "after": "pump-2", "limit": 100},
        hub_store.DEVICES_OFF: {"hub": "hub", "after": "pump-2", "limit": 100},
        hub_store.DEVICES_NAMED: {"hub": "hub", **named},
        refusal_store.SUBJECTS_PAGE: {"after": "pump-2", "limit": 20},
        dps_store.NAMES_ENROLLED: {"scope": "scope", "after": "pump-2", "limit": 100},
    }
    for one, said in asked.items():
        compiled = one.compiled("postgresql")
        given = {**compiled.fixed, **said}
        sql = compiled.sql
        for number, name in reversed(list(enumerate(compiled.order, 1))):
            value = given[name]
            sql = sql.replace(f"${number}", f"'{value}'" if isinstance(value, str) else str(value))
        explain = statement(text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.replace(":", r"\:")))
        (row,) = await database.all(explain)
        plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
        assert plan["Actual Rows"] > 0
        assert "Seq Scan" not in row["QUERY PLAN"], row["QUERY PLAN"]
    await database.close()
