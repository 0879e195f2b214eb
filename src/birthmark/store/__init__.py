"""The database: tables, migrations, the unit of work, batched durable writes.

SQLite (embedded, the default) and PostgreSQL implement one `Database`. A service passes a `Changes` value to
`Database.commit`, which returns when it is durable. All changes of one event loop iteration share a transaction, and a
failed change does not affect the others. Services define their tables on `metadata` and their statements in their
`store.py`.

Columns are text, 64-bit integers and bytes only, so that a row has the same meaning on both engines without conversion.
Times are integer microseconds since 1970 UTC (`to_micros`, `from_micros`), booleans are 0 or 1, and documents are JSON
text.

Not here: the meaning of rows (the services), and event subscriptions (`bus`).
"""

from birthmark.store.compiled_statements import Statement, statement
from birthmark.store.core_tables import metadata, partial_index
from birthmark.store.database import Database, may_be_kept
from birthmark.store.database_lock import DatabaseLock, hold_database, open_database
from birthmark.store.event_base_and_codec import Event
from birthmark.store.plain_and_encrypted_column_types import from_micros, to_micros
from birthmark.store.table_statements import empty, insert, upsert
from birthmark.store.unit_of_work import AuditRow, Changes, retry_on_conflict

__all__ = [
    "AuditRow",
    "Changes",
    "Database",
    "DatabaseLock",
    "Event",
    "Statement",
    "empty",
    "from_micros",
    "hold_database",
    "insert",
    "may_be_kept",
    "metadata",
    "open_database",
    "partial_index",
    "retry_on_conflict",
    "statement",
    "to_micros",
    "upsert",
]
