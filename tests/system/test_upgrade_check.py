"""`birthmark upgrade --check`: what the first start would do, said before it; and that start, on a full disk."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.server.earlier import script_of_0_1_0, unpacked
from support.server.servers import BIRTHMARK, clean_environment, free_address

pytestmark = pytest.mark.system
OF_0_2_0 = "0020"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What version 0.2.0 left."""
    return unpacked("0.2.0", tmp_path) / "data"


def attempt(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BIRTHMARK, *arguments, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean_environment())


def check(data: Path, *options: str) -> tuple[int, dict[str, object], list[str]]:
    """Return the exit code, what was told, and the codes of what is in the way."""
    done = attempt(data, "upgrade", "--check", "--json", *options)
    told = json.loads(done.stdout)
    return done.returncode, told, [one["error"] for one in told["problems"]]


def back_up(data: Path) -> None:
    secret = data.parent / "of-an-upgrade"
    secret.touch(mode=0o600)
    secret.write_text("correct horse battery\n")
    file = ["--out", str(data.parent / "before.birthmark"), "--passphrase-file", str(secret)]
    done = attempt(data, "server", "backup", *file)
    assert done.returncode == 0, done.stderr


def told_of(data: Path, sql: str) -> None:
    with closing(sqlite3.connect(data / "birthmark.db")) as database, database:
        database.execute(sql)


def contents(data: Path) -> dict[str, str]:
    files = [path for path in sorted(data.rglob("*")) if path.is_file()]
    return {str(path): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files}


def test_it_says_from_where_to_where_and_changes_nothing(data: Path) -> None:
    before = contents(data)
    code, told, wrong = check(data)
    assert (code, wrong) == (6, ["server.not_backed_up"])
    assert (told["found_schema"], told["found_release"]) == (OF_0_2_0, "0.2.0")
    steps = told["steps"]
    assert isinstance(steps, list)
    assert (steps[0]["revision"], steps[-1]["revision"]) == ("0050", told["schema"])
    assert contents(data) == before


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
def test_it_knows_the_release_that_wrote_it(tmp_path: Path, release: str) -> None:
    _, told, _ = check(unpacked(release, tmp_path) / "data")
    assert told["found_release"] == release


def test_a_backup_by_the_new_program_is_all_that_was_missing(data: Path) -> None:
    back_up(data)
    code, told, wrong = check(data)
    assert (code, wrong) == (0, [])
    backup = told["backup"]
    assert isinstance(backup, dict)
    assert backup["file"].endswith("before.birthmark")


def test_one_of_another_kind_is_taken_at_its_word(data: Path) -> None:
    assert check(data, "--backed-up")[0] == 0


def test_a_newer_directory_is_named_before_anything_is_tried(data: Path) -> None:
    told_of(data, "UPDATE alembic_version SET version_num = '9999'")
    code, told, wrong = check(data)
    assert (code, wrong, told["steps"]) == (6, ["store.schema_too_new"], [])


def test_half_a_restore_and_a_moved_database_are_named(data: Path) -> None:
    (data / ".restoring").mkdir()
    told_of(data, "INSERT INTO server_facts VALUES ('server.moved', 'postgresql://elsewhere/birthmark')")
    assert {"server.restore_unfinished", "server.database_moved"} <= set(check(data)[2])


def test_tables_of_no_version_are_named(data: Path) -> None:
    told_of(data, "DELETE FROM alembic_version")
    assert check(data)[2] == ["store.unreadable"]


