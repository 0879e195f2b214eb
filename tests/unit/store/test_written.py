"""Expressions that are written down: SQLAlchemy makes of them what they say, and each has a digest of its own."""

import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from birthmark.store import compiling, sql, statements
from birthmark.store.compiling import as_sqlalchemy, compiled_by_sqlalchemy
from birthmark.store.sql import BigInteger, Column, MetaData, Table, Text, bindparam, func, literal, or_, select
from birthmark.store.statements import Compiled, Given, statement
from birthmark.store.written import Written, digest_of

TOOLS = Path(__file__).parents[3] / "tools"


def a_table(kind: Any = Text, name: str = "things") -> Table:
    return Table(name, MetaData(), Column("id", Text, primary_key=True), Column("n", kind, nullable=False))


def digest(expression: Any) -> str:
    return digest_of(expression)


THINGS = a_table()


def by_id(table: Table = THINGS) -> Any:
    return select(table).where(table.c.id == bindparam("id"))


def test_the_same_words_have_the_same_digest() -> None:
    assert digest(by_id()) == digest(by_id(a_table()))


@pytest.mark.parametrize(
    "other",
    [
        by_id(a_table(BigInteger)),
        by_id(a_table(name="others")),
        by_id().limit(1),
        select(THINGS.c.n).where(THINGS.c.id == bindparam("id")),
        select(THINGS).where(THINGS.c.id != bindparam("id")),
        select(THINGS).where(bindparam("id") == THINGS.c.id),
        select(THINGS).where(THINGS.c.id == bindparam("id", type_=Text)),
    ],
)
def test_other_words_have_another(other: Any) -> None:
    assert digest(other) != digest(by_id())


_VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False)


@given(st.lists(_VALUES, max_size=3), st.lists(_VALUES, max_size=3))
def test_values_have_the_same_digest_only_where_they_are_the_same(some: list[Any], others: list[Any]) -> None:
    is_same = [(type(one), repr(one)) for one in some] == [(type(one), repr(one)) for one in others]
    assert (digest(literal(some)) == digest(literal(others))) == is_same


@given(st.lists(st.text(max_size=3), max_size=4))
def test_where_one_value_ends_and_the_next_begins_is_part_of_it(parts: list[str]) -> None:
    if len(parts) > 1:
        assert digest(func.f(*parts)) != digest(func.f("".join(parts)))


def test_what_is_given_is_taken_as_it_is_then() -> None:
    names, values = ["a"], {"n": "b"}
    some, change = THINGS.c.id.in_(names), sql.update(THINGS).values(values)
    names.append("c")
    values["id"] = "d"
    assert digest(some) == digest(THINGS.c.id.in_(["a"]))
    assert digest(change) == digest(sql.update(THINGS).values({"n": "b"}))
    assert str(as_sqlalchemy(change)) == "UPDATE things SET n=:n"


def test_a_value_of_a_kind_that_says_nothing_is_refused() -> None:
    for value in (object(), {"a"}, iter("a"), MappingProxyType({"a": THINGS.c.id})):
        with pytest.raises(TypeError, match="cannot be written down"):
            digest(literal(value))


