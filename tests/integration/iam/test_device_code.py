"""Commands that ask to be let in, on both databases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.actor import Actor
from birthmark.auth.principals import MACHINE, Caller
from birthmark.iam import device_authorization_grant
from birthmark.iam.browser_sessions import BrowserSessions
from birthmark.iam.device_authorization_grant import (
    EVERY_S,
    HOLDS,
    CodeRejectedError,
    CodeUnknownError,
    DeviceCodeFlow,
    TooManyAskingError,
)
from birthmark.iam.model import UserRole
from birthmark.iam.password_policy_and_hashes import Passwords
from birthmark.iam.password_sign_in import SignIn, SignInPausedError
from birthmark.iam.service import CreatedToken, People
from birthmark.store import open_database
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
HERE = "192.0.2.7"


@dataclass
class World:
    people: People
    askings: DeviceCodeFlow
    clock: FakeClock

    @property
    def anna(self) -> Caller:
        return Caller(Actor("user:anna"), self.people.rights("anna"), "anna", let_in_by="operator")


@asynccontextmanager
async def house(url: str) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(url, clock)
    people = People(database, clock, SeededEntropy())
    await people.load()
    await people.create("anna", UserRole.VIEWER, "*", actor="operator")
    try:
        yield World(people, DeviceCodeFlow(people), clock)
    finally:
        await people.stop()
        await database.close()


async def test_who_was_let_in_gets_a_token_once_also_where_two_ask_at_once(database_url: str) -> None:
    async with house(database_url) as world:
        begun = await world.askings.begin("laptop", HERE)
        assert await world.askings.poll_token(begun.secret, HERE) == EVERY_S
        await world.askings.decide(begun.code, world.anna, is_agreed=True)
        tries = [world.askings.poll_token(begun.secret, HERE) for _ in range(4)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        (made,) = (one for one in found if isinstance(one, CreatedToken))
        assert sum(isinstance(one, CodeUnknownError) for one in found) == 3
        assert world.people.caller(made.text, HERE).user == "anna"
        assert (made.token.label, made.token.made_by) == ("laptop", "operator")


async def test_who_asks_too_soon_waits_longer_from_then_on(database_url: str) -> None:
    async with house(database_url) as world:
        begun = await world.askings.begin("laptop", HERE)
        assert await world.askings.poll_token(begun.secret, HERE) == EVERY_S
        assert await world.askings.poll_token(begun.secret, HERE) == EVERY_S + 5
        world.clock.move(timedelta(seconds=EVERY_S + 5))
        assert await world.askings.poll_token(begun.secret, HERE) == EVERY_S + 5


async def test_a_code_is_over_after_ten_minutes_and_is_decided_once(database_url: str) -> None:
    async with house(database_url) as world:
        begun, other = await world.askings.begin("a", HERE), await world.askings.begin("b", HERE)
        await world.askings.decide(other.code, world.anna, is_agreed=False)
        for is_agreed in (True, False):
            with pytest.raises(CodeUnknownError):
                await world.askings.decide(other.code, world.anna, is_agreed=is_agreed)
        with pytest.raises(CodeRejectedError):
            await world.askings.poll_token(other.secret, HERE)
        world.clock.move(HOLDS)
        with pytest.raises(CodeUnknownError):
            await world.askings.decide(begun.code, world.anna, is_agreed=True)
        with pytest.raises(CodeUnknownError):
            await world.askings.poll_token(begun.secret, HERE)


async def test_one_address_has_so_many_that_wait(database_url: str) -> None:
    async with house(database_url) as world:
        for _ in range(10):
            await world.askings.begin("", "2001:db8::1")
        with pytest.raises(TooManyAskingError):
            await world.askings.begin("", "2001:db8::2")
        await world.askings.begin("", HERE)
        world.clock.move(HOLDS)
        await world.askings.begin("", "2001:db8::2")


async def test_who_guesses_codes_waits_ever_longer(tmp_path: Any) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        begun = await world.askings.begin("laptop", HERE)
        for _ in range(5):
            with pytest.raises(CodeUnknownError):
                await world.askings.find("BCDF-GHJK", world.anna)
        with pytest.raises(SignInPausedError):
            await world.askings.find(begun.code, world.anna)


async def test_a_code_that_a_removed_user_agreed_to_is_nobodys(database_url: str) -> None:
    async with house(database_url) as world:
        begun = await world.askings.begin("laptop", HERE)
        await world.askings.decide(begun.code, world.anna, is_agreed=True)
        await world.people.remove("anna", actor="operator")
        with pytest.raises(CodeUnknownError):
            await world.askings.poll_token(begun.secret, HERE)


async def test_strangers_who_fill_all_places_keep_nobody_else_out(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_authorization_grant, "_MOST", 30)
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        first = await world.askings.begin("before", "192.0.2.1")
        for number in range(4):
            for _ in range(10):
                with contextlib.suppress(TooManyAskingError):
                    await world.askings.begin("flood", f"198.51.100.{number}")
        begun = await world.askings.begin("laptop", HERE)
        for one in (first, begun):
            assert (await world.askings.decide(one.code, world.anna, is_agreed=True)).code
            assert isinstance(await world.askings.poll_token(one.secret, HERE), CreatedToken)


async def test_who_asks_without_a_pause_is_written_down_only_so_often(database_url: str) -> None:
    async with house(database_url) as world:
        begun = await world.askings.begin("laptop", HERE)
        said = [await world.askings.poll_token(begun.secret, HERE) for _ in range(40)]
        assert said[-20:] == [57] * 20


@pytest.mark.parametrize("by", ["signed out everywhere", "a password", "no password"])
async def test_a_code_that_was_agreed_to_ends_with_the_sessions_of_who_did(database_url: str, by: str) -> None:
    async with house(database_url) as world:
        passwords = Passwords(SeededEntropy(1), PasswordHasher(1, 8, 1))
        sign_in = SignIn(world.people, BrowserSessions(world.people), passwords)
        begun = await world.askings.begin("somebody else's", HERE)
        await world.askings.decide(begun.code, world.anna, is_agreed=True)
        if by == "signed out everywhere":
            await sign_in.sessions.end_all("anna", actor="operator")
        elif by == "a password":
            await sign_in.set_password("anna", "four words by chance", "", MACHINE, HERE)
        else:
            await sign_in.remove_password("anna", actor="operator")
        with pytest.raises(CodeUnknownError):
            await world.askings.poll_token(begun.secret, HERE)
