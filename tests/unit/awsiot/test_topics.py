"""Topics and filters that no policy can allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.rules import topics
from birthmark.errors import BirthmarkError


@pytest.mark.parametrize(
    ("topic", "size", "qos", "expected"),
    [
        ("a/b", 10, 1, None),
        ("1/2/3/4/5/6/7/8", 10, 0, None),
        ("1/2/3/4/5/6/7/8/9", 10, 0, topics.TopicInvalidError),
        ("x" * 256, 10, 0, None),
        ("ä" * 129, 10, 0, topics.TopicInvalidError),
        ("a/+", 10, 0, topics.TopicInvalidError),
        ("", 10, 0, topics.TopicInvalidError),
        ("$aws/things/t/shadow/get", 10, 0, topics.ReservedTopicError),
        ("$aws/events/presence/connected/x", 10, 0, topics.ReservedTopicError),
        ("a", 131072, 0, None),
        ("a", 131073, 0, topics.PayloadTooLargeError),
        ("a", 10, 2, topics.QosNotServedError),
    ],
)
def test_publish(topic: str, size: int, qos: int, expected: type[BirthmarkError] | None) -> None:
    if expected is None:
        topics.check_publish("c", topic, size, qos)
        return
    with pytest.raises(expected):
        topics.check_publish("c", topic, size, qos)


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/+/#", None),
        ("#", None),
        ("$aws/events/presence/#", None),
        ("a/#/b", topics.TopicInvalidError),
        ("$share/g/a/#", None),
        ("$share/g", topics.TopicInvalidError),
        ("$share//a", topics.TopicInvalidError),
        ("$share/g+/a", topics.TopicInvalidError),
        ("$share/g/$aws/things/t/jobs/notify", topics.ReservedTopicError),
        ("$aws/things/t/jobs/notify", topics.ReservedTopicError),
        ("a/" * 8, topics.TopicInvalidError),
    ],
)
def test_subscribe(topic_filter: str, expected: type[BirthmarkError] | None) -> None:
    if expected is None:
        topics.check_filter("c", topic_filter)
        return
    with pytest.raises(expected):
        topics.check_filter("c", topic_filter)


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused_in_our_own_words(text: str) -> None:
    for check in (topics.check_filter, lambda c, t: topics.check_publish(c, t, 1, 0)):
        try:
            check("c", text)
        except BirthmarkError as error:
            assert error.code.startswith("awsiot.")


@pytest.mark.parametrize(("client_id", "is_kept"), [("x" * 128, True), ("x", False), ("", False)])
def test_a_client_id_of_up_to_128_bytes_is_taken_and_an_empty_one_with_a_clean_session(
    client_id: str, is_kept: bool
) -> None:
    topics.check_client_id(client_id, is_kept=is_kept)


@pytest.mark.parametrize(("client_id", "is_kept"), [("x" * 129, False), ("ä" * 65, True), ("", True)])
def test_a_client_id_that_is_too_long_or_has_nothing_to_keep_a_session_by_is_refused(
    client_id: str, is_kept: bool
) -> None:
    with pytest.raises(topics.ClientIdInvalidError):
        topics.check_client_id(client_id, is_kept=is_kept)
