"""Set the version of a release: `python tools/set_version.py 0.4.0`.

Changes the package, the test kits, and the pages and manifests that name the current version. Dates the entries of
CHANGELOG.md below *Unreleased* with the version, and adds its row to docs/reference/compatibility.md.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/birthmark/__init__.py")
CHANGELOG = Path("CHANGELOG.md")
COMPATIBILITY = Path("docs/reference/compatibility.md")
_ANY = r"(?<![\d.]){old}(?!\.?\d)"
_IN_LOCK = r'(?<=name = "birthmark-testing"\nversion = "){old}(?=")'
PLACES: Mapping[str, str] = {
    "pyproject.toml": r'(?<=^version = "){old}(?="$)',
    "README.md": _ANY,
    "deploy/compose.yaml": _ANY,
    "deploy/kubernetes/birthmark.yaml": _ANY,
    "docs/howto/ci.md": _ANY,
    "docs/howto/install.md": _ANY,
    "docs/howto/production.md": _ANY,
    "docs/howto/test-kit-languages.md": _ANY,
    "kits/go/birthmark.go": _ANY,
    "kits/go/sample/go.mod": r"(?<=kits/go v){old}$",
    "kits/java/pom.xml": r"(?<=<artifactId>birthmark-testing</artifactId>\n  <version>){old}(?=<)",
    "kits/java/sample/pom.xml": r"(?<=<artifactId>birthmark-testing</artifactId>\n      <version>){old}(?=<)",
    "kits/java/src/main/java/io/github/birthmark/testing/BirthmarkServer.java": _ANY,
    "kits/node/package.json": r'(?<="version": "){old}(?=")',
    "kits/rust/Cargo.toml": r'(?<=^version = "){old}(?="$)',
    "kits/rust/Cargo.lock": _IN_LOCK,
    "kits/rust/sample/Cargo.toml": r'(?<=birthmark-testing = \{{ version = "){old}(?=")',
    "kits/rust/sample/Cargo.lock": _IN_LOCK,
    str(PACKAGE): _ANY,
}
"""Files that contain the current version, each with an expression that finds it."""


def current(top: Path) -> str:
    found = re.search(r'^__version__ = "(.+)"$', (top / PACKAGE).read_text(), re.MULTILINE)
    if found is None:
        sys.exit(f"{PACKAGE} has no __version__.")
    return found[1]


def parse(version: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version} is not a version. Use three numbers: 0.4.0")
    return tuple(map(int, version.split(".")))


def with_version(text: str, pattern: str, old: str, new: str) -> tuple[str, int]:
    """Return a file's text with the new version, and the number of changes."""
    return re.subn(pattern.format(old=re.escape(old)), new, text, flags=re.MULTILINE)


def with_section(text: str, new: str) -> str:
    """Return the changelog with a section of the version for the unreleased changes."""
    return text.replace("## Unreleased\n", f"## Unreleased\n\n## {new}\n", 1)


def with_row(text: str, old: str, new: str) -> str:
    """Return the compatibility table with a row of the version above the one before."""
    head, mark, tail = text.partition(f"| {old} |")
    _, python, earlier = (mark + tail).splitlines()[0].strip("| ").split(" | ")
    versions = [one for one in (earlier, old) if one != "none"]
    return f"{head}| {new} | {python} | {', '.join(versions)} |\n{mark}{tail}"


def set_version(top: Path, new: str) -> None:
    old = current(top)
    if parse(new) <= parse(old):
        sys.exit(f"{new} is not newer than {old}.")
    changed = {CHANGELOG: with_section((top / CHANGELOG).read_text(), new)}
    changed[COMPATIBILITY] = with_row((top / COMPATIBILITY).read_text(), old, new)
    for name, pattern in PLACES.items():
        changed[Path(name)], count = with_version((top / name).read_text(), pattern, old, new)
        if not count:
            sys.exit(f"{name} does not contain {old}. Nothing was changed.")
    for path, text in changed.items():
        (top / path).write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="three numbers, such as 0.4.0")
    set_version(TOP, parser.parse_args().version)
