"""The connection: opening, idle timeouts, limits, closing; no bytes crash it."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.connection_engine import AmqpState
from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpError, LocalProtocolError
from birthmark.amqp.events import (
    ConnectionClosed,
    ConnectionOpened,
    CreditChanged,
    DeliveryReceived,
    LinkRequested,
    SaslStarted,
)
from birthmark.amqp.framer import AMQP_HEADER, EMPTY_FRAME, encode_frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.message import AmqpMessage, DataBody, read_message, write_message
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Disposition,
    End,
    ErrorInfo,
    Flow,
    Open,
    Performative,
    Source,
    Target,
    Transfer,
    encode_performative,
)
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from support.amqp.amqp_peer import AmqpPeer, a_receiver_link, a_sender_link, a_session, an_open_connection, grant, only
from support.amqp.amqp_strategies import performatives


def an_amqp_peer(limits: AmqpLimits | None = None) -> AmqpPeer:
    """Return a peer that has exchanged protocol headers."""
    peer = AmqpPeer(AmqpEngine(limits or AmqpLimits()))
    peer.send_bytes(AMQP_HEADER)
    assert peer.header() == AMQP_HEADER
    return peer


def condition_of(events: list[Any]) -> str:
    error = only(ConnectionClosed, events).error
    assert error is not None
    return error.condition


def test_an_open_reports_the_peers_terms_and_waits() -> None:
    peer = an_amqp_peer()
    events = peer.send(Open("c", "hub", 4096, idle_time_out=60_000, properties={"product": "x"}))
    assert events == [ConnectionOpened("c", "hub", 60_000, 4096, used_sasl=False, properties={"product": "x"})]
    assert peer.send(Begin(None, 0, 1, 1)) == []
    assert peer.received() == []
    peer.engine.accept_open()
    peer.engine.next_events()
    assert peer.received() == [Open("birthmark", None, 65_536, 1199, 240_000), Begin(0, 0, 2048, 2048, 255)]


def test_pipelined_frames_of_rhea_are_served() -> None:
    peer = AmqpPeer(AmqpEngine())
    attach = Attach("r", 0, RECEIVER, source=Source("/devices/d1/twin"), target=Target())
    flow = Flow(0, 2048, 0, 0xFFFFFFFF, 0, None, 10)
    frames = (Open("c"), Begin(None, 0, 2048, 0xFFFFFFFF), attach, flow)
    events = peer.send_bytes(AMQP_HEADER + b"".join(encode_frame(0, encode_performative(one)) for one in frames))
    only(ConnectionOpened, events)
    peer.engine.accept_open()
    link = only(LinkRequested, peer.engine.next_events()).link
    assert isinstance(link, SenderLink)
    link.accept()
    assert peer.engine.next_events() == [CreditChanged(link, 10, drain=False)]


def test_a_connection_can_be_refused_at_its_open() -> None:
    peer = an_amqp_peer()
    peer.send(Open("c", "unknown"))
    peer.engine.close(AmqpError("amqp:not-found", "no such hub"))
    assert peer.received() == [
        Open("birthmark", None, 65_536, 1199, 240_000),
        Close(ErrorInfo("amqp:not-found", "no such hub")),
    ]
    assert only(ConnectionClosed, peer.send(Close())).by_peer


def test_our_close_waits_for_the_peers() -> None:
    peer, link = a_receiver_link()
    peer.engine.close()
    assert peer.received() == [End(), Close()]
    assert peer.transfer(b"late") == []
    assert peer.engine.next_deadline == 5.0
    assert peer.engine.check_deadlines(5.0) == [ConnectionClosed(None, by_peer=False)]
    link.settle(0)
    peer.engine.close()
    assert peer.engine.data_to_send() == b""


def test_the_peers_close_is_answered() -> None:
    peer = a_session()
    closed = only(ConnectionClosed, peer.send(Close(ErrorInfo("amqp:internal-error", "bug"))))
    assert (str(closed.error), closed.by_peer) == ("amqp:internal-error: bug", True)
    assert peer.received() == [Close()]
    assert not peer.engine.wants_data
    assert peer.send_bytes(b"more") == []
    assert peer.engine.next_deadline is None


def test_a_close_before_open_ends_at_once() -> None:
    engine = AmqpEngine()
    engine.close()
    assert engine.next_events() == [ConnectionClosed(None, by_peer=False)]
    engine.accept_open()
    engine.refuse_sasl()


def test_a_decision_on_open_without_a_question_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError, match="state opened"):
        a_session().engine.accept_open()


@pytest.mark.parametrize(
    ("frame", "channel", "condition"),
    [
        (Begin(None, 0, 1, 1), 0, "amqp:not-allowed"),
        (Open("c"), 1, "amqp:not-allowed"),
        (Open("c", max_frame_size=511), 0, "amqp:invalid-field"),
    ],
)
def test_a_connection_begins_with_a_valid_open(frame: Any, channel: int, condition: str) -> None:
    peer = an_amqp_peer()
    assert condition_of(peer.send(frame, channel=channel)) == condition
    assert [type(one) for one in peer.received()] == [Open, Close]


def test_frames_before_open_are_limited_to_512_bytes() -> None:
    peer = an_amqp_peer()
    assert condition_of(peer.send(Open("c" * 600))) == "amqp:connection:framing-error"


def test_frames_after_open_are_limited_to_what_we_announced() -> None:
    peer = a_session()
    assert condition_of(peer.send_bytes(b"\x00\x01\x00\x01")) == "amqp:connection:framing-error"
    close = peer.received()[-1]
    assert isinstance(close, Close)


@pytest.mark.parametrize(
    "data",
    [
        encode_frame(0, b"", kind=2),
        encode_frame(0, b"\x40"),
        encode_frame(0, encode_performative(Flow(0, 1, 0, 1)) + b"x"),
        encode_frame(9, encode_performative(End())),
    ],
)
def test_a_violation_closes_the_connection(data: bytes) -> None:
    peer = a_session()
    only(ConnectionClosed, peer.send_bytes(data))
    assert isinstance(peer.received()[-1], Close)


def test_sessions_and_channels_are_bounded() -> None:
    peer = a_session(AmqpLimits(max_sessions=1))
    assert condition_of(peer.send(Begin(None, 0, 1, 1), channel=1)) == "amqp:resource-limit-exceeded"
    peer = a_session(AmqpLimits(max_channel=3))
    assert condition_of(peer.send(Begin(None, 0, 1, 1), channel=4)) == "amqp:connection:framing-error"


@pytest.mark.parametrize("frame", [None, Flow(0, 2048, 0, 2048, echo=True), Disposition(SENDER, 0, settled=True)])
def test_floods_of_control_frames_are_bounded(frame: Any) -> None:
    peer = a_session(AmqpLimits(max_control_frames=50))
    data = EMPTY_FRAME if frame is None else encode_frame(0, encode_performative(frame))
    events = peer.send_bytes(data * 48)  # OPEN and BEGIN were the first two
    assert events == []
    assert condition_of(peer.send_bytes(data * 5)) == "amqp:resource-limit-exceeded"


def test_time_and_deliveries_allow_further_control_frames() -> None:
    peer, link = a_sender_link(AmqpLimits(max_control_frames=20, control_frames_per_s=1.0), credit=1, settled=True)
    for count in range(1, 100):
        link.send(b"x")
        assert only(CreditChanged, grant(peer, 1, count=count)).credit == 1
    peer.now = 1000.0
    assert peer.send_bytes(EMPTY_FRAME * 15) == []


def test_transfers_on_ended_handles_count_as_control_frames() -> None:
    peer, link = a_receiver_link(AmqpLimits(max_control_frames=20))
    link.detach()
    events = [event for _ in range(21) for event in peer.transfer(b"x")]
    assert condition_of(events) == "amqp:resource-limit-exceeded"


def test_transfers_on_ended_channels_count_as_control_frames() -> None:
    peer, _ = a_receiver_link(AmqpLimits(max_control_frames=20))
    peer.send(End())
    events = [event for _ in range(21) for event in peer.transfer(b"x")]
    assert condition_of(events) == "amqp:resource-limit-exceeded"


def test_input_before_a_decision_is_bounded() -> None:
    peer = an_amqp_peer(AmqpLimits(max_held_bytes=100))
    peer.send(Open("c"))
    assert peer.engine.wants_data
    assert peer.send_bytes(EMPTY_FRAME * 20) == []
    assert not peer.engine.wants_data
    assert condition_of(peer.send_bytes(EMPTY_FRAME * 20)) == "amqp:resource-limit-exceeded"


def test_a_silent_client_has_30_s_to_open() -> None:
    engine = AmqpEngine()
    assert engine.next_deadline is None
    engine.begin(10.0)
    assert engine.next_deadline == 40.0
    assert engine.check_deadlines(39.9) == []
    assert condition_of(engine.check_deadlines(40.0)) == "amqp:resource-limit-exceeded"


def test_a_peer_may_be_silent_for_twice_what_we_announce() -> None:
    peer = a_session()
    assert peer.engine.next_deadline == 480.0
    peer.now = 400.0
    peer.send_bytes(EMPTY_FRAME)
    assert peer.engine.next_deadline == 880.0
    only(ConnectionClosed, peer.engine.check_deadlines(880.0))
    assert isinstance(peer.received()[-1], Close)


def test_an_empty_frame_is_sent_within_half_of_the_peers_timeout() -> None:
    peer = a_session(idle_time_out=2000)
    assert peer.engine.next_deadline == 1.0
    assert peer.engine.check_deadlines(1.0) == []
    assert peer.engine.data_to_send(1.0) == EMPTY_FRAME
    assert peer.engine.next_deadline == 2.0


def test_a_tiny_idle_timeout_does_not_make_us_send_all_the_time() -> None:
    assert a_session(idle_time_out=1).engine.next_deadline == 0.5


def test_without_timeouts_there_is_no_deadline() -> None:
    assert a_session(AmqpLimits(idle_timeout_ms=0)).engine.next_deadline is None


def test_unsent_counts_waiting_bytes() -> None:
    peer, link = a_sender_link(credit=1, settled=True)
    link.send(b"x")
    assert peer.engine.unsent > 0
    peer.engine.data_to_send()
    assert peer.engine.unsent == 0


# ---- any bytes


def serve(engine: AmqpEngine, events: list[Any]) -> list[Any]:
    """Decide every question with yes, settle every delivery, send when there is credit."""
    seen = []
    while events:
        seen += events
        for event in events:
            match event:
                case SaslStarted():
                    engine.accept_sasl()
                case ConnectionOpened():
                    engine.accept_open()
                case LinkRequested(link=ReceiverLink() as link):
                    link.accept(credit=5)
                case LinkRequested(link=SenderLink() as link):
                    link.accept()
                case DeliveryReceived(link=link, delivery_id=delivery_id):
                    link.settle(delivery_id)
                case CreditChanged(link=link):
                    link.send_many([b"m" * 700] * min(link.capacity, 5))
                    link.complete_drain()
                case _:
                    pass
        events = engine.next_events()
    return seen


def script_of(frames: list[Any]) -> bytes:
    opening: tuple[Performative, ...] = (
        Open("c", max_frame_size=512),
        Begin(None, 0, 5, 5),
        Begin(None, 0, 0xFFFFFFFF, 5),
    )
    links: tuple[Performative, ...] = (
        Attach("s", 0, SENDER, source=Source("s"), target=Target("t")),
        Attach("r", 1, RECEIVER, source=Source("s"), target=Target("t")),
        Flow(0, 100, 0, 100, 1, 0, 50),
        Transfer(0, 0, b"t"),
    )
    data = AMQP_HEADER
    for channel, frame in ((0, opening[0]), (0, opening[1]), (1, opening[2]), *((0, one) for one in links)):
        data += encode_frame(channel, encode_performative(frame))
    return data + b"".join(encode_frame(channel, encode_performative(frame)) for channel, frame in frames)


SMALL_FRAMES = st.one_of(
    performatives,
    st.builds(Transfer, st.integers(0, 2), st.integers(0, 3), more=st.booleans(), settled=st.booleans()),
    st.builds(Disposition, st.booleans(), st.integers(0, 5), settled=st.booleans()),
    st.builds(Flow, st.integers(0, 5), st.integers(0, 9), st.just(0), st.just(9), st.integers(0, 2), st.integers(0, 5)),
    st.builds(Attach, st.just("x"), st.integers(0, 3), st.booleans()),
)


@given(st.lists(st.tuples(st.integers(0, 2), SMALL_FRAMES), max_size=12), st.lists(st.integers(0, 3000), max_size=6))
def test_no_order_of_frames_crashes_the_engine(frames: list[Any], cuts: list[int]) -> None:
    data = script_of(frames)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    engine, seen = AmqpEngine(), []
    for start, end in pairwise(edges):
        seen += serve(engine, engine.receive_data(data[start:end], 0.0))
        engine.data_to_send()
    assert [type(one) for one in seen].count(ConnectionClosed) <= 1
    assert not any(isinstance(one, ConnectionClosed) for one in seen[:-1])
    assert engine.held_bytes == 0
    assert engine.state in {AmqpState.OPENED, AmqpState.CLOSED}


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_crash_the_engine(tail: bytes, place: int, byte: int) -> None:
    data = bytearray(script_of([]) + tail)
    data[place % len(data)] = byte
    engine = AmqpEngine()
    serve(engine, engine.receive_data(bytes(data), 0.0))
    engine.data_to_send()


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=5), st.sampled_from([512, 4096, 65_536]))
def test_messages_survive_the_way_to_the_peer_and_back(bodies: list[bytes], max_frame_size: int) -> None:
    sending, outgoing = a_sender_link(credit=20, settled=True, max_frame_size=max_frame_size)
    receiving, _ = a_receiver_link()
    for body in bodies:
        outgoing.send(write_message(AmqpMessage(DataBody((body,)))))
    events = receiving.send_bytes(sending.engine.data_to_send())
    found = [read_message(one.payload).body for one in events if isinstance(one, DeliveryReceived)]
    assert found == [DataBody((body,)) for body in bodies]


def test_an_open_connection_is_served_from_any_chunking() -> None:
    peer = an_open_connection()
    for byte in encode_frame(0, encode_performative(Begin(None, 0, 1, 1))):
        peer.send_bytes(bytes((byte,)))
    assert peer.received() == [Begin(0, 0, 2048, 2048, 255)]
