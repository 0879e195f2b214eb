"""Sessions: windows, handles, held frames, and errors in the smallest scope."""

from typing import Any

import pytest

from birthmark.amqp.errors import AmqpError
from birthmark.amqp.events import (
    ConnectionClosed,
    CreditChanged,
    DeliveryReceived,
    LinkDetached,
    LinkRequested,
    SessionEnded,
)
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    ErrorInfo,
    Flow,
    Open,
    RejectedOutcome,
    Source,
    Target,
)
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import DescribedValue, Symbol, ULong
from support.amqp.amqp_peer import (
    AmqpPeer,
    a_receiver_link,
    a_sender_link,
    a_session,
    an_open_connection,
    attach_receiver,
    attach_sender,
    grant,
    only,
)


def refusal(peer: AmqpPeer) -> str:
    """Return the condition with which the last link was refused."""
    detach = peer.received()[-1]
    assert isinstance(detach, Detach)
    assert detach.error is not None
    return detach.error.condition


def test_a_session_is_begun_with_our_windows() -> None:
    peer = an_open_connection()
    assert peer.send(Begin(None, 5, 100, 100), channel=3) == []
    assert peer.received() == [Begin(3, 0, 2048, 2048, 255)]


def test_frames_of_a_session_wait_for_the_decision_on_a_link() -> None:
    peer = a_session()
    link = only(LinkRequested, attach_sender(peer)).link
    assert isinstance(link, ReceiverLink)
    assert attach_receiver(peer, 1) == []
    assert peer.send(Flow(0, 2048, 0, 2048, echo=True)) == []
    assert peer.engine.next_events() == []
    link.accept(credit=10)
    assert only(LinkRequested, peer.engine.next_events()).link.name == "r"


def test_frames_of_other_sessions_go_on() -> None:
    peer, _ = a_receiver_link()
    peer.send(Begin(None, 0, 100, 100), channel=1)
    peer.send(Attach("x", 0, SENDER, source=Source(), target=Target("/x")), channel=1)
    assert only(DeliveryReceived, peer.transfer(b"hi")).payload == b"hi"


def test_a_refused_link_lets_the_session_go_on() -> None:
    peer = a_session()
    only(LinkRequested, attach_sender(peer)).link.refuse(AmqpError("amqp:unauthorized-access", "no token"))
    answer = peer.received()[0]
    assert isinstance(answer, Attach)
    assert (answer.source, answer.target) == (None, None)
    assert peer.send(Detach(0, closed=True)) == []
    assert only(LinkRequested, attach_sender(peer)).link.name == "s"


def test_held_frames_are_bounded() -> None:
    peer = a_session(AmqpLimits(max_held_bytes=3000))
    attach_sender(peer)
    assert peer.engine.wants_data
    flow = Flow(0, 2048, 0, 2048)
    while peer.engine.wants_data:
        assert peer.send(flow) == []
    events: list[Any] = []
    while not events:
        events = peer.send(flow)
    closed = only(ConnectionClosed, events)
    assert closed.error is not None
    assert closed.error.condition == "amqp:resource-limit-exceeded"


def test_held_bytes_are_released_after_the_decision() -> None:
    peer = a_session()
    link = only(LinkRequested, attach_sender(peer)).link
    peer.send(Flow(0, 2048, 0, 2048))
    assert peer.engine.held_bytes > 0
    link.refuse(AmqpError("a:b", "c"))
    peer.engine.next_events()
    assert peer.engine.held_bytes == 0


def test_a_decision_after_the_end_does_nothing() -> None:
    peer = a_session()
    link = only(LinkRequested, attach_sender(peer)).link
    assert isinstance(link, ReceiverLink)
    peer.send(Flow(0, 2048, 0, 2048))
    only(ConnectionClosed, peer.send(Close()))
    assert peer.received() == [Close()]
    link.accept()
    link.refuse(AmqpError("a:b", "c"))
    assert peer.received() == []
    assert peer.engine.held_bytes == 0


def test_a_sender_decided_after_the_end_does_nothing() -> None:
    peer = a_session()
    link = only(LinkRequested, attach_receiver(peer)).link
    assert isinstance(link, SenderLink)
    peer.send(Close())
    link.accept()
    assert link.capacity == 0


