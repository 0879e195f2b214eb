"""How the database finds what the broker asks of it, among very many rows."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from birthmark.broker import store
from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Statement, open_database

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "x.db"

    async def made() -> None:
        await (await open_database(f"sqlite:///{path}", SystemClock())).close()

    asyncio.run(made())
    return path


def plan_of(file: Path, one: Statement) -> Sequence[str]:
    sql = one.compiled("sqlite").sql
    with sqlite3.connect(file) as database:
        return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]


@pytest.mark.parametrize("one", [store.MATCHING, store.MATCHING_ANYWHERE])
def test_a_topic_is_looked_up_by_filters_and_not_by_reading_every_subscription(file: Path, one: Statement) -> None:
    plan = plan_of(file, one)
    assert plan[0] == "SEARCH subscriptions USING PRIMARY KEY (space=? AND filter=?)"
    assert all("subscriptions_client" not in step for step in plan)


@pytest.mark.parametrize("one", [store.MATCHING_PAGE, store.MATCHING_PAGE_ANYWHERE])
def test_a_page_of_those_who_have_a_filter_begins_where_the_last_one_ended(file: Path, one: Statement) -> None:
    plan = plan_of(file, one)
    assert plan[0].startswith("SEARCH subscriptions USING PRIMARY KEY (space=? AND filter=? AND (client,share)>(?,?))")
    assert not any("TEMP B-TREE" in step for step in plan)


def test_the_session_that_expires_next_is_found_without_sorting_all(file: Path) -> None:
    assert plan_of(file, store.NEXT_TO_EXPIRE) == ["SEARCH sessions USING INDEX sessions_expires_at (expires_at>?)"]
