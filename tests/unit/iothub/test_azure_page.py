"""The page of Azure says of each method of the service SDKs which test shows it, or why it is not served."""

import re
from pathlib import Path

import birthmark
from support.tools_pages import azure_tool

DOCS = Path(birthmark.__file__).parents[2] / "docs"
PAGE = DOCS / "reference" / "azure-iot.md"


def test_the_tables_are_those_of_the_sdks_and_the_tests() -> None:
    assert PAGE.read_text() == azure_tool().page(), "run python tools/make_azure_page.py"


def test_of_every_method_there_is_a_test_or_a_reason_and_not_both() -> None:
    assert azure_tool().missing() == []


def test_every_call_of_a_client_is_made_by_a_test() -> None:
    assert azure_tool().unshown() == []


def test_every_reason_for_an_empty_cell_is_told() -> None:
    tool = azure_tool()
    assert set(tool.REASONS) == set(tool.Reason)
    assert {name for each in tool.OPERATIONS for name in each.cells} == {tool.PYTHON, tool.NODE, tool.C, tool.AZ}


def test_every_code_on_the_page_of_differences_is_one_of_a_refusal() -> None:
    page, refusals = ((DOCS / path).read_text() for path in ("howto/azure-differences.md", "reference/refusals.md"))
    named = set(re.findall(r"`((?:dps|iothub|pki|tls|net)\.[a-z_]+)`", page))
    assert {code for code in named if f"| `{code}` |" not in refusals} == set()
