"""What outlives a connection: messages in flight or waiting, and the packet ids in use."""

import pytest

from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError, QueueFullError
from birthmark.mqtt.properties import PropertyId
from birthmark.mqtt.sender_session import EACH_BYTES, SessionState

A_MESSAGE = EncodedMessage("t", b"")
MANY = [(PropertyId.USER_PROPERTY, ("", ""))] * 150


def test_packet_ids_go_round_and_leave_out_those_in_use() -> None:
    session = SessionState()
    assert [session.reserve() for _ in range(3)] == [1, 2, 3]
    session._last_id = 0xFFFF
    assert session.reserve() == 4
    session.release(2)
    session._last_id = 0xFFFF
    assert session.reserve() == 2


def test_when_every_packet_id_is_in_use_there_is_none_left() -> None:
    session = SessionState()
    for _ in range(0xFFFF):
        session.reserve()
    with pytest.raises(LocalProtocolError, match="65535"):
        session.reserve()


def test_packet_ids_of_messages_are_in_use_until_they_are_acknowledged() -> None:
    session = SessionState(window=1)
    assert session.add(A_MESSAGE, may_fly=True) == (1, True)
    assert session.add(A_MESSAGE, may_fly=True) == (2, False)
    session._last_id = 0xFFFF
    assert session.reserve() == 3


def test_a_message_beyond_the_window_waits_until_one_is_acknowledged() -> None:
    session = SessionState(window=1)
    assert session.add(A_MESSAGE, may_fly=True) == (1, True)
    assert session.add(A_MESSAGE, may_fly=True) == (2, False)
    assert not list(session.advance())
    assert session.acknowledge((1,))
    assert list(session.advance()) == [(2, A_MESSAGE, False)]
    assert session.in_flight == (2,)


def test_nothing_overtakes_a_message_that_waits() -> None:
    session = SessionState()
    session.add(A_MESSAGE, may_fly=False)
    assert session.add(A_MESSAGE, may_fly=True) == (2, False)
    assert session.waiting == (1, 2)


def test_a_full_queue_takes_no_more() -> None:
    session = SessionState(max_queued=1)
    session.add(A_MESSAGE, may_fly=False)
    with pytest.raises(QueueFullError):
        session.add(A_MESSAGE, may_fly=False)


def test_an_acknowledgment_of_what_was_never_sent_changes_nothing() -> None:
    session = SessionState()
    session.add(A_MESSAGE, may_fly=True)
    assert not session.acknowledge((7,))
    assert session.in_flight == (1,)


def test_what_is_in_flight_is_sent_again_in_order_marked_as_a_duplicate() -> None:
    session = SessionState()
    for _ in range(2):
        session.add(A_MESSAGE, may_fly=True)
    assert list(session.resend(as_duplicates=True)) == [(1, A_MESSAGE, True), (2, A_MESSAGE, True)]
    assert [is_again for *_, is_again in session.resend(as_duplicates=False)] == [False, False]


def test_a_smaller_window_sends_the_rest_again_later_before_what_is_new() -> None:
    session = SessionState(window=2)
    for _ in range(3):
        session.add(A_MESSAGE, may_fly=True)
    session.window = 1
    assert list(session.resend(as_duplicates=True)) == [(1, A_MESSAGE, True)]
    session.acknowledge((1,))
    assert list(session.advance()) == [(2, A_MESSAGE, True)]
    session.acknowledge((2,))
    assert list(session.advance()) == [(3, A_MESSAGE, False)]


def test_a_message_that_is_taken_back_leaves_its_id() -> None:
    session = SessionState(window=1)
    for _ in range(2):
        packet_id, _ = session.add(A_MESSAGE, may_fly=True)
        session.forget(packet_id)
    assert (session.in_flight, session.waiting) == ((), ())


def test_a_session_that_ended_has_nothing() -> None:
    session = SessionState(window=1)
    session.add(A_MESSAGE, may_fly=True)
    session.add(A_MESSAGE, may_fly=True)
    session.clear()
    assert (session.in_flight, session.waiting, session.reserve()) == ((), (), 3)


def test_what_waits_is_bounded_by_its_size_too() -> None:
    session, large = SessionState(window=1, max_queued=4), EncodedMessage("t", bytes(3 * EACH_BYTES))
    for _ in range(3):  # the first flies, and the third is begun before the bound is reached
        session.add(large, may_fly=True)
    with pytest.raises(QueueFullError, match="2 messages"):
        session.add(large, may_fly=True)
    session.acknowledge((1,))
    assert list(session.advance()) == [(2, large, False)]
    last, _ = session.add(large, may_fly=True)
    with pytest.raises(QueueFullError):
        session.add(large, may_fly=True)
    session.forget(last)
    session.forget(session.add(large, may_fly=True)[0])
    session.window = 0
    list(session.resend(as_duplicates=True))
    with pytest.raises(QueueFullError):
        session.add(large, may_fly=True)
    session.clear()
    session.add(large, may_fly=True)


def test_properties_count_as_what_they_take() -> None:
    session = SessionState(window=0, max_queued=4)
    for properties in (((PropertyId.USER_PROPERTY, ("n" * EACH_BYTES, "v" * 3 * EACH_BYTES)),), tuple(MANY)):
        session.add(EncodedMessage("t", b"", properties), may_fly=True)
        with pytest.raises(QueueFullError):
            session.add(A_MESSAGE, may_fly=True)
        session.clear()
