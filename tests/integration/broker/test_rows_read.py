"""Rows that PostgreSQL reads for one client, among 10,000 and 100,000 sessions: always the same few."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import asyncpg
import pytest

from birthmark.broker import store
from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Statement, open_database

pytestmark = pytest.mark.integration
_FEW = 50
_FILTERS = json.dumps(["f/1", "f/77", "none"])
_NAMED: Mapping[str, Any] = {"space": "test", "client": "c77"}
READS: Mapping[str, tuple[Statement, Mapping[str, Any]]] = {
    "SESSION": (store.SESSION, _NAMED),
    "OWNER": (store.OWNER, _NAMED),
    "SUBSCRIPTIONS": (store.SUBSCRIPTIONS, _NAMED),
    "MATCHING": (store.MATCHING, {"space": "test", "filters": _FILTERS, "limit": 1000}),
    "MATCHING_ANYWHERE": (store.MATCHING_ANYWHERE, {"space": "test", "filters": _FILTERS, "limit": 1000}),
    "MATCHING_PAGE_ANYWHERE": (store.MATCHING_PAGE_ANYWHERE, {**_NAMED, "filter": "f/77", "share": "", "limit": 10}),
    "OWNERS": (store.OWNERS, {"limit": 1000}),
    "OWNED_BY": (store.OWNED_BY, {"owner": "w1", "limit": 10}),
    "FIRST_EXPIRY": (store.FIRST_EXPIRY, {}),
    "FIRST_WILL": (store.FIRST_WILL, {}),
}


@pytest.mark.parametrize("count", [10_000, 100_000])
async def test_a_statement_reads_a_few_rows_however_many_sessions_there_are(postgres_url: str, count: int) -> None:
    await (await open_database(postgres_url, SystemClock())).close()
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        f"""INSERT INTO sessions (space, client, epoch, owner, expiry_s, tail, cursor, sent)
            SELECT 'test', 'c' || n, 1, 'w' || (n % 2), 600, 0, 0, 0 FROM generate_series(1, {count}) AS n;
            INSERT INTO subscriptions (space, filter, client, share, shape, qos, options)
            SELECT 'test', 'f/' || n, 'c' || n, '', '=', 1, 0 FROM generate_series(1, {count}) AS n;
            ANALYZE"""
    )
    found: dict[tuple[str, str], float] = {}
    for mode in ("force_generic_plan", "force_custom_plan"):
        await connection.execute(f"SET plan_cache_mode = {mode}")
        for name, (statement, params) in READS.items():
            compiled = statement.compiled("postgresql")
            sql = f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled.sql}"
            plan = json.loads(await connection.fetchval(sql, *compiled.arguments(params)))
            found[mode, name] = sum(_rows_read(plan[0]["Plan"]))
    await connection.close()
    assert {key: rows for key, rows in found.items() if rows > _FEW} == {}


def _rows_read(node: Mapping[str, Any]) -> Iterator[float]:
    """Yield how many rows each node that reads a table has read."""
    if "Scan" in node["Node Type"] and "Relation Name" in node:
        removed = sum(value for key, value in node.items() if key.startswith("Rows Removed"))
        yield (node["Actual Rows"] + removed) * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from _rows_read(inner)
