"""Choose the engine by URL; only the chosen one's driver is loaded."""

from birthmark.clock import Clock
from birthmark.store.chain import HeadSigner
from birthmark.store.database import Database

MAIN = "main"
"""The worker of a server that is alone; audit chains had this name from the first version on."""


async def open_database(url: str, clock: Clock, *, worker: str = MAIN, signer: HeadSigner | None = None) -> Database:
    """Open `sqlite:///PATH` or `postgresql://…`, migrated to this version's schema.

    `worker` names who commits here; its outbox and its audit chain, whose heads `signer` signs, have that name. Raise
    `UnavailableError` when the engine cannot be opened.
    """
    if url.startswith("sqlite:///"):
        from birthmark.store.sqlite import SqliteDatabase  # noqa: PLC0415 - only the chosen engine's driver is loaded

        return await SqliteDatabase.open(url.removeprefix("sqlite:///"), clock, worker, signer)
    if url.startswith(("postgresql://", "postgres://")):
        from birthmark.store.postgresql import PostgresDatabase  # noqa: PLC0415 - as above

        return await PostgresDatabase.open(url, clock, worker, signer)
    raise ValueError("the database must begin with sqlite:/// or postgresql://")  # settings refuse it with words
