"""Restore of a backup into an empty directory, without repeating output of the lost server.

The state of a backup is older than the last output of the lost server. Therefore:

- CRL numbers continue far beyond the published ones, and every CRL is reissued;
- each audit chain continues after a gap, with a row that records it: a position is never used twice;
- unused single-use tokens are removed, as they may have been used since; `keep_tokens` keeps them;
- removals since the backup (revoked, removed, disabled) are applied again from exported audit rows
  (`audit_replay`), before the server starts.

Serial numbers are random, and an externally stored passphrase of CA keys is not in the backup.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import BigInteger, bindparam, select, update

from birthmark import atomic_files
from birthmark.audit.chain_verification import CHAINS, LAST_ROW
from birthmark.audit.chain_verification import RESTORED as GAP
from birthmark.audit.signed_heads import AuditKey
from birthmark.ca import store as ca_store
from birthmark.ca.hierarchy_files import BELOW, read_certificate
from birthmark.ca.root_generation_directories import FIRST
from birthmark.clock_and_entropy import Clock, SystemEntropy
from birthmark.devices.post_restore_revocations import add_pending
from birthmark.errors import ConflictError
from birthmark.est import store as est_store
from birthmark.iam import approvals_model
from birthmark.iam import store as people_store
from birthmark.operator_api.data_directory_lock import NAME as LOCK
from birthmark.operator_api.data_directory_lock import DirectoryLock
from birthmark.ownership_and_sudo_commands import acting_for
from birthmark.pki.certificate_profiles import Purpose
from birthmark.server.all_tables import TABLES
from birthmark.server.backup import backup_creation
from birthmark.server.backup.archive import BackupUnreadableError, read_archive
from birthmark.server.backup.audit_export_verification import AuditExport, End, read_export
from birthmark.server.backup.database_copy_and_import import (
    SQLITE,
    claim_database,
    is_released,
    load,
    open_exclusively,
    release_database,
)
from birthmark.server.backup.removal_replay import ACTIONS, replay_rows
from birthmark.server.cluster.file_sync import remove_cluster_state
from birthmark.server.counter_verification import CounterValues
from birthmark.server.data_dir import RESTORED, RESTORING
from birthmark.server.settings import ConfigInvalidError
from birthmark.store import (
    AuditRow,
    Changes,
    Database,
    insert,
    open_database,
    schema_migration,
    statement,
    to_micros,
    upsert,
)
from birthmark.store.column_encryption import ColumnCipher
from birthmark.store.core_tables import audit, audit_heads
from birthmark.store.database_lock import MAIN
from birthmark.store.signed_audit_chain import GENESIS, head_body, link, render_seen
from birthmark.store.table_statements import remove
from birthmark.untrusted_json_and_text import decode_json

STEP = 1_000_000
"""Minimum increment of numbers beyond those of the backup: more than a server uses between two backups.

