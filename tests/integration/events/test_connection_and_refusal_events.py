"""What is noticed beside the audit trail: who came and went, and who was refused, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from birthmark.audit.signed_heads import AuditKey
from birthmark.errors import UnavailableError
from birthmark.events import connection_and_refusal_event_writer, store
from birthmark.events.connection_and_refusal_event_writer import KEEP, Notices
from birthmark.events.event_types import event_of
from birthmark.events.merged_event_feed import Feed
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await open_database(database_url, FakeClock(), worker="main", signer=AuditKey("seed"))
    yield database
    await database.close()


async def told(database: Database, places: dict[str, int] | None = None) -> list[tuple[str, str]]:
    found = [event_of(one, "x") for one, _ in await Feed(database).after(places or {})]
    return [(event["type"].removeprefix("birthmark.device."), event["subject"]) for event in found]


async def test_who_comes_goes_and_is_refused_is_told_in_order(database: Database) -> None:
    noticing = Notices(database, FakeClock(), "main")
    noticing.came("hub/a", "pump-1", "192.0.2.1")
    noticing.record_disconnection("hub/a", "pump-1", CloseReason.DISCONNECT)
    noticing.came("hub/a", "pump-1", "192.0.2.1")
    noticing.record_disconnection("hub/a", "pump-1", CloseReason.KEEP_ALIVE)
    noticing.record_refusal("dps.not_enrolled", "192.0.2.1", "t-1", {"registration_id": "pump-2"})
    await noticing.write_pending()
    ways = ["connected", "disconnected", "connected", "lost", "refused"]
    assert await told(database) == [*((way, "pump-1") for way in ways[:4]), ("refused", "pump-2")]
    events = [event_of(one, "x") for one, _ in await Feed(database).after({})]
    assert events[0]["data"] == {"action": "device.connect", "actor": "server", "place": "hub/a", "from": "192.0.2.1"}
    assert events[3]["data"]["reason"] == "keep_alive"
    assert events[4]["data"]["tracking_id"] == "t-1"


async def test_one_whose_next_connection_came_is_not_gone_and_a_nameless_stranger_is_nobody(database: Database) -> None:
    noticing = Notices(database, FakeClock(), "main")
    noticing.record_disconnection("hub/a", "pump-1", CloseReason.TAKEN_OVER)
    noticing.record_refusal("mqtt.packet_invalid", "192.0.2.1", "t-1", {"sni": "x"})
    await noticing.write_pending()
    assert await told(database) == []


async def test_it_is_told_with_the_audit_trail_by_its_time_and_goes_on_from_a_place(database: Database) -> None:
    clock = FakeClock()
    noticing = Notices(database, clock, "main")
    await database.commit(Changes().audit("operator", "iothub.device_put", "pump-1"))
    noticing.came("hub/a", "pump-1", "")
    await noticing.write_pending()
    place = await Feed(database).end()
    assert len(place) == 2
    noticing.record_disconnection("hub/a", "pump-1", CloseReason.LOST)
    await noticing.write_pending()
    assert [way for way, _ in await told(database)] == ["changed", "connected", "lost"]
    assert await told(database, dict(place)) == [("lost", "pump-1")]
    actors = [event_of(one, "x")["data"]["actor"] for one, _ in await Feed(database).after({})]
    assert actors == ["operator", "server", "server"]


async def test_what_could_not_be_written_is_written_when_the_database_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticing, commit, fails = Notices(database, FakeClock(), "main"), database.commit, [True, False, True, False]

    async def fail_by_turns(changes: Changes) -> None:
        if fails and fails.pop(0):
            raise UnavailableError
        await commit(changes)

    monkeypatch.setattr(type(database), "commit", lambda _self, changes: fail_by_turns(changes))
    noticing.came("hub/a", "pump-1", "")
    for _ in range(4):
        with suppress(UnavailableError):
            await noticing.write_pending()
    assert await told(database) == [("connected", "pump-1")]


async def test_a_worker_of_the_same_name_goes_on_where_the_one_before_was(database: Database) -> None:
    for number in range(2):
        noticing = Notices(database, FakeClock(), "main")
        noticing.came("hub/a", f"pump-{number}", "")
        await noticing.write_pending()
    assert await told(database) == [("connected", "pump-0"), ("connected", "pump-1")]


async def test_two_processes_of_one_name_write_no_row_twice(database: Database) -> None:
    both = [Notices(database, FakeClock(), "main") for _ in range(2)]
    for number in range(3):
        for noticing in both:
            noticing.came("hub/a", f"pump-{number}", "")
            with suppress(Exception):
                await noticing.write_pending()
    for noticing in both:
        await noticing.write_pending()
    assert len(await told(database)) == 6


async def test_of_a_storm_the_rest_is_left_out_and_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_and_refusal_event_writer, "MAX_WAITING", 2)
    noticing = Notices(database, FakeClock(), "main")
    for number in range(5):
        noticing.came("hub/a", f"pump-{number}", "")
    await noticing.write_pending()
    noticing.came("hub/a", "pump-9", "")
    await noticing.write_pending()
    found = [event_of(one, "x") for one, _ in await Feed(database).after({})]
    assert [event["data"].get("missed") for event in found] == [None, None, 3]


async def test_so_many_are_kept_of_a_worker_however_fast_they_come(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_and_refusal_event_writer, "MOST", 3)
    noticing = Notices(database, FakeClock(), "main")
    for number in range(1000):
        noticing.came("hub/a", f"pump-{number}", "")
    await noticing.write_pending()
    assert await told(database) == [("connected", f"pump-{number}") for number in (997, 998, 999)]


async def test_it_is_kept_for_a_week(database: Database) -> None:
    clock = FakeClock()
    noticing = Notices(database, clock, "main")
    noticing.came("hub/a", "old", "")
    await noticing.write_pending()
    clock.move(KEEP + timedelta(seconds=1))
    for number in range(3):
        noticing.came("hub/a", f"pump-{number}", "")
    await noticing.write_pending()
    await noticing._prune()
    assert await told(database) == [("connected", f"pump-{number}") for number in range(3)]
    assert (await database.one(store.NOTICED_UPTO, chain="~main"))["seq"] == 4  # type: ignore[index]  # it is there


async def test_it_writes_by_itself_what_was_noticed(database: Database) -> None:
    noticing = Notices(database, FakeClock(), "main")
    writing = asyncio.create_task(noticing.keep_writing())
    noticing.came("hub/a", "pump-1", "")
    async with asyncio.timeout(10):
        while not await told(database):
            await asyncio.sleep(0.05)
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
