"""Links on which the server sends: credit, windows, frames, drain, outcomes."""

from collections.abc import Sequence
from typing import cast

import pytest

from birthmark.amqp.errors import AmqpError, LocalProtocolError
from birthmark.amqp.events import CreditChanged, DeliverySettled, LinkDetached, LinkRequested
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    RELEASED,
    SENDER,
    Attach,
    Detach,
    Disposition,
    ErrorInfo,
    Flow,
    ReceivedState,
    Source,
    Target,
    Transfer,
)
from birthmark.amqp.sender_link import SenderLink
from support.amqp.amqp_peer import a_sender_link, a_session, attach_receiver, grant, only


def transfers_of(frames: Sequence[object]) -> list[Transfer]:
    return [frame for frame in frames if isinstance(frame, Transfer)]


def test_a_settled_transfer_has_golden_bytes() -> None:
    peer, link = a_sender_link(credit=1, settled=True)
    link.send(b"hi")
    assert peer.engine.data_to_send() == bytes.fromhex(
        "00000025 02 00 0000 005314 c0 16 0b 70 00000000 70 00000000 a0 01 00 43 41 42 40 40 40 40 40 6869"
    )


def test_a_transfer_has_eleven_fields_of_the_right_types() -> None:
    peer, link = a_sender_link(credit=1, settled=False)
    link.send(b"hi", tag=b"x" * 16, message_format=0x80013700)
    assert peer.received() == [Transfer(0, 0, b"x" * 16, 0x80013700, settled=False)]


def test_the_answer_to_an_attach_tells_the_settle_mode() -> None:
    peer = a_session()
    link = only(LinkRequested, attach_receiver(peer)).link
    assert isinstance(link, SenderLink)
    link.accept(settled=True, max_message_bytes=1_048_576, offered_capabilities=("c",), properties={"p": 1})
    assert peer.received() == [
        Attach(
            "r",
            0,
            SENDER,
            1,
            source=Source("/out"),
            target=Target("r"),
            initial_delivery_count=0,
            max_message_size=1_048_576,
            offered_capabilities=("c",),
            properties={"p": 1},
        )
    ]


def test_settled_deliveries_share_one_tag() -> None:
    peer, link = a_sender_link(credit=3, settled=True)
    assert link.send_many([b"a", b"b", b"c", b"d"]) == 3
    assert [(one.delivery_id, one.delivery_tag) for one in transfers_of(peer.received())] == [
        (0, b"\0"),
        (1, b"\0"),
        (2, b"\0"),
    ]


def test_unsettled_deliveries_have_tags_of_their_own() -> None:
    peer, link = a_sender_link(credit=3, settled=False)
    assert link.send_many([b"a", b"b"]) == 2
    assert link.send_many([b"c", b"d"], tags=[b"C", b"D"]) == 1
    assert [one.delivery_tag for one in transfers_of(peer.received())] == [b"\0\0\0\0", b"\0\0\0\1", b"C"]


def test_without_credit_nothing_is_sent() -> None:
    _, link = a_sender_link()
    with pytest.raises(LocalProtocolError, match="credit"):
        link.send(b"x")
    assert link.send_many([b"x"]) == 0


def test_credit_counts_from_the_peers_delivery_count() -> None:
    peer, link = a_sender_link(credit=5)
    link.send_many([b"x"] * 3)
    assert only(CreditChanged, grant(peer, 5, count=1)).credit == 3
    assert only(CreditChanged, grant(peer, 0, count=3)).credit == 0
    assert link.capacity == 0


def test_the_largest_credit_and_window_are_no_underflow() -> None:
    peer, link = a_sender_link()
    grant(peer, 0xFFFFFFFF, incoming_window=0xFFFFFFFF)
    assert link.credit == 0xFFFFFFFF
    assert link.capacity > 1_000_000


def test_credit_that_came_with_the_attach_is_reported_after_the_decision() -> None:
    peer = a_session()
    link = cast(SenderLink, only(LinkRequested, attach_receiver(peer)).link)
    flow = Flow(0, 2048, 0, 2048, handle=0, link_credit=10)
    assert peer.send(flow) == []
    link.accept()
    assert peer.engine.next_events() == [CreditChanged(link, 10, drain=False)]