def _operators(one: Any, other: Any) -> list[Any]:
    return [
        *(one + other, one - other, one * other, one / other, one // other, one % other),
        *(one == other, one != other, one < other, one <= other, one > other, one >= other),
        *((one == other) & (one < other), (one == other) | (one < other), ~(one == other), -one),
        *(1 + one, 1 - one, 2 * one),
    ]


@pytest.mark.parametrize("number", range(len(_operators(sqlalchemy.column("a"), sqlalchemy.column("b")))))
def test_an_operator_is_sqlalchemys(number: int) -> None:
    ours, theirs = (module.column("a", module.Integer) for module in (sql, sqlalchemy))
    mine, yours = (_operators(one, one.op("||")(1))[number] for one in (ours, theirs))
    assert str(as_sqlalchemy(mine)) == str(yours)


def test_of_a_column_of_an_alias_and_one_of_a_table_the_left_one_stays_left() -> None:
    other = THINGS.alias()
    text = str(as_sqlalchemy(select(THINGS.c.id).where(other.c.id == THINGS.c.n)))
    assert text.endswith("WHERE things_1.id = things.n")


def test_an_expression_is_neither_true_nor_text_nor_a_list() -> None:
    condition: Any = THINGS.c.id == "a"
    for use in (bool, iter, str, "{}".format, "%s".__mod__, list):
        with pytest.raises(TypeError):
            use(condition)


def test_a_column_that_a_table_does_not_have_is_missed_where_it_is_named() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        _ = THINGS.c.nosuch
    with pytest.raises(KeyError, match="nosuch"):
        _ = THINGS.c["nosuch"]


def test_a_statement_that_is_not_compiled_ahead_is_compiled() -> None:
    assert statement(by_id()).compiled("sqlite").sql.endswith("WHERE things.id = ?")


@pytest.mark.parametrize("text", [None, "", '{"a": ', "[]", "\0", '{"%s": {"order": []}}', '{"%s": 1}'])
def test_where_what_is_compiled_ahead_cannot_be_used_a_statement_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    monkeypatch.setattr(statements, "_AHEAD", tmp_path)
    monkeypatch.setattr(statements, "_ahead", {})
    if text is not None:
        (tmp_path / "sqlite.json").write_text(text.replace("%s", digest(by_id())))
    assert statement(by_id()).compiled("sqlite").sql.endswith("WHERE things.id = ?")
    assert statement(by_id()).compiled("sqlite").sql.endswith("WHERE things.id = ?")
    assert [record.message for record in caplog.records] == ["store.compiled_unusable"]


def in_a_new_process(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_kind_of_question_to_the_inventory_is_compiled_ahead() -> None:
    in_a_new_process("""
import sys
from itertools import product
from birthmark.ca.inventory import Wanted, statement_for

for revoked, unrevoked, profile, issuer in product((False, True), (False, True), (None, "device"), (None, bytes(32))):
    wanted = Wanted(is_revoked=revoked, is_unrevoked=unrevoked, profile=profile, issuer=issuer)
    for engine in ("sqlite", "postgresql"):
        statement_for(wanted).compiled(engine)
assert "sqlalchemy" not in sys.modules
""")


def test_what_compiles_is_whole_for_all_that_wait_for_it() -> None:
    """Also for those that ask while it is loaded: else the loop itself would wait for the rest."""
    in_a_new_process("""
import asyncio, sys
from birthmark.ca.inventory import Wanted, statement_for
from birthmark.store.statements import load_compiler

async def load(after_s):
    await asyncio.sleep(after_s)
    await load_compiler()
    assert hasattr(sys.modules["birthmark.store.compiling"], "compiled_by_sqlalchemy")
    assert hasattr(sys.modules["sqlalchemy.dialects.postgresql.asyncpg"], "dialect")

async def main():
    await asyncio.gather(*(load(number / 200) for number in range(8)))

statement_for(Wanted()).compiled("postgresql")
asyncio.run(main())
""")


def test_threads_that_want_the_same_table_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table, find, together = a_table(name="of_all"), compiling._named, threading.Barrier(8)

    def find_slowly(name: str) -> Any:
        time.sleep(0.01)
        return find(name)

    monkeypatch.setattr(compiling, "_named", find_slowly)

    def want(_number: int) -> Any:
        together.wait()
        return as_sqlalchemy(select(table.c.id)).get_final_froms()[0]

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(want, range(8)))) == 1


def test_questions_of_one_kind_are_compiled_once_and_each_has_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Written] = []

    def compiling(expression: Written, engine: Any) -> Any:
        compiled.append(expression)
        return compiled_by_sqlalchemy(expression, engine)

    monkeypatch.setattr("birthmark.store.statements._compiled", compiling)

    def asked(*names: str) -> Any:
        given = Given()
        names_in = or_(*(THINGS.c.id == given(name) for name in names))
        return given.statement(select(THINGS).where(names_in, THINGS.c.n > bindparam("n"))).compiled("sqlite")

    assert asked("a", "b").arguments({"n": "x"}) == ("a", "b", "x")
    assert asked("c", "d").arguments({"n": "y"}) == ("c", "d", "y")
    assert asked("e").arguments({"n": "z"}) == ("e", "z")
    assert len(compiled) == 2


def test_kinds_of_questions_are_kept_as_long_as_they_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "_compiled", compiled_by_sqlalchemy)
    monkeypatch.setattr(statements, "_MOST_ASKED_BYTES", 100_000)

    def ask(count: int) -> Compiled:
        given = Given()
        names = THINGS.c.id.in_([given(str(number), Text) for number in range(count)])
        return given.statement(select(THINGS).where(names)).compiled("postgresql")

    for count in range(300, 400):
        assert ask(count).arguments({}) == tuple(map(str, range(count)))
    kept = [one for one in gc.get_objects() if type(one) is Compiled and len(one.order) >= 300]
    assert 1 <= len(kept) <= 4


def test_what_is_compiled_ahead_is_what_the_rooms_say(tmp_path: Path) -> None:
    subprocess.run([sys.executable, TOOLS / "make_statements.py", tmp_path], check=True, stdout=subprocess.DEVNULL)
    for engine in ("sqlite", "postgresql"):
        written = (Path(statements.__file__).parent / "compiled" / f"{engine}.json").read_text(encoding="utf-8")
        assert (tmp_path / f"{engine}.json").read_text(encoding="utf-8") == written, "run tools/make_statements.py"
