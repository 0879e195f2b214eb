"""What is read again and again is kept in memory, and never longer than its next change."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import pytest

from birthmark.errors import UnavailableError
from birthmark.store import Changes
from birthmark.store.database import Row
from birthmark.store.reloading_cache import RowCache
from support.store.between import lose_the_next_answer
from support.store.store_table import ADD, BUMP, GET, OtherTold, ThingTold, a_database

pytestmark = pytest.mark.integration


class Numbers:
    """Makes rows into numbers, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, row: Row) -> int:
        self.made += 1
        return int(row["n"])


def bump(n: int) -> Changes:
    return Changes().run(BUMP, key_id="a", key_n=n - 1, n=n).event(ThingTold())


async def test_rows_are_made_into_values_once(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        kept, numbers = RowCache(database, ThingTold), Numbers()
        for _ in range(3):
            assert await kept.all(GET, numbers, id="a") == (1,)
        assert numbers.made == 1


async def test_a_change_is_seen_by_whoever_made_it_and_by_those_who_hear_of_it_first(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        kept = RowCache(database, ThingTold)
        seen: list[int] = []
        await kept.all(GET, Numbers(), id="a")

        async def look() -> None:
            seen.extend(await kept.all(GET, Numbers(), id="a"))

        looks = []
        change = database.submit(bump(2))
        change.add_done_callback(lambda _: looks.append(asyncio.ensure_future(look())))
        await change
        await look()
        await asyncio.gather(*looks)
        assert seen == [2, 2]


async def test_an_answer_that_was_on_its_way_when_the_change_came_is_not_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        kept, read, may_answer = RowCache(database, ThingTold), database.all, asyncio.Event()

        async def slow(*asked: object, **params: object) -> object:
            rows = await read(*asked, **params)  # type: ignore[arg-type] # whatever was asked
            await may_answer.wait()
            return rows

        monkeypatch.setattr(database, "all", slow)
        early = asyncio.ensure_future(kept.all(GET, Numbers(), id="a"))
        await asyncio.sleep(0.05)
        await database.commit(bump(2))
        may_answer.set()
        assert await early == (1,)
        assert await kept.all(GET, Numbers(), id="a") == (2,)


async def test_events_of_other_kinds_and_refused_changes_forget_nothing(database_url: str) -> None:
    async with a_database(database_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        kept, numbers = RowCache(database, ThingTold), Numbers()
        for changes in (
            Changes().event(OtherTold()),
            Changes().run(BUMP, expect=1, key_id="b", key_n=1, n=2).event(ThingTold()),
        ):
            await asyncio.gather(database.commit(changes), return_exceptions=True)
            await kept.all(GET, numbers, id="a")
        assert numbers.made == 1


async def test_strangers_cannot_make_it_grow(database_url: str) -> None:
    async with a_database(database_url) as database:
        kept = RowCache(database, ThingTold, max_entries=2)
        for name in "abcab":
            assert await kept.all(GET, Numbers(), id=name) == ()
        assert len(kept) == 2


async def test_nothing_is_kept_while_nobody_can_tell_whether_a_change_was(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_database(postgres_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        kept = RowCache(database, ThingTold)
        assert await kept.all(GET, Numbers(), id="a") == (1,)
        lose_the_next_answer(database)
        with pytest.raises(UnavailableError):
            await database.commit(bump(2))
        assert await retried(lambda: kept.all(GET, Numbers(), id="a")) == (2,)
        assert len(kept) == 0
        monkeypatch.setattr(kept, "_unsure_until", 0.0)
        await kept.all(GET, Numbers(), id="a")
        assert len(kept) == 1


async def retried(ask: Callable[[], Awaitable[Sequence[int]]]) -> Sequence[int]:
    for _ in range(100):
        with contextlib.suppress(UnavailableError):
            return await ask()
        await asyncio.sleep(0.05)
    return await ask()
