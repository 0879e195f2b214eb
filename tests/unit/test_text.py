import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.text import whole_number


@pytest.mark.parametrize("text", ["", "-1", "--1", "²", "٣", " 1", "1_0", "1.0", "9" * 19, "9" * 5000])
def test_what_is_not_plain_digits_is_no_number(text: str) -> None:
    assert whole_number(text) is None


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    found = whole_number(text)
    assert found is None or 0 <= found < 2**63