def test_a_message_is_split_by_the_peers_frame_size() -> None:
    peer, link = a_sender_link(credit=2, settled=False, max_frame_size=512)
    payload = bytes(range(250)) * 5
    link.send(payload, tag=b"t")
    data = peer.engine.data_to_send()
    sizes = []
    while data:
        size = int.from_bytes(data[:4])
        sizes.append(size)
        data = data[size:]
    assert sizes[:-1] == [512] * (len(sizes) - 1)
    assert sizes[-1] <= 512


def test_pieces_keep_the_delivery_and_say_more() -> None:
    peer, link = a_sender_link(credit=2, settled=True, max_frame_size=512)
    assert link.send_many([b"a", b"b" * 1000]) == 2
    found = transfers_of(peer.received())
    assert [(one.delivery_id, one.more) for one in found] == [(0, False), (1, True), (1, True), (1, False)]


def test_a_message_goes_on_when_the_window_opens() -> None:
    peer, link = a_sender_link(credit=2, settled=True, window=2, max_frame_size=512)
    link.send(b"b" * 1500)
    assert link.capacity == 0
    assert [one.more for one in transfers_of(peer.received())] == [True, True]
    peer.send(Flow(2, 2, 0, 2048))
    assert [one.more for one in transfers_of(peer.received())] == [True, False]


def test_a_session_flow_reports_links_that_may_go_on() -> None:
    peer, link = a_sender_link(credit=10, settled=True, window=1)
    assert link.send_many([b"a", b"b"]) == 1
    assert peer.send(Flow(1, 5, 0, 2048)) == [CreditChanged(link, 9, drain=False)]
    assert peer.send(Flow(1, 9, 0, 2048)) == []  # it was not blocked


def test_a_drained_link_reports_that_nothing_is_left() -> None:
    peer, link = a_sender_link()
    assert only(CreditChanged, grant(peer, 5, drain=True)).drain
    link.send(b"x")
    link.complete_drain()
    flow = peer.received()[-1]
    assert isinstance(flow, Flow)
    assert (flow.delivery_count, flow.link_credit, flow.drain) == (5, 0, True)
    link.complete_drain()
    assert peer.received() == []


def test_a_drain_waits_for_the_rest_of_a_message() -> None:
    peer, link = a_sender_link(window=1, max_frame_size=512)
    grant(peer, 5, drain=True, incoming_window=1)
    link.send(b"x" * 700)
    link.complete_drain()
    assert len(peer.received()) == 1
    peer.send(Flow(1, 5, 0, 2048))
    assert [type(frame) for frame in peer.received()] == [Transfer, Flow]


def test_an_echo_is_answered_with_the_links_state() -> None:
    peer, _ = a_sender_link()
    grant(peer, 5, echo=True)
    assert peer.received() == [Flow(0, 2048, 0, 2048, 0, 0, 5, 0)]
    peer.send(Flow(0, 2048, 0, 2048, echo=True))
    assert peer.received() == [Flow(0, 2048, 0, 2048)]


def test_a_response_waits_for_credit() -> None:
    peer, link = a_sender_link(AmqpLimits(max_queued_messages=2))
    link.enqueue(b"a")
    link.enqueue(b"b", settled=True)
    with pytest.raises(AmqpError, match="wait for credit") as refused:
        link.enqueue(b"c")
    assert (refused.value.scope, link.queued, link.capacity) == ("link", 2, 0)
    grant(peer, 5)
    assert [one.settled for one in transfers_of(peer.received())] == [False, True]


def test_the_bytes_of_responses_that_wait_for_credit_are_limited() -> None:
    peer, link = a_sender_link(AmqpLimits(max_queued_bytes=100))
    link.enqueue(b"a" * 60)
    with pytest.raises(AmqpError, match="100 bytes wait for credit") as refused:
        link.enqueue(b"b" * 60)
    assert refused.value.scope == "link"
    grant(peer, 1)
    link.enqueue(b"c" * 100)
    assert link.queued == 1


