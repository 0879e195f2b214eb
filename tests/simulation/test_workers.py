"""Several workers on one database, in virtual time: takeovers, deaths, stops, lost answers."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from birthmark.store import Database, open_database
from simulation.machine import Connection, Fleet
from simulation.virtual import Fate
from support.fakes import FakeClock

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def a_fleet(url: str, count: int = 3) -> AsyncIterator[Fleet]:
    databases: list[Database] = [await open_database(url, FakeClock(), worker=f"w{n}") for n in range(count)]
    fleet = Fleet(databases)
    try:
        for place in range(count):
            await fleet.start(place)
        await fleet.calm(3)
        assert all(worker is not None and worker.is_ready for worker in fleet.workers)
        yield fleet
        for place in range(count):
            await fleet.kill(place)
    finally:
        for database in databases:
            await database.close()


async def opened(fleet: Fleet, name: str, place: int, **options: object) -> Connection:
    connection = await fleet.connect(name, place, **options)  # type: ignore[arg-type] # by name
    assert connection is not None
    await fleet.until(lambda: connection.is_open or connection.is_over)
    assert connection.is_open
    return connection


async def subscribed(fleet: Fleet, name: str, place: int) -> Connection:
    connection = await opened(fleet, name, place)
    await fleet.subscribe(connection, "t/#")
    await fleet.until(lambda: connection.subscribed)
    return connection


async def test_a_message_reaches_a_session_on_another_worker(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        await subscribed(fleet, "sub", 0)
        publisher = await opened(fleet, "pub", 1, expiry_s=0, clean=True)
        await fleet.publish(publisher, "t/1", 3)
        await fleet.calm(3)
        assert fleet.client("pub").acknowledged == ["pub.0", "pub.1", "pub.2"]
        assert fleet.client("sub").got == ["pub.0", "pub.1", "pub.2"]


async def test_a_clean_session_on_another_worker_gets_it_too(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        hearer = await opened(fleet, "sub", 0, expiry_s=0, clean=True)
        await fleet.subscribe(hearer, "t/+")
        await fleet.until(lambda: hearer.subscribed)
        publisher = await opened(fleet, "pub", 1, expiry_s=0, clean=True)
        await fleet.publish(publisher, "t/1", 1)
        await fleet.calm(3)
        assert fleet.client("sub").got == ["pub.0"]


async def test_a_client_that_goes_to_another_worker_leaves_nothing_behind(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        first = await subscribed(fleet, "sub", 0)
        publisher = await opened(fleet, "pub", 2, expiry_s=0, clean=True)
        await fleet.publish(publisher, "t/1", 2)
        await fleet.calm(2)
        second = await opened(fleet, "sub", 1)
        assert first.is_over
        await fleet.publish(publisher, "t/1", 2)
        await fleet.calm(3)
        assert len(second.unacknowledged) == 4  # those of the first connection were not acknowledged
        fleet.check("sub", {"pub": fleet.client("pub").acknowledged})


async def test_a_dead_workers_sessions_go_on_elsewhere_within_two_seconds(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        await subscribed(fleet, "sub", 0)
        publisher = await opened(fleet, "pub", 1, expiry_s=0, clean=True)
        await fleet.publish(publisher, "t/1", 1)
        await fleet.calm(1)
        await fleet.kill(0)
        await fleet.publish(publisher, "t/1", 1)
        began = fleet.world.clock.monotonic()
        again = await fleet.connect("sub", 1)
        assert again is not None
        await fleet.until(lambda: again.is_open)
        assert fleet.world.clock.monotonic() - began <= 2.0
        await fleet.calm(8)
        assert fleet.client("pub").acknowledged == ["pub.0", "pub.1"]
        fleet.check("sub", {"pub": ["pub.0", "pub.1"]})


async def test_a_stopped_worker_that_wakes_up_does_nothing_more(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        await subscribed(fleet, "sub", 1)
        old = await opened(fleet, "pub", 0)
        fleet.world.stopped.add("w0.1")
        new = await fleet.connect("pub", 1)
        assert new is not None
        await fleet.until(lambda: new.is_open)
        await fleet.publish(old, "t/1", 1)  # it reads this from its socket before it knows
        fleet.world.stopped.clear()
        await fleet.calm(8)
        assert old.is_over
        assert fleet.client("pub").acknowledged == []
        assert fleet.client("sub").got == []
        fleet.check("sub", {})


async def test_an_answer_of_the_database_that_is_lost_costs_a_duplicate_at_most(database_url: str) -> None:
    async with a_fleet(database_url, 1) as fleet:
        await subscribed(fleet, "sub", 0)
        publisher = await opened(fleet, "pub", 0, expiry_s=0, clean=True)
        await fleet.publish(publisher, "t/1", 1)
        while not any(operation.what == "commit" for operation in fleet.world.ready()):
            await fleet.world.happen(fleet.world.ready()[0])
        commit = next(operation for operation in fleet.world.ready() if operation.what == "commit")
        await fleet.world.happen(commit, Fate.ANSWER_LOST)
        await fleet.calm(3)
        assert fleet.client("pub").acknowledged == []
        publisher = await opened(fleet, "pub", 0, expiry_s=0, clean=True)
        await fleet.publish(publisher, "t/1", 1)
        await fleet.calm(3)
        assert fleet.client("pub").acknowledged == ["pub.1"]
        assert fleet.client("sub").got == ["pub.0", "pub.1"]


async def test_a_revocation_is_confirmed_when_every_worker_has_ended_the_connection(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        await subscribed(fleet, "sub", 0)
        publisher = await opened(fleet, "pub", 1)
        await fleet.publish(publisher, "t/1", 1)
        await fleet.calm(1)
        await fleet.revoke("pub", 2)
        assert not fleet.revoked
        await fleet.until(lambda: "pub" in fleet.revoked)
        assert publisher.is_over
        again = await fleet.connect("pub", 1)
        assert again is not None
        await fleet.until(lambda: again.is_over)
        assert not again.is_open
        assert fleet.client("sub").got == ["pub.0"]


async def test_a_revocation_that_is_lost_on_its_way_is_told_again(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        publisher = await opened(fleet, "pub", 1)
        await fleet.revoke("pub", 2)
        for fate in (Fate.LOST, Fate.ANSWER_LOST):
            await until_asked(fleet, "confirm")
            for told in [one for one in fleet.world.ready() if one.what == "confirm"]:
                await fleet.world.happen(told, fate)
            assert not fleet.revoked
            assert publisher.is_over is (fate is Fate.ANSWER_LOST)
            await fleet.world.pass_time(0.3)
        await fleet.until(lambda: "pub" in fleet.revoked)


async def test_a_stopped_worker_holds_a_revocation_up_until_its_lease_ends_and_does_nothing_then(
    database_url: str,
) -> None:
    async with a_fleet(database_url) as fleet:
        await subscribed(fleet, "sub", 0)
        publisher = await opened(fleet, "pub", 1)
        fleet.world.stopped.add("w1.2")
        began = fleet.world.clock.monotonic()
        await fleet.revoke("pub", 2)
        await fleet.until(lambda: "pub" in fleet.revoked)
        assert 0.7 <= fleet.world.clock.monotonic() - began <= 2.5
        assert not publisher.is_over  # it does not know yet
        await fleet.publish(publisher, "t/1", 1)
        fleet.world.stopped.clear()
        await fleet.calm(8)
        assert publisher.is_over
        assert fleet.client("pub").acknowledged == []
        assert fleet.client("sub").got == []


async def test_a_dead_worker_holds_a_revocation_up_until_its_lease_ends(database_url: str) -> None:
    async with a_fleet(database_url) as fleet:
        await opened(fleet, "pub", 1)
        await fleet.kill(1)
        began = fleet.world.clock.monotonic()
        await fleet.revoke("pub", 2)
        await fleet.until(lambda: "pub" in fleet.revoked)
        assert 0.7 <= fleet.world.clock.monotonic() - began <= 2.5


async def until_asked(fleet: Fleet, what: str) -> None:
    """Let everything else happen until somebody asks for that."""
    for _ in range(200):
        ready = fleet.world.ready()
        if any(one.what == what for one in ready):
            return
        if ready:
            await fleet.world.happen(ready[0])
        else:
            await fleet.world.pass_time(0.05)
    raise AssertionError(f"nobody asks for {what}")
