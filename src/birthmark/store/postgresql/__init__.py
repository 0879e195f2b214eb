"""PostgreSQL by asyncpg: a batch of changes is one call and one COMMIT, and a restart of the server is waited out.

database:  the port, over a pool that reads and one connection that writes.
writer:    that connection: connect again, begin, call, commit.
steps:     a batch as arrays, and the functions of the session that run it.
patience:  what is tried again, and for how long.
"""

from birthmark.store.postgresql.database import PostgresDatabase, PostgresUnavailableError, translated

__all__ = ["PostgresDatabase", "PostgresUnavailableError", "translated"]
