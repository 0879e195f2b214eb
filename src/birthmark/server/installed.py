"""What the database knows of the installation it belongs to: the root of its CA."""

from pathlib import Path

from sqlalchemy import bindparam, select

from birthmark.ca.directory import UNNOTED
from birthmark.iothub import store as hub_store
from birthmark.pki.certificates import Certificate
from birthmark.server.data_dir import UNFINISHED, RestoreUnfinishedError
from birthmark.store import Changes, Database, Hold, insert, statement, upsert
from birthmark.store.holding import HOLDER
from birthmark.store.schema import server_facts

_ROOT = "ca.root"
_FACT = statement(select(server_facts.c.value).where(server_facts.c.name == bindparam("name")))
_ADD = insert(server_facts, ignore_existing=True)
_SET = upsert(server_facts)


async def root_of(database: Database) -> str | None:
    """Return the thumbprint of the root this database belongs to (hex); None for a database nobody has used yet."""
    row = await database.one(_FACT, name=_ROOT)
    if row is not None:
        return str(row["value"])
    # Version 0.1.0 noted no root, but its first start made a hub after the CA.
    return UNNOTED if await database.one(hub_store.HUBS_PAGE, after="", limit=1) is not None else None


async def check_whole(database: Database, directory: Path) -> None:
    """Raise `RestoreUnfinishedError` for a database that a restore has begun to fill."""
    if await database.one(_FACT, name=UNFINISHED) is not None:
        raise RestoreUnfinishedError(path=directory)


async def note_holder(database: Database, hold: Hold) -> None:
    """Say in the database who has it, so that whoever lost it knows whether somebody else had it since."""
    await database.commit(Changes().run(_SET, name=HOLDER, value=hold.token))
    hold.is_noted = True


async def note_root(database: Database, root: Certificate) -> None:
    """Remember the root for good, before anything is signed under it.

    The audit chain begins with it: a database that has a root and no chain was cut, also where the first start failed.
    """
    if await database.one(_FACT, name=_ROOT) is None:
        changes = Changes().run(_ADD, name=_ROOT, value=root.thumbprint.hex())
        await database.commit(changes.audit("server", "ca.root_noted", root.thumbprint.hex()))
