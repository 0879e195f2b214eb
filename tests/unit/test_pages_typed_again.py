"""What a page has typed twice loses nothing: no secret is written over, and no copy goes into an earlier one."""

import re
from pathlib import Path

import pytest

import birthmark

DOCS = Path(birthmark.__file__).parents[2] / "docs"
FILES = [path for path in DOCS.rglob("*.md") if path.parent.name != "reference"]
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in FILES}
INTO_A_FILE = re.compile(r"(?<![>&\d])>(?![>&])(?! */dev/null)")
"""`>`; not `>>`, nor `2>`."""


@pytest.mark.parametrize("page", sorted(PAGES))
def test_what_only_its_maker_may_read_is_not_written_over(page: str) -> None:
    secret = [line for line in PAGES[page].splitlines() if "umask 077" in line and INTO_A_FILE.search(line)]
    assert [line for line in secret if "set -C" not in line] == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_directory_is_not_copied_into_an_earlier_copy(page: str) -> None:
    assert re.findall(r"^ *cp -[aRr]+ .*", PAGES[page], re.MULTILINE) == []
