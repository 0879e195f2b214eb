"""Backup of a running or stopped server: first the database, then the other files.

This order ensures that a CA in the database, even a new one, is also among the files.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from birthmark import __version__, atomic_files
from birthmark.blob_storage.service.file_store import FOLDER
from birthmark.ca.hierarchy_files import alone_in, finish
from birthmark.ca.root_generation_directories import directories_of
from birthmark.errors import ConflictError, NotFoundError
from birthmark.operator_api.database_location_record import NAME
from birthmark.operator_api.unix_socket import PORT_ALONE
from birthmark.server.backup.archive import FIRST, ArchivePart, write_archive
from birthmark.server.backup.database_copy_and_import import SQLITE, copy_sqlite, dump_postgresql
from birthmark.server.backup.directory_walk import check_readable, files_below, read_linked
from birthmark.server.upgrade_check import NOTE, note_backup
from birthmark.webconsole.enroll.limits import DIRECTORY as DROPPED

_CAS = ".cas"  # of copies
MANIFEST, DATABASE, TABLES, FILES, CONFIG = FIRST, "birthmark.db", "tables", "data", "server.toml"
NAMES = frozenset({MANIFEST, DATABASE, TABLES, FILES, CONFIG})
"""Names in an archive; a restore keeps its own markers next to these."""
FORMAT = 1
_COPIES = ".backup"
# Files of a run, not of the server: each run creates them.
_LEFT_OUT = frozenset(
    {
        "birthmark.db",
        "birthmark.db-wal",
        "birthmark.db-shm",
        "endpoints.json",
        "nats.conf",
        PORT_ALONE,
        NAME,
        NOTE,
        DROPPED,
    }
)


class NothingToBackUpError(NotFoundError):
    """The directory contains no server data."""

    code = "server.nothing_to_back_up"
    cause = "{path} is not a server's data directory. Backups are made on the server's machine."
    fix = 'Set the data directory: `export BIRTHMARK_DATA="$HOME/.local/share/birthmark"`.'
    path: Path


class DatabaseElsewhereError(ConflictError):
    """The server's records are in another database."""

    code = "server.database_elsewhere"
    cause = "{detail}: a backup must contain the records of the server of {data}."
    fix = (
        "Set the server's database, with user and password if required: `export BIRTHMARK_DATABASE={noted}`. Then "
        "repeat the command: `{again}`."
    )
    again: str = "birthmark server backup --out server.birthmark"
    data: Path
    detail: str
    noted: str = "postgresql://localhost/birthmark"


class BackupInsideError(ConflictError):
    """The backup file would be inside the data directory."""

    code = "server.backup_inside"
    cause = (
        "{path} is inside {data}. Later backups would contain this backup, and it would be lost together with the data."
    )
    fix = "Choose a path outside the data directory: `{command}`."
    command: str = "birthmark server backup --out server.birthmark"
    data: Path
    path: Path


class Manifest(msgspec.Struct, frozen=True):
    """Manifest of a backup."""

    format: int
    made_at: datetime
    revision: str
    version: str = __version__
    tables: tuple[str, ...] = ()
    """Tables of PostgreSQL, each a file; empty in version 0.1.0, or if the database is a single file."""


@dataclass(frozen=True, slots=True)
class BackupContents:
    """Content of a backup."""

    files: int
    size_bytes: int


async def make_backup(
    data: Path, out: Path, passphrase: str, *, url: str, now: datetime, config: Path | None = None
) -> BackupContents:
    """Write the backup. Raise `NothingToBackUpError`, `BackupInsideError`, `FileExistsError`."""
    with atomic_files.private_directory(_check_places(data, out), _COPIES) as copies:
        tables: list[str] = []
        if url.startswith(SQLITE):
            revision = _copied(Path(url.removeprefix(SQLITE)), copies / DATABASE, data)
        else:
            (copies / TABLES).mkdir()
            revision, tables = await dump_postgresql(url, copies / TABLES)
        manifest = Manifest(FORMAT, now, revision, tables=tuple(tables))
        cas = _copy_cas(data, copies / _CAS)
        # Files of devices may be many and change all the time: they are copied separately.
        files = [*_below(copies / _CAS, f"{FILES}/"), *_below(data, f"{FILES}/", but=cas | {data / FOLDER})]
        parts = [ArchivePart(MANIFEST, msgspec.json.encode(manifest)), *_below(copies, ""), *files]
        made = _written(out, passphrase, parts, config)
    note_backup(data, out, now, revision)
    return made


def check_is_server(data: Path) -> None:
    """Raise `NothingToBackUpError` unless this is a server's data directory."""
    if not directories_of(data):
        raise NothingToBackUpError(path=data)


def _check_places(data: Path, out: Path) -> Path:
    """Return the directory for temporary copies.

    For another user's server, it is one where that user cannot create symlinks.
    """
    check_is_server(data)
    if out.resolve().is_relative_to(data.resolve()):
        raise BackupInsideError(path=out, data=data)
    return data if data.stat().st_uid == os.geteuid() else out.absolute().parent


def _copy_cas(data: Path, to: Path) -> frozenset[Path]:
    """Copy each CA in a consistent state, completing an interrupted change, so that key and passphrase match.

    Return the CAs. Raise `CaBusyError`.
    """
    cas = frozenset(root.parent for root in data.glob("*/root.pem"))
    for ca in cas:
        with alone_in(ca):
            finish(ca)
            for part in _below(ca, "", owner=data.stat().st_uid):
                copy = to / ca.name / part.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                with part.opened() as file:
                    copy.write_bytes(file.read())
    return cas


def _copied(file: Path, to: Path, data: Path) -> str:
    if not file.exists():
        raise DatabaseElsewhereError(data=data, detail=f"{file} does not exist")
    check_readable(file, data)
    return copy_sqlite(file, to)


def _written(out: Path, passphrase: str, parts: list[ArchivePart], config: Path | None) -> BackupContents:
    if config is not None:
        parts.append(ArchivePart(CONFIG, config.read_bytes()))
    write_archive(out, passphrase, parts)
    return BackupContents(len(parts), out.stat().st_size)


def _below(
    folder: Path, prefix: str, *, but: frozenset[Path] = frozenset(), owner: int | None = None
) -> Iterator[ArchivePart]:
    """Yield the files below a folder, except in some subfolders; symlinks of `owner` are followed."""

    def is_wanted(path: Path) -> bool:
        is_of_a_run = prefix and (path.name in _LEFT_OUT or path.suffix == ".lock")
        # Hidden files are copies that another run removes, and partial writes.
        return not (path.name.startswith(".") or is_of_a_run or path in but)

    whose = folder.stat().st_uid if owner is None else owner
    for path, is_linked in sorted(files_below(folder, is_wanted, is_linked=folder.is_symlink())):
        name = f"{prefix}{path.relative_to(folder)}"
        yield ArchivePart(name, read_linked(path, whose)) if is_linked else ArchivePart(name, path, folder)
