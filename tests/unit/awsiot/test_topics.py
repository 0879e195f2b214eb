"""Topics and filters that no policy can allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.rules import mqtt_protocol_limits
from birthmark.awsiot.rules.reserved_topics import ReservedService, is_query_only, request_of
from birthmark.errors import BirthmarkError


@pytest.mark.parametrize(
    ("topic", "size", "qos", "expected"),
    [
        ("a/b", 10, 1, None),
        ("1/2/3/4/5/6/7/8", 10, 0, None),
        ("1/2/3/4/5/6/7/8/9", 10, 0, mqtt_protocol_limits.TopicInvalidError),
        ("x" * 256, 10, 0, None),
        ("ä" * 129, 10, 0, mqtt_protocol_limits.TopicInvalidError),
        ("a/+", 10, 0, mqtt_protocol_limits.TopicInvalidError),
        ("", 10, 0, mqtt_protocol_limits.TopicInvalidError),
        ("$aws/things/t/shadow/get", 10, 0, None),
        ("$aws/things/t/shadow/update", 10, 1, None),
        ("$aws/things/t/shadow/delete", 10, 1, None),
        ("$aws/things/t/shadow/name/s/update", 10, 1, None),
        ("$aws/things/t/jobs/get", 10, 1, None),
        ("$aws/things/t/jobs/start-next", 10, 1, None),
        ("$aws/things/t/jobs/$next/get", 10, 1, None),
        ("$aws/things/t/jobs/j/update", 10, 1, None),
        ("$aws/things/t/shadow/update", 131073, 1, mqtt_protocol_limits.PayloadTooLargeError),
        *(
            (f"$aws/things/{rest}", 10, 1, mqtt_protocol_limits.ReservedTopicError)
            for rest in (
                "t/shadow/get/accepted",
                "t/shadow/update/accepted",
                "t/shadow/update/rejected",
                "t/shadow/update/documents",
                "t/shadow/update/delta",
                "t/shadow/name/s/update/accepted",
                "t/shadow/name/s",
                "t/shadow/name//get",
                "t/shadow",
                "t/shadow/",
                "t/shadow/put",
                "/shadow/get",
                "a/b/shadow/get",
                "t/jobs/update",
                "t/jobs/j/start-next",
                "t/jobs/notify",
                "t/jobs/notify-next",
                "t/jobs/get/accepted",
                "t/jobs/$next/get/accepted",
                "t/jobs",
                "t/streams/s/get/json",
            )
        ),
        ("$AWS/things/t/shadow/get", 10, 1, mqtt_protocol_limits.ReservedTopicError),
        ("$aws/events/presence/connected/x", 10, 0, mqtt_protocol_limits.ReservedTopicError),
        ("a", 131072, 0, None),
        ("a", 131073, 0, mqtt_protocol_limits.PayloadTooLargeError),
        ("a", 10, 2, mqtt_protocol_limits.QosNotServedError),
        (f"$aws/rules/{'r' * 128}/{'t' * 256}", 10, 1, None),
        (f"$aws/rules/{'r' * 129}/t", 10, 1, mqtt_protocol_limits.TopicInvalidError),
        (f"$aws/rules/{'r' * 129}", 10, 1, mqtt_protocol_limits.TopicInvalidError),
        (f"$aws/rules/r/{'t' * 257}", 10, 1, mqtt_protocol_limits.TopicInvalidError),
    ],
)
def test_publish(topic: str, size: int, qos: int, expected: type[BirthmarkError] | None) -> None:
    if expected is None:
        mqtt_protocol_limits.check_publish("c", topic, size, qos)
        return
    with pytest.raises(expected):
        mqtt_protocol_limits.check_publish("c", topic, size, qos)


def test_nothing_is_retained_on_a_reserved_topic() -> None:
    with pytest.raises(mqtt_protocol_limits.TopicInvalidError, match="nothing is retained"):
        mqtt_protocol_limits.check_publish("c", "$aws/things/t/shadow/update", 10, 1, retain=True)
    mqtt_protocol_limits.check_publish("c", "a", 10, 1, retain=True)


def test_a_request_is_told_by_its_topic() -> None:
    assert request_of("$aws/things/t:1/shadow/get") == (
        ReservedService.SHADOW,
        {"thing": "t:1", "name": None, "verb": "get"},
    )
    named = request_of("$aws/things/t/shadow/name/s/delete")
    assert named == (ReservedService.SHADOW, {"thing": "t", "name": "s", "verb": "delete"})
    assert request_of("$aws/things/t/shadow/get\n") is None
    assert request_of("a/b") is None


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/+/#", None),
        ("#", None),
        ("$aws/events/presence/#", None),
        ("$aws/things/t/shadow/#", None),
        ("$aws/things/t/#", None),
        ("$aws/things/t/shadow/get/+", None),
        ("$aws/things/t/shadow/name/s/get/+", None),
        ("$aws/things/t/shadow/name/+/update/delta", None),
        ("$aws/things/t/+/update/accepted", None),
        ("$aws/things/+/shadow/update/documents", None),
        ("$share/g/$aws/things/+/shadow/update/documents", None),
        ("$aws/things/t/shadows/get", mqtt_protocol_limits.ReservedTopicError),
        ("$aws/things/#", mqtt_protocol_limits.ReservedTopicError),
        ("$aws/things/+", mqtt_protocol_limits.ReservedTopicError),
        ("$aws/+/t/shadow/get", mqtt_protocol_limits.ReservedTopicError),
        ("$aws/#", mqtt_protocol_limits.ReservedTopicError),
        ("$SYS/#", mqtt_protocol_limits.ReservedTopicError),
        ("a/#/b", mqtt_protocol_limits.TopicInvalidError),
        ("$share/g/a/#", None),
        ("$share/g", mqtt_protocol_limits.TopicInvalidError),
        ("$share//a", mqtt_protocol_limits.TopicInvalidError),
        ("$share/g+/a", mqtt_protocol_limits.TopicInvalidError),
        (f"$share/{'g' * 128}/{'a' * 256}", None),
        (f"$share/{'g' * 129}/a", mqtt_protocol_limits.TopicInvalidError),
        ("$share/g/$aws/things/t/jobs/notify", None),
        ("$aws/things/t/jobs/notify", None),
        ("$aws/things/t/jobs/#", None),
        ("$aws/things/t/streams/#", mqtt_protocol_limits.ReservedTopicError),
        ("$aws/things/t/tunnels/notify", mqtt_protocol_limits.ReservedTopicError),
        ("a/" * 8, mqtt_protocol_limits.TopicInvalidError),
    ],
)
def test_subscribe(topic_filter: str, expected: type[BirthmarkError] | None) -> None:
    if expected is None:
        mqtt_protocol_limits.check_filter("c", topic_filter)
        return
    with pytest.raises(expected):
        mqtt_protocol_limits.check_filter("c", topic_filter)


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused_in_our_own_words(text: str) -> None:
    for check in (mqtt_protocol_limits.check_filter, lambda c, t: mqtt_protocol_limits.check_publish(c, t, 1, 0)):
        try:
            check("c", text)
        except BirthmarkError as error:
            assert error.code.startswith("awsiot.")


@pytest.mark.parametrize(("client_id", "is_kept"), [("x" * 128, True), ("x", False), ("", False)])
def test_a_client_id_of_up_to_128_bytes_is_taken_and_an_empty_one_with_a_clean_session(
    client_id: str, is_kept: bool
) -> None:
    mqtt_protocol_limits.check_client_id(client_id, is_kept=is_kept)


@pytest.mark.parametrize(("client_id", "is_kept"), [("x" * 129, False), ("ä" * 65, True), ("", True)])
def test_a_client_id_that_is_too_long_or_has_nothing_to_keep_a_session_by_is_refused(
    client_id: str, is_kept: bool
) -> None:
    with pytest.raises(mqtt_protocol_limits.ClientIdInvalidError):
        mqtt_protocol_limits.check_client_id(client_id, is_kept=is_kept)


@pytest.mark.parametrize(("verb", "only_asks"), [("get", True), ("update", False), ("delete", False), ("other", True)])
def test_what_only_asks_needs_no_answer_where_nobody_hears_it(verb: str, only_asks: bool) -> None:
    assert is_query_only(f"$aws/things/t/shadow/name/s/{verb}") is only_asks
