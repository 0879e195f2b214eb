"""Every refusal has a scenario for its fix, or says why only a person can do it, or waits on the list for its turn."""

import re
from pathlib import Path

from fixes.rows import ROWS
from fixes.scenarios import SCENARIOS as BY_SHELL
from fixes.without import PERSON_ONLY, TO_DO

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "refusals.md"
SCENARIOS = {**BY_SHELL, **ROWS}
CODES = set(re.findall(r"^\| `([a-z0-9_.]+)` \|", PAGE.read_text(), re.MULTILINE))


def test_every_refusal_is_in_one_of_the_lists() -> None:
    assert not CODES - SCENARIOS.keys() - PERSON_ONLY.keys() - TO_DO


def test_no_list_names_what_there_is_not_or_what_another_has() -> None:
    lists = (set(BY_SHELL), set(ROWS), set(PERSON_ONLY), set(TO_DO))
    assert set().union(*lists) <= CODES
    assert sum(map(len, lists)) == len(set().union(*lists))


def test_few_fixes_are_left_to_people() -> None:
    assert len(PERSON_ONLY) <= 40
