"""Say how much of each room the last `scripts/test --cov` covered, lines and branches; fail below a room's floor."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import coverage


class Room(NamedTuple):
    """Files that are counted together, and of their statements and branches how many have to be covered."""

    name: str
    floor_percent: float
    files: re.Pattern[str]


_PURE, _WITH_IO = 98.0, 95.0
ROOMS = (  # a file is counted in the first that it fits
    Room("rules", _PURE, re.compile(r"/rules(/|\.py$)")),
    Room("wire", _PURE, re.compile(r"/wire(/|\.py$)")),
    Room("amqp", _PURE, re.compile(r"birthmark/amqp/")),
    Room("mqtt", _PURE, re.compile(r"birthmark/mqtt/")),
    Room("pki", _PURE, re.compile(r"birthmark/pki/")),
    Room("store", _PURE, re.compile(r"birthmark/store/")),
    Room("agent", _WITH_IO, re.compile(r"birthmark/agent/")),
    Room("ca/service", _WITH_IO, re.compile(r"birthmark/ca/service(/|\.py$)")),
    Room("fleet", _WITH_IO, re.compile(r"birthmark/fleet/")),
    Room("keys", _WITH_IO, re.compile(r"birthmark/keys/")),
    Room("server/backup", _WITH_IO, re.compile(r"birthmark/server/backup/")),
)


class Covered(NamedTuple):
    """How much of a room was covered; nothing where none of its files was measured."""

    room: Room
    percent: float

    @property
    def is_below(self) -> bool:
        return self.percent < self.room.floor_percent

    def __str__(self) -> str:
        said = f"{self.room.name:13} {self.percent:6.2f} %   floor {self.room.floor_percent:.0f} %"
        return f"{said}   BELOW" if self.is_below else said


def by_room(files: Mapping[str, Mapping[str, Any]]) -> Iterator[Covered]:
    """Yield each room, by the files of coverage's JSON report."""
    for room in ROOMS:
        summaries = [told["summary"] for name, told in files.items() if room_of(name) is room]
        there = sum(one["num_statements"] + one["num_branches"] for one in summaries)
        covered = sum(one["covered_lines"] + one["covered_branches"] for one in summaries)
        yield Covered(room, 100 * covered / there if there else 0.0)


def room_of(file: str) -> Room | None:
    return next((room for room in ROOMS if room.files.search(file)), None)


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        measured.json_report(outfile=file.name)
        files = json.loads(Path(file.name).read_text())["files"]
    found = list(by_room(files))
    for one in found:
        print(one)
    return 1 if any(one.is_below for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
