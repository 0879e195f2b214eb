"""Generic table statements: insert, upsert, select, page, update, delete, and write guards.

A condition is a column's name, with a parameter of the same name, or a clause. Without conditions, the primary key
selects the row.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Executable,
    Table,
    Update,
    bindparam,
    delete,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import sqlite

from birthmark.store.compiled_statements import Engine, Statement, statement

Condition: TypeAlias = str | ColumnElement[bool]


def find(
    table: Table, *conditions: Condition, of: Sequence[str] = (), order: Any = None, limit: int | None = None
) -> Statement:
    """Return a SELECT of the matching rows, with all columns or only those in `of`."""
    return Statement(lambda _: _select(table, of).where(*_fitting(table, conditions)).order_by(order).limit(limit))


def page(table: Table, key: str, *conditions: Condition, of: Sequence[str] = (), descending: bool = False) -> Statement:
    """Return a SELECT of the `limit` rows whose `key` follows `after`.

    In descending order an empty `after` precedes all rows.
    """

    def build(_engine: Engine) -> Executable:
        column: ColumnElement[Any] = table.c[key]
        after: ColumnElement[Any] = bindparam("after")
        follows = or_(after == "", column < after) if descending else column > after
        order = column.desc() if descending else column
        fitting = _fitting(table, conditions) if conditions else []
        made: Executable = _select(table, of).where(*fitting, follows).order_by(order).limit(bindparam("limit"))
        return made

    return Statement(build)


def remove(table: Table, *conditions: Condition) -> Statement:
    """Return a DELETE of the matching rows."""
    return Statement(lambda _: delete(table).where(*_fitting(table, conditions)))


def change(table: Table, columns: Iterable[str], *conditions: Condition) -> Statement:
    """Return an UPDATE of `columns`; the parameters of the conditions are named `key_…`."""
    names = tuple(columns)
    return Statement(lambda _: _update(table, conditions).values({name: bindparam(name) for name in names}))


def change_if_free(table: Table, columns: Iterable[str], *conditions: Condition) -> Statement:
    """Return an UPDATE as from `change` that skips a row locked by another transaction, as if it did not match.

    For commits of many rows that several processes write: PostgreSQL resolves a deadlock between them only after a
    second.
    """
    keys = list(table.primary_key.columns)
    fitting = _fitting(table, conditions, "key_")
    free = select(keys[-1]).where(*fitting).with_for_update(skip_locked=True).correlate(None).scalar_subquery()
    named = [key == bindparam(f"key_{key.name}") for key in keys[:-1]]
    values: dict[str, Any] = {name: bindparam(name) for name in columns}
    return statement(update(table).where(*named, keys[-1] == free).values(values))


def remove_if_free(table: Table, *conditions: Condition) -> Statement:
    """Return a DELETE as from `remove` that skips locked rows, as `change_if_free`; for tables with one key column."""
    (key,) = table.primary_key.columns
    free = select(key).where(*_fitting(table, conditions)).with_for_update(skip_locked=True)
    return statement(delete(table).where(key == free.correlate(None).scalar_subquery()))


def guard_unchanged(table: Table, *conditions: Condition) -> Statement:
    """Return a write guard that requires a row to match the conditions, as an UPDATE without effect.

    The row is locked until the commit ends. The parameters of the conditions are named `key_…`.
    """
    column = next(iter(table.primary_key.columns))
    return Statement(lambda _: _update(table, conditions).values({column.name: column}))


def guard_exists(table: Table, *conditions: Condition) -> Statement:
    """Return a write guard that requires a matching row, with a shared lock.

    Other transactions may also depend on the row or change it, but cannot delete it until the commit ends. The
    parameters of the conditions (default: the primary key) are named `key_…`.
    """
    return _counted_on(table, conditions, may_change=True)


def guard_locked(table: Table, *conditions: Condition) -> Statement:
    """Return a write guard as from `guard_exists` that also blocks changes of the row until the commit ends.

    Do not combine it with a change of the same row: two commits that hold the lock and then change the row deadlock.
    """
    return _counted_on(table, conditions, may_change=False)


def _counted_on(table: Table, conditions: Sequence[Condition], *, may_change: bool) -> Statement:
    column = next(iter(table.primary_key.columns))

    def build(engine: Engine) -> Executable:
        if engine == "sqlite":  # it has one writer anyway
            return _update(table, conditions).values({column.name: column})
        fitting = _fitting(table, conditions, "key_")
        return select(column).where(*fitting).with_for_update(key_share=may_change, read=True)

    return Statement(build)


MAX_LIST_VALUES = 100
_AMONG = tuple(f"among_{number}" for number in range(MAX_LIST_VALUES))


def is_in_list(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a column has one of several values; `list_parameters` returns its parameters."""
    return column.in_([bindparam(name, type_=column.type) for name in _AMONG])


def list_parameters(values: Sequence[Any]) -> dict[str, Any]:
    """Return the parameters of `among`, for 1 to `MAX_LIST_VALUES` values."""
    return dict(zip(_AMONG, [*values, *[values[-1]] * (MAX_LIST_VALUES - len(values))], strict=True))


def _select(table: Table, of: Sequence[str]) -> Any:
    return select(*(table.c[name] for name in of)) if of else select(table)


def _update(table: Table, conditions: Sequence[Condition]) -> Update:
    return update(table).where(*_fitting(table, conditions, "key_"))


def _fitting(table: Table, conditions: Sequence[Condition], prefix: str = "") -> list[ColumnElement[bool]]:
    named = conditions or [column.name for column in table.primary_key.columns]
    return [table.c[one] == bindparam(prefix + one) if isinstance(one, str) else one for one in named]


def empty(table: Table) -> Statement:
    """Return a statement that deletes every row in constant time.

    SQLite does so with an unconditional DELETE; on PostgreSQL a DELETE visits each row.
    """
    return Statement(lambda engine: delete(table) if engine == "sqlite" else text(f'TRUNCATE "{table.name}"'))


def insert_into(engine: Engine, table: Table) -> Any:
    """Return the engine's INSERT, which supports ON CONFLICT."""
    if engine == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - rarely needed

    return postgresql.insert(table)


def insert(table: Table, *, ignore_existing: bool = False, without: Sequence[str] = ()) -> Statement:
    """Return an INSERT of every column except database-generated ones and those in `without`.

    Columns in `without` keep their default.
    """
    columns = [c for c in table.columns if c.autoincrement is not True and c.name not in without]

    def build(engine: Engine) -> Executable:
        # Inline: generated keys are not needed.
        clause = insert_into(engine, table).values({c.name: bindparam(c.name) for c in columns}).inline()
        if ignore_existing:
            clause = clause.on_conflict_do_nothing()
        made: Executable = clause
        return made

    return Statement(build)


def upsert(table: Table, *, update: Sequence[str] | None = None) -> Statement:
    """Return an INSERT that overwrites `update` (default: every other column) if the primary key exists."""
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
