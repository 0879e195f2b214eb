"""What `birthmark why "TEXT"` finds in pasted text."""

import importlib.util
from pathlib import Path

import pytest

from birthmark.cli.log_patterns import (
    HARMLESS,
    TELLING,
    DiagnosticPattern,
    diagnostics_in,
    harmless_in,
    refusals_in,
    tracking_ids_in,
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("known", HARMLESS, ids=lambda known: known.line[:30])
def test_a_known_line_is_found_as_the_page_prints_it(known: object) -> None:
    assert known in harmless_in(f"12:00:01 INFO x\n{known.line}\n")  # type: ignore[attr-defined]  # the type has no name outside


@pytest.mark.parametrize("known", TELLING, ids=lambda known: known.line[-40:])
def test_a_line_that_means_something_is_found_as_the_page_prints_it_and_is_not_called_harmless(
    known: DiagnosticPattern,
) -> None:
    assert known in diagnostics_in(f"12:00:01 INFO x\n{known.line}\n")
    assert harmless_in(known.line) == []


def test_an_unknown_line_is_not_called_harmless() -> None:
    assert harmless_in("ERROR: connection refused, return code 5") == []
    assert diagnostics_in("[ERROR] [pkcs11] - id=0x1 session=1: C_Sign() failed") == []


def test_codes_and_tracking_ids_are_found_inside_text() -> None:
    text = "Refused (dps.not_enrolled), Tracking ID:0D1DD38D-7d3c-4f2a-9b55-0123456789ab and x.py at no.such_code"
    assert [cls.code for cls in refusals_in(text)] == ["dps.not_enrolled"]
    assert tracking_ids_in(text) == ["0d1dd38d-7d3c-4f2a-9b55-0123456789ab"]


def test_the_page_is_what_the_tool_writes() -> None:
    spec = importlib.util.spec_from_file_location("make_messages", ROOT / "tools" / "make_messages.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert (ROOT / "docs" / "reference" / "messages.md").read_text() == tool.page()
