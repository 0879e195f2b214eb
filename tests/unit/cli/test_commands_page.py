"""docs/reference/commands.md says what the command line is now."""

import runpy
from pathlib import Path

import typer

from birthmark.cli.app import app

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "commands.md"
TOOL = runpy.run_path(str(ROOT / "tools" / "make_commands.py"))


def test_every_command_has_its_section() -> None:
    paths = [path for path, _ in TOOL["every_command"](typer.main.get_command(app), ("birthmark",))][1:]
    sections = [line.lstrip("# ").strip("`") for line in PAGE.read_text().splitlines() if line.startswith("##")]
    assert sections == paths


def test_the_page_is_what_the_tool_writes() -> None:
    assert TOOL["page"]() == PAGE.read_text(), "run: python tools/make_commands.py"
