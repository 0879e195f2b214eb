"""docs/reference/commands.md says what the command line is now."""

import runpy
from pathlib import Path

from test_every_command import EVERY

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "commands.md"


def test_every_command_has_its_section() -> None:
    text = PAGE.read_text()
    for path in EVERY:
        assert path == "birthmark" or f"# `{path}`\n" in text


def test_the_page_is_what_the_tool_writes() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_commands.py"))["page"]()
    assert made == PAGE.read_text(), "run: python tools/make_commands.py"
