"""A database that was closed is nobody's any more: its directory may be taken away, or put back as it was."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from birthmark.store import open_database
from birthmark.store.compiled_statements import Statement
from support.fakes import FakeClock

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
SLOW = Statement(
    lambda _engine: text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000) "
        "SELECT count(*) FROM n, audit"
    )
)


async def test_a_read_that_nobody_waits_for_any_more_ends_before_the_database_is_closed(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path / 'birthmark.db'}", FakeClock())
    reading = asyncio.create_task(database.read_in_background(SLOW))
    await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await database.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birthmark.db"]
