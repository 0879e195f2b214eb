"""A database whose disk takes nothing more is not there, until something was written."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.errors import UnavailableError
from birthmark.store import Changes, open_database, words
from fakes import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


@contextlib.contextmanager
def no_more_writes() -> Iterator[None]:
    """Let the kernel refuse whatever this process writes to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_commit_that_writes_nothing_does_not_say_that_the_disk_is_there_again(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/one.db", FakeClock())
    nothing = Changes().run(words.FORGET_PLACE, place="nowhere")
    with no_more_writes():
        with pytest.raises(UnavailableError):
            await database.commit(words.found("here", "pump-1"))
        assert not await database.is_reachable()
        await database.commit(nothing)
        assert not await database.is_reachable()
    assert await database.is_reachable()
    await database.commit(words.found("here", "pump-1"))
    await database.close()
