"""A backup of either engine goes back into either; what is no whole backup is refused and leaves nothing."""

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pyrage
import pytest

import birthmark
from birthmark import atomic_files
from birthmark.audit.signed_heads import AuditKey
from birthmark.ca import ca_directory, passphrase_rotation
from birthmark.ca import store as ca_store
from birthmark.ca.key_files import read_key
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.revocation import CertificateRevokedError, digest_of
from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import SystemClock
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.server.backup import archive, backup_creation, database_copy_and_import, database_move, restore
from birthmark.server.backup.archive import ArchivePart, BackupUnreadableError, read_archive, write_archive
from birthmark.server.backup.backup_creation import NAMES, BackupInsideError, NothingToBackUpError, make_backup
from birthmark.server.backup.database_copy_and_import import DatabaseNotEmptyError, TablesDifferError
from birthmark.server.backup.database_move import move_database
from birthmark.server.backup.directory_walk import open_below, read_linked
from birthmark.server.backup.restore import STEP, RestoreTargetError, restore_backup
from birthmark.server.counter_verification import CounterValues
from birthmark.server.data_dir import RESTORING, DataDirectory, RestoreUnfinishedError
from birthmark.server.database_installation_facts import check_not_restoring_or_moved
from birthmark.server.settings import ConfigInvalidError
from birthmark.store import Changes, Database, insert, open_database
from birthmark.store.core_tables import server_facts
from birthmark.store.postgresql import PostgresUnavailableError, outage_retry
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.ca_world import OPERATOR
from support.pki.pki_builders import a_ca, a_device
from support.server.cheap_passphrases import cheap_passphrases
from support.server.data_world import a_data_directory, contents
from support.server.exports import exported
from support.services.pg_proxy import counting

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cheap_passphrases")]
SECRET = "correct horse battery staple"
__all__ = ["cheap_passphrases"]


async def test_it_goes_back_into_either_engine(database_url: str, postgres_url: str, tmp_path: Path) -> None:
    from_sqlite = database_url.startswith("sqlite")
    data = await a_data_directory(tmp_path, database_url)
    before, rows, _ = await contents(data, database_url)
    out = tmp_path / "b.birthmark"
    await make_backup(data, out, SECRET, url=database_url, now=NOON)
    targets = [None, postgres_url] if from_sqlite else [None]
    for number, url in enumerate(targets):
        new = tmp_path / f"new-{number}"
        await restore_backup(out, new, SECRET, SystemClock(), url=url)
        after, end, crl = await contents(new, url or f"sqlite:///{new}/birthmark.db")
        assert after == before == ["d-0 False", "d-1 False", "d-2 True"]
        assert end > rows + STEP
        assert crl > STEP
        assert not (new / "endpoints.json").exists()


async def test_two_restores_of_one_backup_say_no_number_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    await make_backup(await a_data_directory(tmp_path, url), tmp_path / "b", SECRET, url=url, now=NOON)
    told, clock = [], FakeClock()
    for name in ("one", "two"):
        clock.move(timedelta(minutes=1))
        await restore_backup(tmp_path / "b", tmp_path / name, SECRET, clock)
        told.append((await contents(tmp_path / name, f"sqlite:///{tmp_path}/{name}/birthmark.db"))[1:])
    assert all(later >= before + 60_000 for before, later in zip(*told, strict=True))


async def test_a_database_that_has_only_facts_of_a_server_is_not_empty(database_url: str) -> None:
    database = await open_database(database_url, SystemClock())
    await database.commit(Changes().run(insert(server_facts), name="ca.root", value="another's"))
    with pytest.raises(DatabaseNotEmptyError):
        await database_copy_and_import.claim_database(database, "a restore")
    await database.close()