def test_the_peers_end_detaches_its_links_first() -> None:
    peer, link = a_receiver_link()
    events = peer.send(End(ErrorInfo("a:b")))
    assert [type(event) for event in events] == [LinkDetached, SessionEnded]
    assert (only(LinkDetached, events).link, only(SessionEnded, events).by_peer) == (link, True)
    assert peer.received() == [End()]


def test_frames_on_a_channel_that_ended_are_ignored() -> None:
    peer, _ = a_receiver_link()
    peer.send(End())
    peer.received()
    assert peer.send(Detach(0, closed=True)) == []
    assert peer.transfer(b"x") == []
    assert peer.received() == []
    peer.send(Begin(None, 0, 10, 10))
    assert peer.received() == [Begin(0, 0, 2048, 2048, 255)]


def test_a_session_that_fails_detaches_each_link_before_its_end() -> None:
    peer, _ = a_receiver_link()
    attach_receiver(peer, 1)[0].link.accept()  # type: ignore[attr-defined]
    peer.received()
    events = peer.transfer(b"x", handle=9)
    assert [type(event) for event in events] == [LinkDetached, LinkDetached, SessionEnded]
    frames = peer.received()
    assert [type(frame) for frame in frames] == [Detach, Detach, End]
    assert {frame.error.condition for frame in frames} == {"amqp:session:unattached-handle"}  # type: ignore[union-attr]
    assert peer.send(End()) == []


@pytest.mark.parametrize(
    ("frame", "condition"),
    [
        (Attach("again", 0, SENDER, source=Source(), target=Target("x")), "amqp:session:handle-in-use"),
        (Detach(7), "amqp:session:unattached-handle"),
        (Flow(0, 1, 0, 1, handle=7), "amqp:session:unattached-handle"),
        (Disposition(RECEIVER, 5, 4, settled=True), "amqp:invalid-field"),
    ],
)
def test_a_violation_ends_its_session_only(frame: Any, condition: str) -> None:
    peer, _ = a_receiver_link()
    ended = only(SessionEnded, peer.send(frame))
    assert ended.error is not None
    assert ended.error.condition == condition
    assert peer.engine.state == "opened"


def test_a_transfer_to_a_sender_ends_the_session() -> None:
    peer, _ = a_sender_link()
    only(SessionEnded, peer.transfer(b"x"))


def test_the_incoming_window_is_renewed_at_half() -> None:
    peer, link = a_receiver_link(AmqpLimits(incoming_window=4))
    peer.transfer(b"x")
    assert peer.received() == []
    peer.transfer(b"x")
    assert peer.received() == [Flow(2, 4, 0, 4)]
    assert link.credit == 98


def test_transfers_beyond_the_window_end_the_session() -> None:
    peer, _ = a_receiver_link(AmqpLimits(incoming_window=2))
    events = [event for _ in range(3) for event in peer.transfer(b"x")]
    ended = only(SessionEnded, events)
    assert ended.error is not None
    assert ended.error.condition == "amqp:session:window-violation"


def test_next_outgoing_id_of_a_flow_is_never_compared() -> None:
    peer, _ = a_receiver_link()
    peer.transfer(b"a", more=True)
    peer.transfer(b"b", delivery_id=0)
    assert peer.send(Flow(0, 2048, 1, 2048)) == []  # pyamqp counts deliveries


def test_links_of_a_session_are_bounded() -> None:
    peer = a_session(AmqpLimits(max_links=1))
    only(LinkRequested, attach_sender(peer)).link.accept()
    peer.received()
    assert attach_sender(peer, 1) == []
    assert refusal(peer) == "amqp:resource-limit-exceeded"
    assert peer.send(Detach(1, closed=True)) == []


SELECTOR = Symbol("apache.org:selector-filter:string")


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({"name": "n" * 513}, "amqp:resource-limit-exceeded"),
        ({"target": Target("a" * 1025)}, "amqp:resource-limit-exceeded"),
        (
            {"source": Source("a", filter={SELECTOR: DescribedValue(ULong(0x468C00000004), "x" * 513)})},
            "amqp:resource-limit-exceeded",
        ),
        ({"target": DescribedValue(ULong(0x30), [])}, "amqp:not-implemented"),
        ({"target": Target(dynamic=True)}, "amqp:not-implemented"),
    ],
)
def test_a_link_outside_the_limits_is_refused_without_a_decision(fields: dict[str, Any], condition: str) -> None:
    peer = a_session()
    assert attach_sender(peer, **fields) == []
    assert refusal(peer) == condition
    assert only(LinkRequested, attach_sender(peer)).link.name == "s"


