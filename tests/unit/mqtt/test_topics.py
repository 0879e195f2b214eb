"""Filters and names, one at a time and in a tree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.topics import TopicTree, TreeFullError, is_valid_filter, is_valid_name, matches
from mqtt_strategies import filters, names

level_names = st.lists(st.sampled_from(["", "a", "b", "$a"]), min_size=1, max_size=4).map("/".join).filter(bool)
level_filters = (
    st.lists(st.sampled_from(["", "a", "b", "$a", "+", "#"]), min_size=1, max_size=5)
    .map("/".join)
    .filter(is_valid_filter)
)


@given(
    st.lists(st.tuples(level_filters, st.integers(0, 5), st.integers(0, 1)), max_size=12), level_names, st.booleans()
)
def test_the_tree_finds_what_matching_one_by_one_finds(
    subscriptions: list[tuple[str, int, int]], name: str, hash_matches_parent: bool
) -> None:
    tree: TopicTree[int] = TopicTree(hash_matches_parent=hash_matches_parent)
    granted: dict[tuple[str, int], int] = {}
    for topic_filter, who, qos in subscriptions:
        assert tree.subscribe(topic_filter, who, qos) == ((topic_filter, who) not in granted)
        granted[topic_filter, who] = qos
    expected: dict[int, int] = {}
    for (topic_filter, who), qos in granted.items():
        if matches(topic_filter, name, hash_matches_parent=hash_matches_parent):
            expected[who] = max(qos, expected.get(who, 0))
    assert tree.match(name) == expected
    assert len(tree) == len(granted)

    for topic_filter, who in granted:
        assert tree.unsubscribe(topic_filter, who)
    assert len(tree) == 0
    assert not tree._root.below


@given(st.text(max_size=20))
def test_any_text_is_judged(text: str) -> None:
    if is_valid_name(text):
        assert is_valid_filter(text)
        assert matches(text, text)


@given(filters, names)
def test_matching_takes_any_valid_pair(topic_filter: str, name: str) -> None:
    assert matches(topic_filter, name) in (True, False)


def test_a_full_tree_refuses_new_subscriptions_and_takes_changes() -> None:
    tree: TopicTree[str] = TopicTree(max_subscriptions=1, max_levels=3)
    tree.subscribe("a/b", "x")
    assert not tree.subscribe("a/b", "x", 1)
    with pytest.raises(TreeFullError):
        tree.subscribe("a/c", "x")
    with pytest.raises(TreeFullError, match="levels"):
        tree.subscribe("a/b/c/d", "x")
    assert not tree.unsubscribe("a", "x")
    assert tree.match("a/b") == {"x": 1}


def test_an_invalid_filter_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        TopicTree[str]().subscribe("a/#/b", "x")
