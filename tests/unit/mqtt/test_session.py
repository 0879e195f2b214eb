"""What outlives a connection: messages in flight or waiting, and the packet ids in use."""

import pytest

from birthmark.mqtt.errors import LocalProtocolError, QueueFullError
from birthmark.mqtt.packets import Publish
from birthmark.mqtt.session import EACH_BYTES, Session


def a_message(packet_id: int | None = 1) -> Publish:
    return Publish("t", b"", 1, packet_id=packet_id)


def test_packet_ids_go_round_and_leave_out_those_in_use() -> None:
    session = Session()
    assert [session.reserve() for _ in range(3)] == [1, 2, 3]
    session._last_id = 0xFFFF
    assert session.reserve() == 4
    session.release(2)
    session._last_id = 0xFFFF
    assert session.reserve() == 2


def test_when_every_packet_id_is_in_use_there_is_none_left() -> None:
    session = Session()
    for _ in range(0xFFFF):
        session.reserve()
    with pytest.raises(LocalProtocolError, match="65535"):
        session.reserve()


def test_a_message_beyond_the_window_waits_until_one_is_acknowledged() -> None:
    session = Session(window=1)
    assert session.add(a_message(1), may_fly=True)
    assert not session.add(a_message(2), may_fly=True)
    assert not list(session.advance())
    assert session.acknowledge(1)
    assert [message.packet_id for message in session.advance()] == [2]
    assert [message.packet_id for message in session.in_flight] == [2]


def test_nothing_overtakes_a_message_that_waits() -> None:
    session = Session()
    session.add(a_message(1), may_fly=False)
    assert not session.add(a_message(2), may_fly=True)
    assert [message.packet_id for message in session.waiting] == [1, 2]


def test_a_full_queue_takes_no_more() -> None:
    session = Session(max_queued=1)
    session.check_room()
    session.add(a_message(), may_fly=False)
    with pytest.raises(QueueFullError):
        session.check_room()


def test_an_acknowledgment_of_what_was_never_sent_is_said() -> None:
    assert not Session().acknowledge(7)


def test_what_is_in_flight_is_sent_again_in_order_marked_as_a_duplicate() -> None:
    session = Session()
    for number in (1, 2):
        session.add(a_message(number), may_fly=True)
    assert [(m.packet_id, m.dup) for m in session.resend(as_duplicates=True)] == [(1, True), (2, True)]
    assert [m.dup for m in session.resend(as_duplicates=False)] == [False, False]


def test_a_session_that_ended_has_nothing() -> None:
    session = Session(window=1)
    session.add(a_message(session.reserve()), may_fly=True)
    session.add(a_message(session.reserve()), may_fly=True)
    session.clear()
    assert (session.in_flight, session.waiting, session.reserve()) == ((), (), 3)


def test_a_message_without_a_packet_id_does_not_fly() -> None:
    with pytest.raises(LocalProtocolError):
        Session().add(a_message(None), may_fly=True)


def test_what_waits_is_bounded_by_its_size_too() -> None:
    session = Session(window=1, max_queued=4)
    large = [Publish("t", bytes(3 * EACH_BYTES), 1, packet_id=number) for number in range(1, 6)]
    for message in large[:3]:  # the first flies, and the third is begun before the bound is reached
        session.check_room()
        session.add(message, may_fly=True)
    with pytest.raises(QueueFullError, match="2 messages"):
        session.check_room()
    session.acknowledge(1)
    assert list(session.advance()) == [large[1]]
    session.check_room()
    session.add(large[3], may_fly=True)
    with pytest.raises(QueueFullError):
        session.check_room()
    session.forget(4)
    session.check_room()
    session.window = 0
    list(session.resend(as_duplicates=True))
    with pytest.raises(QueueFullError):
        session.check_room()
    session.clear()
    session.check_room()
