"""Whatever is committed at once, both engines keep and refuse the same, and say the same of it."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from birthmark.audit.chain_verification import verify_chains
from birthmark.audit.signed_heads import AuditKey
from birthmark.errors import ConflictError, NotFoundError
from birthmark.store import Changes, open_database, upsert
from birthmark.store.event_base_and_codec import decode_event
from birthmark.store.table_statements import remove
from support.fakes import FakeClock
from support.store.store_table import ADD, ALL, BUMP, PUT, ThingTold, make_table, things

pytestmark = pytest.mark.integration
KEY = AuditKey("the key")
REMOVE = remove(things)
KEEP = upsert(things, update=["id"])


def a_change(chance: random.Random, name: str) -> Changes:
    """Some writes to few rows, so that changes meet; some of them will be refused."""
    changes = Changes()
    if chance.random() < 0.03:  # alone: which of two reasons is told is no promise
        return changes.run(PUT, id="a", n=2**63).audit("ann", "thing.do", name)
    for _ in range(chance.randint(1, 4)):
        row, n = chance.choice("abcd"), chance.randint(0, 3)
        match chance.randint(0, 4):
            case 0:
                changes.run(ADD, id=row, n=n)
            case 1:
                changes.run(BUMP, expect=1, key_id=row, key_n=n, n=n + 1)
            case 2:
                changes.run(REMOVE, expect=chance.choice((None, 0, 1)), otherwise=NotFoundError(), id=row)
            case 3:
                changes.run(KEEP, id=row, n=n)
            case _:
                changes.run(PUT, id=row, n=n)
    if chance.random() < 0.7:
        changes.audit("ann", "thing.do", name)
    if chance.random() < 0.7:
        changes.event(ThingTold(name))
    return changes


async def played(url: str, seed: int) -> Sequence[object]:
    """Commit some batches; return what came of each change, and what is there in the end."""
    chance = random.Random(seed)
    database = await open_database(url, FakeClock(), signer=KEY)
    try:
        await make_table(database)
        told: list[object] = []
        for batch in range(12):
            batched = [a_change(chance, f"{batch}/{number}") for number in range(chance.choice((1, 2, 8, 30)))]
            outcomes = await asyncio.gather(*(database.commit(one) for one in batched), return_exceptions=True)
            told += [type(outcome) for outcome in outcomes]
        rows = [tuple(row) for row in await database.all(ALL)]
        events = await database.events_after(0, 1000)
        words = [decode_event(row["body"], ThingTold).word for row in events]
        (verified,) = await verify_chains(database, key=KEY.public_key)
        assert [row["seq"] for row in events] == list(range(1, len(events) + 1))
        return [told, rows, words, verified.rows, verified.head and verified.head.digest]
    finally:
        await database.close()


@pytest.mark.parametrize("seed", range(8))
async def test_both_engines_keep_and_refuse_the_same(tmp_path: Path, postgres_url: str, seed: int) -> None:
    on_sqlite = await played(f"sqlite:///{tmp_path}/x.db", seed)
    on_postgresql = await played(postgres_url, seed)
    assert on_postgresql == on_sqlite
    outcomes = on_sqlite[0]
    assert isinstance(outcomes, list)
    assert {type(None)} < set(outcomes)
    assert any(issubclass(one, ConflictError) for one in outcomes)
