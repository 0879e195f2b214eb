"""A page that starts a server ends it: the next page in the same shell begins with free ports."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```sh[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STARTS = re.compile(r"^birthmark serve\b.*[^&]&\s*(#.*)?$", re.MULTILINE)
ENDS = re.compile(r"^\s*kill\b", re.MULTILINE)
STARTING = [page for page in PAGES if STARTS.search("\n".join(BLOCK.findall(page.read_text())))]


def test_pages_that_start_servers_are_found() -> None:
    assert len(STARTING) > 20


@pytest.mark.parametrize("page", STARTING, ids=lambda page: page.name)
def test_a_page_ends_the_server_that_it_starts(page: Path) -> None:
    commands = "\n".join(BLOCK.findall(page.read_text()))
    *_, last = STARTS.finditer(commands)
    assert ENDS.search(commands, last.end()), "end it: kill %1"
