"""How the database finds whose latest certificate is below a root, among very many."""

import sqlite3
from pathlib import Path

import pytest

from birthmark.ca import root_rollover_store as store
from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Statement, open_database

pytestmark = pytest.mark.integration


async def plan_of(one: Statement, path: Path) -> list[str]:
    await (await open_database(f"sqlite:///{path}", SystemClock())).close()
    sql = one.compiled("sqlite").sql
    with sqlite3.connect(path) as database:
        return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]


@pytest.mark.parametrize("one", [store.LATEST_BELOW, store.NAMES_BELOW])
async def test_a_certificate_is_compared_with_the_next_of_its_name_and_what_it_asked_for(
    tmp_path: Path, one: Statement
) -> None:
    plan = await plan_of(one, tmp_path / "x.db")
    assert "SEARCH ca_certificates_1 USING INDEX ca_certificates_live (name=? AND not_after>?)" in plan
    below = "SEARCH ca_certificates_2 USING INDEX ca_certificates_parent "
    assert any(step.startswith(f"{below}(parent=? AND name=? AND revoked_at=?") for step in plan)
    assert any("(issuer=? AND not_after>?)" in step for step in plan)


@pytest.mark.parametrize("one", [store.DEVICES, store.FETCHED, store.MISSING])
async def test_devices_are_counted_in_the_order_of_their_names(tmp_path: Path, one: Statement) -> None:
    plan = await plan_of(one, tmp_path / "x.db")
    assert plan[0] == "SEARCH ca_certificates USING INDEX ca_certificates_live (name>?)"
