"""What is written is there whole or not at all, and nobody's link is followed."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from birthmark import atomic_files


def test_a_file_is_created_and_never_replaced(tmp_path: Path) -> None:
    atomic_files.create(tmp_path / "key", b"one")
    with pytest.raises(FileExistsError):
        atomic_files.create(tmp_path / "key", b"two")
    assert (tmp_path / "key").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_only_its_owner_reads_it_unless_said_otherwise(tmp_path: Path) -> None:
    atomic_files.create(tmp_path / "key", b"")
    atomic_files.replace(tmp_path / "certificate", b"", 0o644)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("key", "certificate")] == [0o600, 0o644]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another's")
    for name, write in (("put", atomic_files.put), ("replace", atomic_files.replace)):
        (tmp_path / name).symlink_to("other")
        (tmp_path / f".{name}.new").symlink_to("other")
        write(tmp_path / name, b"ours")
        assert (tmp_path / name).read_bytes() == b"ours"
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "other").read_text() == "another's"


def test_what_a_killed_run_left_beside_is_in_nobodys_way(tmp_path: Path) -> None:
    for left in (".state.new", ".state.new1", ".state.new2"):
        (tmp_path / left).write_text("half")
    atomic_files.replace(tmp_path / "state", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    (tmp_path / ".state.new1").write_text("half")
    atomic_files.replace(tmp_path / "state", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    (tmp_path / ".state.new").write_text("half")
    atomic_files.remove(tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_files.replace(tmp_path / "state", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_files.replace(tmp_path / "state", b"new")
    assert (tmp_path / "state").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("name", ["missing/key", "file/key", "k" * 255], ids=["no directory", "a file", "too long"])
def test_where_nothing_can_be_is_told_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for write in (atomic_files.create, atomic_files.replace, atomic_files.put):
        with pytest.raises(OSError, match=r"No such|Not a directory|too long"):
            write(tmp_path / name, b"")


def test_what_is_written_bit_by_bit_is_in_place_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with atomic_files.replace_incrementally(path) as file:
        file.write(b"one ")
        file.write(b"two")
        assert not path.exists()

    def cut_short() -> None:
        with atomic_files.replace_incrementally(path) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cut_short()
    assert path.read_bytes() == b"one two"
    assert [one.name for one in tmp_path.iterdir()] == ["rows"]


def test_two_who_write_one_file_have_each_their_own_until_it_is_whole(tmp_path: Path) -> None:
    def cut_short() -> None:
        with atomic_files.replace_incrementally(tmp_path / "rows") as second:
            second.write(b"half")
            raise KeyboardInterrupt

    with atomic_files.replace_incrementally(tmp_path / "rows") as first:
        first.write(b"who")
        with pytest.raises(KeyboardInterrupt):
            cut_short()
        with atomic_files.replace_incrementally(tmp_path / "rows") as third:
            third.write(b"earlier")
        assert (tmp_path / "rows").read_bytes() == b"earlier"
        first.write(b"le")
    assert (tmp_path / "rows").read_bytes() == b"whole"
    assert [one.name for one in tmp_path.iterdir()] == ["rows"]


def test_what_killed_runs_left_is_cleared_and_what_is_written_now_is_not(tmp_path: Path) -> None:
    beside = tmp_path / ".building"
    with atomic_files.create_incrementally(tmp_path / "whole", beside=beside) as file:
        for number in (1, 2, 7):
            (tmp_path / f".building{number}").write_text("left")
        atomic_files.clear(beside)
        assert [one.name for one in tmp_path.iterdir()] == [".building"]
        file.write(b"all of it")
    assert [one.name for one in tmp_path.iterdir()] == ["whole"]


def test_a_file_that_was_created_keeps_what_it_has_though_its_writer_was_killed_before_the_other_name_went(
    tmp_path: Path,
) -> None:
    (tmp_path / "monday").write_text("monday's")
    os.link(tmp_path / "monday", tmp_path / ".building")
    with atomic_files.create_incrementally(tmp_path / "tuesday", beside=tmp_path / ".building") as file:
        file.write(b"tuesday's")
    told = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert told == {"monday": "monday's", "tuesday": "tuesday's"}


def test_a_file_is_created_where_no_file_has_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fat(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fat)
    atomic_files.create(tmp_path / "key", b"one", 0o640)
    with pytest.raises(FileExistsError):
        atomic_files.create(tmp_path / "key", b"two")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("key", b"one")]
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o640


def test_a_file_is_written_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / ".state.new").write_text("half")
    atomic_files.replace(tmp_path / "state", b"whole")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("state", b"whole")]


def test_a_name_aside_is_one_that_nothing_has(tmp_path: Path) -> None:
    key = tmp_path / "gateway.key.pem"
    assert atomic_files.backup_path(key) == tmp_path / "gateway.key.pem.old"
    atomic_files.backup_path(key).symlink_to(tmp_path / "nowhere")
    (tmp_path / "gateway.key.pem.old-2").mkdir()
    assert atomic_files.backup_path(key).name == "gateway.key.pem.old-3"
    assert atomic_files.backup_path(key, "damaged").name == "gateway.key.pem.damaged"


def test_what_is_there_already_is_told_by_bytes_mode_and_kind(tmp_path: Path) -> None:
    file = tmp_path / "file"
    atomic_files.replace(file, b"same", 0o600)
    assert atomic_files.has_content(file, b"same", 0o600)
    assert not atomic_files.has_content(file, b"other", 0o600)
    assert not atomic_files.has_content(file, b"sam", 0o600)
    assert not atomic_files.has_content(file, b"same", 0o644)
    assert not atomic_files.has_content(tmp_path / "none", b"same", 0o600)
    (tmp_path / "link").symlink_to(file)
    assert not atomic_files.has_content(tmp_path / "link", b"same", 0o600)
