"""The page of the languages names every function that there is, and every one that is refused."""

from pathlib import Path

import pytest

from birthmark.message_routing.rules.conditions.functions import FUNCTIONS as OF_CONDITIONS
from birthmark.message_routing.rules.sql.functions import ELSEWHERE, FUNCTIONS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "rules-sql.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_of_the_sql_is_on_the_page(name: str) -> None:
    assert f"`{name}(" in PAGE


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_a_function_that_is_refused_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted(OF_CONDITIONS))
def test_a_function_of_conditions_is_on_the_page(name: str) -> None:
    assert f"`{name.upper()}`" in PAGE