def test_a_handle_above_the_maximum_closes_the_connection() -> None:
    only(ConnectionClosed, attach_sender(a_session(), 256))


def test_a_filter_is_returned_as_it_was() -> None:
    described = DescribedValue(ULong(0x468C00000004), "amqp.annotation.x-opt-offset > '-1'")
    peer = a_session()
    link = only(LinkRequested, attach_receiver(peer, source=Source("/out", filter={SELECTOR: described}))).link
    assert dict(link.filter) == {SELECTOR: described}
    assert isinstance(link, SenderLink)
    link.accept()
    answer = peer.received()[0]
    assert isinstance(answer, Attach)
    assert answer.source == Source("/out", filter={SELECTOR: described})


def test_dispositions_leave_before_anything_else_of_their_session() -> None:
    peer, link = a_receiver_link()
    peer.transfer(b"x")
    link.settle(0)
    attach_receiver(peer, 1)[0].link.accept()  # type: ignore[attr-defined]
    assert [type(frame) for frame in peer.received()] == [Disposition, Attach]


def test_dispositions_leave_before_a_transfer() -> None:
    peer, link = a_receiver_link()
    sender = only(LinkRequested, attach_receiver(peer, 1)).link
    assert isinstance(sender, SenderLink)
    sender.accept(settled=True)
    grant(peer, 5, handle=1)
    peer.received()
    peer.transfer(b"x")
    link.settle(0)
    sender.send(b"response")
    assert [type(frame).__name__ for frame in peer.received()] == ["Disposition", "Transfer"]


def test_a_rejection_too_long_for_small_frames_has_no_description() -> None:
    peer = a_session(max_frame_size=512)
    link = only(LinkRequested, attach_sender(peer)).link
    assert isinstance(link, ReceiverLink)
    link.accept()
    peer.received()
    peer.transfer(b"x")
    link.reject(0, AmqpError("a:b", "x" * 600))
    assert peer.received() == [
        Disposition(RECEIVER, 0, 0, settled=True, state=RejectedOutcome(ErrorInfo("a:b"))),
    ]


def test_a_frame_that_the_peer_cannot_take_closes_the_connection() -> None:
    peer = a_session(max_frame_size=512)
    link = only(LinkRequested, attach_sender(peer, target=Target("a" * 600))).link
    link.accept()
    closed = only(ConnectionClosed, peer.engine.next_events())
    assert closed.error is not None
    assert closed.error.condition == "amqp:frame-size-too-small"
    assert [type(frame) for frame in peer.received()] == [Close]


def test_begin_and_open_inside_a_session_close_the_connection() -> None:
    only(ConnectionClosed, a_session().send(Begin(None, 0, 1, 1)))
    only(ConnectionClosed, a_session().send(Open("c")))


def test_credit_for_one_link_frees_others_of_its_session() -> None:
    peer, link = a_sender_link(credit=5, settled=True, window=1)
    other = only(LinkRequested, attach_receiver(peer, 1)).link
    assert isinstance(other, SenderLink)
    other.accept(settled=True)
    link.send(b"x")
    events = grant(peer, 3, handle=1, next_incoming_id=1, incoming_window=5)
    assert [event.link for event in events if isinstance(event, CreditChanged)] == [other, link]


@pytest.mark.parametrize("address", [[[]] * 1000, {"a": 1}, 7, b"/out"])
def test_an_address_that_is_not_text_is_refused(address: Any) -> None:
    """A link keeps its addresses: a list would keep many times its size."""
    for attach in (
        Attach("r", 0, RECEIVER, source=Source(address), target=Target("r")),
        Attach("s", 0, SENDER, source=Source("s"), target=Target(address), initial_delivery_count=0),
    ):
        peer = a_session()
        assert peer.send(attach) == []
        assert refusal(peer) == "amqp:invalid-field"
