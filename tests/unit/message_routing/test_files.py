"""Files that rules write: whole, below their folder, and only while the disk has room."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from birthmark.message_routing.delivery_model import Delivery, is_final
from birthmark.message_routing.sinks import files
from birthmark.message_routing.sinks.errors import NotTakenError
from birthmark.message_routing.sinks.files import FileSink, FolderQuota, LineSink
from support.fakes import FakeClock


def letter(body: bytes, **address: str) -> Delivery:
    more: Mapping[str, Any] = address
    return Delivery("one/0", "s3", more, body, {})


def a_room(root: Path, most: int = 1000) -> FolderQuota:
    return FolderQuota(root, FakeClock().micros, most)


async def test_each_letter_is_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    sink = FileSink(lambda one: tmp_path / one.address["key"], a_room(tmp_path))
    results = await sink.carry([letter(b"1", key="a/b"), letter(b"2", key="a/b"), letter(b"3", key="c")])
    assert results == [None, None, None]
    assert {str(one.relative_to(tmp_path)): one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == {
        "a/b": b"2",
        "c": b"3",
    }


async def test_lines_are_added_in_order(tmp_path: Path) -> None:
    sink = LineSink(lambda _: tmp_path / "lines", a_room(tmp_path))
    await sink.carry([letter(b"1", separator="\n"), letter(b"2", separator="\n")])
    await sink.carry([letter(b"3", separator="\n")])
    assert (tmp_path / "lines").read_bytes() == b"1\n2\n3\n"


@pytest.mark.parametrize("kind", [FileSink, LineSink])
async def test_a_disk_that_is_nearly_full_takes_no_more(
    tmp_path: Path, kind: type[FileSink | LineSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "has_room", lambda _: False)
    (problem,) = await kind(lambda _: tmp_path / "x", a_room(tmp_path)).carry([letter(b"1")])
    assert isinstance(problem, NotTakenError)
    assert not problem.is_final
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("key", ["folder", "x" * 300])
async def test_a_name_that_no_file_can_have_is_refused_for_good_and_leaves_nothing(tmp_path: Path, key: str) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (problem,) = await FileSink(lambda one: tmp_path / one.address["key"], a_room(tmp_path)).carry(
        [letter(b"1", key=key)]
    )
    assert problem is not None
    assert is_final(problem)
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


async def test_lines_go_to_no_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (problem,) = await LineSink(lambda _: tmp_path / "folder", a_room(tmp_path)).carry([letter(b"1")])
    assert problem is not None
    assert is_final(problem)


@pytest.mark.parametrize("kind", [FileSink, LineSink])
async def test_a_device_makes_no_more_files_than_there_may_be(tmp_path: Path, kind: type[FileSink | LineSink]) -> None:
    sink = kind(lambda one: tmp_path / one.address["key"], a_room(tmp_path, 10))
    results = [(await sink.carry([letter(b"1", key=f"folder/{number}")]))[0] for number in range(20)]
    assert len(list(tmp_path.rglob("*"))) == 10
    assert results[:9] == [None] * 9
    assert all(isinstance(one, NotTakenError) and not one.is_final for one in results[9:])


async def test_files_that_were_removed_make_room_a_minute_later(tmp_path: Path) -> None:
    now = [1]
    sink = FileSink(lambda one: tmp_path / one.address["key"], FolderQuota(tmp_path, lambda: now[0], 2))
    for number in range(3):
        await sink.carry([letter(b"1", key=str(number))])
    (tmp_path / "0").unlink()
    now[0] = 61_000_000
    assert await sink.carry([letter(b"1", key="3")]) == [None]


def test_a_disk_without_free_files_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = os.statvfs_result((4096, 4096, 1000, 900, 900, 3000, 100, 100, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    assert not files.has_room(tmp_path)
