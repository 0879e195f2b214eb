"""The statements that every table needs: rows by the values of some columns, a page of them, removal and change.

A condition is a column's name, whose value is then the parameter of that name, or a clause of its own. Without any, a
row is named by its primary key.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Table, bindparam, delete, or_, select, update

from birthmark.store.statements import Statement, statement

Condition: TypeAlias = str | ColumnElement[bool]


def find(
    table: Table, *conditions: Condition, of: Sequence[str] = (), order: Any = None, limit: int | None = None
) -> Statement:
    """Return a SELECT of the rows that fit, whole or `of` some columns."""
    return statement(_select(table, of).where(*_fitting(table, conditions)).order_by(order).limit(limit))


def page(table: Table, key: str, *conditions: Condition, of: Sequence[str] = (), descending: bool = False) -> Statement:
    """Return a SELECT of the `limit` rows whose `key` follows `after`; descending, an empty one is before them all."""
    column: ColumnElement[Any] = table.c[key]
    after: ColumnElement[Any] = bindparam("after")
    follows = or_(after == "", column < after) if descending else column > after
    order = column.desc() if descending else column
    fitting = _fitting(table, conditions) if conditions else []
    return statement(_select(table, of).where(*fitting, follows).order_by(order).limit(bindparam("limit")))


def remove(table: Table, *conditions: Condition) -> Statement:
    """Return a DELETE of the rows that fit."""
    return statement(delete(table).where(*_fitting(table, conditions)))


def change(table: Table, columns: Iterable[str], *conditions: Condition) -> Statement:
    """Return an UPDATE of `columns`; the parameters of the conditions are named `key_…`."""
    fitting = _fitting(table, conditions, "key_")
    return statement(update(table).where(*fitting).values({name: bindparam(name) for name in columns}))


def still(table: Table, *conditions: Condition) -> Statement:
    """Return an UPDATE that changes nothing: a commit that expects it to touch a row holds while the conditions do.

    The row is locked until then. The parameters of the conditions are named `key_…`.
    """
    column = next(iter(table.primary_key.columns))
    return statement(update(table).where(*_fitting(table, conditions, "key_")).values({column.name: column}))


def _select(table: Table, of: Sequence[str]) -> Any:
    return select(*(table.c[name] for name in of)) if of else select(table)


def _fitting(table: Table, conditions: Sequence[Condition], prefix: str = "") -> list[ColumnElement[bool]]:
    named = conditions or [column.name for column in table.primary_key.columns]
    return [table.c[one] == bindparam(prefix + one) if isinstance(one, str) else one for one in named]
