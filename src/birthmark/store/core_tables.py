"""The metadata of all tables, and the tables of the store itself.

outbox:       committed events that are not yet published to the bus. Each worker has one, which it numbers in commit
order and drains.
audit:        one hash-chained row per mutation (`birthmark.store.signed_audit_chain`).
audit_heads:  the signed end of each chain, written with its last rows, and the ends of the other chains that it covers.
server_facts: facts about the installation that owns this database, by name.
"""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Index, Integer, MetaData, Table, func, select

from birthmark.store.compiled_statements import statement
from birthmark.store.plain_and_encrypted_column_types import blob, number, text

metadata = MetaData()

# SQLite gives a row id to INTEGER PRIMARY KEY only; PostgreSQL wants 64 bits.
RowId = BigInteger().with_variant(Integer(), "sqlite")


def partial_index(name: str, *columns: ColumnElement[Any], condition: ColumnElement[bool]) -> Index:
    """Return an index of the rows for which `where` holds.

    On PostgreSQL the migration creates it; declaring it here would load SQLAlchemy's PostgreSQL dialect in every
    server.
    """
    return Index(name, *columns, sqlite_where=condition)


outbox = Table(
    "outbox",
    metadata,
    text("worker", key=True),
    number("seq", key=True),
    *(text(name) for name in ("kind", "entity")),
    number("version"),
    text("body"),
    number("at"),
    sqlite_with_rowid=False,  # rows are found only by its key
)

audit = Table(
    "audit",
    metadata,
    text("chain", key=True),
    number("seq", key=True),
    number("at"),
    *(text(name) for name in ("actor", "action", "subject", "detail")),
    blob("digest"),
)
Index("audit_at", audit.c.at)
for _name in ("actor", "action", "subject"):
    Index(f"audit_{_name}", audit.c[_name], audit.c.at)

audit_heads = Table(
    "audit_heads",
    metadata,
    text("chain", key=True),
    *(number(name) for name in ("seq", "at")),
    *(blob(name) for name in ("digest", "key", "signature")),
    text("others", optional=True),
)

COUNT_OUTBOX = statement(select(func.count().label("total")).select_from(outbox))

server_facts = Table("server_facts", metadata, text("name", key=True), text("value"))
