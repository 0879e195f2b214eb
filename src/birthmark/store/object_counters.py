"""Counters of objects, updated in the commit that creates or deletes one.

A row has the count of one worker, so that workers never wait for each other's row. A counter is the sum of its rows;
one worker's row may be negative, if another worker created what it deleted.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, delete, func, select

from birthmark.store.compiled_statements import Engine, Statement, statement
from birthmark.store.core_tables import metadata
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.table_statements import insert_into
from birthmark.store.unit_of_work import Changes, CounterChange

HOUR = 3_600_000_000
"""One hour in microseconds."""
WEEK, _THURSDAY = 168 * HOUR, 72 * HOUR

figures = Table(
    "figures",
    metadata,
    *(text(name, key=True) for name in ("name", "place", "state")),
    number("since", key=True),
    text("worker", key=True),
    number("value"),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class StoredCounter:
    """Counter `name` at `place` in `state`, for the period from `since` in microseconds; 0 for the current number."""

    name: str
    place: str
    state: str
    since: int
    value: int


@dataclass(frozen=True, slots=True)
class CounterMismatch:
    """A counter that differs from a scan of the stored objects, or is below the scan's lower bound."""

    counted: StoredCounter
    found: int


def _adding(engine: Engine) -> Any:
    insert = insert_into(engine, figures)
    clause = insert.values({column.name: bindparam(column.name) for column in figures.columns})
    added = figures.c.value + clause.excluded.value
    return clause.on_conflict_do_update(index_elements=list(figures.primary_key.columns), set_={"value": added})


COUNT = Statement(_adding)
"""Add to a counter row, and insert it if necessary."""
SUMS = statement(
    select(figures.c.name, figures.c.place, figures.c.state, figures.c.since, func.sum(figures.c.value).label("value"))
    .where(figures.c.name == bindparam("name"), figures.c.since >= bindparam("from_since"))
    .group_by(figures.c.name, figures.c.place, figures.c.state, figures.c.since)
    .order_by(figures.c.place, figures.c.state, figures.c.since)
)
FORGET_PLACE = statement(
    delete(figures).where(figures.c.name == bindparam("name"), figures.c.place == bindparam("place"))
)
OF_PLACE = statement(
    select(figures.c.state, func.sum(figures.c.value).label("value"))
    .where(figures.c.name == bindparam("name"), figures.c.place == bindparam("place"))
    .group_by(figures.c.state)
)


def summed(kept: Iterable[Changes]) -> Counter[tuple[str, str, str, int]]:
    """Return the total counter changes of committed changes, by row, with as few rows as possible."""
    total: Counter[tuple[str, str, str, int]] = Counter()
    for changes in kept:
        for one in changes.counts:
            total[_row_of(one, changes.at)] += one.by
    return total


def week_of(timestamp: int) -> int:
    """Return the Monday, 0:00 UTC, on which a week begins."""
    return (timestamp + _THURSDAY) // WEEK * WEEK - _THURSDAY  # 1970 began on a Thursday


def _row_of(count: CounterChange, timestamp: int) -> tuple[str, str, str, int]:
    return count.name, count.place, count.state, timestamp - timestamp % HOUR if count.since is None else count.since
