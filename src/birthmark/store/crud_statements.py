"""The statements that every table needs: rows by the values of some columns, a page of them, removal and change.

A condition is a column's name, whose value is then the parameter of that name, or a clause of its own. Without any, a
row is named by its primary key.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Executable, Table, Update, bindparam, delete, or_, select, update

from birthmark.store.statements import Engine, Statement, statement

Condition: TypeAlias = str | ColumnElement[bool]


def find(
    table: Table, *conditions: Condition, of: Sequence[str] = (), order: Any = None, limit: int | None = None
) -> Statement:
    """Return a SELECT of the rows that fit, whole or `of` some columns."""
    return Statement(lambda _: _select(table, of).where(*_fitting(table, conditions)).order_by(order).limit(limit))


def page(table: Table, key: str, *conditions: Condition, of: Sequence[str] = (), descending: bool = False) -> Statement:
    """Return a SELECT of the `limit` rows whose `key` follows `after`; descending, an empty one is before them all."""

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
    """Return a DELETE of the rows that fit."""
    return Statement(lambda _: delete(table).where(*_fitting(table, conditions)))


def change(table: Table, columns: Iterable[str], *conditions: Condition) -> Statement:
    """Return an UPDATE of `columns`; the parameters of the conditions are named `key_…`."""
    names = tuple(columns)
    return Statement(lambda _: _update(table, conditions).values({name: bindparam(name) for name in names}))


def change_if_free(table: Table, columns: Iterable[str], *conditions: Condition) -> Statement:
    """Return what `change` does where nobody else is about to change the row; else it fits no more, as it soon will.

    For commits of many rows that several processes write: who waits for another's row, which waits for ours, is let go
    by PostgreSQL after a second.
    """
    keys = list(table.primary_key.columns)
    fitting = _fitting(table, conditions, "key_")
    free = select(keys[-1]).where(*fitting).with_for_update(skip_locked=True).correlate(None).scalar_subquery()
    named = [key == bindparam(f"key_{key.name}") for key in keys[:-1]]
    values: dict[str, Any] = {name: bindparam(name) for name in columns}
    return statement(update(table).where(*named, keys[-1] == free).values(values))


def remove_if_free(table: Table, *conditions: Condition) -> Statement:
    """Return what `remove` does, as `change_if_free`: for a table with one column as its key."""
    (key,) = table.primary_key.columns
    free = select(key).where(*_fitting(table, conditions)).with_for_update(skip_locked=True)
    return statement(delete(table).where(key == free.correlate(None).scalar_subquery()))


def still(table: Table, *conditions: Condition) -> Statement:
    """Return an UPDATE that changes nothing: a commit that expects it to touch a row holds while the conditions do.

    The row is locked until then. The parameters of the conditions are named `key_…`.
    """
    column = next(iter(table.primary_key.columns))
    return Statement(lambda _: _update(table, conditions).values({column.name: column}))


def present(table: Table, *conditions: Condition) -> Statement:
    """Return what changes nothing: a commit that expects it to touch a row holds where that row fits.

    Others may count on it and change it meanwhile, and nobody removes it before that commit is over. The parameters of
    the conditions, those of its primary key where there are none, are named `key_…`.
    """
    return _counted_on(table, conditions, may_change=True)


def held(table: Table, *conditions: Condition) -> Statement:
    """Return what `present` does; whoever changes the row waits, too, until that commit is over.

    Not beside a change of the same row: two commits that hold it, and go on to change it, wait for each other.
    """
    return _counted_on(table, conditions, may_change=False)


def _counted_on(table: Table, conditions: Sequence[Condition], *, may_change: bool) -> Statement:
    column = next(iter(table.primary_key.columns))

    def build(engine: Engine) -> Executable:
        if engine == "sqlite":  # which has one writer anyway
            return _update(table, conditions).values({column.name: column})
        fitting = _fitting(table, conditions, "key_")
        return select(column).where(*fitting).with_for_update(key_share=may_change, read=True)

    return Statement(build)


MOST_AMONG = 100
_AMONG = tuple(f"among_{number}" for number in range(MOST_AMONG))


def among(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a column is one of some values, which `these` gives as parameters."""
    return column.in_([bindparam(name, type_=column.type) for name in _AMONG])


def these(values: Sequence[Any]) -> dict[str, Any]:
    """Return the parameters of `among`, for 1 to `MOST_AMONG` values."""
    return dict(zip(_AMONG, [*values, *[values[-1]] * (MOST_AMONG - len(values))], strict=True))


def _select(table: Table, of: Sequence[str]) -> Any:
    return select(*(table.c[name] for name in of)) if of else select(table)


def _update(table: Table, conditions: Sequence[Condition]) -> Update:
    return update(table).where(*_fitting(table, conditions, "key_"))


def _fitting(table: Table, conditions: Sequence[Condition], prefix: str = "") -> list[ColumnElement[bool]]:
    named = conditions or [column.name for column in table.primary_key.columns]
    return [table.c[one] == bindparam(prefix + one) if isinstance(one, str) else one for one in named]
