"""Count the lines and files of source and tests, now and in a revision, and print what each is of the other.

python tools/count_lines.py [REVISION]
"""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
PARTS = {"source": ("src/",), "tests": ("tests/",)}


def _git(*arguments: str) -> bytes:
    return subprocess.check_output(["git", "-C", TOP, *arguments])


def counted(revision: str | None, places: tuple[str, ...]) -> tuple[int, int]:
    """Return the lines and the number of Python files that git has below some places."""
    listed = ["ls-files"] if revision is None else ["ls-tree", "-r", "--name-only", revision]
    names = [name for name in _git(*listed, *places).decode().splitlines() if name.endswith(".py")]
    if revision is None:
        texts = [path.read_bytes() for name in names if (path := TOP / name).exists()]
    else:
        texts = [_git("show", f"{revision}:{name}") for name in names]
    return sum(text.count(b"\n") for text in texts), len(texts)


if __name__ == "__main__":
    for part, places in PARTS.items():
        lines, files = counted(None, places)
        line = f"{part:<7} {lines:>8} lines {files:>6} files"
        if sys.argv[1:]:
            lines_before, files_before = counted(sys.argv[1], places)
            line += f"   {sys.argv[1]}: {lines_before} lines {files_before} files, ratio {lines / lines_before:.3f}"
        print(line)
