"""Each room with a floor of coverage is in the tree and in the report, and below its floor the tool says so."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from coverage.files import GlobMatcher

from support.tools_pages import coverage_by_room

TOP = Path(__file__).parents[2]
REPORT = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["coverage"]["report"]
SOURCES = [path.relative_to(TOP).as_posix() for path in (TOP / "src").rglob("*.py")]
FLOORS = coverage_by_room()


def reported(file: str) -> bool:
    included, omitted = (GlobMatcher([f"{TOP}/{one}" for one in REPORT[name]]) for name in ("include", "omit"))
    return included.match(f"{TOP}/{file}") and not omitted.match(f"{TOP}/{file}")


def summary(statements: int, branches: int, lines: int, taken: int) -> dict[str, Any]:
    told = {"num_statements": statements, "num_branches": branches, "covered_lines": lines, "covered_branches": taken}
    return {"summary": told}


@pytest.mark.parametrize("room", [room.name for room in FLOORS.ROOMS])
def test_a_room_with_a_floor_is_one_that_is_reported(room: str) -> None:
    files = [file for file in SOURCES if (found := FLOORS.room_of(file)) is not None and found.name == room]
    assert files
    assert [file for file in files if not reported(file) and "/store/migrations/" not in file] == []


def test_nothing_is_reported_that_has_no_floor() -> None:
    assert [file for file in SOURCES if reported(file) and FLOORS.room_of(file) is None] == []


def test_statements_and_branches_count_alike() -> None:
    files = {"src/birthmark/keys/a.py": summary(60, 20, 60, 0), "src/birthmark/keys/b.py": summary(15, 5, 15, 5)}
    (keys,) = [one for one in FLOORS.by_room(files) if one.room.name == "keys"]
    assert (keys.percent, keys.is_below) == (80.0, True)
    assert str(keys) == "keys           80.00 %   floor 95 %   BELOW"


def test_a_room_of_which_nothing_was_measured_is_below_its_floor() -> None:
    assert all(one.is_below for one in FLOORS.by_room({}))


def test_a_room_at_its_floor_is_not_below() -> None:
    (fleet,) = [
        one for one in FLOORS.by_room({"src/birthmark/fleet/a.py": summary(80, 20, 76, 19)}) if one.room.name == "fleet"
    ]
    assert not fleet.is_below
