"""PostgreSQL through asyncpg: a batch of changes is one call and one COMMIT; a restart of PostgreSQL is tolerated.

- database: the port, over a pool that reads and one connection that writes.
- writer: that connection: reconnect, begin, call, commit.
- steps: a batch as arrays, and the session functions that run it.
- patience: which operations are retried, and for how long.
"""

from birthmark.store.postgresql.database import PostgresDatabase, PostgresUnavailableError, translated

__all__ = ["PostgresDatabase", "PostgresUnavailableError", "translated"]
