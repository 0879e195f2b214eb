"""Pages: sizes and markers that clients send back, and anything else they send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.store.pagination import DEFAULT_SIZE, Page, PageInvalidError, marker_of, page_of, page_size, parse_marker


@given(st.text())
def test_a_marker_is_read_as_it_was_written(key: str) -> None:
    assert parse_marker(marker_of(key)) == key


@pytest.mark.parametrize("marker", [None, ""])
def test_no_marker_is_the_beginning(marker: str | None) -> None:
    assert parse_marker(marker) == ""


@pytest.mark.parametrize("marker", ["?", "YQ", "/w=="])
def test_a_marker_that_is_not_ours_is_refused(marker: str) -> None:
    with pytest.raises(PageInvalidError):
        parse_marker(marker)


@pytest.mark.parametrize(("text", "size"), [(None, DEFAULT_SIZE), ("1", 1), ("250", 250)])
def test_a_size_is_what_was_asked_for(text: str | None, size: int) -> None:
    assert page_size(text) == size


@pytest.mark.parametrize("text", ["0", "251", "-1", "", "1.5", "x", "9" * 5000])
def test_a_size_that_no_page_has_is_refused(text: str) -> None:
    with pytest.raises(PageInvalidError):
        page_size(text)


def test_a_page_names_its_last_key_when_there_is_more() -> None:
    assert page_of([1, 2, 3], 2, ["a", "b", "c"]) == Page([1, 2], "b")
    assert page_of([1, 2], 2, ["a", "b"]) == Page([1, 2], None)
