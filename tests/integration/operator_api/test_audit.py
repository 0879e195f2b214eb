"""The rows of the audit chains, as the operator interface sends them."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from birthmark.audit.chain_verification import AuditHeadError, VerifiedChain, verify_chains
from birthmark.audit.signed_heads import AuditKey
from birthmark.operator_api import audit
from birthmark.operator_api.audit import _pages
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock

pytestmark = pytest.mark.integration
KEY = AuditKey("seed")


async def a_database(url: str, rows: int) -> Database:
    database = await open_database(url, FakeClock(), signer=KEY)
    for number in range(rows):
        await database.commit(Changes().audit("operator", "test.did", f"thing-{number}"))
    return database


async def told(database: Database) -> list[Mapping[str, Any]]:
    return [page async for page in _pages(database, KEY.public_key)]


async def test_rows_come_in_pages_and_what_was_verified_with_the_last(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE", 2)
    database = await a_database(database_url, 5)
    pages = await told(database)
    await database.close()
    assert [[row["subject"] for row in page["entries"]] for page in pages] == [
        ["thing-0", "thing-1"],
        ["thing-2", "thing-3"],
        ["thing-4"],
    ]
    assert [page.get("rows") for page in pages] == [None, None, 5]


async def test_while_it_verifies_there_are_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = asyncio.Event()

    async def slow(*arguments: Any, **named: Any) -> Sequence[VerifiedChain]:
        await may_end.wait()
        return await verify_chains(*arguments, **named)

    database = await a_database(f"sqlite:///{tmp_path}/x.db", 1)
    monkeypatch.setattr(audit, "SIGN_OF_LIFE_S", 0.01)
    monkeypatch.setattr(audit, "verify_chains", slow)
    pages = _pages(database, KEY.public_key)
    assert await anext(pages) == {"entries": []}
    may_end.set()
    assert [page["rows"] async for page in pages if page["entries"]] == [1]
    await database.close()


async def test_of_a_broken_chain_no_row_is_told(database_url: str) -> None:
    database = await a_database(database_url, 1)
    with pytest.raises(AuditHeadError):
        await anext(_pages(database, AuditKey("another").public_key))
    await database.close()
