"""The client's engine, mostly against the server's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.client_engine import AmqpClientEngine
from birthmark.amqp.client_session import ClientSession
from birthmark.amqp.connection_engine import AmqpState
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, LocalProtocolError
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionClosed,
    ConnectionOpened,
    CreditChanged,
    DeliveryReceived,
    DeliverySettled,
    LinkAttached,
    LinkDetached,
    SaslStarted,
    SessionBegan,
    SessionEnded,
)
from birthmark.amqp.framer import AMQP_HEADER, EMPTY_FRAME, SASL_HEADER, encode_frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.link import LinkRole
from birthmark.amqp.message import BATCH_FORMAT
from birthmark.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    RELEASED,
    SENDER,
    Attach,
    Begin,
    Detach,
    End,
    Flow,
    Open,
    Performative,
    RejectedOutcome,
    Source,
    Target,
    Transfer,
    encode_performative,
)
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sasl import SaslInit, anonymous_init, encode_mechanisms, external_init, plain_init
from birthmark.amqp.sender_link import SenderLink
from support.amqp.amqp_client_pair import REFUSED, ClientPair
from support.amqp.amqp_peer import only

SMALL = AmqpLimits(max_frame_bytes=512)


def an_open_pair(**options: Any) -> ClientPair:
    pair = ClientPair(**options)
    only(ConnectionOpened, pair.run())
    return pair


def a_sender(**options: Any) -> tuple[ClientPair, SenderLink]:
    pair = an_open_pair(**options)
    link = pair.client.begin_session().attach_sender("s", "/events")
    pair.run()
    return pair, link


def a_receiver(credit: int = 10, **options: Any) -> tuple[ClientPair, ReceiverLink, SenderLink]:
    """Return the pair, the client's link and the server's."""
    pair = an_open_pair(**options)
    link = pair.client.begin_session().attach_receiver("r", "/c2d", credit=credit)
    pair.run()
    return pair, link, only(CreditChanged, pair.seen).link


def bytes_of(*performatives: Performative, channel: int = 0) -> bytes:
    return b"".join(encode_frame(channel, encode_performative(one)) for one in performatives)


def a_client(*performatives: Performative, limits: AmqpLimits | None = None) -> tuple[AmqpClientEngine, ClientSession]:
    """Return an engine with one session, against hand-made frames after OPEN and BEGIN."""
    engine = AmqpClientEngine("hub", container_id="d1", limits=limits or AmqpLimits())
    engine.begin(0.0)
    engine.receive_data(AMQP_HEADER + bytes_of(Open("server")), 0.0)
    session = engine.begin_session()
    engine.receive_data(bytes_of(Begin(0, 0, 100, 100), *performatives, channel=7), 0.0)
    return engine, session


# ---- the start


def test_header_and_open_are_written_at_once_without_sasl() -> None:
    engine = AmqpClientEngine("hub.example", container_id="d1")

    engine.begin(0.0)

    data = engine.data_to_send()
    assert data.startswith(AMQP_HEADER)
    assert b"hub.example" in data


def test_the_server_reads_hostname_and_idle_timeout_of_open() -> None:
    pair = an_open_pair(limits=AmqpLimits(idle_timeout_ms=9000))

    opened = only(ConnectionOpened, pair.seen)

    assert (opened.container_id, opened.hostname, opened.idle_timeout_ms) == ("d1", "hub.example", 9000)
    assert not opened.used_sasl


@pytest.mark.parametrize(
    ("init", "identity"),
    [(plain_init("u", "p"), ("u", "p", "")), (external_init("x"), ("", "", "x")), (anonymous_init(), ("", "", ""))],
)
def test_sasl_precedes_open(init: SaslInit, identity: tuple[str, str, str]) -> None:
    pair = an_open_pair(sasl=init)

    started = only(SaslStarted, pair.seen)

    assert (started.authentication_id, started.password, started.authorization_id) == identity
    assert pair.client.state is AmqpState.OPENED


def test_a_refused_password_closes_the_connection() -> None:
    pair = ClientPair(sasl=plain_init("u", "wrong"))

    closed = only(ConnectionClosed, pair.run())

    assert closed.error is not None
    assert closed.error.condition == AmqpCondition.UNAUTHORIZED_ACCESS


def test_a_mechanism_that_is_not_offered_closes_the_connection() -> None:
    engine = AmqpClientEngine("hub", container_id="d1", sasl=plain_init("u", "p"))
    engine.begin(0.0)

    closed = only(ConnectionClosed, engine.receive_data(SASL_HEADER + encode_mechanisms(("ANONYMOUS",)), 0.0))

    assert "ANONYMOUS" in str(closed.error)
    assert b"p" not in engine.data_to_send().removeprefix(SASL_HEADER)


def test_a_password_that_exceeds_a_sasl_frame_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        AmqpClientEngine("hub", container_id="d1", sasl=plain_init("u", "p" * 600))


def test_a_server_without_sasl_closes_the_connection() -> None:
    engine = AmqpClientEngine("hub", container_id="d1", sasl=anonymous_init())
    engine.begin(0.0)

    assert only(ConnectionClosed, engine.receive_data(AMQP_HEADER, 0.0)).error is not None


def test_a_session_requires_an_open_connection() -> None:
    engine = AmqpClientEngine("hub", container_id="d1")

    with pytest.raises(LocalProtocolError):
        engine.begin_session()


# ---- links


def test_links_may_be_attached_before_the_session_is_answered() -> None:
    pair = an_open_pair()
    session = pair.client.begin_session()
    sender = session.attach_sender("s", "/events", properties={"com.microsoft:client-version": "x"})
    receiver = session.attach_receiver("r", "/c2d")

    events = pair.run()

    assert [one.link for one in events if isinstance(one, LinkAttached)] == [sender, receiver]
    assert only(SessionBegan, events).session_id == session.session_id
    assert sender.target_address == "/events"
    assert receiver.source_address == "/c2d"
    assert sender.credit == 20


def test_a_refused_link_reports_only_the_error() -> None:
    pair = an_open_pair()
    link = pair.client.begin_session().attach_sender("s", REFUSED)

    detached = only(LinkDetached, events := pair.run())

    assert not [one for one in events if isinstance(one, LinkAttached)]
    assert detached.link is link
    assert detached.by_peer
    assert detached.error is not None
    assert detached.error.condition == AmqpCondition.NOT_FOUND


def test_many_sessions_have_their_own_channels() -> None:
    pair = an_open_pair()
    sessions = [pair.client.begin_session() for _ in range(50)]
    links = [one.attach_sender("s", "/events") for one in sessions]

    pair.run()

    assert {one.channel for one in sessions} == set(range(50))
    assert all(one.credit for one in links)


def test_a_second_link_of_one_name_and_direction_is_a_local_error() -> None:
    pair, link = a_sender()
    session = link.session
    assert isinstance(session, ClientSession)

    session.attach_receiver("s", "/c2d")
    with pytest.raises(LocalProtocolError):
        session.attach_sender("s", "/events")
    assert only(LinkAttached, pair.run()).link.role is LinkRole.RECEIVER


# ---- sending


def test_a_message_is_sent_and_settled() -> None:
    pair, link = a_sender()
    delivery_id = link.send(b"one", tag=b"t1")
    pair.run()
    received = only(DeliveryReceived, pair.seen)

    received.link.settle(received.delivery_id)

    settled = only(DeliverySettled, pair.run())
    assert received.payload == b"one"
    assert (settled.delivery_ids, settled.tags, settled.outcome) == ((delivery_id,), (b"t1",), ACCEPTED)


def test_a_rejected_message_reports_the_reason() -> None:
    pair, link = a_sender()
    link.send(b"one")
    pair.run()
    received = only(DeliveryReceived, pair.seen)

    received.link.reject(received.delivery_id, AmqpError("amqp:resource-limit-exceeded", "quota"))

    outcome = only(DeliverySettled, pair.run()).outcome
    assert isinstance(outcome, RejectedOutcome)
    assert outcome.error is not None
    assert outcome.error.condition == "amqp:resource-limit-exceeded"


def test_a_batch_of_several_frames_arrives_as_one_delivery() -> None:
    pair, link = a_sender(server_limits=SMALL)
    link.send(b"x" * 5000, message_format=BATCH_FORMAT, settled=True)

    pair.run()

    received = only(DeliveryReceived, pair.seen)
    assert (received.payload, received.message_format, received.settled) == (b"x" * 5000, BATCH_FORMAT, True)


def test_credit_limits_the_sender_and_is_renewed() -> None:
    pair, link = a_sender(credit=4)
    for _ in range(4):
        link.send(b"m")
    with pytest.raises(LocalProtocolError):
        link.send(b"m")
    pair.run()

    for one in [one for one in pair.seen if isinstance(one, DeliveryReceived)]:
        one.link.settle(one.delivery_id)
    pair.run()

    assert link.credit == 4


# ---- receiving


def test_a_delivery_is_received_and_settled() -> None:
    pair, link, server = a_receiver()
    server.send(b"c2d", tag=b"0123456789abcdef")
    received = only(DeliveryReceived, pair.run())

    link.settle(received.delivery_id, RELEASED)
    pair.run()

    assert (received.link, received.payload, received.tag) == (link, b"c2d", b"0123456789abcdef")
    assert only(DeliverySettled, pair.seen).outcome == RELEASED


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_delivery_of_several_frames_is_joined(chunk: int) -> None:
    pair, _, server = a_receiver(limits=SMALL, chunk=chunk)
    server.send(bytes(range(256)) * 20)

    assert only(DeliveryReceived, pair.run()).payload == bytes(range(256)) * 20


def test_credit_is_renewed_at_half() -> None:
    pair, link, server = a_receiver(credit=4)
    server.send_many([b"m"] * 4)
    events = [one for one in pair.run() if isinstance(one, DeliveryReceived)]

    link.settle(events[0].delivery_id)
    pair.run()
    assert server.credit == 1
    for one in events[1:]:
        link.settle(one.delivery_id)
    pair.run()

    assert server.credit == 4


def test_a_delivery_above_the_maximum_detaches_the_link() -> None:
    pair = an_open_pair()
    session = pair.client.begin_session()
    link = session.attach_receiver("r", "/c2d", max_message_bytes=10)
    pair.run()
    only(CreditChanged, pair.seen).link.send(b"x" * 11)

    events = pair.run()

    detached = only(LinkDetached, events)
    assert detached.link is link
    assert not detached.by_peer
    assert detached.error is not None
    assert detached.error.condition == AmqpCondition.MESSAGE_SIZE_EXCEEDED
    assert not session.links


# ---- ends


def test_an_own_detach_is_answered() -> None:
    pair, link = a_sender()

    link.detach()

    detached = only(LinkDetached, pair.run())
    assert (detached.link, detached.by_peer, detached.error) == (link, False, None)
    assert only(LinkDetached, pair.seen).by_peer


def test_a_handle_is_used_again_after_the_answer() -> None:
    pair, link = a_sender()
    session = link.session
    assert isinstance(session, ClientSession)
    link.detach()
    early = session.attach_sender("s2", "/events")
    pair.run()

    late = session.attach_sender("s", "/events")

    assert (link.handle, early.handle, late.handle) == (0, 1, 0)
    pair.run()
    assert late.credit == 20


def test_a_detach_of_the_server_reports_the_error_and_the_unsettled_deliveries() -> None:
    pair, link = a_sender()
    link.send(b"m", tag=b"t")
    pair.run()
    received = only(DeliveryReceived, pair.seen)

    received.link.detach(AmqpError(AmqpCondition.LINK_STOLEN, "elsewhere", scope=AmqpErrorScope.LINK))

    detached = only(LinkDetached, pair.run())
    assert detached.by_peer
    assert detached.error is not None
    assert detached.error.condition == AmqpCondition.LINK_STOLEN
    assert detached.unsettled_tags == (b"t",)


def test_an_ended_session_frees_its_channel_after_the_answer() -> None:
    pair, link = a_sender()
    session = link.session
    assert isinstance(session, ClientSession)

    session.end()
    assert pair.client.begin_session().channel == 1

    ended = only(SessionEnded, pair.run())
    assert (ended.session_id, ended.by_peer) == (session.session_id, False)
    assert pair.client.begin_session().channel == 0


def test_close_is_answered() -> None:
    pair, _ = a_sender()

    pair.client.close()

    assert only(ConnectionClosed, pair.run()) == ConnectionClosed(None, by_peer=False)
    assert only(ConnectionClosed, pair.seen).by_peer


def test_a_close_without_an_answer_ends_at_its_deadline() -> None:
    pair, _ = a_sender()
    pair.client.close()

    deadline = pair.client.next_deadline

    assert deadline is not None
    assert only(ConnectionClosed, pair.client.check_deadlines(deadline)).error is None


def test_a_close_of_the_server_reports_the_error() -> None:
    pair, _ = a_sender()
    pair.server.close(AmqpError(AmqpCondition.CONNECTION_FORCED, "stopped"))

    closed = only(ConnectionClosed, pair.run())

    assert closed.by_peer
    assert closed.error is not None
    assert closed.error.condition == AmqpCondition.CONNECTION_FORCED


# ---- time


def test_a_server_that_never_opens_is_given_up() -> None:
    engine = AmqpClientEngine("hub", container_id="d1")
    engine.begin(5.0)
    assert engine.next_deadline == 35.0

    assert only(ConnectionClosed, engine.check_deadlines(35.0)).error is not None


def test_empty_frames_keep_the_connection_alive() -> None:
    pair = an_open_pair(server_limits=AmqpLimits(idle_timeout_ms=10_000))
    assert pair.client.next_deadline == 5.0

    assert pair.client.check_deadlines(5.0) == []

    assert pair.client.data_to_send(5.0) == EMPTY_FRAME
    assert pair.client.next_deadline == 10.0


def test_a_silent_server_ends_the_connection() -> None:
    pair = an_open_pair(limits=AmqpLimits(idle_timeout_ms=1000))

    assert only(ConnectionClosed, pair.client.check_deadlines(2.0)).error is not None


# ---- servers with their own numbers, and wrong ones


def test_channels_and_handles_of_the_server_differ_from_ours() -> None:
    engine, session = a_client()
    link = session.attach_sender("s", "/events")
    answer = Attach("s", 9, RECEIVER, source=Source(), target=Target("/events"))
    flow = Flow(0, 100, 0, 100, 9, 0, 5)

    events = engine.receive_data(bytes_of(answer, flow, channel=7), 0.0)

    assert only(LinkAttached, events).link is link
    assert only(CreditChanged, events).credit == 5
    engine.receive_data(bytes_of(Detach(9, closed=True), channel=7), 0.0)
    assert b"\x00\x53\x16" in engine.data_to_send()
    assert link.handle == 0


@pytest.mark.parametrize(
    "frame",
    [
        Attach("unknown", 0, SENDER, source=Source(), target=Target(), initial_delivery_count=0),
        Flow(0, 1, 0, 1, 3, 0, 1),
        Detach(3),
        Transfer(3, 0, b"t"),
    ],
)
def test_a_frame_for_an_unknown_link_ends_the_session(frame: Performative) -> None:
    engine, session = a_client()

    ended = only(SessionEnded, engine.receive_data(bytes_of(frame, channel=7), 0.0))

    assert ended.session_id == session.session_id
    assert not ended.by_peer
    assert engine.state is AmqpState.OPENED
    assert engine.receive_data(bytes_of(frame, End(), channel=7), 0.0) == []
    assert not engine.sessions


@pytest.mark.parametrize(
    ("channel", "frame"), [(8, End()), (8, Begin(None, 0, 1, 1)), (8, Begin(0, 0, 1, 1)), (7, Open("x"))]
)
def test_a_frame_out_of_place_closes_the_connection(channel: int, frame: Performative) -> None:
    engine, _ = a_client()

    assert only(ConnectionClosed, engine.receive_data(bytes_of(frame, channel=channel), 0.0)).error is not None


def test_an_oversized_frame_closes_the_connection() -> None:
    engine, _ = a_client()

    assert only(ConnectionClosed, engine.receive_data(b"\x7f\xff\xff\xff", 0.0)).error is not None


_FRAMES = st.sampled_from(
    [
        Begin(0, 0, 10, 10),
        Begin(1, 0, 10, 10),
        Attach("s", 0, RECEIVER, source=Source(), target=Target("/events")),
        Attach("s", 0, RECEIVER),
        Attach("r", 1, SENDER, source=Source("/c2d"), target=Target(), initial_delivery_count=0),
        Flow(0, 10, 0, 10, 0, 0, 5),
        Flow(None, 0, 0, 10),
        Transfer(1, 0, b"t", more=True),
        Transfer(1, 0, b"t"),
        Transfer(1, 1, b"t", settled=True),
        Detach(0, closed=True),
        Detach(1),
        End(),
    ]
)


@given(st.lists(st.tuples(st.integers(0, 2), _FRAMES), max_size=12), st.binary(max_size=40), st.integers(1, 60))
def test_no_bytes_of_a_server_raise(frames: list[tuple[int, Performative]], rest: bytes, step: int) -> None:
    engine = AmqpClientEngine("hub", container_id="d1")
    engine.begin(0.0)
    engine.receive_data(AMQP_HEADER + bytes_of(Open("server")), 0.0)
    session = engine.begin_session()
    session.attach_sender("s", "/events")
    session.attach_receiver("r", "/c2d")
    data = b"".join(bytes_of(frame, channel=channel) for channel, frame in frames) + rest
    seen: list[AmqpEvent] = []

    for start in range(0, len(data), step):
        events = engine.receive_data(data[start : start + step], 0.0)
        for event in events:
            if isinstance(event, CreditChanged) and event.link.capacity:
                event.link.send(b"m" * 700)
            if isinstance(event, DeliveryReceived):
                event.link.settle(event.delivery_id)
        seen += events
        engine.data_to_send()

    assert not any(isinstance(one, ConnectionClosed) for one in seen[:-1])


@given(st.binary(max_size=200))
def test_no_first_bytes_of_a_server_raise(data: bytes) -> None:
    for sasl in (None, anonymous_init()):
        engine = AmqpClientEngine("hub", container_id="d1", sasl=sasl)
        engine.begin(0.0)
        engine.receive_data(data, 0.0)
        engine.receive_data((AMQP_HEADER if sasl is None else SASL_HEADER) + data, 0.0)
        engine.data_to_send()
