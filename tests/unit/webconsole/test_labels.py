"""Everything that the audit trail tells has words on the pages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import birthmark
from birthmark.events.event_types import KINDS
from birthmark.webconsole.event_labels import ACTIONS, BAD, WARNING, words_of

ROOT = Path(birthmark.__file__).parent


def audited() -> Iterator[str]:
    """Yield every action that a call of `audit` names: whole, or the beginning of those that are put together."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "audit" or len(node.args) < 2:
                continue
            for one in ast.walk(node.args[1]):
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and "." in one.value:
                    yield one.value


@pytest.mark.parametrize("action", sorted(set(audited()) | {one for kind in KINDS for one in kind.actions}))
def test_every_action_has_words(action: str) -> None:
    assert action in ACTIONS or any(one.startswith(action) for one in ACTIONS), action


def test_what_is_marked_is_an_action() -> None:
    assert set(ACTIONS) >= BAD | WARNING


def test_an_action_that_is_new_is_told_by_its_name() -> None:
    assert words_of("some.thing", {}) == "some.thing"
