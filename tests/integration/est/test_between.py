"""What an operator changes while a password waits to be looked at: it counts when the answer is given."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from birthmark.auth.password_check_scheduler import PasswordAttempt
from birthmark.est.service import EstCredentials
from support.azure.hub_world import until
from support.fakes import SeededEntropy
from support.pki.est_server import EstServer, an_est_server
from support.pki.pki_builders import a_csr
from support.server.asgi import Answer

pytestmark = pytest.mark.integration
USER, PASSWORD = "factory", "secret"


class World:
    """A server whose queue of guesses somebody else has, and a request with the right password behind."""

    def __init__(self, server: EstServer) -> None:
        self.server = server
        self.credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy(1))
        self._may_go_on = asyncio.Event()

    async def ask(self) -> "asyncio.Task[Answer]":
        guesses = self.server.service.callers.guesses
        self._before = asyncio.create_task(guesses.check(PasswordAttempt("", ""), self._may_go_on.wait))
        asked = asyncio.create_task(self.server.post("simpleenroll", a_csr("device-1")))
        await until(lambda: bool(guesses._waiting))
        return asked

    async def answered(self, asked: "asyncio.Task[Answer]") -> int:
        self._may_go_on.set()
        return (await asked).status


@asynccontextmanager
async def a_world(directory: Path) -> AsyncIterator[World]:
    async with an_est_server(directory) as server:
        yield World(server)


async def test_a_password_that_waits_its_turn_is_good_after(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        assert await world.answered(await world.ask()) == 200


async def test_a_user_that_is_removed_while_its_password_waits_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        asked = await world.ask()
        await world.credentials.remove_user(USER, actor="test")
        assert await world.answered(asked) == 401


@pytest.mark.parametrize("password", ["another", PASSWORD])
async def test_the_next_user_of_that_name_is_another_one(tmp_path: Path, password: str) -> None:
    async with a_world(tmp_path) as world:
        asked = await world.ask()
        await world.credentials.remove_user(USER, actor="test")
        await world.credentials.add_user(USER, password, device_id=None, actor="test")
        assert await world.answered(asked) == 401
