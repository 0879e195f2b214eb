"""docs/contributing/findings.md: every test that it names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/contributing/findings.md").read_text())


def test_every_test_that_holds_a_finding_is_there() -> None:
    assert len(NAMED) > 200
    there = {
        path: {one.name for one in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(one, "name")}
        for path in {path for path, _ in NAMED}
    }
    assert [f"{path}::{name}" for path, name in NAMED if name not in there[path]] == []
