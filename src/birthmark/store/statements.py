"""SQLAlchemy Core statements, compiled once per engine and then run as plain SQL with positional parameters.

Bind parameters are given by name. In an UPDATE, SQLAlchemy reserves the columns' own names for SET, so name the
parameters of its WHERE clause otherwise (`key_...`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Executable, Integer, LargeBinary, String, Table, bindparam, delete, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from birthmark.store.columns import SealedBytes, SealedText
from birthmark.store.sealing import Seal

Engine = Literal["sqlite", "postgresql"]
Kind = Literal["text", "number", "blob"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL text, the order of its parameters, the values that the clause itself fixed, and each parameter's kind."""

    sql: str
    order: tuple[str, ...]
    fixed: Mapping[str, Any]
    kinds: tuple[Kind | None, ...] = ()
    sealed: tuple[str, ...] = ()
    """The parameters that are values of sealed columns."""
    opened: tuple[str, ...] = ()
    """The sealed columns of its rows."""

    def arguments(self, params: Mapping[str, Any], seal: Seal | None = None) -> tuple[Any, ...]:
        """Return the positional arguments; raise KeyError when one is missing."""
        if self.sealed and seal is not None:
            params = seal.closed(self.sealed, params)
        if self.fixed:
            params = {**self.fixed, **params}
        return tuple([params[name] for name in self.order])


class Statement:
    """One statement for both engines; compiling happens at first use and once."""

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: Callable[[Engine], Executable]) -> None:
        self._build = build
        self._compiled: dict[Engine, Compiled] = {}

    def compiled(self, engine: Engine) -> Compiled:
        """Return the compiled form for `engine`."""
        if (known := self._compiled.get(engine)) is None:
            known = self._compiled[engine] = self._compile(engine)
        return known

    def _compile(self, engine: Engine) -> Compiled:
        dialect = _dialect(engine)
        compiled = self._build(engine).compile(dialect=dialect)  # type: ignore[attr-defined] # of the clauses used here all have it
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 - DML and SELECT compile to nothing else
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        order = tuple(compiled.positiontup or ())
        types = {name: compiled.binds[name].type for name in order}
        sealed = tuple(name for name, of in types.items() if isinstance(of, _SEALED))
        columns = getattr(compiled, "_result_columns", ())
        opened = tuple(str(column.keyname) for column in columns if isinstance(column.type, _SEALED))
        return Compiled(str(compiled), order, fixed, tuple(_kind(types[name]) for name in order), sealed, opened)


_SEALED = (SealedText, SealedBytes)
_KINDS: Mapping[type[TypeEngine[Any]], Kind] = {String: "text", Integer: "number", LargeBinary: "blob"}


def _kind(column: TypeEngine[Any]) -> Kind | None:
    """Return the kind of a parameter; None for one that neither its column nor its `type_` tells."""
    return next((kind for base, kind in _KINDS.items() if isinstance(column, base)), None)


def statement(clause: Executable) -> Statement:
    """Return `clause` as a statement; it must be the same for both engines."""
    return Statement(lambda _engine: clause)


def empty(table: Table) -> Statement:
    """Return what takes every row away, in a time that does not grow with them.

    SQLite does so with a DELETE of all; PostgreSQL's would look at each row.
    """
    return Statement(lambda engine: delete(table) if engine == "sqlite" else text(f'TRUNCATE "{table.name}"'))


@functools.cache  # each has tables of its own
def _dialect(engine: Engine) -> Any:
    if engine == "sqlite":
        return sqlite.dialect()
    from sqlalchemy.dialects.postgresql import asyncpg  # noqa: PLC0415 - most servers never need it

    return asyncpg.dialect()  # type: ignore[no-untyped-call] # as above


def insert_into(engine: Engine, table: Table) -> Any:
    """Return the engine's own INSERT, which knows ON CONFLICT."""
    if engine == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - as above

    return postgresql.insert(table)


def insert(table: Table, *, ignore_existing: bool = False, without: Sequence[str] = ()) -> Statement:
    """Return an INSERT of every column that has no database-made value, but for those that keep their default."""
    columns = [c for c in table.columns if c.autoincrement is not True and c.name not in without]

    def build(engine: Engine) -> Executable:
        # Inline: nobody asks for the numbers that the database makes.
        clause = insert_into(engine, table).values({c.name: bindparam(c.name) for c in columns}).inline()
        if ignore_existing:
            clause = clause.on_conflict_do_nothing()
        made: Executable = clause
        return made

    return Statement(build)


def upsert(table: Table, *, update: Sequence[str] | None = None) -> Statement:
    """Return an INSERT that overwrites `update` (default: every other column) where the primary key exists."""
    keys = [c.name for c in table.primary_key.columns]
    names = [c.name for c in table.columns]
    changed = [n for n in names if n not in keys] if update is None else list(update)

    def build(engine: Engine) -> Executable:
        clause = insert_into(engine, table).values({n: bindparam(n) for n in names})
        made: Executable = clause.on_conflict_do_update(
            index_elements=keys, set_={n: getattr(clause.excluded, n) for n in changed}
        )
        return made

    return Statement(build)
