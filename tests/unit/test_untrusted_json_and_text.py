import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.untrusted_json_and_text import cell, decode_json, whole_number


@pytest.mark.parametrize("text", ["", "-1", "--1", "²", "٣", " 1", "1_0", "1.0", "9" * 19, "9" * 5000])
def test_what_is_not_plain_digits_is_no_number(text: str) -> None:
    assert whole_number(text) is None


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    found = whole_number(text)
    assert found is None or 0 <= found < 2**63


@pytest.mark.parametrize(
    "number", ["1e308", "9e307", "1.7976931348623157e308", "5e-324", "0.1e-320", "1" * 30 + "e-330"]
)
def test_a_number_near_the_ends_of_the_range_is_as_cheap_to_read_as_any(number: str) -> None:
    """Forty thousand of them in one report stopped everybody for half a second."""

    def cost(of: str) -> float:
        body = ("[" + ",".join([of] * 5000) + "]").encode()
        costs = []
        for _ in range(5):
            began = time.process_time()
            read = decode_json(body)
            costs.append(time.process_time() - began)
            assert read[0] == float(of)
        return min(costs)

    assert cost(number) < 30 * cost("1.5")  # it was some hundred times


@pytest.mark.parametrize("number", ["1e309", "-1e400", "1" * 310 + ".0"])
def test_a_number_beyond_the_range_is_none(number: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_json(number)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", " =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_a_cell_that_begins_a_formula_is_inert(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("text", "line", "place"),
    [
        ("{\u201cname\u201d: 1}", 1, 2),
        ('{"name\u201d: 1}', 1, 7),
        ('{\r\n "a": 1,\r\n\u00a0"b": 1}', 3, 1),
        ('{"a": 1}\u00a0', 1, 9),
        ('{\n "a": \uff02x"}', 2, 7),
    ],
)
def test_json_says_where_a_character_is_that_no_keyboard_has(text: str, line: int, place: int) -> None:
    where = rf"line {line}; U\+[0-9A-F]{{4}} \(.*\) at character {place} is invisible or a look-alike"
    with pytest.raises(msgspec.DecodeError, match=where):
        decode_json(text.encode())


@pytest.mark.parametrize("text", ['{"a": 1,}', '{"a": "\u201cx\u201d",\n "b" 1}', '{"a": 1'])
def test_json_without_such_a_character_in_the_line_says_no_more(text: str) -> None:
    with pytest.raises(msgspec.DecodeError) as refused:
        decode_json(text)
    assert "U+" not in str(refused.value)


def test_a_formula_in_the_middle_is_inert_where_another_separator_would_begin_a_cell() -> None:
    assert cell("pump;=1;-2\n@x") == "pump;'=1;'-2\n'@x"


@pytest.mark.parametrize("text", ["", "pump-1", "a=b,-c", "2026-01-01T00:00:00+00:00", "again; then"])
def test_a_cell_without_one_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


def test_a_byte_order_mark_before_json_is_passed_over() -> None:
    assert decode_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
