"""Statements as each engine gets them, and questions that are compiled once for each kind."""

import gc
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text, bindparam, or_, select

from birthmark.store import compiled_statements, plain_and_encrypted_column_types
from birthmark.store.compiled_statements import BoundParameters, CompiledStatement, statement
from birthmark.store.table_statements import insert, upsert

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    plain_and_encrypted_column_types.text("secret", sealed=True),
    Column("raw", LargeBinary),
)


def by_id() -> Any:
    return select(THINGS.c.n, THINGS.c.secret).where(THINGS.c.id == bindparam("id"))


def test_each_engine_has_its_own_way_to_write_a_parameter() -> None:
    one = statement(by_id())
    assert one.compiled("sqlite").sql.endswith("WHERE things.id = ?")
    assert one.compiled("postgresql").sql.endswith("WHERE things.id = $1::VARCHAR")


def test_a_statement_is_compiled_once() -> None:
    one = statement(by_id())
    assert one.compiled("sqlite") is one.compiled("sqlite")


def test_parameters_have_the_kinds_of_their_columns() -> None:
    assert insert(THINGS).compiled("sqlite").kinds == ("text", "number", "text", "blob")


def test_what_is_sealed_is_known_on_its_way_in_and_out() -> None:
    assert upsert(THINGS).compiled("postgresql").sealed == ("secret",)
    assert statement(by_id()).compiled("sqlite").opened == ("secret",)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is compiled from now on."""
    found: list[Any] = []
    compile_, kinds = compiled_statements._compiled, compiled_statements._Kinds()

    def noted(expression: Any, engine: Any) -> Any:
        found.append(expression)
        return compile_(expression, engine)

    monkeypatch.setattr(compiled_statements, "_compiled", noted)
    monkeypatch.setattr(compiled_statements, "_kinds", kinds)
    return found


def asked(*names: str, least: Any = None) -> CompiledStatement:
    given = BoundParameters()
    is_named = or_(*(THINGS.c.id == given(name) for name in names))
    least = bindparam("n") if least is None else least
    return given.statement(select(THINGS).where(is_named, THINGS.c.n > least)).compiled("sqlite")


def test_questions_of_one_kind_are_compiled_once_and_each_has_its_values(compiled: list[Any]) -> None:
    assert asked("a", "b").arguments({"n": 1}) == ("a", "b", 1)
    assert asked("c", "d").arguments({"n": 2}) == ("c", "d", 2)
    assert asked("e").arguments({"n": 3}) == ("e", 3)
    assert len(compiled) == 2


def test_a_value_that_was_not_given_as_one_is_nobody_elses(compiled: list[Any]) -> None:
    assert [asked("a", least=number).arguments({}) for number in (1, 2)] == [("a", 1), ("a", 2)]
    assert len(compiled) == 2


def test_kinds_of_questions_are_kept_as_long_as_they_take_little_memory(
    compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_statements, "_MOST_ASKED_BYTES", 100_000)

    def ask(count: int) -> CompiledStatement:
        given = BoundParameters()
        names = THINGS.c.id.in_([given(str(number), Text) for number in range(count)])
        return given.statement(select(THINGS).where(names)).compiled("postgresql")

    for count in range(300, 400):
        assert ask(count).arguments({}) == tuple(map(str, range(count)))
    kept = [one for one in gc.get_objects() if type(one) is CompiledStatement and len(one.order) >= 300]
    assert 1 <= len(kept) <= 4
