"""SQLAlchemy Core statements, compiled once per engine and run as plain SQL with positional parameters.

Bind parameters are passed by name. In an UPDATE, SQLAlchemy reserves the column names for SET, so use other names in
its WHERE clause (`key_...`).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ClauseElement, Executable, Integer, LargeBinary, String, bindparam
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.plain_and_encrypted_column_types import is_sealed

Engine = Literal["sqlite", "postgresql"]
Kind = Literal["text", "number", "blob"]
_KINDS: Mapping[type[TypeEngine[Any]], Kind] = {String: "text", Integer: "number", LargeBinary: "blob"}


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """SQL text with the order of its parameters, the clause's fixed values, and the type of each parameter."""

    sql: str
    order: tuple[str, ...]
    fixed: Mapping[str, Any]
    kinds: tuple[Kind | None, ...] = ()
    sealed: tuple[str, ...] = ()
    """Parameters that are values of encrypted columns."""
    opened: tuple[str, ...] = ()
    """Encrypted columns of the result rows."""

    def arguments(self, params: Mapping[str, Any], seal: ColumnCipher | None = None) -> tuple[Any, ...]:
        """Return the positional arguments; raise KeyError if one is missing."""
        if self.sealed and seal is not None:
            params = seal.encrypt_parameters(self.sealed, params)
        if self.fixed:
            params = {**self.fixed, **params}
        return tuple([params[name] for name in self.order])


class Statement:
    """A statement for both engines, compiled once on first use."""

    __slots__ = ("_build", "_compiled")

    def __init__(self, build: Callable[[Engine], Executable]) -> None:
        self._build = build
        self._compiled: dict[Engine, CompiledStatement] = {}

    def compiled(self, engine: Engine) -> CompiledStatement:
        """Return the compiled form for `engine`."""
        if (known := self._compiled.get(engine)) is None:
            known = self._compiled[engine] = _compiled(self.expression(engine), engine)
        return known

    def expression(self, engine: Engine) -> Executable:
        """Return the SQLAlchemy expression for an engine."""
        return self._build(engine)


def _compiled(expression: Executable, engine: Engine) -> CompiledStatement:
    assert isinstance(expression, ClauseElement)  # noqa: S101 - all executables are
    compiled = expression.compile(dialect=_dialect_of(engine))
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - DML and SELECT compile only to it
    fixed = {name: value for name, value in compiled.params.items() if value is not None}
    order = tuple(compiled.positiontup or ())
    types = {name: compiled.binds[name].type for name in order}
    sealed = tuple(name for name, of in types.items() if is_sealed(of))
    columns = getattr(compiled, "_result_columns", ())
    opened = tuple(str(column.keyname) for column in columns if is_sealed(column.type))
    return CompiledStatement(str(compiled), order, fixed, tuple(_kind(types[name]) for name in order), sealed, opened)


def _kind(column: TypeEngine[Any]) -> Kind | None:
    """Return the type of a parameter; None if neither its column nor its `type_` defines it."""
    return next((kind for base, kind in _KINDS.items() if isinstance(column, base)), None)


@functools.cache
def _dialect_of(engine: Engine) -> Any:
    if engine == "sqlite":
        return sqlite.dialect()
    from sqlalchemy.dialects.postgresql import asyncpg  # noqa: PLC0415 - rarely needed

    return asyncpg.dialect()  # type: ignore[no-untyped-call] # all clauses used here have it


def statement(clause: Executable) -> Statement:
    """Return `clause` as a statement; it must be the same for both engines."""
    return Statement(lambda _engine: clause)


class BoundParameters:
    """The values of one query, separate from its expression, so that similar queries share a compiled statement."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __call__(self, value: Any, kind: Any = None) -> Any:
        """Return a bind parameter for a value, with a type if the expression does not imply it."""
        name = f"given_{len(self._values)}"
        self._values[name] = value
        return bindparam(name, type_=kind)

    def statement(self, clause: Executable) -> Statement:
        """Return a statement of the clause with these values."""
        return _CompiledQuery(clause, self._values)


class _CompiledQuery(Statement):
    __slots__ = ("_values",)

    def __init__(self, clause: Executable, values: Mapping[str, Any]) -> None:
        super().__init__(lambda _engine: clause)
        self._values = values

    def compiled(self, engine: Engine) -> CompiledStatement:
        if (mine := self._compiled.get(engine)) is None:
            known = _kinds.compiled(self.expression(engine), engine)
            mine = self._compiled[engine] = replace(known, fixed={**known.fixed, **self._values})
        return mine


class _Kinds:
    """Cache of compiled queries, bounded by memory, because some have thousands of values."""

    def __init__(self) -> None:
        self._known: dict[Any, CompiledStatement] = {}
        self._bytes = 0

    def compiled(self, expression: Any, engine: Engine) -> CompiledStatement:
        """Return the compiled query; queries that differ only in their values share it."""
        said = expression._generate_cache_key()  # noqa: SLF001 - key of SQLAlchemy's own statement cache
        if said is None or any(one.value is not None for one in said.bindparams):
            return _compiled(expression, engine)  # literal values are not part of the key
        key = engine, said.key
        if (known := self._known.get(key)) is None:
            known = _compiled(expression, engine)
            size = len(known.sql) + _PARAMETER_BYTES * len(known.order)
            self._bytes += size
            if self._bytes > _MOST_ASKED_BYTES:
                self._known.clear()
                self._bytes = size
            self._known[key] = known
        return known


_PARAMETER_BYTES = 80
_MOST_ASKED_BYTES = 8 * 1024 * 1024
_kinds = _Kinds()
