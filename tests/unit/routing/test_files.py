"""Files that rules write: whole, below their folder, and only while the disk has room."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from birthmark.routing.carriers import files
from birthmark.routing.carriers.errors import NotTakenError
from birthmark.routing.carriers.files import FileCarrier, LineCarrier
from birthmark.routing.letters import Letter, is_final


def letter(body: bytes, **address: str) -> Letter:
    more: Mapping[str, Any] = address
    return Letter("one/0", "s3", more, body, {})


async def test_each_letter_is_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    carrier = FileCarrier(lambda one: tmp_path / one.address["key"])
    results = await carrier.carry([letter(b"1", key="a/b"), letter(b"2", key="a/b"), letter(b"3", key="c")])
    assert results == [None, None, None]
    assert {str(one.relative_to(tmp_path)): one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == {
        "a/b": b"2",
        "c": b"3",
    }


async def test_lines_are_added_in_order(tmp_path: Path) -> None:
    carrier = LineCarrier(lambda _: tmp_path / "lines")
    await carrier.carry([letter(b"1", separator="\n"), letter(b"2", separator="\n")])
    await carrier.carry([letter(b"3", separator="\n")])
    assert (tmp_path / "lines").read_bytes() == b"1\n2\n3\n"


@pytest.mark.parametrize("kind", [FileCarrier, LineCarrier])
async def test_a_disk_that_is_nearly_full_takes_no_more(
    tmp_path: Path, kind: type[FileCarrier | LineCarrier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "has_room", lambda _: False)
    (problem,) = await kind(lambda _: tmp_path / "x").carry([letter(b"1")])
    assert isinstance(problem, NotTakenError)
    assert not problem.is_final
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("key", ["folder", "x" * 300])
async def test_a_name_that_no_file_can_have_is_refused_for_good_and_leaves_nothing(tmp_path: Path, key: str) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (problem,) = await FileCarrier(lambda one: tmp_path / one.address["key"]).carry([letter(b"1", key=key)])
    assert problem is not None
    assert is_final(problem)
    assert not [one for one in tmp_path.rglob("*") if one.is_file()]


async def test_lines_go_to_no_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (problem,) = await LineCarrier(lambda _: tmp_path / "folder").carry([letter(b"1")])
    assert problem is not None
    assert is_final(problem)
