"""Migration of a complete database to another of either engine.

Each row is compared before a server uses the target. The source records the target, and no server starts on it any
more, because two independently changed copies would both be wrong. An interrupted migration is restarted with the same
command.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from birthmark import atomic_files
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ConflictError
from birthmark.ownership_and_sudo_commands import acting_for
from birthmark.server.all_tables import TABLES
from birthmark.server.backup.backup_creation import check_is_server
from birthmark.server.backup.database_copy_and_import import (
    SQLITE,
    DatabaseNotEmptyError,
    claim_database,
    copy_sqlite,
    dump_postgresql,
    load,
    open_exclusively,
    release_database,
    rows_of,
)
from birthmark.server.cluster.file_sync import remove_cluster_state
from birthmark.server.data_dir import MOVING, UNFINISHED
from birthmark.server.database_installation_facts import MOVED, DatabaseMovedError, check_not_restoring_or_moved
from birthmark.store import Changes, upsert
from birthmark.store.core_tables import server_facts
from birthmark.store.table_statements import find, remove

_FACT, _NOTE, _FORGET = find(server_facts), upsert(server_facts), remove(server_facts)
_OF_THE_MOVE = {UNFINISHED, MOVED}
Rows = dict[str, tuple[int, int]]
"""Row count and order-independent checksum of each table."""


class MoveTargetInUseError(ConflictError):
    """The target database is not empty."""

    code = "server.move_target"
    cause = "The database {to} contains rows, so it is or was in use."
    fix = "Use an empty database: `{command}`."
    command: str = "birthmark db move --into postgresql://HOST/NAME"
    to: str


class MovedOtherwiseError(ConflictError):
    """The moved data differs from its source."""

    code = "server.moved_differs"
    cause = "The tables {tables} differ between this database and {to}. This database was not changed."
    fix = "Another program writes to the target. Use a database that no other program uses: `{command}`."
    command: str = "birthmark db move --into postgresql://HOST/NAME"
    to: str
    tables: str


@dataclass(frozen=True, slots=True)
class MoveResult:
    """Extent of a migration."""

    tables: int
    rows: int


async def move_database(
    data: Path, source: str, target: str, clock: Clock, entropy: Entropy, told: Callable[[str], None]
) -> MoveResult:
    """Copy `source` into the empty `target`, compare each row, and lock `source` against further use.

    `told` receives progress messages. Raise `NothingToBackUpError`, `MoveTargetInUseError`, `DatabaseMovedError`,
    `MovedOtherwiseError`, and the errors of `hold_database` and `open_database`.
    """
    with acting_for(data):
        return await _moved(data, source, target, clock, entropy, told)


async def _moved(
    data: Path, source: str, target: str, clock: Clock, entropy: Entropy, told: Callable[[str], None]
) -> MoveResult:
    check_is_server(data)
    to = redact_url(target)
    if target.startswith(SQLITE):
        Path(target.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with open_exclusively(source, clock, "move") as old, open_exclusively(target, clock, "move") as new:
        moved = await old.one(_FACT, name=MOVED)
        if moved is not None and (moved["value"] != to or await new.one(_FACT, name=UNFINISHED) is None):
            raise DatabaseMovedError(to=str(moved["value"]))
        if moved is None:
            await check_not_restoring_or_moved(old, data)
        number = entropy.token(16).hex()
        try:
            await claim_database(new, number)
        except DatabaseNotEmptyError as error:
            raise MoveTargetInUseError(to=to) from error
        with atomic_files.private_directory(data, MOVING) as copies:
            left, came = copies / "left", copies / "came"
            left.mkdir()
            came.mkdir()
            copied = await _copied(source, left)
            told("Writing it")
            await load(new, left, copied)
            told("Comparing each row")
            rows = await _rows(left, copied)
            differ = sorted(table for table, there in (await _rows_there(target, came)).items() if rows[table] != there)
            if differ:
                raise MovedOtherwiseError(to=to, tables=", ".join(differ))
        await old.commit(Changes().run(_NOTE, name=MOVED, value=to))  # first: two active ones would both be wrong
        await new.commit(Changes().run(_FORGET, name=MOVED))
        if target.startswith(SQLITE):
            await remove_cluster_state(data, new)
        await release_database(new, number)
        return MoveResult(len(rows), sum(count for count, _ in rows.values()))


def redact_url(url: str) -> str:
    """Return a URL without its password, for messages."""
    if url.startswith(SQLITE):
        return SQLITE + str(Path(url.removeprefix(SQLITE)).absolute())
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    kept = [one for one in parts.query.split("&") if one and one.partition("=")[0] != "password"]
    place = f"{parts.scheme}://{user}@{host}" if user else f"{parts.scheme}://{host}"
    return f"{place}{parts.path}?{'&'.join(kept)}" if kept else f"{place}{parts.path}"


async def _copied(url: str, folder: Path) -> Path | None:
    """Copy a database; return its file, or None if `folder` has a file for each table."""
    if url.startswith(SQLITE):
        copied = folder / "copied.db"
        copy_sqlite(Path(url.removeprefix(SQLITE)), copied)
        return copied
    await dump_postgresql(url, folder)
    return None


async def _rows_there(url: str, folder: Path) -> Rows:
    return await _rows(folder, await _copied(url, folder))


async def _rows(folder: Path, sqlite_file: Path | None) -> Rows:
    found: Rows = {}
    for table in TABLES.values():
        count = total = 0
        async for columns, rows in rows_of(table, folder, sqlite_file):
            order = sorted(range(len(columns)), key=columns.__getitem__)
            for row in rows:
                if table is server_facts and row[columns.index("name")] in _OF_THE_MOVE:
                    continue
                count += 1
                digest = hashlib.sha256(msgspec.msgpack.encode([row[place] for place in order])).digest()
                total = (total + int.from_bytes(digest)) % (1 << 256)
        found[table.name] = count, total
    return found
