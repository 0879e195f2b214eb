"""What a user leaves is read from the audit trail page by page, however many rows stand before it."""

from pathlib import Path

from birthmark.iam.lasting_access_grants import list_leftovers
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock

PAGE = 250


async def a_trail(tmp_path: Path, *actions: tuple[str, str]) -> Database:
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    changes = Changes()
    for action, subject in actions:
        changes = changes.audit("user:anna", action, subject, kind="individual")
    await database.commit(changes)
    return database


async def left(database: Database) -> list[str]:
    found, after = list[str](), ""
    while True:
        page = await list_leftovers(database, "anna", after=after)
        found += [row["subject"] for row in page.items]
        if page.last is None:
            return found
        after = page.last


async def test_what_was_made_before_ten_thousand_other_actions_is_found(tmp_path: Path) -> None:
    others = [("people.sign_in", f"{number}") for number in range(10_001)]
    database = await a_trail(tmp_path, ("awsiot.rule_create", "first"), *others, ("awsiot.rule_create", "last"))
    assert await left(database) == ["last", "first"]


async def test_each_of_many_things_is_found(tmp_path: Path) -> None:
    rules = [("awsiot.rule_create", f"rule-{number}") for number in range(PAGE + 1)]
    assert sorted(await left(await a_trail(tmp_path, *rules))) == sorted(subject for _, subject in rules)


async def test_one_thing_is_named_once_in_a_page(tmp_path: Path) -> None:
    assert await left(await a_trail(tmp_path, *[("awsiot.rule_replace", "rule")] * 3)) == ["rule"]


async def test_a_row_that_lacks_a_fact_has_no_command(tmp_path: Path) -> None:
    page = await list_leftovers(await a_trail(tmp_path, ("iothub.route_add", "of an earlier release")), "anna")
    assert [(row["subject"], row["command"]) for row in page.items] == [("of an earlier release", "")]


async def test_what_is_of_one_device_alone_says_so(tmp_path: Path) -> None:
    database = await a_trail(tmp_path, ("iothub.device_put", "pump-1"), ("awsiot.rule_create", "rule"))
    page = await list_leftovers(database, "anna")
    assert {row["subject"]: row["is_of_a_device"] for row in page.items} == {"pump-1": True, "rule": False}
