"""Direct methods and messages to devices: what may be asked."""

import pytest

from birthmark.broker.rules.device_queue import DeviceQueueRules, QueuedMessage, QueueOutcome, end_of, is_locked
from birthmark.iothub import wire
from birthmark.iothub.model import C2dMessage
from birthmark.iothub.rules.c2d import C2dInvalidError, check_mail, feedback_of, is_told, parse_expiry
from birthmark.iothub.rules.direct_methods import MethodInvalidError, check_call
from birthmark.iothub.wire import MethodCall

HOUR = 3600 * 1_000_000
RULES = DeviceQueueRules()


def test_a_call_with_the_usual_timeouts_is_taken() -> None:
    call = wire.parse_method_call(b'{"methodName":"reboot","payload":{"a":1}}')
    check_call(call, "d")
    assert (call.response_timeout_in_seconds, call.connect_timeout_in_seconds) == (30, 0)


@pytest.mark.parametrize(
    "call",
    [
        MethodCall(""),
        MethodCall("a/b"),
        MethodCall("a b"),
        MethodCall("a?$rid=1"),
        MethodCall("x" * 101),
        MethodCall("a", "x" * 131072),
        MethodCall("a", None, 4),
        MethodCall("a", None, 301),
        MethodCall("a", None, 5, -1),
        MethodCall("a", None, 5, 301),
    ],
)
def test_a_call_that_cannot_be_made_is_refused(call: MethodCall) -> None:
    with pytest.raises(MethodInvalidError):
        check_call(call, "d")


@pytest.mark.parametrize(
    ("mail", "feedback", "expires_at", "is_fine"),
    [
        (C2dMessage(b"x" * 65536, {}, {}), "none", HOUR, True),
        (C2dMessage(b"x" * 65536, {}, {"a": "b"}), "none", HOUR, False),
        (C2dMessage(b"", {}, {"a": "\u00e9" * 10_000}), "none", HOUR, True),
        (C2dMessage(b"", {}, {"a": "\u00e9" * 11_000}), "none", HOUR, False),  # no topic holds it, encoded
        (C2dMessage(b"x", {}, {}), "loud", HOUR, False),
        (C2dMessage(b"x", {}, {}), "full", 0, False),
        (C2dMessage(b"x", {}, {}), "full", 48 * HOUR, True),
        (C2dMessage(b"x", {}, {}), "full", 48 * HOUR + 1, False),
    ],
)
def test_messages_are_bounded_in_size_and_time(mail: C2dMessage, feedback: str, expires_at: int, is_fine: bool) -> None:
    if is_fine:
        check_mail("d", "m", mail, feedback, expires_at=expires_at, now=0)
        return
    with pytest.raises(C2dInvalidError):
        check_mail("d", "m", mail, feedback, expires_at=expires_at, now=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, HOUR), ("", HOUR), ("1970-01-01T00:00:05Z", 5_000_000), ("1970-01-01T00:00:05", None), ("soon", None)],
)
def test_an_expiry_is_a_time_with_its_zone(text: str | None, expected: int | None) -> None:
    assert parse_expiry(text, 0) == expected


def a_letter(**more: object) -> QueuedMessage:
    return QueuedMessage(1, "m", b"", 0, HOUR, **more)  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize(
    ("letter", "now", "expected"),
    [
        (a_letter(), 1, None),
        (a_letter(), HOUR, QueueOutcome.EXPIRED),
        (a_letter(deliveries=10), 1, QueueOutcome.DELIVERED_TOO_OFTEN),
        (a_letter(deliveries=10, lock="l", locked_until=5), 4, None),
        (a_letter(deliveries=10, lock="l", locked_until=5), 5, QueueOutcome.DELIVERED_TOO_OFTEN),
    ],
)
def test_a_letter_dies_of_age_or_of_too_many_deliveries(
    letter: QueuedMessage, now: int, expected: QueueOutcome | None
) -> None:
    assert end_of(letter, RULES, now) is expected


def test_a_lock_runs_out() -> None:
    assert is_locked(a_letter(lock="l", locked_until=5), 4)
    assert not is_locked(a_letter(lock="l", locked_until=5), 5)


@pytest.mark.parametrize(
    ("feedback", "outcome", "status"),
    [
        ("full", QueueOutcome.COMPLETED, "Success"),
        ("positive", QueueOutcome.COMPLETED, "Success"),
        ("negative", QueueOutcome.COMPLETED, None),
        ("none", QueueOutcome.EXPIRED, None),
        ("", QueueOutcome.COMPLETED, None),
        ("negative", QueueOutcome.EXPIRED, "Expired"),
        ("full", QueueOutcome.DELIVERED_TOO_OFTEN, "DeliveryCountExceeded"),
        ("full", QueueOutcome.REJECTED, "Rejected"),
        ("full", QueueOutcome.PURGED, "Purged"),
    ],
)
def test_the_service_hears_of_an_end_that_it_asked_for(
    feedback: str, outcome: QueueOutcome, status: str | None
) -> None:
    letter = a_letter(feedback=feedback)
    told = feedback_of("d", "g", letter, outcome, "then")["statusCode"] if is_told(letter, outcome) else None
    assert told == status


def test_a_message_says_on_its_topic_what_it_is() -> None:
    topic = wire.devicebound_topic("d/1", "m-1", "full", C2dMessage(b"", {"$.ct": "text/plain"}, {"a": "b&c"}))
    assert topic == (
        "devices/d/1/messages/devicebound/%24.to=%2Fdevices%2Fd%2F1%2Fmessages%2FdeviceBound&%24.mid=m-1"
        "&iothub-ack=full&%24.ct=text%2Fplain&a=b%26c"
    )


def test_seconds_in_quotes_are_seconds() -> None:
    call = wire.parse_method_call(
        b'{"methodName": "m", "responseTimeoutInSeconds": "30", "connectTimeoutInSeconds": "5"}'
    )
    assert (call.response_timeout_in_seconds, call.connect_timeout_in_seconds) == (30, 5)


@pytest.mark.parametrize("said", ['"ten"', '""', '"-1"', '"1.5"', '"\\u0661"', "1.5", "null", '"9999999999"'])
def test_what_is_no_number_of_seconds_is_refused(said: str) -> None:
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_method_call(f'{{"methodName": "m", "responseTimeoutInSeconds": {said}}}'.encode())