async def test_nothing_is_restored_over_something(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    out = tmp_path / "b.birthmark"
    await make_backup(data, out, SECRET, url=url, now=NOON)
    with pytest.raises(RestoreTargetError):
        await restore_backup(out, data, SECRET, SystemClock())
    with pytest.raises(DatabaseNotEmptyError):
        await restore_backup(out, tmp_path / "new", SECRET, SystemClock(), url=url)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.birthmark", "data"]
    with pytest.raises(FileExistsError):
        await make_backup(data, out, SECRET, url=url, now=NOON)
    with pytest.raises(NothingToBackUpError):
        await make_backup(tmp_path, tmp_path / "c", SECRET, url=url, now=NOON)


async def test_tables_of_another_schema_are_refused(postgres_url: str, tmp_path: Path) -> None:
    data = await a_data_directory(tmp_path, postgres_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE alembic_version SET version_num = '0013'")
    await connection.close()
    out = tmp_path / "b.birthmark"
    await make_backup(data, out, SECRET, url=postgres_url, now=NOON)
    with pytest.raises(BackupUnreadableError) as refused:
        await restore_backup(out, tmp_path / "new", SECRET, SystemClock())
    assert "schema 0013" in refused.value.explain_cause()
    assert not (tmp_path / "new").exists()


async def test_a_makers_ca_that_was_taken_back_since_is_taken_back_again(tmp_path: Path) -> None:
    url, maker = f"sqlite:///{tmp_path}/data/birthmark.db", a_ca("Maker")
    data = await a_data_directory(tmp_path, url)
    out = tmp_path / "b.birthmark"
    await make_backup(data, out, SECRET, url=url, now=NOON)
    database = await open_database(url, SystemClock(), signer=AuditKey("seed"))
    ca = CertificateAuthority(ca_directory.load(data / "ca"), database, SystemClock(), SeededEntropy(4))
    await ca.revocations.key(maker.certificate, OPERATOR, RevocationReason.KEY_COMPROMISE)
    rows = await exported(database, AuditKey("seed").public_key, tmp_path / "audit.jsonl")
    await database.close()

    await restore_backup(out, tmp_path / "new", SECRET, SystemClock(), replay=rows)
    restored = await open_database(f"sqlite:///{tmp_path}/new/birthmark.db", SystemClock(), signer=AuditKey("seed"))
    ca = CertificateAuthority(ca_directory.load(tmp_path / "new/ca"), restored, SystemClock(), SeededEntropy(5))
    with pytest.raises(CertificateRevokedError):
        await ca.revocations.check(a_device(maker).certificate)
    await restored.close()


@pytest.mark.parametrize("is_old", [False, True], ids=["rows of today", "rows without the key"])
async def test_a_key_that_was_taken_back_since_is_taken_back_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data, clock = await a_data_directory(tmp_path, url), SystemClock()
    out = tmp_path / "b.birthmark"
    await make_backup(data, out, SECRET, url=url, now=NOON)
    database = await open_database(url, clock, signer=AuditKey("seed"))
    ca = CertificateAuthority(ca_directory.load(data / "ca"), database, clock, SeededEntropy(4))
    known = {one.device_id: one.certificate for one in await ca.latest()}
    if is_old:
        audited: Any = Changes.audit

        def without_the_key(*row: Any, **told: object) -> Any:
            return audited(*row, **{name: value for name, value in told.items() if name != "key"})

        monkeypatch.setattr(Changes, "audit", without_the_key)
    await ca.revocations.certificate(known["d-0"].thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
    await ca.revocations.certificate(known["d-1"].thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
    lines = await exported(database, AuditKey("seed").public_key, tmp_path / "audit.jsonl")
    await database.close()
    await restore_backup(out, tmp_path / "new", SECRET, clock, replay=lines)
    restored = await open_database(f"sqlite:///{tmp_path}/new/birthmark.db", clock, signer=AuditKey("seed"))
    ca = CertificateAuthority(ca_directory.load(tmp_path / "new/ca"), restored, clock, SeededEntropy(5))
    for name, is_revoked_at_hub in (("d-0", True), ("d-1", False)):
        key = await restored.one(ca_store.KEY, key_digest=digest_of(known[name]))
        assert key is not None
        assert (key["revoked_at"] is not None) is is_revoked_at_hub
        with pytest.raises(CertificateRevokedError):
            await ca.revocations.check(known[name])
    assert await CounterValues(restored, clock).prove() == []
    await restored.close()


def an_archive(path: Path, *members: tarfile.TarInfo) -> Path:
    """A file that is a backup in all but its content."""
    identity = pyrage.x25519.Identity.generate()
    inner = BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, BytesIO(b"x" * member.size))
    key = pyrage.passphrase.encrypt(str(identity).encode(), SECRET)
    content = pyrage.encrypt(inner.getvalue(), [identity.to_public()])
    with tarfile.open(path, mode="w") as outer:
        for name, data in (("key.age", key), ("backup.tar.gz.age", content)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            outer.addfile(info, BytesIO(data))
    return path


def a_member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    member.size = 1 if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize(
    "member",
    [
        a_member("/etc/evil"),
        a_member("../evil"),
        a_member("a/../../evil"),
        a_member("link", tarfile.SYMTYPE),
        a_member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: member.name,
)
def test_only_files_below_the_directory_are_written(tmp_path: Path, member: tarfile.TarInfo) -> None:
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BackupUnreadableError):
        read_archive(an_archive(tmp_path / "b", a_member("manifest.json"), member), SECRET, into, NAMES)
    assert [one.name for one in into.iterdir()] == ["manifest.json"]
    assert not (tmp_path / "evil").exists()


def test_a_bit_that_changed_in_the_content_is_told_as_damage(tmp_path: Path) -> None:
    whole, damaged, into = tmp_path / "whole", tmp_path / "damaged", tmp_path / "into"
    into.mkdir()
    write_archive(whole, SECRET, [ArchivePart("manifest.json", SeededEntropy().token(200_000))])
    changed = bytearray(whole.read_bytes())
    changed[len(changed) // 2] ^= 1
    damaged.write_bytes(changed)
    with pytest.raises(BackupUnreadableError):
        read_archive(damaged, SECRET, into, NAMES)


def test_a_key_that_is_a_link_to_itself_is_told_as_damage(tmp_path: Path) -> None:
    member = tarfile.TarInfo("key.age")
    member.type, member.linkname = tarfile.SYMTYPE, "key.age"
    with tarfile.open(tmp_path / "b", mode="w") as outer:
        outer.addfile(member)
    with pytest.raises(BackupUnreadableError):
        read_archive(tmp_path / "b", SECRET, tmp_path, NAMES)


def a_backup(path: Path, *members: tuple[str, bytes]) -> Path:
    """A backup in all but what is in it."""
    manifest = json.dumps({"format": 1, "made_at": NOON.isoformat(), "revision": "0001", "version": "0.1.0"})
    parts = [ArchivePart("manifest.json", manifest.encode()), *(ArchivePart(name, data) for name, data in members)]
    write_archive(path, SECRET, parts)
    return path


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([], "it contains no database"),
        ([("birthmark.db", b"junk" * 5000)], "its database cannot be read"),
        ([("birthmark.db", b"")], "its database cannot be read"),
        ([("tables/audit.rows", b"junk")], "schema 0001"),
    ],
    ids=["none", "junk", "empty", "tables"],
)
async def test_a_backup_without_records_is_refused(tmp_path: Path, members: list[tuple[str, bytes]], told: str) -> None:
    with pytest.raises(BackupUnreadableError) as refused:
        await restore_backup(a_backup(tmp_path / "b", *members), tmp_path / "new", SECRET, SystemClock())
    assert told in refused.value.explain_cause()
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


async def test_a_backup_without_a_part_of_the_server_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    (data / "audit.seed").unlink()
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    with pytest.raises(BackupUnreadableError) as refused:
        await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())
    assert "it lacks audit.seed" in refused.value.explain_cause()


def test_what_would_fill_the_disk_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    bomb = a_backup(tmp_path / "b", ("data/small", bytes(1 << 19)), ("data/big", bytes(1 << 24)))
    for blocks, files in ((1 << 10, 100), (1 << 20, 1)):
        told = SimpleNamespace(
            f_bavail=blocks, f_frsize=4096, f_blocks=1 << 20, f_favail=files, f_files=1000, f_ffree=files
        )
        with monkeypatch.context() as full:
            full.setattr("os.statvfs", lambda _place, told=told: told)
            with pytest.raises(OSError, match="would fill this disk"):
                read_archive(bomb, SECRET, into, NAMES)
        assert sum(one.stat().st_size for one in into.rglob("*") if one.is_file()) < 1 << 20


async def test_a_backup_of_much_that_says_little_is_restored(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    (data / "zeros").write_bytes(bytes(100 << 20))
    for number in range(1200):
        (data / f"empty-{number}").touch()
    made = await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    assert made.size_bytes < 1 << 20
    await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())
    assert (tmp_path / "new/zeros").stat().st_size == 100 << 20


def test_what_says_nothing_of_itself_is_not_unpacked(tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    write_archive(tmp_path / "b", SECRET, [ArchivePart("birthmark.db", b"x"), ArchivePart("manifest.json", b"{}")])
    with pytest.raises(BackupUnreadableError):
        read_archive(tmp_path / "b", SECRET, into, NAMES)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("note", ["moved.json", "ended.json"])
async def test_an_archive_writes_none_of_the_notes_of_a_restore(tmp_path: Path, note: str) -> None:
    (tmp_path / "kept").mkdir()
    evil = a_backup(tmp_path / "b", (note, json.dumps([str(tmp_path / "kept")]).encode()))
    with pytest.raises(BackupUnreadableError):
        await restore_backup(evil, tmp_path / "new", SECRET, SystemClock())
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", ["/kept", "../kept", "new/../../kept"])
async def test_what_a_restore_noted_is_no_path_out_of_its_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "new/.restoring").mkdir(parents=True)
    noted = name if name.startswith(".") else f"{tmp_path}{name}"
    (tmp_path / "new/.restoring/moved.json").write_text(json.dumps([noted]))
    with pytest.raises(BackupUnreadableError):
        await restore_backup(a_backup(tmp_path / "b"), tmp_path / "new", SECRET, SystemClock())
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("linked", ["a/b/file", "a/b", "a"])
def test_a_link_that_was_put_in_a_file_s_place_is_not_followed(tmp_path: Path, linked: str) -> None:
    for top in ("data", "other"):
        (tmp_path / top / "a/b").mkdir(parents=True)
        (tmp_path / top / "a/b/file").write_text(top)
    (tmp_path / "data" / linked).rename(tmp_path / "away")
    (tmp_path / "data" / linked).symlink_to(tmp_path / "other" / linked)
    with pytest.raises(OSError):
        open_below(tmp_path / "data", tmp_path / "data/a/b/file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read what the owner cannot")
@pytest.mark.parametrize("named", ["data/birthmark.db", "of-another"], ids=["by a link", "by its configuration"])
async def test_for_root_the_database_is_none_that_the_owner_cannot_read(tmp_path: Path, named: str) -> None:
    data = await a_data_directory(tmp_path, f"sqlite:///{tmp_path}/data/birthmark.db")
    (data / "birthmark.db").rename(tmp_path / "of-another")
    (data / "birthmark.db").symlink_to(tmp_path / "of-another")
    os.chown(data, 65534, 65534)
    with pytest.raises(PermissionError):
        await make_backup(data, tmp_path / "b", SECRET, url=f"sqlite:///{tmp_path}/{named}", now=NOON)
    assert not (tmp_path / "b").exists()


async def test_a_file_that_was_cut_or_changed_is_refused(tmp_path: Path) -> None:
    whole = an_archive(tmp_path / "b", a_member("manifest.json")).read_bytes()
    for number, data in enumerate((b"junk", whole[: len(whole) // 2], whole[:3000] + b"!" + whole[3001:])):
        broken = tmp_path / f"broken-{number}"
        broken.write_bytes(data)
        with pytest.raises(BackupUnreadableError):
            await restore_backup(broken, tmp_path / "new", SECRET, SystemClock())
    with pytest.raises(BackupUnreadableError):
        await restore_backup(tmp_path / "b", tmp_path / "new", "another", SystemClock())
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / ".new.restoring").exists()


async def test_what_a_restore_left_in_postgresql_goes_without_a_look_at_each_row(postgres_url: str) -> None:
    """A DELETE takes as long as there are rows, and leaves their pages to be cleaned."""
    database = await open_database(postgres_url, SystemClock())
    await database_copy_and_import.claim_database(database, "one")
    await database.commit(Changes().audit("ann", "thing.look", "a"))
    await database_copy_and_import.claim_database(database, "another")
    await database.close()
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT pg_relation_size('audit')") == 0
    assert await connection.fetchval("SELECT value FROM server_facts") == "another"
    await connection.close()


def test_a_page_of_rows_is_bounded_by_rows_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_copy_and_import, "_ROWS", 3)
    monkeypatch.setattr(database_copy_and_import, "_BYTES", 10)
    page = database_copy_and_import._Page()
    rows: list[list[object]] = [[1, b"12345"], [2, "67890"], [3, None], [4, None], [5, None], [6, b"x" * 100]]
    assert [page.is_full_with(row) for row in rows[:2]] == [False, True]
    assert page.taken() == rows[:2]
    assert [page.is_full_with(row) for row in rows[2:5]] == [False, False, True]
    assert page.taken() == rows[2:5]
    assert page.is_full_with(rows[5])


async def test_what_a_killed_backup_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    for left in (".backup", ".backup-20260101T000000000000"):  # the latter of version 0.1.0
        (data / left).mkdir()
        (data / left / "birthmark.db").write_text("the whole database")
    for left in (archive.BUILDING, f"{archive.BUILDING}1"):
        (tmp_path / left).write_bytes(bytes(1 << 20))
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "data"]
    assert not [one for one in data.iterdir() if one.name.startswith((".", "backup"))]
    await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())


async def test_a_backup_ends_a_move_of_keys_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    ca, renamed = data / "ca", Path.replace

    def killed_behind_the_first(path: Path, target: Path) -> Path:
        done = renamed(path, target)
        if path.name.endswith(".next"):
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as killing:
        killing.setattr(Path, "replace", killed_behind_the_first)
        with pytest.raises(KeyboardInterrupt):
            passphrase_rotation.move(ca, Passphrase(ca), Passphrase(ca), SeededEntropy(4))
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())
    passphrase = (tmp_path / "new" / "ca" / "passphrase").read_bytes().strip()
    for name in ("root.key", "issuing.key"):
        read_key(tmp_path / "new" / "ca" / name, passphrase)  # opens


