"""The page of AWS IoT says of each operation that is served which test shows it, and of each other why it is not."""

from pathlib import Path

import birthmark
from support.tools_pages import aws_tool

PAGE = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "aws-iot.md"


def test_the_tables_are_those_of_the_handlers_and_the_tests() -> None:
    assert PAGE.read_text() == aws_tool().page(), "run python tools/make_aws_page.py"


def test_every_operation_that_is_served_has_a_test_by_an_unmodified_client() -> None:
    assert aws_tool().without_test() == []


def test_an_operation_that_is_on_the_page_and_not_served_is_found() -> None:
    tool = aws_tool()
    try:
        tool.written(PAGE.read_text().replace("| CreateThing |", "| CreateCommand |", 1))
    except ValueError as error:
        assert "CreateCommand" in str(error)
    else:
        raise AssertionError("was not found")