def test_an_outcome_is_reported_with_ids_and_tags() -> None:
    peer, link = a_sender_link(credit=3, settled=False)
    link.send_many([b"a", b"b", b"c"], tags=[b"A", b"B", b"C"])
    events = peer.send(Disposition(RECEIVER, 0, 1, settled=True, state=RELEASED))
    assert events == [DeliverySettled(link, (0, 1), (b"A", b"B"), RELEASED, settled=True)]


@pytest.mark.parametrize("last", [0x7FFFFFFF, 2, 1])
def test_a_range_of_two_billion_walks_our_map(last: int) -> None:
    peer, link = a_sender_link(credit=2, settled=False)
    link.send_many([b"a", b"b"])
    event = only(DeliverySettled, peer.send(Disposition(RECEIVER, 0, last, settled=True, state=ACCEPTED)))
    assert event.delivery_ids == (0, 1)
    assert peer.send(Disposition(RECEIVER, 0, last, settled=True, state=ACCEPTED)) == []


def test_an_unsettled_outcome_is_reported_once_and_confirmed() -> None:
    peer, link = a_sender_link(credit=2, settled=False)
    link.send_many([b"a", b"b"])
    disposition = Disposition(RECEIVER, 0, 1, state=ACCEPTED)
    assert not only(DeliverySettled, peer.send(disposition)).settled
    assert peer.send(disposition) == []
    peer.received()
    link.confirm((0, 1))
    assert peer.received() == [Disposition(SENDER, 0, 1, settled=True, state=ACCEPTED)]
    link.confirm((0,))
    assert peer.received() == []


def test_progress_is_not_an_outcome() -> None:
    peer, link = a_sender_link(credit=1, settled=False)
    link.send(b"a")
    assert peer.send(Disposition(RECEIVER, 0, state=ReceivedState(0, 0))) == []
    assert only(DeliverySettled, peer.send(Disposition(RECEIVER, 0, settled=True))).outcome is None


def test_unsettled_deliveries_of_a_session_are_bounded() -> None:
    peer, link = a_sender_link(AmqpLimits(max_unsettled=2), credit=10, settled=False)
    assert link.send_many([b"x"] * 5) == 2
    link.enqueue(b"y")
    peer.received()
    peer.send(Disposition(RECEIVER, 0, settled=True, state=ACCEPTED))
    assert len(transfers_of(peer.received())) == 1


def test_a_detached_link_reports_what_has_no_outcome() -> None:
    peer, link = a_sender_link(credit=2, settled=False)
    link.send_many([b"a", b"b"], tags=[b"A", b"B"])
    peer.send(Disposition(RECEIVER, 0, state=ACCEPTED))
    peer.received()
    event = only(LinkDetached, peer.send(Detach(0, closed=True, error=ErrorInfo("a:b", "text"))))
    assert (event.by_peer, event.unsettled_tags) == (True, (b"B",))
    assert str(event.error) == "a:b: text"
    assert peer.received() == [Detach(0, closed=True)]
    assert link.capacity == 0
    link.confirm((0,))
    link.enqueue(b"late")
    link.complete_drain()
    assert peer.received() == []


def test_a_refused_link_has_no_terminus() -> None:
    peer = a_session()
    only(LinkRequested, attach_receiver(peer)).link.refuse(AmqpError("amqp:not-found", "no hub", info={"a": 1}))
    attach, detach = peer.received()
    assert isinstance(attach, Attach)
    assert (attach.source, attach.target, attach.initial_delivery_count) == (None, None, 0)
    assert detach == Detach(0, closed=True, error=ErrorInfo("amqp:not-found", "no hub", {"a": 1}))


def test_an_invalid_tag_is_a_local_error() -> None:
    _, link = a_sender_link(credit=1)
    with pytest.raises(LocalProtocolError, match="33 bytes"):
        link.send(b"x", tag=b"t" * 33)


def test_an_empty_message_is_one_transfer() -> None:
    peer, link = a_sender_link(credit=1)
    link.send(b"")
    assert len(transfers_of(peer.received())) == 1
