"""Encryption of secrets in the database with the seed of this directory, including plaintext of earlier versions."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, bindparam, select, tuple_

from birthmark.server.all_tables import TABLES
from birthmark.store import Changes, Database, insert, statement
from birthmark.store.column_encryption import ColumnCipher, SealBrokenError, is_sealed
from birthmark.store.compiled_statements import Statement
from birthmark.store.core_tables import server_facts
from birthmark.store.database import Row
from birthmark.store.plain_and_encrypted_column_types import holds_secrets
from birthmark.store.table_statements import change

log = logging.getLogger(__name__)

_NAME, _KNOWN = "store.seal", "birthmark"
_FACT = statement(select(server_facts.c.value).where(server_facts.c.name == bindparam("name")))
_ADD = insert(server_facts, ignore_existing=True)
_PAGE = 500


class _Rows:
    """The rows of a table that has secret columns."""

    def __init__(self, table: Table) -> None:
        keys = list(table.primary_key.columns)
        self.names = [one.name for one in keys]
        sealed = [column for column in table.columns if holds_secrets(column)]
        wanted = select(*keys, *sealed).order_by(*keys).limit(_PAGE)
        follows = tuple_(*keys) > tuple_(*(bindparam(f"after_{one.name}", type_=one.type) for one in keys))
        self.first, self.next_page = statement(wanted), statement(wanted.where(follows))
        self.replace = {one.name: change(table, (one.name,), *self.names, one.name) for one in sealed}


_ROWS = [_Rows(table) for table in TABLES.values() if any(holds_secrets(column) for column in table.columns)]


async def unlock(database: Database, seal: ColumnCipher) -> None:
    """Encrypt all plaintext secrets, and have the database encrypt and decrypt with `seal`.

    The database records which cipher it uses. An interrupted run resumes at the next start. Raise `SealBrokenError` if
    the database was encrypted with another one.
    """
    known = await database.one(_FACT, name=_NAME)
    if known is None:
        count = 0
        for rows in _ROWS:
            count += await _seal_rows(database, rows, seal)
        if count:
            log.info("store.sealed", extra={"rows": count})
        await database.commit(Changes().run(_ADD, name=_NAME, value=seal.encrypt_value(_KNOWN)))
        known = await database.one(_FACT, name=_NAME)
    if known is None or known["value"] != seal.encrypt_value(_KNOWN):
        raise SealBrokenError(reason="it differs from the key that encrypted the database")
    database.unlock(seal)


async def _seal_rows(database: Database, rows: _Rows, seal: ColumnCipher) -> int:
    count, after = 0, dict[str, Any]()
    while found := await database.all(rows.next_page if after else rows.first, **after):
        changes = Changes()
        for row in found:
            changes.merge(_sealing(row, rows.names, rows.replace, seal))
        if changes.writes:
            await database.commit(changes)
            count += len(changes.writes)
        after = {f"after_{one}": found[-1][one] for one in rows.names}
    return count


def _sealing(row: Row, keys: Sequence[str], replace: Mapping[str, Statement], seal: ColumnCipher) -> Changes:
    changes, named = Changes(), {f"key_{one}": row[one] for one in keys}
    for name, how in replace.items():
        if (plain := row[name]) is not None and not is_sealed(plain):  # as read: the database has no seal yet
            changes.run(how, **named, **{f"key_{name}": plain, name: seal.encrypt_value(plain)})
    return changes