def test_a_configuration_that_this_version_does_not_take_is_named(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "old.toml"
    config.write_text("colour = 1\n")
    done = attempt(data, "upgrade", "--check", "--config", str(config))
    assert (done.returncode, "server.config_invalid" in done.stderr) == (2, True)


def test_where_there_is_nothing_that_is_said(tmp_path: Path) -> None:
    done = attempt(tmp_path / "nothing", "upgrade", "--check")
    assert (done.returncode, "server.nothing_to_upgrade" in done.stderr) == (3, True)
    assert not (tmp_path / "nothing").exists()


def test_without_check_it_does_nothing_and_says_who_upgrades(data: Path) -> None:
    before = contents(data)
    done = attempt(data, "upgrade")
    assert (done.returncode, "serve" in done.stderr) == (2, True)
    assert contents(data) == before


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$0" upgrade --check --json --data "$1"'


def test_on_a_disk_that_is_read_only_the_log_beside_a_database_counts_too(data: Path) -> None:
    """As in a snapshot that was taken while the server ran."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts disks")
    with closing(sqlite3.connect(data / "birthmark.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
        snapshot = data.parent / "snapshot"
        shutil.copytree(data, snapshot, ignore=shutil.ignore_patterns("*-shm"))
    before = contents(snapshot)
    command = ["unshare", "--mount", "sh", "-c", READ_ONLY, BIRTHMARK, str(snapshot)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=clean_environment())
    assert json.loads(done.stdout)["found_schema"] == "9999", done.stderr
    assert contents(snapshot) == before


def test_what_is_no_file_is_named_and_not_waited_for(data: Path) -> None:
    (data / "birthmark.db").unlink()
    os.mkfifo(data / "birthmark.db")
    (data / "birthmark.db-wal").write_text("a log")
    done = attempt(data, "upgrade", "--check")
    assert (done.returncode, "store.unreadable" in done.stderr) == (5, True)


def test_a_damaged_database_is_named_before_an_upgrade_meets_it(data: Path) -> None:
    """Its first pages, which say its version, are whole."""
    with (data / "birthmark.db").open("r+b") as file:
        file.seek(60 * 4096)
        file.write(b"\xa5" * 20 * 4096)
    done = attempt(data, "upgrade", "--check", "--backed-up")
    assert (done.returncode, "store.unreadable" in done.stderr, "damaged" in done.stderr) == (5, True, True)
    assert "restore" in done.stderr


def test_a_database_that_is_a_link_to_itself_is_named(data: Path) -> None:
    (data / "birthmark.db").unlink()
    (data / "birthmark.db").symlink_to("birthmark.db")
    done = attempt(data, "upgrade", "--check")
    assert (done.returncode, "store.unreadable" in done.stderr) == (5, True)


def test_a_note_of_a_backup_that_is_no_file_is_none_and_not_waited_for(data: Path) -> None:
    os.mkfifo(data / "last-backup.json")
    assert check(data)[2] == ["server.not_backed_up"]


def said_to_postgresql(url: str, sql: str) -> None:
    command = ["psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", url]
    subprocess.run(command, input=sql, text=True, check=True, capture_output=True)


def dumped(url: str) -> str:
    return subprocess.run(["pg_dump", url], capture_output=True, text=True, check=True).stdout.partition("\\restrict")[
        0
    ]


@pytest.fixture
def at_postgresql(tmp_path: Path, postgres_url: str) -> Path:
    """A data directory whose records of 0.1.0 are in PostgreSQL; BIRTHMARK_DATABASE names that."""
    said_to_postgresql(postgres_url, script_of_0_1_0())
    return unpacked("0.1.0", tmp_path) / "data"


def test_records_in_postgresql_are_told_and_stay_as_they_were(at_postgresql: Path, postgres_url: str) -> None:
    before = contents(at_postgresql), dumped(postgres_url)
    code, told, wrong = check(at_postgresql, "--database", postgres_url)
    assert (code, wrong) == (6, ["server.not_backed_up"])
    assert (told["found_schema"], told["found_release"], told["needed_bytes"]) == ("0001", "0.1.0", 0)
    assert isinstance(told["steps"], list)
    assert told["steps"][-1]["revision"] == told["schema"]
    assert (contents(at_postgresql), dumped(postgres_url)) == before


def test_newer_records_in_postgresql_are_named(at_postgresql: Path, postgres_url: str) -> None:
    said_to_postgresql(postgres_url, "UPDATE alembic_version SET version_num = '9999'")
    assert check(at_postgresql, "--database", postgres_url)[2] == ["store.schema_too_new"]


def test_tables_of_no_version_in_postgresql_are_named(at_postgresql: Path, postgres_url: str) -> None:
    said_to_postgresql(postgres_url, "DELETE FROM alembic_version")
    assert check(at_postgresql, "--database", postgres_url)[2] == ["store.unreadable"]


def test_while_postgresql_is_upgraded_by_another_the_older_version_is_told(
    at_postgresql: Path, postgres_url: str
) -> None:
    """An upgrade is one transaction: nobody sees half of it."""
    command = ["psql", "--no-psqlrc", "--quiet", postgres_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        print("BEGIN; UPDATE alembic_version SET version_num = '0050';\n\\echo half", file=other.stdin, flush=True)
        assert other.stdout.readline() == "half\n"
        assert check(at_postgresql, "--database", postgres_url)[1]["found_schema"] == "0001"
        other.stdin.close()


def test_a_postgresql_that_does_not_answer_is_said_without_its_password(at_postgresql: Path) -> None:
    url = f"postgresql://birthmark:correct-horse@{free_address()}:5432/birthmark"
    command = [BIRTHMARK, "upgrade", "--check", "--data", str(at_postgresql)]
    known = clean_environment(BIRTHMARK_DATABASE=url)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=known)
    assert (done.returncode, "store.postgresql_unavailable" in done.stderr) == (5, True)
    assert "correct-horse" not in done.stdout + done.stderr


def test_a_password_that_was_typed_is_not_printed_again(data: Path) -> None:
    """Whoever keeps what was printed, as a CI does, would keep it."""
    done = attempt(data, "upgrade", "--check", "--database", "postgresql://ann:correct-horse@db.example/birthmark")
    assert "Then repeat the command: `birthmark upgrade" in done.stderr
    assert "correct-horse" not in done.stderr
    assert "postgresql://ann:PASSWORD@db.example/birthmark" in done.stderr


@pytest.fixture
def small(data: Path, tmp_path: Path) -> Iterator[Path]:
    """The same on a disk that has no room for an upgrade."""
    if os.geteuid() != 0:
        pytest.skip("only root makes disks")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(disk)], check=True)
    try:
        shutil.copytree(data, disk / "data")
        (disk / "data").chmod(0o700)
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def start(data: Path) -> subprocess.CompletedProcess[str]:
    """Start a server that ends as soon as it is ready."""
    command = [BIRTHMARK, "serve", "--listen", free_address(), "--data", str(data)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )
    out = ""
    for line in process.stdout or ():
        out += line
        if line.startswith("Ready."):
            process.terminate()
    _, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def test_a_disk_without_room_is_named_and_the_start_that_fills_it_loses_nothing(small: Path) -> None:
    assert "server.no_room_to_upgrade" in check(small / "data", "--backed-up")[2]
    failed = start(small / "data")
    assert failed.returncode != 0
    assert "full" in failed.stderr
    subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
    assert check(small / "data", "--backed-up")[1]["found_schema"] == OF_0_2_0
    assert "Ready." in start(small / "data").stdout
    assert check(small / "data")[0] == 0
