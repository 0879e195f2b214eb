"""The tables of docs/explanation/capacity.md are reckoned from what was measured."""

from support.tools_pages import capacity_page


def test_the_tables_are_those_of_the_figures() -> None:
    written, reckoned = capacity_page()
    assert written == reckoned, "run python tools/make_capacity.py"