One is added for every millisecond since, so that a second restore of the same backup continues beyond the first.
"""

_BEYOND = statement(
    update(ca_store.crls).values(number=ca_store.crls.c.number + bindparam("step", type_=BigInteger), covers=-1)
)
_UNUSED = (est_store.users.c.is_one_time == 1, est_store.users.c.used_by.is_(None))
_TOKENS = statement(select(est_store.users.c.name).where(*_UNUSED).limit(100_000))
_DROP_TOKENS = remove(est_store.users, *_UNUSED)
_DROP_INVITATIONS = remove(people_store.invitations, people_store.invitations.c.digest != "")
_DROP_APPROVALS = remove(approvals_model.approvals, approvals_model.approvals.c.digest != "")
_REVISION = "SELECT version_num FROM alembic_version"
_MOVED, _ENDED = "moved.json", "ended.json"
_ADD_AUDIT, _SET_HEAD = insert(audit), upsert(audit_heads)


class RestoreTargetError(ConflictError):
    """The directory is not empty."""

    code = "server.restore_target"
    cause = "{path} is not empty: a backup is restored to a new directory, never over another server's data."
    fix = "Use another directory: `{command}`."
    command: str = "birthmark server restore FILE --data DIRECTORY"
    path: Path


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """Result of a restore, with items that could not be restored."""

    made_at: str
    tokens_dropped: Sequence[str]
    revoked_again: int
    devices_again: Sequence[str] = ()
    """Devices that the server revokes completely at its first start, before it listens."""
    came_back: Sequence[tuple[str, str]] = ()
    """Kind and name of items that changed since the backup, with a replacement that audit rows do not contain."""
    replayed_until: str | None = None


@dataclass(frozen=True, slots=True)
class _RestoreMarker:
    """Marker written before the database is released: the restore and its result."""

    restore: str
    done: RestoreResult


async def restore_backup(
    file: Path,
    data: Path,
    passphrase: str,
    clock: Clock,
    *,
    url: str | None = None,
    keep_tokens: bool = False,
    replay: Path | None = None,
) -> RestoreResult:
    """Restore into `data`, and the database into `url` if it is external.

    Raise `RestoreTargetError`, `BackupUnreadableError`, `DatabaseNotEmptyError`, `ReplayRefusedError`; then `data` is
    empty. The next restore into both restarts one that was killed or that failed while it filled the database. If the
    database was already released to its server, only leftovers are removed.
    """
    with acting_for(data), _held(data):
        done = await _find_finished_restore(data, url, clock)
        if done is None:
            with _cleared(data) as building:
                try:
                    done = await _restored(
                        file, building, data, passphrase, clock, url, keep_tokens=keep_tokens, replay=replay
                    )
                except FileNotFoundError as error:
                    refused = BackupUnreadableError(path=file, detail=f"it lacks {Path(error.filename or '?').name}")
                    refused.quote(
                        fix="Create a new backup on the server: `birthmark server backup --out server.birthmark`."
                    )
                    raise refused from error
                except (ValueError, KeyError) as error:  # decodable, but of another kind
                    raise BackupUnreadableError(path=file, detail="its content is not that of a server") from error
        atomic_files.move(data / RESTORING, data / RESTORED)  # in one step: the ownership marker must not go first
        shutil.rmtree(data / RESTORED, ignore_errors=True)
        return done


async def _restored(
    file: Path,
    building: Path,
    data: Path,
    passphrase: str,
    clock: Clock,
    url: str | None,
    *,
    keep_tokens: bool,
    replay: Path | None,
) -> RestoreResult:
    read_archive(file, passphrase, building, backup_creation.NAMES)
    manifest = _manifest(file, building)
    _check_revision(file, building, manifest)
    files, database_file = building / backup_creation.FILES, building / backup_creation.DATABASE
    own = files / backup_creation.DATABASE
    if url is None and database_file.exists():
        database_file.rename(own)
    is_loaded, number = not own.exists(), SystemEntropy().token(16).hex()
    async with _opened(url, f"{SQLITE}{own}", clock) as database:
        if url is not None:
            await claim_database(database, number)
        if is_loaded:
            await load(database, building / backup_creation.TABLES, database_file if database_file.exists() else None)
        if (url or SQLITE).startswith(SQLITE):
            await remove_cluster_state(files, database)
        done = await _amended(database, files, manifest, clock, keep_tokens=keep_tokens, replay=replay)
        if url is not None:
            _put_in_place(building, data)
            atomic_files.replace(building / _ENDED, msgspec.json.encode(_RestoreMarker(number, done)))
            await release_database(database, number)
    if url is None:
        _put_in_place(building, data)
    return done


def check_url(url: str, where: str = "--database") -> None:
    """Raise `ConfigInvalidError` for an invalid database URL.

    The error omits the URL, which may contain a password.
    """
    try:
        parts = urlsplit(url)
        ports = [urlsplit(f"//{one}").port or 0 for one in parts.netloc.rpartition("@")[2].split(",")]
        is_one = parts.scheme in {"sqlite", "postgresql", "postgres"} and min(ports) >= 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigInvalidError(where=where, detail="it must be sqlite:///PATH or postgresql://HOST:PORT/NAME")


@contextlib.asynccontextmanager
async def _opened(url: str | None, own: str, clock: Clock) -> AsyncIterator[Database]:
    """Open the target database: the directory's own, or an external one under an exclusive lock."""
    if url is not None:
        check_url(url)
        async with open_exclusively(url, clock, "restore") as database:
            yield database
        return
    database = await open_database(own, clock, worker="restore")
    try:
        yield database
    finally:
        await database.close()


