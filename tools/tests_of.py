"""Print the tests of a package, wherever they lie: `scripts/test PACKAGE` runs them.

python tools/tests_of.py PACKAGE
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
MAP = tomllib.loads((TESTS / "packages.toml").read_text())


def packages() -> list[str]:
    """Return the names of the packages of the source."""
    return sorted(path.parent.name for path in (ROOT / "src" / "birthmark").glob("*/__init__.py"))


def tests_of(package: str) -> list[Path]:
    """Return files and directories, none below another."""
    found = {path for path in TESTS.glob(f"*/{package}") if path.is_dir()}
    found |= {TESTS / path for path in MAP.get(package, ())}
    return sorted(path for path in found if not found & set(path.parents))


if __name__ == "__main__":
    if sys.argv[1] not in (*packages(), "everything"):
        sys.exit(f"{sys.argv[1]} is no package; there are {', '.join(packages())}")
    print(*(path.relative_to(ROOT) for path in tests_of(sys.argv[1])), sep="\n")
