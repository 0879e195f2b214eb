"""The glossary's commands are commands."""

import re
from pathlib import Path

from birthmark.cli.command_tree import TREE, CommandGroup, Leaf

GLOSSARY = (Path(__file__).parents[3] / "docs" / "reference" / "glossary.md").read_text()
_COMMAND = re.compile(r"`birthmark ((?:[a-z][a-z0-9-]*)(?: [a-z][a-z0-9-]*)*)")


def is_command(words: list[str]) -> bool:
    node: CommandGroup | Leaf = TREE
    for word in words:
        if isinstance(node, Leaf):
            return True  # an argument of it
        if word not in node.commands:
            return False
        node = node.commands[word]
    return True


def test_each_command_that_the_glossary_names_exists() -> None:
    named = _COMMAND.findall(GLOSSARY)
    assert len(named) > 100
    assert [one for one in named if not is_command(one.split())] == []
