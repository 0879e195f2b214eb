"""Every code block of the first page, You asked, docs/tutorial and docs/howto runs, as one shell session per page."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.server.page_scripts import BLOCK, run_script, script_of
from support.server.servers import clean_environment, free_address, warm_environment

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "docs" / "README.md"


def english(folder: str) -> list[Path]:
    """Return a folder's pages; the Japanese ones have the same blocks, as tests/unit/test_translations.py sees to."""
    return sorted(page for page in (ROOT / "docs" / folder).glob("*.md") if not page.name.endswith(".ja.md"))


TUTORIALS = english("tutorial")
OTHER_LANGUAGES = {"go", "java", "rust"}
"""Pages of tests/conformance/languages/test_pages.py."""
HOW_TO = [page for page in english("howto") if page.stem not in OTHER_LANGUAGES]
PAGES = [FIRST, FIRST.with_name("you-asked.md"), *TUTORIALS, *HOW_TO]
AS_INSTALLED = {"install", "azure", "ci", "azure-ci", "ca-keys", "scale", "test-kit", "test-kit-languages"}
"""Pages whose programs start as on a user's machine; the others' start from a warm interpreter."""


def test_there_is_a_page_for_every_journey() -> None:
    assert {page.stem for page in TUTORIALS} == {
        "azure",
        "group",
        "manifest",
        "aws",
        "jitp",
        "est",
        "twin",
        "renew",
        "edge",
        "factory",
        "jobs",
        "telemetry",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    script, more = script_of(page.read_text(), page.name), dict[str, str]()
    if page.stem == "scale":  # which says to name a database, as an example cannot
        more["BIRTHMARK_DATABASE"] = request.getfixturevalue("postgres_url")
    if page.stem == "test-kit-languages":
        # tests/conformance/languages/test_kits.py runs the samples in the other languages.
        script = "".join(f"{tool}() {{ :; }}\n" for tool in ("go", "cargo", "mvn")) + script
        script = 'npm() { [ "$1" = install ] || command npm "$@"; }\n' + script  # the packages are installed
        (tmp_path / "node_modules").mkdir()
        (tmp_path / "node_modules" / "birthmark-testing").symlink_to(ROOT / "kits" / "node")
        more["NODE_PATH"] = str(ROOT / "tests" / "node" / "node_modules")
    told = run(script, tmp_path, is_warm=page.stem not in AS_INSTALLED, **more)
    assert "server.port_not_bound" not in told  # of two servers on a page each has its own ports


def test_the_job_for_ci_does_what_its_page_says(tmp_path: Path) -> None:
    """Step by step, each in a shell of its own, as GitHub's runner does it; only what installs is left out."""
    text = (ROOT / "docs" / "howto" / "azure-ci.md").read_text()
    blocks = {block["info"].partition("file=")[2]: block["body"] for block in BLOCK.finditer(text)}
    for name in ("thermometer.py", "test_thermometer.py"):
        (tmp_path / name).write_text(blocks[name])
    steps = yaml.safe_load(blocks["device.yml"].replace("localhost", free_address()))["jobs"]["device"]["steps"]
    *work, end = [step for step in steps if "run" in step and step["name"] != "Install"]
    told: dict[str, str] = {}
    try:
        for step in work:
            done = in_job(step, tmp_path, told)
            assert done.returncode == 0, f"{step['name']}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    finally:
        last = in_job(end, tmp_path, told)
    assert (last.returncode, last.stdout) == (0, "")
    assert "SSL_CERT_FILE" in told


def in_job(step: dict[str, Any], directory: Path, told: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a step; what it writes for the next ones is told."""
    kept = directory / "kept"
    kept.write_text("")
    variables = {"HOME": str(directory), "GITHUB_ENV": str(kept), "NO_COLOR": "1", **told, **step.get("env", {})}
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=directory,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told |= dict(line.split("=", 1) for line in kept.read_text().splitlines())
    return done


def test_the_quick_start_of_the_readme_runs(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("## Quick start\n")[2].partition("\n## ")[0]
    script = script_of(section, "README.md").replace(". .venv/bin/activate", "")
    told = run(script, tmp_path)
    assert told.rstrip().endswith("No refusals.")


def run(script: str, directory: Path, *, is_warm: bool = False, **variables: str) -> str:
    (directory / "examples").symlink_to(ROOT / "examples")
    environment = warm_environment if is_warm else clean_environment
    return run_script(script, directory, environment(HOME=str(directory), **variables))
