"""The queue of letters that did not go out at once: no lane keeps another from its turn."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from birthmark.errors import BirthmarkError
from birthmark.message_routing.delivery_model import Delivery
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.message_routing.sinks.errors import NotTakenError
from birthmark.message_routing.store import PORTION
from birthmark.store import Changes, open_database
from birthmark.supervised_tasks import cancel_and_wait, start_supervised
from support.fakes import FakeClock

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
MANY = 300
"""More than a look at the database finds at once."""


class Receivers:
    """All are away but one."""

    is_quick = False

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        if letters[0].lane.startswith("good"):
            self.taken += [one.lane for one in letters]
            return [None for _ in letters]
        return [NotTakenError(receiver=letters[0].lane, reason="it is away") for _ in letters]


async def nobody_hears(_letter: Delivery, _error: BirthmarkError) -> None: ...


async def test_many_lanes_whose_receivers_are_away_keep_no_other_from_its_turn(database_url: str) -> None:
    clock, receivers = FakeClock(), Receivers()
    database = await open_database(database_url, clock)
    queue = Queue(database, clock)
    queue.serve({"x": receivers}, nobody_hears)
    changes = Changes()
    for number in range(MANY):
        for letter in range(PORTION + 1):  # a portion is tried and waits, the last one stays due
            lane = f"away-{number:03}/0"
            queue.add(changes, f"{lane}-{letter}", Delivery(lane, "x", {}, b"", {}))
    queue.add(changes, "last", Delivery("good/0", "x", {}, b"", {}))
    await database.commit(changes)
    running = start_supervised("the queue", queue.keep_running)
    try:
        async with asyncio.timeout(30):
            while not receivers.taken:
                clock.move(timedelta(milliseconds=1))
                queue.wake()
                await asyncio.sleep(0.01)
    finally:
        await cancel_and_wait(running)
        await database.close()
    assert receivers.taken == ["good/0"]
