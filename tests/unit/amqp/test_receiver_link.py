"""Links on which the server receives: credit, deliveries in parts, settlement."""

from collections.abc import Sequence
from typing import Any

import pytest

from birthmark.amqp.errors import AmqpError, LocalProtocolError
from birthmark.amqp.events import DeliveryReceived, LinkDetached, LinkRequested
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
    RejectedOutcome,
    Source,
    Target,
)
from support.amqp.amqp_peer import a_receiver_link, a_session, attach_sender, only

SMALL = AmqpLimits(max_message_bytes=1000)


def credits_in(frames: Sequence[object]) -> list[int | None]:
    return [frame.link_credit for frame in frames if isinstance(frame, Flow) and frame.handle is not None]


def test_an_accepted_link_has_both_ends_a_size_and_credit() -> None:
    peer = a_session()
    event = attach_sender(peer, source=None)[0]
    event.link.accept(credit=7)  # type: ignore[attr-defined]
    assert peer.received() == [
        Attach("s", 0, RECEIVER, source=Source(""), target=Target("/events"), max_message_size=262_144),
        Flow(0, 2048, 0, 2048, 0, 0, 7),
    ]


def test_a_delivery_has_its_tag_format_and_payload() -> None:
    peer, link = a_receiver_link()
    event = only(DeliveryReceived, peer.transfer(b"hi", delivery_tag=b"tag", message_format=0x80013700))
    assert event == DeliveryReceived(link, 0, b"tag", 0x80013700, b"hi", settled=False)


def test_parts_are_joined_and_a_settled_part_settles_all() -> None:
    peer, link = a_receiver_link()
    assert peer.transfer(b"a", more=True) == []
    assert peer.transfer(b"b", delivery_id=None, delivery_tag=None, more=True, settled=True) == []
    event = only(DeliveryReceived, peer.transfer(b"c", delivery_id=0))
    assert (event.payload, event.settled, event.link) == (b"abc", True, link)


def test_dispositions_of_successive_deliveries_are_one_frame() -> None:
    peer, link = a_receiver_link()
    for _ in range(5):
        peer.transfer(b"x")
    for delivery_id in range(5):
        link.settle(delivery_id)
    assert peer.received() == [Disposition(RECEIVER, 0, 4, settled=True, state=ACCEPTED)]


def test_different_outcomes_are_different_frames() -> None:
    peer, link = a_receiver_link()
    for _ in range(4):
        peer.transfer(b"x")
    link.settle(0)
    link.reject(1, AmqpError("amqp:not-found", "no such device"))
    link.settle(2, RELEASED)
    link.settle(3, RELEASED)
    rejected = RejectedOutcome(ErrorInfo("amqp:not-found", "no such device"))
    assert peer.received() == [
        Disposition(RECEIVER, 0, 0, settled=True, state=ACCEPTED),
        Disposition(RECEIVER, 1, 1, settled=True, state=rejected),
        Disposition(RECEIVER, 2, 3, settled=True, state=RELEASED),
    ]


def test_credit_is_renewed_when_half_of_the_dispositions_have_left() -> None:
    peer, link = a_receiver_link(credit=4)
    for _ in range(4):
        peer.transfer(b"x")
    link.settle(0)
    assert credits_in(peer.received()) == [1]
    link.settle(1)
    link.settle(2)
    assert credits_in(peer.received()) == [3]


def test_a_slow_commit_holds_the_peer_back() -> None:
    peer, link = a_receiver_link(credit=2)
    for _ in range(2):
        peer.transfer(b"x")
    assert credits_in(peer.received()) == []
    assert link.unsettled_ids == (0, 1)
    detached = only(LinkDetached, peer.transfer(b"x"))
    assert detached.error is not None
    assert detached.error.condition == "amqp:link:transfer-limit-exceeded"


def test_a_settled_delivery_renews_credit_without_a_disposition() -> None:
    peer, link = a_receiver_link(credit=1)
    peer.transfer(b"x", settled=True)
    link.settle(0)
    assert [type(frame) for frame in peer.received()] == [Flow]


def test_a_delivery_that_the_peer_settles_later_needs_no_disposition() -> None:
    peer, link = a_receiver_link()
    peer.transfer(b"x")
    peer.send(Disposition(SENDER, 0, 0, settled=True))
    link.settle(0)
    assert peer.received() == []


