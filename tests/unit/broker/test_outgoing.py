"""A queue on its way to a connection: nothing is skipped, nothing sent twice, memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.broker.model import (
    BrokerMessage,
    Will,
    decode_messages,
    decode_will,
    encode_messages,
    encode_will,
    forwarded_properties,
    properties_at,
)
from birthmark.broker.rules.send_window import MAX_PACKET_ID, MAX_READY, MAX_READY_BYTES, SendWindow, packet_id_of
from birthmark.mqtt.properties import PropertyId

MESSAGE = BrokerMessage("t", b"x", 1)


def queue(count: int, first: int = 1) -> list[tuple[int, BrokerMessage]]:
    return [(number, BrokerMessage("t", str(number).encode(), 1)) for number in range(first, first + count)]


@given(st.lists(st.sampled_from(["append", "read", "send", "first", "last"]), max_size=80), st.integers(1, 5))
def test_everything_is_sent_once_in_order_and_the_cursor_never_passes_what_is_not_acknowledged(
    steps: list[str], window: int
) -> None:
    outgoing, stored = SendWindow(0, 0, window), list[tuple[int, BrokerMessage]]()
    sent: list[int] = []
    unacknowledged: list[int] = []
    for step in steps:
        if step == "append":
            new = queue(3, len(stored) + 1)
            stored += new
            outgoing.appended(new[0][0], [message for _, message in new])
        elif step == "read" and (after := outgoing.wanted_after) is not None:
            outgoing.load(stored[after : after + 2])
        elif step == "send" and (found := outgoing.next()) is not None:
            sent.append(found[0])
            unacknowledged.append(found[0])
        elif step in {"first", "last"} and unacknowledged:
            number = unacknowledged.pop(0 if step == "first" else -1)
            assert outgoing.settle((packet_id_of(number),))
        assert outgoing.cursor == (min(unacknowledged) - 1 if unacknowledged else (sent[-1] if sent else 0))
        assert len(unacknowledged) == window - outgoing.room
    assert sent == list(range(1, len(sent) + 1))
    assert outgoing.tail == len(stored)


def test_what_does_not_fit_into_memory_is_read_when_there_is_room() -> None:
    outgoing = SendWindow(0, 0, 1000)
    outgoing.appended(1, [MESSAGE] * (MAX_READY + 10))
    outgoing.appended(MAX_READY + 11, [MESSAGE])
    sent = 0
    while outgoing.next() is not None:
        sent += 1
    assert sent == MAX_READY
    assert outgoing.wanted_after == MAX_READY
    outgoing.load(queue(11, MAX_READY + 1))
    assert outgoing.next() is not None


def test_positions_that_are_gone_are_passed_over() -> None:
    outgoing = SendWindow(3, 10, 10)
    wanted = [outgoing.wanted_after]
    outgoing.skip_to(10)
    wanted.append(outgoing.wanted_after)
    assert wanted == [3, None]
    assert outgoing.cursor == 10


def test_an_unknown_acknowledgement_changes_nothing() -> None:
    outgoing = SendWindow(0, 5, 10)
    assert not outgoing.settle((7,))
    assert outgoing.cursor == 0


@given(st.integers(1, 10**12))
def test_packet_ids_are_never_0_and_repeat_after_all_others(number: int) -> None:
    assert 1 <= packet_id_of(number) <= MAX_PACKET_ID
    assert packet_id_of(number + MAX_PACKET_ID) == packet_id_of(number)


def test_properties_count_as_what_they_take_in_memory() -> None:
    heavy = BrokerMessage("t", b"", 1, properties=((PropertyId.USER_PROPERTY, ("a", "v" * 60_000)),))
    outgoing = SendWindow(0, 0, 1000)
    outgoing.appended(1, [heavy] * 100)
    sent = 0
    while outgoing.next() is not None:
        sent += 1
    assert sent == 1 + MAX_READY_BYTES // 60_000
    assert outgoing._bytes == 0


PROPERTIES = (
    (PropertyId.CONTENT_TYPE, "text"),
    (PropertyId.CORRELATION_DATA, b"\0\xff"),
    (PropertyId.USER_PROPERTY, ("a", "b")),
    (PropertyId.USER_PROPERTY, ("a", "c")),
)


def test_a_message_and_a_will_come_back_from_a_row_as_they_were() -> None:
    message = BrokerMessage("t", b"x", 1, True, PROPERTIES, 5, "c", "p")
    assert decode_messages(encode_messages([message, MESSAGE])) == [message, MESSAGE]
    will = Will(message, 5, 6)
    assert decode_will(encode_will(will)) == will


def test_of_a_messages_properties_only_those_for_subscribers_go_on() -> None:
    given = (*PROPERTIES, (PropertyId.TOPIC_ALIAS, 3), (PropertyId.MESSAGE_EXPIRY, 10))
    assert forwarded_properties(given, 1_000_000) == (PROPERTIES, 11_000_000)
    assert forwarded_properties((), 1) == ((), None)


def test_what_is_left_of_an_expiry_goes_along() -> None:
    message = BrokerMessage("t", b"", expires_at=11_000_000)
    assert properties_at(message, 1_000_000) == ((PropertyId.MESSAGE_EXPIRY, 10),)
    assert properties_at(message, 10_500_000) == ((PropertyId.MESSAGE_EXPIRY, 1),)


def test_a_packet_id_is_not_used_again_while_its_message_is_on_its_way() -> None:
    outgoing = SendWindow(0, 0, 2)
    outgoing.appended(1, [BrokerMessage("t", b"first")])
    assert outgoing.next() is not None
    for number in range(2, MAX_PACKET_ID + 1):
        outgoing.appended(number, [BrokerMessage("t", b"")])
        assert outgoing.next() is not None
        outgoing.settle((packet_id_of(number),))
    outgoing.appended(MAX_PACKET_ID + 1, [BrokerMessage("t", b"of the same id")])
    assert outgoing.next() is None
    assert outgoing.cursor == 0
    outgoing.settle((1,))
    assert outgoing.next() == (MAX_PACKET_ID + 1, BrokerMessage("t", b"of the same id"))