async def _find_finished_restore(data: Path, url: str | None, clock: Clock) -> RestoreResult | None:
    """Return the result of a restore that was killed after all files were in place and the database released.

    Raise `RestoreTargetError` if it cannot be determined because the database is another one.
    """
    noted = data / RESTORING / _ENDED
    if not noted.exists():
        return None
    before, is_over = decode_json(noted.read_bytes(), _RestoreMarker), None
    if url is not None:
        async with _opened(url, url, clock) as database:
            is_over = await is_released(database, before.restore)
    if is_over is None:
        raise RestoreTargetError(path=data)
    return before.done if is_over else None


@contextlib.contextmanager
def _held(data: Path) -> Iterator[None]:
    """Lock the directory: it is empty, or has the files of an unfinished restore.

    Raise `RestoreTargetError`, `DirectoryInUseError`.
    """
    is_new = not data.exists()
    if not is_new:
        _check_empty(data)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(data)
    lock.acquire()
    try:
        _check_empty(data)
        yield
    finally:
        (data / LOCK).unlink(missing_ok=True)
        lock.release()
        if is_new:
            with contextlib.suppress(OSError):  # it has the restored data
                data.rmdir()


@contextlib.contextmanager
def _cleared(data: Path) -> Iterator[Path]:
    """Yield the build directory within the empty target, which may be a separate mount.

    It exists until all files are in place and marks an unfinished restore, which the next one restarts. An error
    removes the built files, unless the database may already belong to its server, which would lose its files.
    """
    building = data / RESTORING
    _clear(data)  # of a killed run
    data.chmod(0o700)
    building.mkdir(mode=0o700)
    try:
        yield building
    except BaseException:
        if not (building / _ENDED).exists():
            _clear(data)
        raise


def _check_empty(data: Path) -> None:
    """Raise `RestoreTargetError` if the directory contains more than the files of a restore."""
    ours = {RESTORING, RESTORED, LOCK, "lost+found", *_moved(data)}
    if not data.is_dir() or any(one.name not in ours for one in data.iterdir()):
        raise RestoreTargetError(path=data)


def _moved(data: Path) -> list[str]:
    """Return the names that a restore was about to move into place; names with a path are ignored."""
    listed = data / RESTORING / _MOVED
    names = decode_json(listed.read_bytes(), list[str]) if listed.exists() else []
    return [name for name in names if name == Path(name).name]


def _clear(data: Path) -> None:
    for path in [*(data / name for name in _moved(data)), data / RESTORING, data / RESTORED]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _put_in_place(building: Path, data: Path) -> None:
    """Move the built files into the directory after recording their names."""
    files = building / backup_creation.FILES
    if (building / backup_creation.CONFIG).exists():
        (building / backup_creation.CONFIG).rename(files / backup_creation.CONFIG)
    names = sorted(one.name for one in files.iterdir())
    atomic_files.replace(building / _MOVED, msgspec.json.encode(names))
    for name in names:
        (files / name).rename(data / name)
    atomic_files.sync_directory(data)


