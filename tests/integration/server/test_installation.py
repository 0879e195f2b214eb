"""What a database knows of the workers that write it."""

import pytest

from birthmark.server.database_installation_facts import ensure_worker_number, forget_outboxes
from birthmark.server.settings import ConfigInvalidError
from birthmark.store import Changes, insert, open_database
from birthmark.store.core_tables import COUNT_OUTBOX, server_facts
from support.fakes import FakeClock
from support.store.store_table import ThingTold

pytestmark = pytest.mark.integration


async def test_the_events_of_a_worker_that_is_no_more_are_forgotten_and_those_of_others_stay(database_url: str) -> None:
    for worker in ("w1", "w2", "w3"):
        database = await open_database(database_url, FakeClock(), worker=worker)
        await database.commit(Changes().event(ThingTold(worker)))
        await database.close()
    database = await open_database(database_url, FakeClock(), worker="w1")
    await forget_outboxes(database, lambda name: name not in {"w1", "w2"})
    assert [row["total"] for row in await database.all(COUNT_OUTBOX)] == [2]
    assert [row["seq"] for row in await database.events_after(0, 10)] == [1]
    await database.close()


async def test_a_worker_for_which_no_number_is_left_is_told(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), worker="m65-w1")
    changes, add = Changes(), insert(server_facts)
    for number in range(1, 255):
        changes.run(add, name=f"server.worker.{number}", value=f"m1-w{number}")
    await database.commit(changes)
    try:
        assert await ensure_worker_number(database) == 255
    finally:
        await database.close()
    database = await open_database(database_url, FakeClock(), worker="m66-w1")
    try:
        with pytest.raises(ConfigInvalidError) as refused:
            await ensure_worker_number(database)
    finally:
        await database.close()
    assert "m66-w1 is the 256th name" in refused.value.explain_cause()
