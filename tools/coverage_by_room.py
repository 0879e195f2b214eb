"""Say how much of each pure room the last `scripts/test --cov` covered, lines and branches; fail below the floor."""

import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import coverage

FLOOR_PERCENT = 98.0
ROOMS = {
    "rules": re.compile(r"/rules(/|\.py$)"),
    "wire": re.compile(r"/wire(/|\.py$)"),
    "mqtt": re.compile(r"birthmark/mqtt/"),
    "pki": re.compile(r"birthmark/pki/"),
    "store": re.compile(r"birthmark/store/"),
}


def main() -> int:
    measured = coverage.Coverage()
    measured.load()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        measured.json_report(outfile=file.name)
        files = json.loads(Path(file.name).read_text())["files"]
    there, covered = Counter[str](), Counter[str]()
    for name, told in files.items():
        room = next((room for room, pattern in ROOMS.items() if pattern.search(name)), None)
        if room is not None:
            there[room] += told["summary"]["num_statements"] + told["summary"]["num_branches"]
            covered[room] += told["summary"]["covered_lines"] + told["summary"]["covered_branches"]
    percents = {room: 100 * covered[room] / there[room] for room in ROOMS}
    for room, percent in percents.items():
        print(f"{room:6} {percent:6.2f} %")
    return 0 if min(percents.values()) >= FLOOR_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
