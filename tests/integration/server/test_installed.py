"""What a database knows of the workers that write it."""

import pytest

from birthmark.server.installed import forget_outboxes
from birthmark.store import Changes, open_database
from birthmark.store.schema import COUNT_OUTBOX
from fakes import FakeClock
from store_table import ThingTold

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