def test_a_message_that_is_too_large_detaches_its_link_only() -> None:
    peer, _ = a_receiver_link(SMALL)
    attach_sender(peer, 1, "other")[0].link.accept()  # type: ignore[attr-defined]
    peer.received()
    detached = only(LinkDetached, peer.transfer(b"x" * 1001))
    (detach,) = peer.received()
    assert isinstance(detach, Detach)
    assert detach.error is not None
    assert (detach.closed, detach.error.condition) == (True, "amqp:link:message-size-exceeded")
    assert not detached.by_peer
    assert only(DeliveryReceived, peer.transfer(b"x", handle=1)).payload == b"x"


def test_a_message_in_parts_is_bounded_in_bytes_and_in_parts() -> None:
    peer, _ = a_receiver_link(SMALL)
    peer.transfer(b"x" * 600, more=True)
    only(LinkDetached, peer.transfer(b"x" * 600, more=True))
    peer, _ = a_receiver_link(SMALL)
    events = [event for _ in range(2 + 1000 // 256 + 1) for event in peer.transfer(b"", more=True)]
    only(LinkDetached, events)


def test_an_aborted_delivery_is_dropped_and_its_credit_renewed() -> None:
    peer, _ = a_receiver_link(credit=1)
    peer.transfer(b"a", more=True)
    assert peer.transfer(aborted=True) == []
    assert credits_in(peer.received()) == [1]
    assert only(DeliveryReceived, peer.transfer(b"b")).payload == b"b"


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({"delivery_id": None}, "amqp:invalid-field"),
        ({"resume": True}, "amqp:not-implemented"),
    ],
)
def test_an_invalid_transfer_detaches_the_link(fields: dict[str, Any], condition: str) -> None:
    peer, _ = a_receiver_link()
    detached = only(LinkDetached, peer.transfer(b"x", **fields))
    assert detached.error is not None
    assert detached.error.condition == condition


def test_a_delivery_that_begins_too_early_detaches_the_link() -> None:
    peer, _ = a_receiver_link()
    peer.transfer(b"x", more=True)
    only(LinkDetached, peer.transfer(b"x", delivery_id=1))


def test_a_delivery_id_in_use_detaches_the_link() -> None:
    peer, _ = a_receiver_link()
    peer.transfer(b"x", delivery_id=3)
    only(LinkDetached, peer.transfer(b"x", delivery_id=3))


def test_frames_for_a_link_that_the_server_detached_are_ignored() -> None:
    peer, link = a_receiver_link()
    peer.transfer(b"x")
    link.detach(AmqpError("amqp:link:stolen", "another connection"))
    peer.received()
    assert peer.transfer(b"y") == []
    assert peer.send(Detach(0, closed=True)) == []
    link.settle(0)
    link.detach()
    assert peer.received() == []
    assert attach_sender(peer, 0, "again") != []


def test_settling_an_unknown_delivery_does_nothing() -> None:
    peer, link = a_receiver_link()
    link.settle(99)
    assert peer.received() == []


def test_a_link_is_accepted_once() -> None:
    _, link = a_receiver_link()
    with pytest.raises(LocalProtocolError, match="attached"):
        link.accept()
    with pytest.raises(LocalProtocolError, match="attached"):
        link.refuse(AmqpError("a:b", "c"))


def test_the_terms_of_an_attach_are_visible() -> None:
    terms: dict[str, Any] = {"properties": {"a": 1}, "desired_capabilities": ("c",)}
    peer = a_session()
    link = only(LinkRequested, attach_sender(peer, snd_settle_mode=0, rcv_settle_mode=1, **terms)).link
    assert (link.role, link.name, link.source_address, link.target_address) == ("receiver", "s", "s", "/events")
    assert (dict(link.properties), link.desired_capabilities, dict(link.filter)) == ({"a": 1}, ("c",), {})
    link.accept()
    assert (link.source_address, link.target_address, dict(link.properties)) == ("s", "/events", {})
    assert (link.snd_settle_mode, link.rcv_settle_mode, link.session_id) == (0, 1, 1)
    assert repr(link) == "ReceiverLink(name='s', handle=0, state=attached)"


def test_a_transfer_of_many_frames_is_read() -> None:
    peer, _ = a_receiver_link()
    payload = bytes(range(256)) * 1000
    events = []
    for at in range(0, len(payload), 60_000):
        more = at + 60_000 < len(payload)
        events += peer.transfer(payload[at : at + 60_000], delivery_id=0 if not at else None, more=more)
    assert only(DeliveryReceived, events).payload == payload
