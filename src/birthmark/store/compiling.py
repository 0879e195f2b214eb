"""What SQLAlchemy makes of expressions that were written down. Loaded where a statement is not known compiled."""

import functools
import threading
from collections.abc import Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import Integer, LargeBinary, String
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from birthmark.store.statements import Compiled, Engine, Kind
from birthmark.store.written import Written, built


class SealedText(sqlalchemy.Text):
    """The type of text that is sealed."""

    cache_ok = True


class SealedBytes(LargeBinary):
    """The type of bytes that are sealed."""

    cache_ok = True


_TURN = threading.RLock()  # of two threads that make a table of one name, the second is refused by SQLAlchemy
_SEALED = (SealedText, SealedBytes)
_KINDS: Mapping[type[TypeEngine[Any]], Kind] = {String: "text", Integer: "number", LargeBinary: "blob"}
_OWN: Mapping[str, Any] = {"SealedText": SealedText, "SealedBytes": SealedBytes, "sqlite_insert": sqlite.insert}


def compiled_by_sqlalchemy(expression: Written, engine: Engine) -> Compiled:
    """Return an expression for an engine."""
    compiled = as_sqlalchemy(expression).compile(dialect=dialect_of(engine))
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - DML and SELECT compile to nothing else
    fixed = {name: value for name, value in compiled.params.items() if value is not None}
    order = tuple(compiled.positiontup or ())
    types = {name: compiled.binds[name].type for name in order}
    sealed = tuple(name for name, of in types.items() if isinstance(of, _SEALED))
    columns = getattr(compiled, "_result_columns", ())
    opened = tuple(str(column.keyname) for column in columns if isinstance(column.type, _SEALED))
    return Compiled(str(compiled), order, fixed, tuple(_kind(types[name]) for name in order), sealed, opened)


def as_sqlalchemy(expression: Any) -> Any:
    """Return what was written down as SQLAlchemy has it."""
    with _TURN:
        return built(expression, _named)


def _kind(column: TypeEngine[Any]) -> Kind | None:
    """Return the kind of a parameter; None for one that neither its column nor its `type_` tells."""
    return next((kind for base, kind in _KINDS.items() if isinstance(column, base)), None)


def _named(name: str) -> Any:
    if name == "postgresql_insert":
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - most servers never need it

        return postgresql.insert
    return _OWN.get(name) or getattr(sqlalchemy, name)


@functools.cache  # each has tables of its own
def dialect_of(engine: Engine) -> Any:
    """Return what SQLAlchemy knows of an engine."""
    if engine == "sqlite":
        return sqlite.dialect()
    from sqlalchemy.dialects.postgresql import asyncpg  # noqa: PLC0415 - as above

    return asyncpg.dialect()  # type: ignore[no-untyped-call] # of the clauses used here all have it
