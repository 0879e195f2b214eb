"""The pictures of terminals in the tutorials: kept in step with their pages, small, and of this machine nothing."""

import html
import re
from pathlib import Path

import pytest

from support.tools_pages import terminals

TOOL = terminals()
DOCS = Path(__file__).parents[2] / "docs"


def test_every_tutorial_has_a_picture() -> None:
    tutorials = {page.stem for page in (DOCS / "tutorial").glob("*.md") if not page.stem.endswith(".ja")}
    assert {scene.page for scene in TOOL.SCENES.values()} == tutorials
    assert {picture.stem for picture in TOOL.TARGET.glob("*.svg")} == set(TOOL.SCENES)


@pytest.mark.parametrize("name", TOOL.SCENES)
def test_a_picture_stands_behind_the_block_whose_commands_it_shows(name: str) -> None:
    """Where this fails, `python tools/make_terminals.py NAME` runs the page and draws it anew."""
    scene = TOOL.SCENES[name]
    page = (DOCS / "tutorial" / f"{scene.page}.md").read_text()
    (block,) = (found for found in TOOL.BLOCK.finditer(page) if found["body"].startswith(scene.block))
    assert page[block.end() :].startswith(f"\n\n![{scene.seen}](../images/terminal/{name}.svg)\n")
    told = re.search(r"<desc[^>]*>(.*?)</desc>", (TOOL.TARGET / f"{name}.svg").read_text(), re.DOTALL)
    assert told is not None
    assert html.unescape(told[1]).splitlines() == TOOL.shown_of(scene)


@pytest.mark.parametrize("name", TOOL.SCENES)
def test_a_picture_is_small_loads_nothing_and_says_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    text = (TOOL.TARGET / f"{name}.svg").read_text()
    assert len(text) < 10_000
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in text
    assert re.search(r"/(tmp|root|home)/|site-packages", text) is None
