"""A value that cannot be kept, an engine that goes away: only whom it concerns is told, and the rest goes on."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from birthmark.bus import LocalBus
from birthmark.errors import InvalidRequestError, UnavailableError
from birthmark.store import Changes, Database, Statement, open_database
from birthmark.store.core_tables import outbox
from birthmark.store.database import Row
from support.fakes import FakeClock
from support.store.between import lose_the_next_answer
from support.store.store_table import ADD, ALL, GET, OtherTold, ThingTold, a_database

pytestmark = pytest.mark.integration

UNKEEPABLE = [
    pytest.param({"id": "half a \ud800 character", "n": 1}, id="surrogate"),
    pytest.param({"id": "large", "n": 2**63}, id="65 bits"),
    pytest.param({"id": "large", "n": 10**400}, id="huge"),
]


@pytest.mark.parametrize("values", UNKEEPABLE)
async def test_a_value_that_cannot_be_kept_fails_only_its_own_change(database_url: str, values: dict[str, Any]) -> None:
    async with a_database(database_url) as database:
        outcomes = await asyncio.wait_for(
            asyncio.gather(
                database.commit(Changes().run(ADD, id="before", n=1)),
                database.commit(Changes().run(ADD, **values).audit("eve", "thing.add", "a")),
                database.commit(Changes().run(ADD, id="after", n=1).audit("ann", "thing.add", "after")),
                return_exceptions=True,
            ),
            5,
        )
        assert outcomes[0] is outcomes[2] is None
        assert isinstance(outcomes[1], InvalidRequestError)
        assert [row["id"] for row in await database.all(ALL)] == ["after", "before"]


async def test_an_event_that_cannot_be_kept_fails_only_its_own_change(database_url: str) -> None:
    async with a_database(database_url) as database:
        with pytest.raises(InvalidRequestError):
            await database.commit(Changes().event(ThingTold("half a \ud800 character")))
        outcomes = await asyncio.gather(
            database.commit(Changes().event(ThingTold("half a \ud800 character"))),
            database.commit(Changes().run(ADD, id="after", n=1).event(ThingTold("kept"))),
            return_exceptions=True,
        )
        assert isinstance(outcomes[0], InvalidRequestError)
        assert outcomes[1] is None
        assert [row["seq"] for row in await database.events_after(0, 10)] == [1]


async def test_a_nul_character_never_fails_the_neighbors(database_url: str) -> None:
    async with a_database(database_url) as database:
        outcomes = await asyncio.gather(
            database.commit(Changes().run(ADD, id="before", n=1)),
            database.commit(Changes().run(ADD, id="a\0b", n=1)),  # SQLite keeps it, PostgreSQL does not
            return_exceptions=True,
        )
        assert outcomes[0] is None
        assert outcomes[1] is None or isinstance(outcomes[1], InvalidRequestError)


async def test_looking_for_what_cannot_be_kept_is_a_refusal(database_url: str) -> None:
    async with a_database(database_url) as database:
        with pytest.raises(InvalidRequestError):
            await database.one(GET, id="half a \ud800 character")


async def test_audited_writes_go_on_after_a_commit_whose_answer_was_lost(postgres_url: str) -> None:
    """PostgreSQL restarts between our COMMIT and its answer: the row is there, and we were told that it is not."""

    async with a_database(postgres_url) as database:
        await database.commit(Changes().audit("ann", "thing.look", "1"))
        lose_the_next_answer(database)
        with pytest.raises(UnavailableError):
            await database.commit(Changes().audit("ann", "thing.look", "2"))
        await retried(database, Changes().audit("ann", "thing.look", "3"))


async def test_events_are_handed_on_after_the_database_was_away(postgres_url: str) -> None:
    async with a_database(postgres_url) as database:
        heard: list[str] = []
        bus = LocalBus(database)
        bus.on(ThingTold, lambda event: heard.append(event.word))
        bus.start()
        await retried(database, Changes().event(ThingTold("before")))
        await until(lambda: heard == ["before"])
        real = database.events_after
        failures = iter([True, True])

        async def away(last: int, limit: int) -> object:
            if next(failures, False):
                raise UnavailableError
            return await real(last, limit)

        database.events_after = away  # type: ignore[assignment,method-assign]  # one engine's own
        await database.commit(Changes().event(ThingTold("after")))
        await until(lambda: heard == ["before", "after"])
        await bus.stop()


async def test_events_that_were_handed_on_are_not_read_again(database_url: str) -> None:
    async with a_database(database_url) as database:
        heard: list[str] = []
        bus, real = LocalBus(database), database.events_after
        reads: list[int] = []

        async def counted(last: int, limit: int) -> Sequence[Row]:
            reads.append(last)
            if len(reads) == 1:
                await database.commit(Changes().event(ThingTold("while it is read")))
            return await real(last, limit)

        database.events_after = counted  # type: ignore[method-assign]  # one engine's own
        bus.on(ThingTold, lambda event: heard.append(event.word))
        bus.start()
        await until(lambda: len(reads) == 2)
        for word in ("a", "b", "c"):
            await database.commit(Changes().event(ThingTold(word)))
        await until(lambda: heard == ["while it is read", "a", "b", "c"])
        assert len(reads) == 2, "what an earlier process left, and that there is no more of it"
        assert [row["seq"] for row in await real(0, 10)] == [4], "what was handed on before is discarded"
        await bus.stop()


async def test_an_event_that_nobody_can_read_does_not_end_the_bus(tmp_path: Path) -> None:
    async with a_database(f"sqlite:///{tmp_path}/one.db") as database:
        await database.commit(Changes().event(ThingTold("before")))
        broken = Statement(lambda _engine: update(outbox).values(body='{"kind":"test.thing_told","word":1}'))
        await database.commit(Changes().run(broken).event(ThingTold("after")).event(OtherTold()))
        heard: list[str] = []
        bus = LocalBus(database)
        bus.on(ThingTold, lambda event: heard.append(event.word))
        bus.start()
        await until(lambda: heard == ["after"])
        await bus.stop()


async def test_a_locked_database_is_unavailable_and_then_goes_on(tmp_path: Path) -> None:
    async with a_database(f"sqlite:///{tmp_path}/one.db") as database:
        database._writer.execute("PRAGMA busy_timeout=50")  # type: ignore[attr-defined]  # one engine's own
        other = sqlite3.connect(tmp_path / "one.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError):
            await database.commit(Changes().run(ADD, id="a", n=1).audit("ann", "thing.add", "a"))
        other.execute("ROLLBACK")
        other.close()
        await database.commit(Changes().run(ADD, id="a", n=1).audit("ann", "thing.add", "a"))


async def test_a_read_that_fails_is_unavailable(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/one.db", FakeClock())
    try:
        with pytest.raises(UnavailableError):
            await database.one(GET, id="a")  # the table was never made
    finally:
        await database.close()


async def retried(database: Database, changes: Changes) -> None:
    for _ in range(10):
        try:
            return await database.commit(changes)
        except UnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError("the database did not come back")


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]  # one engine's own
            await asyncio.sleep(0.01)


async def test_a_database_whose_directory_is_gone_takes_nothing_of_devices_and_says_why(tmp_path: Path) -> None:
    (place := tmp_path / "data").mkdir()
    database = await open_database(f"sqlite:///{place}/x.db", clock := FakeClock())
    assert database.find_disk_full_error() is None
    place.rename(tmp_path / "away")
    clock.move(timedelta(seconds=1))
    refused = database.find_disk_full_error()
    assert refused is not None
    assert "no such file" in refused.explain_cause().lower()
    await database.close()