def _manifest(file: Path, building: Path) -> backup_creation.Manifest:
    try:
        manifest = decode_json((building / backup_creation.MANIFEST).read_bytes(), backup_creation.Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupUnreadableError(path=file, detail="its format is not specified") from error
    if manifest.format != backup_creation.FORMAT:
        raise BackupUnreadableError(path=file, detail=f"its format is {manifest.format}, of version {manifest.version}")
    return manifest


def _check_revision(file: Path, building: Path, manifest: backup_creation.Manifest) -> None:
    """Upgrade a copied SQLite file to this schema; reject tables of another schema, whose rows would not fit."""
    copied = building / backup_creation.DATABASE
    if not copied.exists() and not _table(building, audit.name).exists():
        raise BackupUnreadableError(path=file, detail="it contains no database")
    if copied.exists():
        try:
            with closing(sqlite3.connect(copied, isolation_level=None)) as connection:
                connection.execute(_REVISION).fetchone()  # otherwise SQLite makes an empty one
                schema_migration.upgrade_sqlite(connection)
        except sqlite3.Error as error:
            raise BackupUnreadableError(path=file, detail=f"its database cannot be read: {error}") from error
    elif manifest.revision != (newest := schema_migration.newest()):
        detail = (
            f"it contains PostgreSQL tables of schema {manifest.revision}, but this version uses {newest}: "
            f"restore it with version {manifest.version}, then start this version to upgrade the database"
        )
        raise BackupUnreadableError(path=file, detail=detail)
    elif lost := sorted(one for one in {*TABLES, *manifest.tables} if not _table(building, one).exists()):
        detail = f"it lacks the tables {', '.join(lost)}, and no other part of it contains their rows"
        raise BackupUnreadableError(path=file, detail=detail)


def _table(building: Path, name: str) -> Path:
    return building / backup_creation.TABLES / f"{name}.rows"


async def _amended(
    database: Database,
    files: Path,
    manifest: backup_creation.Manifest,
    clock: Clock,
    *,
    keep_tokens: bool,
    replay: Path | None,
) -> RestoreResult:
    changes, now = Changes(), clock.micros()
    step = STEP + max(0, (now - to_micros(manifest.made_at)) // 1000)
    changes.run(_BEYOND, step=step)
    nothing: dict[str, Any] = {"made_at": 0, "next_update": 0, "der": b"", "revocations": 0, "covers": -1}
    for thumbprint in _cas(files):
        changes.run(ca_store.BEGIN_CRL, issuer=thumbprint, number=step, **nothing)
    tokens = [] if keep_tokens else [str(row["name"]) for row in await database.all(_TOKENS)]
    if tokens:
        changes.run(_DROP_TOKENS)
    for once in (_DROP_INVITATIONS, _DROP_APPROVALS):  # each is single-use, and may have been used since
        changes.run(once)
    if (seed := files / "est.seed").exists():
        database.unlock(ColumnCipher.of(seed.read_bytes().strip()))
    signer = AuditKey((files / "audit.seed").read_text(encoding="ascii").strip())
    ends = await _ends(database)
    exported = AuditExport([])
    if replay is not None:
        key = signer.public_key
        exported = await read_export(replay, files.parent, ends, ACTIONS, key=key, clock=clock)
    again = await replay_rows(database, changes, exported.rows, now)
    add_pending(changes, again.devices, now)
    told = {"made_at": manifest.made_at.isoformat(), "tokens_dropped": tokens, "revoked_again": again.count}
    for chain, (before, last) in ends.items():
        detail = json.dumps({**told, "from": before}, sort_keys=True, separators=(",", ":"))
        row = AuditRow("restore", GAP, "server", detail)
        seq = max(before + step, exported.ends.get(chain, 0) + STEP)
        digest = link(last, chain, seq, now, row)
        facts: dict[str, Any] = {"actor": row.actor, "action": row.action, "subject": row.subject, "detail": row.detail}
        changes.run(_ADD_AUDIT, chain=chain, seq=seq, at=now, digest=digest, **facts)
        others = render_seen(())
        signature = signer.sign(head_body(chain, seq, now, digest, others))
        signed: dict[str, Any] = {"key": signer.public_key, "signature": signature, "others": others}
        changes.run(_SET_HEAD, chain=chain, seq=seq, at=now, digest=digest, **signed)
    await database.commit(changes)
    await CounterValues(database, clock).repair()
    made_at = manifest.made_at.isoformat()
    until = None if exported.until is None else exported.until.isoformat()
    return RestoreResult(made_at, tokens, again.count, sorted(again.devices), again.came_back, until)


async def _ends(database: Database) -> dict[str, End]:
    """Return the last row of every audit chain."""
    ends: dict[str, End] = {}
    for chain in [row["chain"] for row in await database.all(CHAINS)] or [MAIN]:
        last = await database.one(LAST_ROW, chain=chain)
        ends[chain] = (0, GENESIS) if last is None else (last["seq"], bytes(last["digest"]))
    return ends


def _cas(files: Path) -> list[bytes]:
    """Return every CA of every generation by thumbprint.

    It may have published CRLs that the backup does not contain.
    """
    generations = [files / FIRST, *sorted(files.glob(f"{FIRST}-*"))]
    found = [(ca, one) for ca in generations for one in (Purpose.ROOT, *BELOW) if (ca / f"{one}.pem").exists()]
    return [read_certificate(ca, one).thumbprint for ca, one in found]
