"""What a client of MQTT 5 is told of an error of this room."""

import pytest

from birthmark.awsiot.error_mapping import REASONS, reason_of, suback_reason_of
from birthmark.awsiot.rules import mqtt_protocol_limits
from birthmark.awsiot.rules.policy import PolicyDeniedError
from birthmark.broker.errors import SessionTakenError
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.mqtt.reason_codes import disconnect_reason

IN_DISCONNECT = {0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, *range(0x90, 0xA3)} - {0x91, 0x92}
IN_SUBACK = {0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}


@pytest.mark.parametrize("code", sorted(set(REASONS.values())))
def test_disconnect_can_say_it(code: int) -> None:
    assert disconnect_reason(code) in IN_DISCONNECT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (mqtt_protocol_limits.TopicInvalidError(detail="x", thing="t", topic="a/#/b"), 0x8F),
        (mqtt_protocol_limits.ReservedTopicError(thing="t", topic="$aws/x"), 0x8F),
        (mqtt_protocol_limits.TooManyFiltersError(count=1, limit=1, scope="", thing="t"), 0x97),
    ],
)
def test_suback_can_say_it(error: BirthmarkError, code: int) -> None:
    assert suback_reason_of(error) == code
    assert code in IN_SUBACK


def test_who_came_while_another_did_by_its_name_may_come_again() -> None:
    assert reason_of(SessionTakenError(client="pump")) == 0x88


def test_a_policy_denies_and_what_is_throttled_has_a_quota() -> None:
    denied = PolicyDeniedError(**dict.fromkeys(PolicyDeniedError._fields, "x"))
    assert reason_of(denied) == suback_reason_of(denied) == 0x87
    assert reason_of(ThrottledError(retry_after_s=1)) == 0x97
