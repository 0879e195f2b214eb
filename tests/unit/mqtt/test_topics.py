"""Filters and names."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt.topics import is_valid_filter, is_valid_name, matches
from support.mqtt.mqtt_strategies import filters, names


@given(st.text(max_size=20))
def test_any_text_is_judged(text: str) -> None:
    if is_valid_name(text):
        assert is_valid_filter(text)
        assert matches(text, text)


@given(filters, names)
def test_matching_takes_any_valid_pair(topic_filter: str, name: str) -> None:
    assert matches(topic_filter, name) in (True, False)
