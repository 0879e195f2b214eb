"""Topics that repeat get an alias; memory for that is bounded, and the receiver always knows what a number means."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt.negotiated_limits_and_aliases import _MAX_SEEN, MAX_ALIASES, OutboundAliases


def test_the_second_message_brings_the_alias_and_the_third_uses_it() -> None:
    aliases = OutboundAliases(5)
    assert [aliases.assign_alias("topic") for _ in range(4)] == [(0, False), (1, True), (1, False), (1, False)]


def test_there_are_no_more_than_the_receiver_takes_or_we_keep() -> None:
    for maximum, wanted in ((2, 2), (60_000, MAX_ALIASES)):
        aliases = OutboundAliases(maximum)
        used = {aliases.assign_alias(f"topic/{number}")[0] for _ in range(3) for number in range(40)}
        assert used == set(range(wanted + 1))


def test_a_topic_that_an_alias_does_not_make_shorter_or_that_is_very_long_has_none() -> None:
    aliases = OutboundAliases(5)
    for topic in ("a/b", "x" * 2000):
        assert [aliases.assign_alias(topic) for _ in range(3)] == [(0, False)] * 3


def test_what_was_not_sent_is_new_again() -> None:
    aliases = OutboundAliases(1)
    aliases.assign_alias("topic")
    aliases.assign_alias("topic")
    aliases.forget("topic")
    assert [aliases.assign_alias("topic") for _ in range(2)] == [(0, False), (1, True)]


@given(st.integers(1, 6), st.lists(st.integers(0, 100), max_size=400))
def test_the_receiver_always_knows_the_topic(maximum: int, numbers: list[int]) -> None:
    aliases = OutboundAliases(maximum)
    known: dict[int, str] = {}
    for number in numbers:
        topic = f"topic/{number}"
        alias, is_new = aliases.assign_alias(topic)
        assert 0 <= alias <= maximum
        if is_new:
            known[alias] = topic
        elif alias:
            assert known[alias] == topic
    assert len(aliases._seen) <= _MAX_SEEN
