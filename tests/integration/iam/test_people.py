"""People on both databases: on record, invited, with roles and tokens that count at once and end at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.actor import Actor
from birthmark.auth.permission_statements import Right
from birthmark.errors import BirthmarkError
from birthmark.iam import service
from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.iam.model import UserRole
from birthmark.iam.service import (
    GrantMissingError,
    InvitationRefusedError,
    People,
    PlaceInvalidError,
    TokenLifetimeError,
    TokenMissingError,
    TokenRefusedError,
    UserExistsError,
    UserMissingError,
)
from birthmark.store import Database, open_database
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
ME: Any = {"actor": "operator"}
HERE = "192.0.2.7"


@dataclass
class World:
    people: People
    clock: FakeClock
    database: Database

    async def signed_in(self, name: str = "anna") -> str:
        code, _ = await self.people.invite(name, **ME)
        return (await self.people.redeem(code, "laptop", HERE)).text

    def refuses(self, text: str) -> bool:
        try:
            self.people.caller(text, HERE)
        except TokenRefusedError:
            return True
        return False


@asynccontextmanager
async def people_of(url: str, seed: int = 0) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(url, clock)
    people = People(database, clock, SeededEntropy(seed))
    await people.load()
    try:
        yield World(people, clock, database)
    finally:
        await people.stop()
        await database.close()


async def test_who_redeems_an_invitation_is_known_by_the_token(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.VIEWER, "hub/birthmark", **ME)
        caller = world.people.caller(await world.signed_in(), HERE)
        assert (caller.user, caller.actor, caller.is_narrowed) == ("anna", "user:anna", False)
        assert caller.actor.told["from"] == HERE
        assert caller.rights.allow(Right.READ, "hub/birthmark")
        assert not caller.rights.allow(Right.READ, "hub/other")
        assert not caller.rights.allow(Right.OPERATE, "hub/birthmark")


async def test_work_goes_on_while_its_user_has_the_rights(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.OPERATOR, "hub/main", **ME)
        await world.signed_in()
        rights = (Right.ENROLL, Right.REVOKE)
        made = world.people.actor_now("user:anna", rights, "hub/main")
        assert isinstance(made, Actor)
        assert (made, made.takes is None) == ("user:anna", False)
        assert world.people.actor_now("policy:iothubowner", rights, "hub/main") == "policy:iothubowner"
        for rest in (Right.TRUST, Right.READ):
            with pytest.raises(RightMissingError):
                world.people.actor_now("user:anna", (rest,), "hub/other" if rest is Right.READ else "hub/main")
        await world.people.remove("anna", **ME)
        with pytest.raises(RightMissingError):
            world.people.actor_now("user:anna", rights, "hub/main")


async def test_what_is_kept_is_there_after_a_restart(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.OPERATOR, "*", **ME)
        text = await world.signed_in()
    async with people_of(database_url, seed=1) as again:
        assert again.people.caller(text, HERE).rights.allow(Right.OPERATE, "hub/x")
        assert [one.label for one in again.people.tokens("anna")] == ["laptop"]


async def test_an_invitation_is_good_once_also_for_two_at_once(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", None, "*", **ME)
        code, _ = await world.people.invite("anna", **ME)
        tries = [world.people.redeem(code, "", HERE) for _ in range(8)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in found) == 1
        assert all(isinstance(one, InvitationRefusedError) for one in found if isinstance(one, BaseException))


async def test_a_new_invitation_replaces_the_one_before_and_each_ends(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", None, "*", **ME)
        first, _ = await world.people.invite("anna", **ME)
        second, ends = await world.people.invite("anna", **ME)
        with pytest.raises(InvitationRefusedError):
            await world.people.redeem(first, "", HERE)
        world.clock.move(ends - world.clock.now())
        with pytest.raises(InvitationRefusedError):
            await world.people.redeem(second, "", HERE)


@pytest.mark.parametrize("code", ["", "bmi_", "bmi_00", "x" * 5000, "\0", "\ud800"[:0] + "é"])
async def test_no_other_code_is_an_invitation(tmp_path: Any, code: str) -> None:
    async with people_of(f"sqlite:///{tmp_path / 'people.db'}") as world:
        with pytest.raises(InvitationRefusedError):
            await world.people.redeem(code, "", HERE)


async def test_who_is_removed_may_nothing_from_then_on(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.ADMIN, "*", **ME)
        text = await world.signed_in()
        code, _ = await world.people.invite("anna", **ME)
        await world.people.remove("anna", **ME)
        assert world.refuses(text)
        with pytest.raises(InvitationRefusedError):
            await world.people.redeem(code, "", HERE)
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)  # another person of that name
        assert world.refuses(text)
        assert world.people.tokens("anna") == []


async def test_a_role_that_is_taken_counts_at_once(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        await world.people.grant("anna", UserRole.OPERATOR, "hub/a", **ME)
        await world.people.grant("anna", UserRole.OPERATOR, "hub/a", **ME)
        text = await world.signed_in()
        assert world.people.caller(text, HERE).rights.allow(Right.OPERATE, "hub/a")
        await world.people.revoke("anna", UserRole.OPERATOR, "hub/a", **ME)
        rights = world.people.caller(text, HERE).rights
        assert (rights.allow(Right.OPERATE, "hub/a"), rights.allow(Right.READ, "hub/a")) == (False, True)
        with pytest.raises(GrantMissingError):
            await world.people.revoke("anna", UserRole.OPERATOR, "hub/a", **ME)


async def test_a_token_ends_by_time_and_by_being_taken_back(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        short = await world.people.add_token("anna", "ci", timedelta(hours=1), None, None, **ME)
        long = await world.people.add_token("anna", "ci", timedelta(days=2), UserRole.VIEWER, "hub/a", **ME)
        assert world.people.caller(long.text, HERE).is_narrowed
        world.clock.move(timedelta(hours=1))
        assert (world.refuses(short.text), world.refuses(long.text)) == (True, False)
        with pytest.raises(TokenMissingError):
            await world.people.remove_token(long.token.id, of="bert", **ME)
        await world.people.remove_token(long.token.id, of="anna", **ME)
        assert world.refuses(long.text)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=59), timedelta(days=367), timedelta(-1)])
async def test_a_token_lives_a_minute_to_a_year(tmp_path: Any, lifetime: timedelta) -> None:
    async with people_of(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        with pytest.raises(TokenLifetimeError):
            await world.people.add_token("anna", "", lifetime, None, None, **ME)


async def test_one_user_has_so_many_tokens_and_no_more(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MOST_OF_ONE", 3)
    async with people_of(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        for _ in range(3):
            await world.people.add_token("anna", "", timedelta(days=1), None, None, **ME)
        with pytest.raises(service.TooManyTokensError):
            await world.people.add_token("anna", "", timedelta(days=1), None, None, **ME)


async def test_tokens_that_are_made_and_taken_back_again_and_again_are_counted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_MOST_OF_ONE", 3)
    async with people_of(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        await world.people.create("bert", UserRole.VIEWER, "*", **ME)
        for _ in range(3):
            made = await world.people.add_token("anna", "", timedelta(days=1), None, None, **ME)
            await world.people.remove_token(made.token.id, of="anna", **ME)
        with pytest.raises(service.TooManyTokensError):
            await world.people.add_token("anna", "", timedelta(days=1), None, None, **ME)
        await world.people.add_token("bert", "", timedelta(days=1), None, None, **ME)
        world.clock.move(timedelta(hours=9))
        await world.people.add_token("anna", "", timedelta(days=1), None, None, **ME)


async def test_tokens_that_have_ended_keep_nobody_out_and_go_away(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_MOST_OF_ONE", 3)
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        for _ in range(3):
            await world.people.add_token("anna", "", timedelta(hours=1), None, None, **ME)
        world.clock.move(timedelta(hours=1))
        text = await world.signed_in()
        assert [one.id for one in world.people.tokens()] == [text.split("_")[1]]


async def test_a_token_for_one_place_goes_no_further_also_without_a_role(tmp_path: Any) -> None:
    async with people_of(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.people.create("anna", UserRole.ADMIN, "*", **ME)
        made = await world.people.add_token("anna", "", timedelta(hours=1), None, "hub/a", **ME)
        caller = world.people.caller(made.text, HERE)
        assert caller.is_narrowed
        assert caller.rights.allow(Right.ADMINISTER, "hub/a")
        assert not caller.rights.allow(Right.READ, "hub/b")


async def test_a_text_that_is_nearly_a_token_is_none(tmp_path: Any) -> None:
    async with people_of(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.people.create("anna", UserRole.ADMIN, "*", **ME)
        text = await world.signed_in()
        for wrong in ("", "bmt", text[:-1], f"{text}0", text.upper(), text.replace("bmt", "bmi"), text[:17], "é" * 99):
            assert world.refuses(wrong), wrong


async def test_nobody_is_made_twice_given_a_role_nowhere_or_found_who_is_not_there(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.VIEWER, "*", **ME)
        refused: list[tuple[type[BirthmarkError], Any]] = [
            (UserExistsError, world.people.create("anna", None, "*", **ME)),
            (PlaceInvalidError, world.people.create("bert", UserRole.VIEWER, "hub/*", **ME)),
            (service.NameReservedError, world.people.create("operator", UserRole.VIEWER, "*", **ME)),
            (service.NameReservedError, world.people.create("Server", UserRole.VIEWER, "*", **ME)),
            (PlaceInvalidError, world.people.grant("anna", UserRole.VIEWER, "nowhere", **ME)),
            (UserMissingError, world.people.grant("bert", UserRole.VIEWER, "*", **ME)),
            (UserMissingError, world.people.invite("bert", **ME)),
            (UserMissingError, world.people.remove("bert", **ME)),
            (UserMissingError, world.people.add_token("bert", "", timedelta(days=1), None, None, **ME)),
            (TokenMissingError, world.people.remove_token("0", of=None, **ME)),
        ]
        for kind, doing in refused:
            with pytest.raises(kind):
                await doing
        assert [one.name for one in world.people.all()] == ["anna"]


async def test_two_that_make_the_same_user_make_one(database_url: str) -> None:
    async with people_of(database_url) as world, people_of(database_url, seed=1) as other:
        made = await asyncio.gather(
            world.people.create("anna", UserRole.VIEWER, "*", **ME),
            other.people.create("anna", UserRole.ADMIN, "*", **ME),
            return_exceptions=True,
        )
        assert sum(isinstance(one, UserExistsError) for one in made) == 1
        await world.people.load()
        assert len(world.people.grants("anna")) == 1


async def test_the_audit_says_who_from_where_and_by_which_token(database_url: str) -> None:
    async with people_of(database_url) as world:
        await world.people.create("anna", UserRole.ADMIN, "*", **ME)
        text = await world.signed_in()
        caller = world.people.caller(text, HERE)
        await world.people.create("bert", None, "*", actor=caller.actor)
        rows = await audit_rows(world.database)
        assert rows[-1]["actor"] == "user:anna"
        assert f'"from":"{HERE}"' in rows[-1]["detail"]
        assert f'"token":"{world.people.tokens("anna")[0].id}"' in rows[-1]["detail"]
        assert all(text[-20:] not in row["detail"] for row in rows)


async def audit_rows(database: Database) -> list[Any]:
    from birthmark.store.core_tables import audit
    from birthmark.store.table_statements import find

    return list(await database.all(find(audit, audit.c.seq >= 0, order=audit.c.seq)))
