"""Facts that bind a database to its installation, such as the root of its CA."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import bindparam, delete, select

from birthmark.ca.ca_directory import UNNOTED
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import ConflictError
from birthmark.iothub import store as hub_store
from birthmark.pki.certificates import Certificate
from birthmark.server.data_dir import UNFINISHED, RestoreUnfinishedError
from birthmark.server.settings import ConfigInvalidError
from birthmark.store import Changes, Database, DatabaseLock, insert, statement, upsert
from birthmark.store.core_tables import outbox, server_facts

_ROOT = "ca.root"
MOVED = "server.moved"
"""The new location of the content of this database."""
_ID = "server.installation"
_NUMBER, _MOST = "server.worker.", 256
_FACT = statement(select(server_facts.c.value).where(server_facts.c.name == bindparam("name")))
_ADD = insert(server_facts, ignore_existing=True)
_SET = upsert(server_facts)
_OUTBOXES = statement(select(outbox.c.worker).distinct())
_FORGET_OUTBOX = statement(delete(outbox).where(outbox.c.worker == bindparam("worker")))


class DatabaseMovedError(ConflictError):
    """The records were moved to another database."""

    code = "server.database_moved"
    cause = "All data in this database was moved to {to}; changes to this database have no effect there."
    fix = "Run the server with that database: `{command} --database {to}`."
    command: str = "birthmark serve"
    to: str


async def root_of(database: Database) -> str | None:
    """Return the thumbprint (hex) of the root that this database belongs to; None for an unused database."""
    row = await database.one(_FACT, name=_ROOT)
    if row is not None:
        return str(row["value"])
    # Version 0.1.0 recorded no root, but its first start created a hub after the CA.
    return UNNOTED if await database.one(hub_store.HUBS_PAGE, after="", limit=1) is not None else None


async def ensure_installation_id(database: Database, entropy: Entropy) -> str:
    """Return the prefix of the bus subjects of this installation's workers, which its first worker creates."""
    await database.commit(Changes().run(_ADD, name=_ID, value=entropy.token(12).hex()))
    row = await database.one(_FACT, name=_ID)
    assert row is not None  # noqa: S101 - just written, or it existed
    return str(row["value"])


async def ensure_worker_number(database: Database) -> int:
    """Return the permanent number, 1 to 255, of the worker that commits here. Raise `ConfigInvalidError`."""
    for number in range(1, _MOST):
        await database.commit(Changes().run(_ADD, name=f"{_NUMBER}{number}", value=database.worker))
        row = await database.one(_FACT, name=f"{_NUMBER}{number}")
        if row is not None and row["value"] == database.worker:
            return number
    detail = (
        f"worker names have permanent numbers, and {database.worker} is the {_MOST}th name: use as many workers "
        "as before, or the data directory of a decommissioned machine"
    )
    raise ConfigInvalidError(where="workers", detail=detail)


async def forget_outboxes(database: Database, is_no_more: Callable[[str], bool]) -> None:
    """Delete the events of removed workers; a starting worker has no cache that they could invalidate."""
    for row in await database.all(_OUTBOXES):
        if is_no_more(row["worker"]):
            await database.commit(Changes().run(_FORGET_OUTBOX, worker=row["worker"]))


async def check_not_restoring_or_moved(database: Database, directory: Path) -> None:
    """Raise `RestoreUnfinishedError` for a partially restored database, and `DatabaseMovedError` for a moved one."""
    if await database.one(_FACT, name=UNFINISHED) is not None:
        raise RestoreUnfinishedError(path=directory)
    if (moved := await database.one(_FACT, name=MOVED)) is not None:
        raise DatabaseMovedError(to=str(moved["value"]))


async def note_holder(database: Database, hold: DatabaseLock) -> None:
    """Write the token of the lock holder to the database, so that a later check can detect another holder."""
    await database.commit(Changes().run(_SET, name=hold.fact, value=hold.token))
    hold.mark_noted()


async def note_root(database: Database, root: Certificate) -> None:
    """Store the root permanently, before anything is signed under it.

    The audit chain begins with it. A database with a root and no chain was truncated, even if the first start failed.
    """
    if await database.one(_FACT, name=_ROOT) is None:
        changes = Changes().run(_ADD, name=_ROOT, value=root.thumbprint.hex())
        await database.commit(changes.audit("server", "ca.root_noted", root.thumbprint.hex()))
