"""Choose the engine by URL; only the chosen one's driver is loaded."""

from birthmark.clock import Clock
from birthmark.store.chain import HeadSigner
from birthmark.store.database import Database


async def open_database(url: str, clock: Clock, *, chain: str = "main", signer: HeadSigner | None = None) -> Database:
    """Open `sqlite:///PATH` or `postgresql://…`, migrated to this version's schema.

    `chain` names this process's audit chain, whose heads `signer` signs. Raise
    `UnavailableError` when the engine cannot be opened.
    """
    if url.startswith("sqlite:///"):
        from birthmark.store.sqlite import SqliteDatabase  # noqa: PLC0415 - only the chosen engine's driver is loaded

        return await SqliteDatabase.open(url.removeprefix("sqlite:///"), clock, chain, signer)
    if url.startswith(("postgresql://", "postgres://")):
        from birthmark.store.postgresql import PostgresDatabase  # noqa: PLC0415 - as above

        return await PostgresDatabase.open(url, clock, chain, signer)
    raise ValueError("the database must begin with sqlite:/// or postgresql://")  # settings refuse it with words
