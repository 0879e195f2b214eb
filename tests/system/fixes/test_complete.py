"""Every refusal has a scenario for its fix, or its class says why only a person can do it."""

import re
from pathlib import Path

from fixes.rows import ROWS
from fixes.scenarios import SCENARIOS as BY_SHELL

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "refusals.md").read_text()
SCENARIOS = {**BY_SHELL, **ROWS}
_ROW = r"^\| `([a-z0-9_.]+)` \|"
CODES = set(re.findall(_ROW, PAGE, re.MULTILINE))
FOR_A_PERSON = set(re.findall(_ROW + r".*\*\(Manual step: .*\)\* \|$", PAGE, re.MULTILINE))


def test_every_refusal_is_in_one_of_the_lists() -> None:
    assert not CODES - SCENARIOS.keys() - FOR_A_PERSON


def test_no_list_names_what_there_is_not_or_what_another_has() -> None:
    lists = (set(BY_SHELL), set(ROWS), FOR_A_PERSON)
    assert set().union(*lists) <= CODES
    assert sum(map(len, lists)) == len(set().union(*lists))


def test_few_fixes_are_left_to_people() -> None:
    assert 0 < len(FOR_A_PERSON) <= 110  # a fifth of them is of browsers and providers, which no command reaches
