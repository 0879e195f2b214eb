"""Steps of an exchange of the root: each from the state that was looked at, and on record only where it can be done."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from birthmark.ca import directory as ca_directory
from birthmark.ca.generations import Generations
from birthmark.ca.links import OLD_WITH_NEW
from birthmark.ca.passphrase import Passphrase
from birthmark.ca.rollover import Rollovers
from birthmark.ca.rules.rollover import Phase
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.store import open_database
from fakes import NOON, FakeClock, SeededEntropy

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def an_exchange(url: str, data: Path) -> AsyncIterator[Rollovers]:
    clock, entropy = FakeClock(), SeededEntropy()
    made = ca_directory.create(data / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(url, clock)
    roots = Generations(data, made.generations[0], Passphrase(data / "ca"), clock, entropy)
    rollovers = Rollovers(made, roots, database, clock)
    await rollovers.load()
    try:
        yield rollovers
    finally:
        await database.close()


async def test_of_two_operators_the_second_does_not_take_the_step_after_the_firsts(
    database_url: str, tmp_path: Path
) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        await rollovers.start("first")
        seen = Phase.OLD_SIGNS.value  # by both
        assert (await rollovers.step_forward(1.0, "first", seen)).phase is Phase.NEW_SIGNS
        for step in (rollovers.step_forward(1.0, "second", seen), rollovers.step_back("second", seen)):
            with pytest.raises(ChangedMeanwhileError):
                await step
        current, _ = await rollovers.status()
        assert current is not None
        assert current.phase is Phase.NEW_SIGNS
        assert (await rollovers.step_forward(1.0, "second")).phase is Phase.FINISHED, "who names no state asks for any"


async def test_a_step_whose_files_are_lost_is_not_on_record(database_url: str, tmp_path: Path) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        started = await rollovers.start("operator")
        (link,) = tmp_path.glob(f"*/{OLD_WITH_NEW}*")
        content = link.read_bytes()
        link.write_bytes(b"junk")
        with pytest.raises(BirthmarkError):
            await rollovers.step_forward(1.0, "operator")
        link.write_bytes(content)
        await rollovers.load()
        current, _ = await rollovers.status()
        assert current == started
        assert (await rollovers.step_forward(1.0, "operator")).phase is Phase.NEW_SIGNS
