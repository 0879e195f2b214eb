"""Pages for users of other languages: every block runs, with the language's own build tool."""

import os
from pathlib import Path

import pytest

from support.languages.toolchains import BUILDS, TOP, require_tool
from support.server.page_scripts import run_script, script_of
from support.server.servers import clean_environment

pytestmark = pytest.mark.system
PAGES = [
    ("go", ("go", "version"), (1, 25)),
    ("java", ("mvn", "--version"), (3, 6)),
    ("rust", ("cargo", "--version"), (1, 85)),
]


@pytest.mark.parametrize(("language", "version_command", "minimum"), PAGES, ids=[language for language, *_ in PAGES])
def test_every_block_of_the_page_runs_and_the_message_arrives(
    language: str, version_command: tuple[str, ...], minimum: tuple[int, int], tmp_path: Path
) -> None:
    require_tool(version_command, minimum)
    page = TOP / "docs" / "howto" / f"{language}.md"
    environment = clean_environment(
        HOME=str(tmp_path),
        GOCACHE=str(Path.home() / ".cache" / "go-build"),
        GOPATH=str(Path.home() / "go"),
        CARGO_HOME=os.environ.get("CARGO_HOME", str(Path.home() / ".cargo")),
        CARGO_TARGET_DIR=str(BUILDS / "kits"),
        MAVEN_OPTS=f"-Dmaven.repo.local={BUILDS / 'maven'}",
        RUSTUP_HOME=os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
    )
    environment["PATH"] += f":{os.environ['PATH']}"  # the build tool's own directory
    told = run_script(script_of(page.read_text(), page.name), tmp_path, environment)
    assert [line.split()[1:] for line in told.splitlines() if line.endswith("hello")] == [["pump-1", "hello"]]
