"""A table of the tests' own, and a database that has it."""

import contextlib
from collections.abc import AsyncIterator

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, bindparam, select, update

from birthmark.store import Changes, Database, Event, Statement, insert, open_database, statement, upsert
from birthmark.store.compiled_statements import CompiledStatement
from birthmark.store.database_lock import MAIN
from support.fakes import FakeClock

things = Table("test_things", MetaData(), Column("id", Text, primary_key=True), Column("n", BigInteger, nullable=False))
ADD = insert(things)
PUT = upsert(things)
GET = statement(select(things).where(things.c.id == bindparam("id")))
ALL = statement(select(things).order_by(things.c.id))
BUMP = statement(
    update(things).where(things.c.id == bindparam("key_id"), things.c.n == bindparam("key_n")).values(n=bindparam("n"))
)


class ThingTold(Event, frozen=True, tag="test.thing_told"):
    """What the tests announce."""

    word: str = ""

    @property
    def entity(self) -> str:
        return "thing"


class OtherTold(Event, frozen=True, tag="test.other_told"):
    """And what nobody listens for."""

    @property
    def entity(self) -> str:
        return "other"


@contextlib.asynccontextmanager
async def a_database(url: str, worker: str = MAIN) -> AsyncIterator[Database]:
    database = await open_database(url, FakeClock(), worker=worker)
    try:
        await make_table(database)
        yield database
    finally:
        await database.close()


async def make_table(database: Database) -> None:
    made = Statement(lambda _engine: select(things))
    text = "CREATE TABLE IF NOT EXISTS test_things (id TEXT PRIMARY KEY, n BIGINT NOT NULL)"
    made._compiled = {engine: CompiledStatement(text, (), {}) for engine in ("sqlite", "postgresql")}
    await database.commit(Changes().run(made))
