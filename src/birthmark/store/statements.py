"""SQLAlchemy Core statements, known compiled (`written`) and then run as plain SQL with positional parameters.

Bind parameters are given by name. In an UPDATE, SQLAlchemy reserves the columns' own names for SET, so name the
parameters of its WHERE clause otherwise (`key_...`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from birthmark.background import beside
from birthmark.store.sealing import Seal
from birthmark.store.sql import Executable, Table, bindparam, delete, text
from birthmark.store.written import Written, digest_of, named
from birthmark.text import decode_json

log = logging.getLogger(__name__)

Engine = Literal["sqlite", "postgresql"]
Kind = Literal["text", "number", "blob"]
_AHEAD = Path(__file__).parent / "compiled"
_ahead: dict[Engine, Mapping[str, msgspec.Raw]] = {}


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
            known = self._compiled[engine] = _compiled(self.expression(engine), engine)
        return known

    def expression(self, engine: Engine) -> Written:
        """Return what it says to an engine."""
        return cast(Written, self._build(engine))


def _compiled(expression: Written, engine: Engine) -> Compiled:
    """Return an expression for an engine: as it stands in `compiled/`, or as SQLAlchemy has it."""
    try:
        if (raw := _ahead_for(engine).get(digest_of(expression))) is not None:
            return decode_json(raw, Compiled)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        _ahead[engine] = {}  # whoever installed it learns why it is slower
        log.warning("store.compiled_unusable", extra={"engine": engine, "reason": str(error)})
    from birthmark.store.compiling import compiled_by_sqlalchemy  # noqa: PLC0415 - see `written`

    return compiled_by_sqlalchemy(expression, engine)


def _ahead_for(engine: Engine) -> Mapping[str, msgspec.Raw]:
    """Return what is compiled ahead for an engine, by digests."""
    if (known := _ahead.get(engine)) is None:
        known = _ahead[engine] = decode_json((_AHEAD / f"{engine}.json").read_bytes(), dict[str, msgspec.Raw])
    return known


def statement(clause: Executable) -> Statement:
    """Return `clause` as a statement; it must be the same for both engines."""
    return Statement(lambda _engine: clause)


class Given:
    """The values of one question: they stand beside its expression, so that the next of this kind is not compiled."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __call__(self, value: Any, kind: Any = None) -> Any:
        """Return what stands for a value in the expression, of a type where nothing beside it tells that."""
        name = f"given_{len(self._values)}"
        self._values[name] = value
        return bindparam(name, type_=kind)

    def statement(self, clause: Executable) -> Statement:
        """Return a clause with these values."""
        return _Asked(clause, self._values)


class _Asked(Statement):
    __slots__ = ("_values",)

    def __init__(self, clause: Executable, values: Mapping[str, Any]) -> None:
        super().__init__(lambda _engine: clause)
        self._values = values

    def compiled(self, engine: Engine) -> Compiled:
        if (mine := self._compiled.get(engine)) is None:
            expression = self.expression(engine)
            kind = engine, digest_of(expression)
            if (known := _asked.get(kind)) is None:
                known = _compiled(expression, engine)
                _asked.add(kind, known)
            mine = self._compiled[engine] = replace(known, fixed={**known.fixed, **self._values})
        return mine


class _Kinds:
    """Kinds of questions that were compiled, as many as take so much memory; some have thousands of values."""

    def __init__(self) -> None:
        self._known: dict[tuple[Engine, str], Compiled] = {}
        self._bytes = 0

    def get(self, kind: tuple[Engine, str]) -> Compiled | None:
        return self._known.get(kind)

    def add(self, kind: tuple[Engine, str], compiled: Compiled) -> None:
        size = len(compiled.sql) + _PARAMETER_BYTES * len(compiled.order)
        self._bytes += size
        if self._bytes > _MOST_ASKED_BYTES:
            self._known.clear()
            self._bytes = size
        self._known[kind] = compiled


_PARAMETER_BYTES = 80
_MOST_ASKED_BYTES = 8 * 1024 * 1024
_asked = _Kinds()


async def load_compiler() -> None:
    """Load beside the loop what compiles a new kind of question: in it, others would wait a tenth of a second."""
    if not _ahead.keys() <= _loaded:
        await beside(_load)


def _load() -> None:
    from birthmark.store.compiling import dialect_of  # noqa: PLC0415 - see `written`

    for engine in tuple(_ahead):  # which somebody asked
        dialect_of(engine)
        _loaded.add(engine)


_loaded: set[Engine] = set()


def empty(table: Table) -> Statement:
    """Return what takes every row away, in a time that does not grow with them.

    SQLite does so with a DELETE of all; PostgreSQL's would look at each row.
    """
    return Statement(lambda engine: delete(table) if engine == "sqlite" else text(f'TRUNCATE "{table.name}"'))


def insert_into(engine: Engine, table: Table) -> Any:
    """Return the engine's own INSERT, which knows ON CONFLICT."""
    return named(f"{engine}_insert")(table)


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
