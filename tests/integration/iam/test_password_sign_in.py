"""Sign-in on both databases: passwords, sessions that end by themselves and at once, limits on guessing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.auth.principals import MACHINE, Caller
from birthmark.errors import ChangedMeanwhileError
from birthmark.iam.browser_sessions import IDLE, LONGEST, BrowserSessions, SessionEndedError
from birthmark.iam.model import UserRole
from birthmark.iam.password_policy_and_hashes import Passwords
from birthmark.iam.password_sign_in import CurrentPasswordError, SignIn, SignInPausedError, SignInRefusedError
from birthmark.iam.service import InvitationRefusedError, People
from birthmark.iam.sign_in_model import Browser
from birthmark.net.fair_scheduler import Backlog
from birthmark.store import Database, open_database
from birthmark.store.core_tables import audit
from birthmark.store.table_statements import find
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
ME: Any = {"actor": "operator"}
HOME, ELSEWHERE = Browser("192.0.2.7", "a browser"), Browser("2001:db8::1", "another")
ALL_AUDIT = find(audit, audit.c.seq >= 0, order=audit.c.seq)
PASSWORD, ANOTHER = "four words by chance", "other words by chance"


@dataclass
class World:
    sign_in: SignIn
    clock: FakeClock
    database: Database

    async def person(self, name: str = "anna", role: UserRole = UserRole.VIEWER) -> str:
        """Put somebody on record, who has a password then and is signed in."""
        await self.sign_in.people.create(name, role, "*", **ME)
        code, _ = await self.sign_in.people.invite(name, **ME)
        return await self.sign_in.accept(code, PASSWORD, HOME)

    def counts(self, text: str) -> bool:
        try:
            self.sign_in.sessions.caller(text, HOME.address)
        except SessionEndedError:
            return False
        return True

    async def guess(self, times: int, browser: Browser = ELSEWHERE, name: str = "anna") -> list[str]:
        """Return what each wrong password is answered."""
        said = []
        for _ in range(times):
            try:
                await self.sign_in.by_password(name, "wrong words", browser)
            except (SignInRefusedError, SignInPausedError) as error:
                said.append(error.code.rpartition("_")[2])
        return said


@asynccontextmanager
async def house(url: str, seed: int = 0, cost: int = 1, workers: int = 1) -> AsyncIterator[World]:
    clock, entropy = FakeClock(), SeededEntropy(seed)
    database = await open_database(url, clock)
    people = People(database, clock, entropy)
    sign_in = SignIn(people, BrowserSessions(people), Passwords(entropy, PasswordHasher(cost, 8, 1)), workers)
    await people.load()
    try:
        yield World(sign_in, clock, database)
    finally:
        await people.stop()
        await database.close()


async def test_who_signed_in_is_known_by_the_session_after_a_restart_too(database_url: str) -> None:
    async with house(database_url) as world:
        text = await world.person()
    async with house(database_url, seed=1) as again:
        caller = again.sign_in.sessions.caller(text, HOME.address)
        assert (caller.user, caller.let_in_by, caller.is_narrowed) == ("anna", "operator", False)
        assert [one.how for one in again.sign_in.sessions.of("anna")] == ["invitation"]


class Peer:
    owner = HOME.address


async def test_a_request_by_session_or_by_token_takes_its_users_turns(tmp_path: Path) -> None:
    async with house(f"sqlite:///{tmp_path}/x.db") as world:
        people, session = world.sign_in.people, await world.person()
        shown = await people.add_token("anna", "", timedelta(days=1), None, None, **ME)

        async def ask(by: Callable[[], Caller]) -> str:
            by()
            await asyncio.sleep(0)
            return Backlog.running().current_owner

        for by in (
            lambda: world.sign_in.sessions.caller(session, HOME.address),
            lambda: people.caller(shown.text, HOME.address),
        ):
            assert await Backlog.running().account_steps(ask(by), Peer()) == "user:anna"


async def test_no_session_is_kept_as_the_browser_has_it(database_url: str) -> None:
    async with house(database_url) as world:
        text = await world.person()
        (kept,) = world.sign_in.sessions.of("anna")
        assert text.rpartition("_")[2] not in kept.digest
        for other in (
            "",
            "bms_",
            f"bms_{kept.id}_",
            text[:-1] + "0",
            text + "0",
            text.replace("bms", "bmt"),
            "x" * 999,
        ):
            assert not world.counts(other) or other == text


async def test_an_invitation_is_good_once_also_for_two_browsers_at_once(database_url: str) -> None:
    async with house(database_url) as world:
        await world.sign_in.people.create("anna", None, "*", **ME)
        code, _ = await world.sign_in.people.invite("anna", **ME)
        tries = [world.sign_in.accept(code, PASSWORD, HOME) for _ in range(4)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(one, str) for one in found) == 1
        assert sum(isinstance(one, InvitationRefusedError) for one in found) == 3


async def test_one_of_two_first_passwords_at_once_is_kept(database_url: str) -> None:
    async with house(database_url) as world:
        await world.sign_in.people.create("anna", None, "*", **ME)
        anna = replace(MACHINE, user="anna")
        tries = [world.sign_in.set_password("anna", one, "", anna, HOME.address) for one in (PASSWORD, ANOTHER)]
        found = await asyncio.gather(*tries, return_exceptions=True)
        refused = [one for one in found if one is not None]
        assert len(refused) == 1
        assert isinstance(refused[0], ChangedMeanwhileError | CurrentPasswordError)


async def test_what_a_page_asks_by_itself_keeps_no_session_alive(database_url: str) -> None:
    async with house(database_url) as world:
        text = await world.person()
        for _ in range(IDLE // timedelta(minutes=10) - 1):
            world.clock.move(timedelta(minutes=10))
            assert world.sign_in.sessions.caller(text, "127.0.0.1", is_use=False).user == "anna"
        world.clock.move(timedelta(minutes=10))
        with pytest.raises(SessionEndedError):
            world.sign_in.sessions.caller(text, "127.0.0.1", is_use=False)


async def test_a_session_ends_an_hour_after_it_was_used_last_and_half_a_day_after_it_began(database_url: str) -> None:
    async with house(database_url) as world:
        text = await world.person()
        world.clock.move(IDLE - timedelta(seconds=1))
        assert world.counts(text)
        await world.sign_in.sessions.note_used()
        world.clock.move(IDLE - timedelta(seconds=1))
        assert world.counts(text)
        world.clock.move(IDLE)
        assert not world.counts(text)
        again = await world.sign_in.by_password("anna", PASSWORD, HOME)
        for _ in range(LONGEST // timedelta(minutes=50)):
            world.clock.move(timedelta(minutes=50))
            assert world.counts(again)
        world.clock.move(timedelta(minutes=50))
        assert not world.counts(again)


async def test_what_ends_sessions_ends_them_before_the_answer(database_url: str) -> None:
    async with house(database_url) as world:
        people, sessions = world.sign_in.people, world.sign_in.sessions
        first = await world.person()
        second = await world.sign_in.by_password("anna", PASSWORD, HOME)
        await sessions.sign_out(first, HOME.address)
        assert (world.counts(first), world.counts(second)) == (False, True)
        await sessions.end_all("anna", **ME)
        assert not world.counts(second)
        third = await world.sign_in.by_password("anna", PASSWORD, HOME)
        await world.sign_in.set_password("anna", ANOTHER, "", MACHINE, "")
        assert not world.counts(third)
        fourth = await world.sign_in.by_password("anna", ANOTHER, HOME)
        await people.remove("anna", **ME)
        assert not world.counts(fourth)
        await people.create("anna", None, "*", **ME)
        assert not world.counts(fourth)
        with pytest.raises(SignInRefusedError):
            await world.sign_in.by_password("anna", ANOTHER, HOME)


async def test_one_user_has_so_many_sessions_and_the_oldest_goes(database_url: str) -> None:
    async with house(database_url) as world:
        first = await world.person()
        for _ in range(20):
            world.clock.move(timedelta(seconds=1))
            last = await world.sign_in.by_password("anna", PASSWORD, HOME)
        assert (world.counts(first), world.counts(last)) == (False, True)
        assert len(world.sign_in.sessions.of("anna")) == 20


async def test_a_password_of_another_cost_is_digested_anew_when_it_is_shown(database_url: str) -> None:
    async with house(database_url) as world:
        await world.person()
    async with house(database_url, seed=1, cost=2) as again:
        await again.sign_in.by_password("anna", PASSWORD, HOME)
        row = await again.sign_in._password("anna")
        assert row is not None
        assert "t=2" in row.hash
        await again.sign_in.by_password("anna", PASSWORD, HOME)


async def test_who_guesses_waits_and_the_user_is_not_kept_out_where_that_one_signed_in_before(tmp_path: Any) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.person()
        assert await world.guess(7) == ["refused"] * 5 + ["paused"] * 2
        for n in range(9):  # from many addresses
            await world.guess(5, Browser(f"198.51.100.{n}", ""))
        with pytest.raises(SignInPausedError):
            await world.sign_in.by_password("anna", PASSWORD, Browser("203.0.113.1", ""))
        await world.sign_in.by_password("anna", PASSWORD, HOME)


async def test_an_ipv6_network_is_one_address_and_names_that_nobody_has_are_treated_alike(tmp_path: Any) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.person()
        for name in ("anna", "nobody"):
            at = "2001:db8:1" if name == "anna" else "2001:db8:2"
            said = [(await world.guess(1, Browser(f"{at}::{n}", ""), name))[0] for n in range(7)]
            assert said == ["refused"] * 5 + ["paused"] * 2


async def test_workers_share_what_may_be_guessed(tmp_path: Any) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}", workers=5) as world:
        await world.person()
        assert await world.guess(3) == ["refused", "paused", "paused"]


async def test_however_many_guess_few_rows_of_the_audit_tell_of_it_and_none_what_was_typed(tmp_path: Any) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        await world.person()
        for n in range(80):
            await world.guess(1, Browser(f"198.51.{n}.1", ""), f"my password {n}")
        rows = [row for row in await world.database.all(ALL_AUDIT) if row["action"] == "people.sign_in_refused"]
        assert 0 < len(rows) <= 60
        assert {row["subject"] for row in rows} == {"unknown"}
