"""How the database finds whose latest certificate is below a root, among very many."""

import sqlite3
from pathlib import Path

import pytest

from birthmark.ca import rollover_store as store
from birthmark.clock import SystemClock
from birthmark.store import Statement, open_database

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("one", [store.LATEST_BELOW, store.NAMES_BELOW])
async def test_a_certificate_is_compared_with_those_of_its_name_and_no_others(tmp_path: Path, one: Statement) -> None:
    path = tmp_path / "x.db"
    await (await open_database(f"sqlite:///{path}", SystemClock())).close()
    sql = one.compiled("sqlite").sql
    with sqlite3.connect(path) as database:
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]
    assert "SEARCH ca_certificates_1 USING INDEX ca_certificates_live (name=? AND not_after>?)" in plan
    assert any("(issuer=? AND not_after>?)" in step for step in plan)
