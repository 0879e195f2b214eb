"""Names by the beginning of any of their words, by an index, on both engines."""

import importlib
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from birthmark.ca.store import ADD_NAME
from birthmark.pki.names_and_registration_ids import fold
from birthmark.store import Changes, Database, device_name_prefix_index, empty, open_database, statement
from support.fakes import FakeClock

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
NAMES = ("pump-north-1", "PUMP-south-2", "valve.north.3", "pumpe", "Überlauf_7", "7", "a" * 90, "north")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url, FakeClock())
    changes = Changes()
    for name in NAMES:
        changes.merge(device_name_prefix_index.found("here", name))
    await opened.commit(changes.merge(device_name_prefix_index.found("there", "pump-9")))
    yield opened
    await opened.close()


async def found(database: Database, begin: str, limit: int = 100) -> list[str]:
    begin = device_name_prefix_index.folded(begin)
    rows = await database.all(
        device_name_prefix_index.FIND, place="here", limit=limit, **device_name_prefix_index.range_of(begin)
    )
    return [row["name"] for row in rows if device_name_prefix_index.is_first(row["word"], row["name"], begin)]


@pytest.mark.parametrize(
    ("begin", "names"),
    [
        ("pump", ["pump-north-1", "PUMP-south-2", "pumpe"]),
        ("PUMP-S", ["PUMP-south-2"]),
        ("nor", ["north", "pump-north-1", "valve.north.3"]),
        ("north.3", ["valve.north.3"]),
        ("7", ["7", "Überlauf_7"]),
        ("Über", ["Überlauf_7"]),
        ("ump", []),
        ("%", []),
        ("a" * 200, ["a" * 90]),
    ],
)
async def test_a_name_is_found_by_the_beginning_of_any_word(database: Database, begin: str, names: list[str]) -> None:
    assert await found(database, begin) == names


async def test_what_is_off_the_record_is_not_found(database: Database) -> None:
    await database.commit(device_name_prefix_index.unindex_name("here", "pump-north-1"))
    assert await found(database, "north") == ["north", "valve.north.3"]


ODD = (*NAMES, "--a--b", "ÄÖ-Ü.é", "a.b.c.d.e.f.g.h.i.j", "日本-語", "x" * 63 + "-y" * 30, "a_b", "a\nb", "'q'", "-")


async def test_what_an_upgrade_finds_is_split_as_what_is_put_on_record(database: Database) -> None:
    migration = importlib.import_module("birthmark.store.migrations.0050_0_3_0")
    engine = "_WORDS_SQLITE" if "sqlite" in type(database).__module__ else "_WORDS_POSTGRESQL"
    fill = migration._WORDS_FILL.format(on_record=migration._WORDS_ON_RECORD, **getattr(migration, engine)).replace(
        ":", r"\:"
    )
    known, written = Changes(), Changes()
    for name in ODD:
        known.run(ADD_NAME, name=name, version=0, lost_at=None)
        written.merge(device_name_prefix_index.found("server", name))
    every = statement(
        select(device_name_prefix_index.words.c.word, device_name_prefix_index.words.c.name).where(
            device_name_prefix_index.words.c.place == "server"
        )
    )
    await database.commit(written)
    expected = sorted(map(tuple, await database.all(every)))
    await database.commit(known.run(empty(device_name_prefix_index.words)))
    await database.commit(Changes().run(statement(text(fill))))
    assert sorted(map(tuple, await database.all(every))) == expected


async def test_a_place_is_forgotten_whole(database: Database) -> None:
    await database.commit(Changes().run(device_name_prefix_index.FORGET_PLACE, place="here"))
    assert await found(database, "p") == []


async def test_it_is_found_by_the_index(database: Database) -> None:
    compiled = device_name_prefix_index.FIND.compiled("sqlite")
    if "sqlite" not in type(database).__module__:
        pytest.skip("PostgreSQL reads a table of nine rows whole")
    plan = await database.all(statement(text("EXPLAIN QUERY PLAN " + _numbered(compiled.sql, len(compiled.order)))))
    assert any("USING PRIMARY KEY" in str(row["detail"]) for row in plan)
    assert not any("SCAN" in str(row["detail"]) or "TEMP B-TREE" in str(row["detail"]) for row in plan)


async def test_the_index_is_read_from_where_the_beginning_is(database: Database) -> None:
    if "sqlite" in type(database).__module__:
        pytest.skip("it tells no pages")
    for first in range(0, 4000, 500):
        changes = Changes()
        for number in range(first, first + 500):
            changes.merge(device_name_prefix_index.found("here", f"pump-{number:05}"))
        await database.commit(changes)
    await database.commit(device_name_prefix_index.found("here", "zulu"))
    compiled = device_name_prefix_index.FIND.compiled("postgresql")
    given = {"place": "here", "limit": 100, **device_name_prefix_index.range_of("zulu")}
    sql = compiled.sql
    for number, name in enumerate(compiled.order, 1):
        sql = sql.replace(f"${number}", str(given[name]) if name == "limit" else f"'{given[name]}'")
    (row,) = await database.all(statement(text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.replace(":", r"\:"))))
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    assert plan["Actual Rows"] == 1
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= 8


def _numbered(sql: str, count: int) -> str:
    for _ in range(count):
        sql = sql.replace("?", "'1'", 1)
    return sql


@given(st.text(max_size=80), st.data())
def test_every_word_of_a_name_finds_it(name: str, data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(device_name_prefix_index.words_of(name)))
    cut = data.draw(st.integers(0, len(word)))
    begin = device_name_prefix_index.folded(word[:cut])
    assert begin == fold(word[:cut]).replace("\0", "")
    assert (
        len(
            [
                one
                for one in device_name_prefix_index.words_of(name)
                if device_name_prefix_index.is_first(one, name, begin)
            ]
        )
        == 1
    )
