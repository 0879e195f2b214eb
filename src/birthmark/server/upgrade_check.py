"""Preflight check of an upgrade: the effects of this version's first start on a data directory, without changes.

- In: a data directory, its settings, and the database that they name.
- Out: the findings, and the blocking problems as refusals, none of which is raised.
"""

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from birthmark import __version__, atomic_files, flock
from birthmark.ca.root_generation_directories import directories_of
from birthmark.errors import BirthmarkError, ConflictError, NotFoundError, UnavailableError
from birthmark.operator_api.data_directory_lock import NAME as LOCK
from birthmark.ownership_and_sudo_commands import transfer_ownership
from birthmark.server.data_dir import RESTORING, UNFINISHED, RestoreUnfinishedError
from birthmark.server.database_installation_facts import MOVED, DatabaseMovedError
from birthmark.store import schema_migration
from birthmark.store.schema_revision import Schema, UnreadableDatabaseError, schema_of
from birthmark.untrusted_json_and_text import decode_json

NOTE = "last-backup.json"
"""File in the data directory that describes its last backup; backups do not include it."""
_RELEASES = {"0001": "0.1.0", "0020": "0.2.0", "0050": "0.3.0"}
"""The last revision of each release."""
_LEAST_FREE = 64 * 1024 * 1024
_COPIES = 2
"""Number of copies of the database for which a migration needs disk space.

A migration may rewrite every table, into the database and into its write-ahead log.
"""


class NothingToUpgradeError(NotFoundError):
    """The directory contains no server data."""

    code = "server.nothing_to_upgrade"
    cause = (
        "{path} is not a server's data directory. The directory contains nothing to upgrade, and starting the server "
        "would create new data."
    )
    fix = 'Set the data directory: `export BIRTHMARK_DATA="$HOME/.local/share/birthmark"`.'
    path: Path


class NotBackedUpError(ConflictError):
    """The server has no backup to return to the older version."""

    code = "server.not_backed_up"
    cause = (
        "No backup of {path} since its last upgrade is known. After this upgrade, older versions cannot read the data."
    )
    fix = (
        "Create a backup: `(umask 077; set -C; openssl rand -base64 32 > before-upgrade.passphrase); "
        "birthmark server backup --data {path} --out before-upgrade.birthmark --passphrase-file "
        "before-upgrade.passphrase`. If you have another kind of backup: `{again} --backed-up`"
    )
    again: str = "birthmark upgrade --check"
    path: Path


class NoRoomToUpgradeError(UnavailableError):
    """The disk space may not suffice for the upgrade."""

    code = "server.no_room_to_upgrade"
    cause = "The upgrade can need {needed} MB on the disk of {path}, but only {free} MB are free."
    fix = "Free space there, or move the data to another disk. An upgrade without enough space changes nothing."
    for_a_person = "the administrator must free disk space"
    free: int
    needed: int
    path: Path


class Backup(msgspec.Struct, frozen=True):
    """The last backup of a data directory, as noted there."""

    at: datetime
    file: str
    revision: str
    version: str = __version__


class UpgradeStep(msgspec.Struct, frozen=True):
    """A schema revision that the upgrade would apply."""

    revision: str
    what: str


class UpgradeReport(msgspec.Struct, frozen=True, kw_only=True):
    """Findings of the upgrade check."""

    data: str
    program: str
    """Version of this program, with the revision of its schema."""
    schema: str
    found_schema: str | None
    found_release: str | None
    """The release that wrote the database, according to its schema; None for the schema of no release."""
    steps: Sequence[UpgradeStep]
    database_bytes: int
    needed_bytes: int
    free_bytes: int
    is_running: bool
    backup: Backup | None


def note_backup(data: Path, file: Path, timestamp: datetime, revision: str) -> None:
    """Write a note of a backup to its data directory; without write permission, do nothing."""
    backup = Backup(timestamp, str(file.absolute()), revision)
    try:
        atomic_files.replace(data / NOTE, msgspec.json.encode(backup), 0o600)
        transfer_ownership(data / NOTE, data)
    except OSError:
        return


def noted_backup(data: Path) -> Backup | None:
    """Return the last backup that is noted, if any."""
    try:
        if not (data / NOTE).is_file():  # a pipe would block
            return None
        return decode_json((data / NOTE).read_bytes(), Backup)
    except (OSError, msgspec.MsgspecError):
        return None


async def look(data: Path, url: str, *, is_backed_up: bool = False) -> tuple[UpgradeReport, Sequence[BirthmarkError]]:
    """Return the findings, and the problems to fix before the upgrade. Raise `NothingToUpgradeError`."""
    schema = await schema_of(url)
    if schema is None or not directories_of(data):
        raise NothingToUpgradeError(path=data)
    steps = [UpgradeStep(*one) for one in schema_migration.steps_after(schema.revision)] if _is_known(schema) else []
    free = shutil.disk_usage(data).free
    needed = _COPIES * schema.size_bytes + _LEAST_FREE if steps and url.startswith("sqlite") else 0
    outlook = UpgradeReport(
        data=str(data),
        program=__version__,
        schema=schema_migration.newest(),
        found_schema=schema.revision,
        found_release=release_of(schema.revision),
        steps=steps,
        database_bytes=schema.size_bytes,
        needed_bytes=needed,
        free_bytes=free,
        is_running=flock.is_locked(data / LOCK),
        backup=noted_backup(data),
    )
    return outlook, tuple(_in_the_way(outlook, schema, data, url, is_backed_up=is_backed_up))


def release_of(revision: str | None) -> str | None:
    """Return the release with this schema, if any."""
    return _RELEASES.get(revision or "", __version__ if revision == schema_migration.newest() else None)


def _is_known(schema: Schema) -> bool:
    return schema.revision is not None and schema_migration.is_known(schema.revision)


def _in_the_way(
    outlook: UpgradeReport, schema: Schema, data: Path, url: str, *, is_backed_up: bool
) -> Iterator[BirthmarkError]:
    if schema.revision is None:
        reason = "it has tables but no schema version" if schema.has_tables else "it is empty"
        yield UnreadableDatabaseError(path=url.partition("///")[2] if url.startswith("sqlite") else data, reason=reason)
    elif not _is_known(schema):
        yield schema_migration.SchemaTooNewError(revision=schema.revision)
    if (data / RESTORING).exists() or UNFINISHED in schema.facts:
        yield RestoreUnfinishedError(path=data)
    if (moved := schema.facts.get(MOVED)) is not None:
        yield DatabaseMovedError(to=moved)
    if outlook.needed_bytes > outlook.free_bytes:
        yield NoRoomToUpgradeError(
            needed=_megabytes(outlook.needed_bytes), free=_megabytes(outlook.free_bytes), path=data
        )
    is_of_this = outlook.backup is not None and outlook.backup.revision == schema.revision
    if outlook.steps and not is_backed_up and not is_of_this:
        yield NotBackedUpError(path=data)


def _megabytes(count: int) -> int:
    return -(-count // 1_000_000)
