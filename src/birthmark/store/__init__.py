"""The database: tables, migrations, the unit of work, batched durable writes.

SQLite (embedded, the default) and PostgreSQL stand behind one `Database`. A service hands a `Changes` value to
`Database.commit`, which returns when it is durable; everything of one loop tick shares a transaction, and one change
that fails does not fail its neighbors. Rooms define their tables on `metadata` and their statements in their own
`store.py`.

Columns are text, 64-bit integers and bytes only, so that a row means the same on both engines without conversion:
times are integer microseconds since 1970 UTC (`to_micros`, `from_micros`), booleans 0 or 1, documents JSON text.

Not here: what the rows mean (the rooms), who hears of events (`bus`).
"""

from birthmark.store.columns import from_micros, to_micros
from birthmark.store.database import Database, may_be_kept
from birthmark.store.database_lock import DatabaseLock, hold_database, open_database
from birthmark.store.events import Event
from birthmark.store.schema import metadata, partial_index
from birthmark.store.statements import Statement, empty, insert, statement, upsert
from birthmark.store.unit_of_work import AuditRow, Changes, decided_again

__all__ = [
    "AuditRow",
    "Changes",
    "Database",
    "DatabaseLock",
    "Event",
    "Statement",
    "decided_again",
    "empty",
    "from_micros",
    "hold_database",
    "insert",
    "may_be_kept",
    "metadata",
    "open_database",
    "partial_index",
    "statement",
    "to_micros",
    "upsert",
]
