"""Nothing that somebody may use by its name is lost: `surface.txt` has the names of the last version."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from birthmark.cli.command_tree import RENAMED, RENAMED_OPTIONS
from birthmark.server.settings import RENAMED as RENAMED_SETTINGS

TOP = Path(__file__).parents[2]
KNOWN = (TOP / "tests" / "unit" / "surface.txt").read_text(encoding="utf-8").splitlines()


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_surface", TOP / "tools" / "make_surface.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def removed() -> set[str]:
    """Return what the CHANGELOG names, in backquotes, as removed since the last version."""
    changes = (TOP / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    section = re.search(r"### Removed\n(.*?)(?=\n### |\Z)", changes, re.DOTALL)
    return set(re.findall(r"`([^`]+)`", section[1])) if section else set()


ARGUMENTS = {"[journey]": "[scenario]"}
"""Positional arguments, which have no names on a command line."""


def current(name: str) -> str:
    """Return the name under which a command, an option or a setting is listed today."""
    kind, _, rest = name.partition(": ")
    if kind == "commands":
        words = rest.split()[1:]
        for old, new in sorted(RENAMED.items(), reverse=True):
            if words[: old.count(" ") + 1] == old.split():
                words = [*new.split(), *words[old.count(" ") + 1 :]]
                break
        path = " ".join(word for word in words if word.islower() and not word.startswith("-"))
        options = next((new for old, new in RENAMED_OPTIONS.items() if path.startswith(old)), {})
        words = [options.get(word, ARGUMENTS.get(word, word)) for word in words]
        return f"{kind}: birthmark {' '.join(words)}"
    if kind == "server-config":
        for old, new in RENAMED_SETTINGS.items():
            if rest == old or rest.startswith(f"{old}."):
                return f"{kind}: {new}{rest.removeprefix(old)}"
    return name


def test_nothing_is_lost_that_the_changelog_does_not_name_as_removed() -> None:
    lost = {current(name) for name in KNOWN} - set(tool().surface())
    assert {one for one in lost if one.partition(": ")[2] not in removed()} == set()


def test_the_list_has_every_kind_of_name() -> None:
    kinds = {one.partition(": ")[0] for one in KNOWN}
    assert {"commands", "operator-api", "aws-iot", "azure-iot", "refusals", "server-config", "agent-config"} <= kinds