async def test_a_backup_waits_for_no_other_and_leaves_it_whole(tmp_path: Path) -> None:
    """One of another server to the same place, and one of the same server, are in the middle."""
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    os.mkfifo(tmp_path / "fifo")  # who reads it stays in the middle until it is written
    parts = [ArchivePart(archive.FIRST, b"{}"), ArchivePart("data/other", tmp_path / "fifo")]
    other = threading.Thread(target=write_archive, args=(tmp_path / "other", SECRET, parts))
    with atomic_files.private_directory(data, backup_creation._COPIES) as copies:
        other.start()
        while not (tmp_path / archive.BUILDING).exists():
            await asyncio.sleep(0.01)
        await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
        assert copies.exists()
        (tmp_path / "fifo").write_bytes(b"")
        other.join()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "data", "fifo", "other"]
    assert not list(data.glob(".*"))
    (tmp_path / "of-other").mkdir()
    read_archive(tmp_path / "other", SECRET, tmp_path / "of-other", NAMES)
    assert (tmp_path / "of-other" / "data/other").exists()
    await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users may pass through, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not all(one.stat().st_mode & 0o1 for one in Path(birthmark.__file__).parents),
    reason="only root acts for another user, who has to be able to read the program",
)


@as_root
async def test_what_root_restores_into_another_users_directory_is_that_users(tmp_path: Path, open_place: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data, new, elsewhere = await a_data_directory(tmp_path, url), open_place / "new", open_place / "elsewhere"
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    for place in (new, elsewhere):
        place.mkdir(mode=0o700)
        shutil.chown(place, "nobody", "nogroup")
    (elsewhere / "other").mkdir()
    shutil.chown(elsewhere / "other", "nobody", "nogroup")
    await restore_backup(tmp_path / "b", new, SECRET, SystemClock())
    url = f"sqlite:///{elsewhere}/there.db"
    await restore_backup(tmp_path / "b", elsewhere / "other", SECRET, SystemClock(), url=url)
    there = [*new.rglob("*"), *elsewhere.rglob("*")]
    assert {(one.owner(), one.group()) for one in there} == {("nobody", "nogroup")}
    assert (new / "ca" / "root.key").exists()
    assert os.geteuid() == 0


@as_root
async def test_a_link_that_the_owner_puts_into_a_restore_leads_root_nowhere(
    tmp_path: Path, open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data, new, closed = await a_data_directory(tmp_path, url), open_place / "new", open_place / "closed"
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    new.mkdir(mode=0o700)
    shutil.chown(new, "nobody", "nogroup")
    closed.mkdir(mode=0o700)
    (closed / "shadow").write_text("root's")

    def swapped(*given: Any) -> None:
        (new / RESTORING).rename(new / "away")
        (new / RESTORING).mkdir()
        (new / RESTORING / "data").symlink_to(closed)
        read_archive(*given)

    monkeypatch.setattr(restore, "read_archive", swapped)
    with pytest.raises(PermissionError):
        await restore_backup(tmp_path / "b", new, SECRET, SystemClock())
    assert [one.name for one in closed.iterdir()] == ["shadow"]
    assert (closed / "shadow").owner() == "root"


@as_root
async def test_a_link_that_the_owner_puts_into_a_move_leads_root_nowhere(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{open_place}/data/birthmark.db"
    data, closed = await a_data_directory(open_place, url), open_place / "closed"
    closed.mkdir(mode=0o700)
    for one in (data, *data.rglob("*")):
        shutil.chown(one, "nobody", "nogroup")

    def swapped(path: Path, to: Path) -> str:
        to.symlink_to(closed / "made")
        return database_copy_and_import.copy_sqlite(path, to)

    monkeypatch.setattr(database_move, "copy_sqlite", swapped)
    with pytest.raises(PermissionError):
        await move_database(data, url, f"sqlite:///{data}/other.db", SystemClock(), SeededEntropy(), lambda _: None)
    assert list(closed.iterdir()) == []


def test_what_another_backup_makes_and_removes_meanwhile_is_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("ca", ".backup-other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch()
    real = os.scandir

    def meanwhile(path: Any) -> Any:
        if ".backup-other" in str(path):
            shutil.rmtree(tmp_path / ".backup-other")
        return real(path)

    monkeypatch.setattr(os, "scandir", meanwhile)
    assert [part.name for part in backup_creation._below(tmp_path, "data/")] == ["data/ca/file"]
    assert (tmp_path / ".backup-other").exists()


async def test_a_backup_is_not_written_into_what_it_backs_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    (tmp_path / "link").symlink_to("data")
    for out in (data / "b", tmp_path / "link" / "ca" / "b"):
        with pytest.raises(BackupInsideError):
            await make_backup(data, out, SECRET, url=url, now=NOON)
    assert sorted(one.name for one in data.iterdir()) == ["audit.seed", "birthmark.db", "ca", "endpoints.json"]


async def test_files_that_are_links_are_in_it(tmp_path: Path) -> None:
    """As where keys are on a mount of their own, or a cluster mounts secrets."""
    url, mount = f"sqlite:///{tmp_path}/data/birthmark.db", tmp_path / "mount"
    data = await a_data_directory(tmp_path, url)
    (mount / "..data").mkdir(parents=True)
    for name in ("audit.seed", "ca/root.key"):
        kept = mount / "..data" / Path(name).name
        (data / name).rename(kept)
        (data / name).symlink_to(kept)
    (mount / "chips").mkdir()
    (mount / "chips/one").write_text("1")
    (mount / "chips/above").symlink_to(mount)
    (data / "chips").symlink_to(mount / "chips")
    (data / "back").symlink_to(data)
    (data / "null").symlink_to("/dev/null")
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())
    kept_files = {str(one.relative_to(tmp_path / "new")) for one in (tmp_path / "new").rglob("*") if one.is_file()}
    assert {"audit.seed", "ca/root.key", "ca/root.pem", "chips/one"} <= kept_files
    assert not kept_files & {"null", "back/audit.seed"}
    assert (tmp_path / "new/ca/root.key").read_bytes() == (mount / "..data/root.key").read_bytes()


async def test_a_ca_that_is_a_link_as_a_whole_is_in_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    (data / "ca").rename(tmp_path / "mount")
    (data / "ca").symlink_to(tmp_path / "mount")
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())
    assert (tmp_path / "new/ca/root.key").read_bytes() == (tmp_path / "mount/root.key").read_bytes()


@pytest.mark.parametrize("name", ["est.seed", "ca/servers.key"])
async def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    (data / name).unlink(missing_ok=True)
    (data / name).symlink_to("gone")
    with pytest.raises(OSError, match="a link that cannot be followed") as refused:
        await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    assert refused.value.filename == str(data / name)
    assert not (tmp_path / "b").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read what the owner cannot")
def test_for_root_a_link_leads_only_to_what_the_owner_of_the_directory_can_read(tmp_path: Path) -> None:
    link, read = tmp_path / "link", set()
    for name, mode, owner in (("secret", 0o600, 0), ("open-below-a-closed-folder", 0o644, 0), ("own", 0o600, 7)):
        (tmp_path / name).touch(mode)
        os.chown(tmp_path / name, owner, owner)
    tmp_path.chmod(0o700)
    for name in ("secret", "open-below-a-closed-folder", "/etc/passwd", "own"):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        with contextlib.suppress(PermissionError):
            read_linked(link, 7)
            read.add(name)
    assert read == {"/etc/passwd", "own"}


async def test_an_archive_that_lacks_a_file_is_not_said_to_have_another_passphrase(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/birthmark.db"
    data = await a_data_directory(tmp_path, url)
    (data / "audit.seed").unlink()
    await make_backup(data, tmp_path / "b", SECRET, url=url, now=NOON)
    with pytest.raises(BackupUnreadableError) as refused:
        await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock())
    assert "it lacks audit.seed" in refused.value.explain_cause()
    assert "passphrase" not in refused.value.explain_fix().lower()


async def test_tables_that_are_no_servers_are_refused_by_name(postgres_url: str, tmp_path: Path) -> None:
    data = await a_data_directory(tmp_path, postgres_url)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TABLE guests (name text); DROP TABLE est_users")
    await connection.close()
    with pytest.raises(TablesDifferError) as refused:
        await make_backup(data, tmp_path / "b", SECRET, url=postgres_url, now=NOON)
    assert "est_users is missing, guests is another's" in refused.value.explain_cause()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("answers", [0, 20, 40, 100])
async def test_a_backup_ends_where_the_database_goes_silent(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    data = await a_data_directory(tmp_path, postgres_url)
    monkeypatch.setattr(outage_retry, "OPTIONS", {**outage_retry.OPTIONS, "command_timeout": 2, "timeout": 2})
    async with counting(postgres_url) as way:
        way.is_silent_after = answers
        with pytest.raises(PostgresUnavailableError):
            await make_backup(data, tmp_path / "b", SECRET, url=way.url, now=NOON)
    assert not list(data.glob(".backup*"))


async def test_an_archive_without_some_of_the_tables_is_refused_by_name(postgres_url: str, tmp_path: Path) -> None:
    """Such as version 0.1.0 made of a PostgreSQL server."""
    data = await a_data_directory(tmp_path, postgres_url)
    await make_backup(data, tmp_path / "b", SECRET, url=postgres_url, now=NOON)
    (tmp_path / "parts").mkdir()
    read_archive(tmp_path / "b", SECRET, tmp_path / "parts", NAMES)
    (tmp_path / "parts/tables/dps_enrollments.rows").unlink()
    names = sorted(str(one.relative_to(tmp_path / "parts")) for one in (tmp_path / "parts").rglob("*") if one.is_file())
    names.sort(key=lambda name: name != "manifest.json")
    write_archive(tmp_path / "cut", SECRET, [ArchivePart(name, tmp_path / "parts" / name) for name in names])
    with pytest.raises(BackupUnreadableError) as refused:
        await restore_backup(tmp_path / "cut", tmp_path / "new", SECRET, SystemClock())
    assert "it lacks the tables dps_enrollments" in refused.value.explain_cause()


async def test_it_is_restored_within_an_empty_directory_that_may_be_a_mount(tmp_path: Path) -> None:
    url, new = f"sqlite:///{tmp_path}/data/birthmark.db", tmp_path / "new"
    await make_backup(await a_data_directory(tmp_path, url), tmp_path / "b", SECRET, url=url, now=NOON)
    (new / "lost+found").mkdir(parents=True)
    before = new.stat().st_ino
    await restore_backup(tmp_path / "b", new, SECRET, SystemClock())
    assert new.stat().st_ino == before
    assert sorted(one.name for one in new.iterdir()) == ["audit.seed", "birthmark.db", "ca", "lost+found"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "data", "new"]


@pytest.mark.parametrize("is_killed", [False, True], ids=["failed", "killed"])
async def test_a_restore_that_did_not_end_is_begun_again_and_takes_nothing_else_away(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool
) -> None:
    """It ends when the database is full and the files are half in place."""
    url, new = f"sqlite:///{tmp_path}/data/birthmark.db", tmp_path / "new"
    await make_backup(await a_data_directory(tmp_path, url), tmp_path / "b", SECRET, url=url, now=NOON)

    def full(path: Path) -> None:
        if path == new:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(atomic_files, "sync_directory", full)
        if is_killed:
            broken.setattr(restore, "_clear", lambda _: None)
        with pytest.raises(OSError, match="No space"):
            await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
    assert new.exists() is is_killed
    if is_killed:
        with pytest.raises(RestoreUnfinishedError):
            DataDirectory(new, SystemClock(), SeededEntropy()).prepare()
        database = await open_database(postgres_url, SystemClock())
        with pytest.raises(RestoreUnfinishedError):
            await check_not_restoring_or_moved(database, new)
        await database.close()
        (new / "precious").touch()
        with pytest.raises(RestoreTargetError):
            await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
        (new / "precious").unlink()
    await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
    assert (await contents(new, postgres_url))[0] == ["d-0 False", "d-1 False", "d-2 True"]
    with pytest.raises(DatabaseNotEmptyError):
        await restore_backup(tmp_path / "b", tmp_path / "other", SECRET, SystemClock(), url=postgres_url)


async def test_a_restore_that_was_killed_when_its_database_was_handed_over_only_has_to_be_typed_again(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is cleared, as the database would have lost its server's files; nor by a restore into another."""
    url, new = f"sqlite:///{tmp_path}/data/birthmark.db", tmp_path / "new"
    await make_backup(await a_data_directory(tmp_path, url), tmp_path / "b", SECRET, url=url, now=NOON)
    let_go = database_copy_and_import.release_database

    async def killed(database: Database, number: str) -> None:
        await let_go(database, number)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(restore, "release_database", killed)
        with pytest.raises(KeyboardInterrupt):
            await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
    with pytest.raises(RestoreUnfinishedError):
        DataDirectory(new, SystemClock(), SeededEntropy()).prepare()
    with pytest.raises(RestoreTargetError):
        await restore_backup(tmp_path / "b", new, SECRET, SystemClock())
    done = await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
    assert done.made_at == NOON.isoformat()
    assert (await contents(new, postgres_url))[0] == ["d-0 False", "d-1 False", "d-2 True"]
    assert sorted(one.name for one in new.iterdir()) == ["audit.seed", "ca"]


async def test_a_restore_whose_database_could_not_be_handed_over_begins_anew(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, new = f"sqlite:///{tmp_path}/data/birthmark.db", tmp_path / "new"
    await make_backup(await a_data_directory(tmp_path, url), tmp_path / "b", SECRET, url=url, now=NOON)

    async def gone(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(restore, "release_database", gone)
        with pytest.raises(ConnectionError):
            await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
    await restore_backup(tmp_path / "b", new, SECRET, SystemClock(), url=postgres_url)
    assert (await contents(new, postgres_url))[0] == ["d-0 False", "d-1 False", "d-2 True"]


async def test_a_restore_that_was_killed_while_it_cleared_up_is_a_whole_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, new = f"sqlite:///{tmp_path}/data/birthmark.db", tmp_path / "new"
    await make_backup(await a_data_directory(tmp_path, url), tmp_path / "b", SECRET, url=url, now=NOON)

    def killed(path: Path, **_: object) -> None:
        (path / "moved.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            await restore_backup(tmp_path / "b", new, SECRET, SystemClock())
    with pytest.raises(RestoreTargetError):
        await restore_backup(tmp_path / "b", new, SECRET, SystemClock())
    directory = DataDirectory(new, SystemClock(), SeededEntropy())
    directory.prepare()
    directory.release()
    assert sorted(one.name for one in new.iterdir()) == ["audit.seed", "birthmark.db", "ca", "server.lock"]


def test_a_disk_that_is_full_is_told_with_the_file_that_was_written(tmp_path: Path) -> None:
    """A limit of a file's size stands in for the disk: the system refuses the write in the same place."""
    into, whole = tmp_path / "into", tmp_path / "whole"
    into.mkdir()
    parts = [ArchivePart("manifest.json", b"{}"), ArchivePart("data/big", random.Random(1).randbytes(3 << 20))]
    write_archive(whole, SECRET, parts)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            write_archive(tmp_path / "b", SECRET, parts)
        assert refused.value.filename == str(tmp_path / "b")
        with pytest.raises(OSError, match="File too large") as refused:
            read_archive(whole, SECRET, into, NAMES)
        assert refused.value.filename == str(into / "data/big")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("url", ["postgresql://localhost:port/x", "postgresql://[::1/x", "mysql://x/y"])
async def test_what_names_no_database_is_not_the_backups_fault(tmp_path: Path, url: str) -> None:
    source = f"sqlite:///{tmp_path}/data/birthmark.db"
    await make_backup(await a_data_directory(tmp_path, source), tmp_path / "b", SECRET, url=source, now=NOON)
    with pytest.raises(ConfigInvalidError):
        await restore_backup(tmp_path / "b", tmp_path / "new", SECRET, SystemClock(), url=url)
