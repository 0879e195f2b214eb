"""Write tests/unit/surface.txt: every command, option, endpoint, refusal code, setting, metric and event there is.

A later version has all of them, but for those that the CHANGELOG names under *Removed*: `tests/unit/test_surface.py`.

python tools/make_surface.py
"""

import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
PAGES = TOP / "docs" / "reference"
TARGET = TOP / "tests" / "unit" / "surface.txt"
_FIRST_CELL = re.compile(
    r"\| (?P<cell>(?:[A-Z]+ )?`(?:[^|]|\\\|)*`(?:, `[^|]*`)*|[A-Z][a-z]+[A-Z]\w+) \| (?P<second>[^|]*) \|"
)
_COMMAND = re.compile(r"#+ `(?P<command>birthmark[^`]*)`")


def surface() -> Iterator[str]:
    """Yield a line for each thing that somebody may use by its name."""
    for page in sorted(PAGES.glob("*.md")):
        if page.name.endswith(".ja.md") or page.stem in {"glossary", "limits", "chip-memory"}:
            continue
        above = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            if found := _COMMAND.match(line):
                above = found["command"] + " "
                yield f"{page.stem}: {above.rstrip()}"
            elif found := _FIRST_CELL.match(line):
                is_method = found["second"].startswith(("GET ", "PUT ", "POST ", "PATCH ", "DELETE "))
                path = " " + found["second"] if is_method else ""
                yield f"{page.stem}: {above}{found['cell'].replace('`', '')}{path.replace('`', '')}"


if __name__ == "__main__":
    lines = sorted(set(surface()))
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} names")
