"""Each recipe of docs/contributing/how-to-change-it.md works: its diff applies, and its commands then succeed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "how-to-change-it.md").read_text(encoding="utf-8")
RECIPES = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
_UNNEEDED = shutil.ignore_patterns("node_modules", "__pycache__", "corpus", "*.tar.gz", "images", "resources")


def blocks(recipe: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", recipe, re.DOTALL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("src", "tests", "tools", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=_UNNEEDED, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_right(source: Path, recipe: str) -> None:
    (diff,), (commands,) = blocks(recipe, "diff"), blocks(recipe, "sh")
    applied = subprocess.run(["git", "apply"], input=diff, cwd=source, text=True, capture_output=True, check=False)
    assert applied.returncode == 0, applied.stderr
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(source / "src"), "PYTEST_ADDOPTS": "-n 0"}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=source, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
