"""How many devices one person may take away within a day, on both engines."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import select

from birthmark.actor import Actor
from birthmark.auth.principals import MACHINE, Caller
from birthmark.errors import ForbiddenError
from birthmark.iam.device_removal_quota import TooManyTakenError, inviter_of
from birthmark.iam.model import UserRole
from birthmark.iam.service import People
from birthmark.store import Changes, Database, open_database, statement
from birthmark.store.core_tables import audit
from support.fakes import FakeClock, SeededEntropy

ALL = statement(select(audit.c.action))
pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await open_database(database_url, FakeClock())
    yield database
    await database.close()


async def of_two(database: Database) -> tuple[People, FakeClock, Caller, Caller]:
    """Return people of whom each may take two away within a day, and two of them."""
    clock = FakeClock()
    people = People(database, clock, SeededEntropy(), 2)
    await people.load()
    callers = []
    for name in ("anna", "ben"):
        await people.create(name, UserRole.ADMIN, "*", actor=MACHINE.actor)
        shown = await people.add_token(name, "", timedelta(days=30), None, None, actor=MACHINE.actor)
        callers.append(people.caller(shown.text, "192.0.2.1"))
    return people, clock, callers[0], callers[1]


async def take(database: Database, actor: str, action: str = "iothub.device_delete", **detail: object) -> None:
    await database.commit(Changes().audit(actor, action, "pump-1", **detail))


async def test_one_person_takes_so_many_away_and_another_as_many(database: Database) -> None:
    _, _, anna, ben = await of_two(database)
    for action in ("iothub.device_delete", "device.revoke"):
        await take(database, anna.actor, action)
    with pytest.raises(TooManyTakenError):
        await take(database, anna.actor, "awsiot.thing_delete")
    await take(database, ben.actor)


@pytest.mark.parametrize("action", ["dps.release", "dps.registration_delete"])
async def test_a_registration_that_goes_takes_its_device_away(database: Database, action: str) -> None:
    _, _, anna, _ = await of_two(database)
    for _ in range(2):
        await take(database, anna.actor, action)
    with pytest.raises(TooManyTakenError):
        await take(database, anna.actor, action)


async def test_what_can_be_undone_is_not_counted(database: Database) -> None:
    _, _, anna, _ = await of_two(database)
    for _ in range(3):
        await take(database, anna.actor, "iothub.device_put")
        await take(database, anna.actor, "awsiot.certificate_status", status="INACTIVE")
    for _ in range(2):
        await take(database, anna.actor, "awsiot.certificate_status", status="REVOKED")
    with pytest.raises(TooManyTakenError):
        await take(database, anna.actor, "awsiot.certificate_status", status="REVOKED")


async def test_who_holds_the_data_directory_and_what_is_no_person_is_not_counted(database: Database) -> None:
    await of_two(database)
    for actor in (MACHINE.actor, Actor("operator"), "iothubowner", "device"):
        for _ in range(3):
            await take(database, actor)


async def test_a_day_later_there_are_as_many_again(database: Database) -> None:
    people, clock, anna, _ = await of_two(database)
    shown = await people.add_token("anna", "", timedelta(days=30), None, None, actor=MACHINE.actor)
    for _ in range(2):
        await take(database, anna.actor)
    clock.move(timedelta(hours=23))
    with pytest.raises(TooManyTakenError):
        await take(database, people.caller(shown.text, "").actor)
    clock.move(timedelta(hours=2))
    await take(database, people.caller(shown.text, "").actor)


async def test_somebody_else_allows_more_and_nobody_does_for_himself(database: Database) -> None:
    people, _, anna, ben = await of_two(database)
    for _ in range(2):
        await take(database, anna.actor)
    with pytest.raises(ForbiddenError):
        await people.allow("anna", 1, by=anna)
    assert await people.allow("anna", 1, by=ben) == 1
    await take(database, anna.actor)
    with pytest.raises(TooManyTakenError):
        await take(database, anna.actor)
    assert await people.allow("ben", 3, by=MACHINE) == 5


async def test_who_was_let_in_by_a_person_allows_nothing(database: Database) -> None:
    people, _, anna, _ = await of_two(database)
    await people.create("carl", UserRole.ADMIN, "*", actor=anna.actor)
    shown = await people.add_token("carl", "", timedelta(days=30), None, None, actor=anna.actor)
    with pytest.raises(ForbiddenError):
        await people.allow("anna", 1, by=people.caller(shown.text, ""))


async def let_in(people: People, name: str, by: Caller) -> Caller:
    """Return a user whom a person made and signed in as."""
    await people.create(name, UserRole.ADMIN, "*", actor=by.actor)
    code, _ = await people.invite(name, actor=by.actor, by=inviter_of(by.actor, by.let_in_by))
    return people.caller((await people.redeem(code, "", "192.0.2.1")).text, "192.0.2.1")


async def test_who_signs_in_as_others_takes_no_more_by_it(database: Database) -> None:
    people, _, anna, _ = await of_two(database)
    first = await let_in(people, "carl", anna)
    second = await let_in(people, "dora", first)
    for caller in (anna, first):
        await take(database, caller.actor)
    with pytest.raises(TooManyTakenError) as refused:
        await take(database, second.actor)
    assert refused.value.facts["user"] == "anna"


async def test_a_user_that_is_removed_and_made_again_takes_no_more_by_it(database: Database) -> None:
    people, clock, anna, ben = await of_two(database)
    for _ in range(2):
        await take(database, anna.actor)
    await people.remove("anna", actor=ben.actor)
    await people.create("anna", UserRole.ADMIN, "*", actor=MACHINE.actor)
    shown = await people.add_token("anna", "", timedelta(days=30), None, None, actor=MACHINE.actor)
    with pytest.raises(TooManyTakenError):
        await take(database, people.caller(shown.text, "").actor)
    clock.move(timedelta(days=1, minutes=1))
    await take(database, people.caller(shown.text, "").actor)


async def test_what_is_refused_takes_nothing(database: Database) -> None:
    _, _, anna, _ = await of_two(database)
    for _ in range(2):
        await take(database, anna.actor)
    with pytest.raises(TooManyTakenError):
        await database.commit(Changes().audit("operator", "one.more", "x").audit(anna.actor, "device.revoke", "pump-1"))
    rows = await database.all(ALL)
    assert "one.more" not in {row["action"] for row in rows}
