"""AMQP 1.0 by layer: values, performatives, messages, frames, SASL, and both ends of a connection."""

import contextlib
from collections.abc import Sequence

from birthmark.amqp.client_engine import AmqpClientEngine
from birthmark.amqp.composite import encode_composite
from birthmark.amqp.connection_engine import AmqpState
from birthmark.amqp.decoder import decode_value
from birthmark.amqp.encoder import encode_value
from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpError
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionOpened,
    CreditChanged,
    DeliveryReceived,
    LinkRequested,
    SaslResponded,
    SaslStarted,
)
from birthmark.amqp.framer import AMQP_HEADER, EMPTY_FRAME, SASL_FRAME, SASL_HEADER, AmqpFramer, encode_frame
from birthmark.amqp.message import (
    AmqpMessage,
    DataBody,
    MessageProperties,
    ValueBody,
    read_message,
    split_batch,
    write_batch,
    write_message,
)
from birthmark.amqp.performatives import (
    ACCEPTED,
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
    Performative,
    Source,
    Target,
    Transfer,
    decode_performative,
    encode_performative,
)
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sasl import (
    SaslInit,
    SaslMechanism,
    SaslResponse,
    decode_init,
    decode_response,
    parse_plain,
    read_identity,
)
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Array, DescribedValue, Int, Symbol, Timestamp, UInt, ULong

_MECHANISMS = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL", "TPM")
_FILTER = {Symbol("apache.org:selector-filter:string"): DescribedValue(ULong(0x468C00000004), "x > '1'")}
VALUES: Sequence[bytes] = tuple(
    encode_value(one)
    for one in (
        {"a": [None, True, UInt(1), Int(-1), Timestamp(5), b"x", 1.5]},
        Array(Symbol, (Symbol("a"), Symbol("b"))),
        [Array(UInt, (UInt(1), UInt(2))), DescribedValue(ULong(5), [])],
        _FILTER,
    )
)
_MESSAGES = (
    AmqpMessage(DataBody((b"{}",)), MessageProperties(message_id="m", content_type="application/json"), {"a": "b"}),
    AmqpMessage(ValueBody("token"), MessageProperties(message_id=ULong(0)), {"operation": "put-token"}),
    AmqpMessage(message_annotations={Symbol("operation"): "GET"}),
)
MESSAGES: Sequence[bytes] = (
    *map(write_message, _MESSAGES),
    write_batch(tuple(map(write_message, _MESSAGES))),
)
_SCRIPT: Sequence[tuple[Performative, bytes]] = (
    (Open("c", "hub", 512, idle_time_out=1000, properties={Symbol("product"): "x"}), b""),
    (Begin(None, 0, 10, 10), b""),
    (Attach("s", 0, SENDER, source=Source("s"), target=Target("/events"), initial_delivery_count=0), b""),
    (Attach("r", 1, RECEIVER, source=Source("/out", filter=_FILTER), target=Target("r"), properties={"a": 1}), b""),
    (Flow(0, 10, 0, 10, 1, 0, 20, echo=True), b""),
    (Transfer(0, 0, b"t", more=True), MESSAGES[0][:20]),
    (Transfer(0, 0), MESSAGES[0][20:]),
    (Transfer(0, 1, b"t", 0x80013700, settled=True), MESSAGES[3]),
    (Disposition(RECEIVER, 0, 3, settled=True, state=ACCEPTED), b""),
    (Disposition(RECEIVER, 4, state=ACCEPTED), b""),
    (Flow(5, 10, 2, 10, 1, 5, 20, drain=True), b""),
    (Detach(0, closed=True, error=ErrorInfo("a:b", "text")), b""),
    (End(), b""),
    (Begin(None, 0, 10, 10), b""),
    (Close(), b""),
)
PERFORMATIVES: Sequence[bytes] = tuple(encode_performative(one) + payload for one, payload in _SCRIPT)
_STREAM = b"".join(encode_frame(0, one) for one in PERFORMATIVES)
INITS: Sequence[bytes] = tuple(
    encode_composite(one)
    for one in (SaslInit("PLAIN", b"\0d1@sas.hub\0token", "hub"), SaslInit("ANONYMOUS", b""), SaslInit("MSSBCBS"))
)
RESPONSES: Sequence[bytes] = (
    encode_composite(SaslInit("TPM", b"\0scope\0id\0key", "scope/registrations/id")),
    encode_composite(SaslResponse(b"\0root")),
    encode_composite(SaslResponse(b"\0token")),
)
STREAMS: Sequence[bytes] = (
    AMQP_HEADER + _STREAM,
    SASL_HEADER + encode_frame(0, INITS[0], SASL_FRAME) + AMQP_HEADER + EMPTY_FRAME + _STREAM,
    SASL_HEADER + b"".join(encode_frame(0, one, SASL_FRAME) for one in RESPONSES) + AMQP_HEADER + _STREAM,
)
CLIENT_STREAMS: Sequence[bytes] = (
    AMQP_HEADER
    + b"".join(
        encode_frame(0, encode_performative(one) + payload)
        for one, payload in (
            (Open("server", None, 512, idle_time_out=1000), b""),
            (Begin(0, 0, 10, 10), b""),
            (Attach("s", 0, RECEIVER, source=Source("s"), target=Target("/events")), b""),
            (Attach("r", 1, SENDER, source=Source("/out"), target=Target("r"), initial_delivery_count=0), b""),
            (Flow(0, 10, 0, 10, 0, 0, 20, echo=True), b""),
            (Transfer(1, 0, b"t", more=True), MESSAGES[0][:20]),
            (Transfer(1, 0), MESSAGES[0][20:]),
            (Disposition(RECEIVER, 0, 3, settled=True, state=ACCEPTED), b""),
            (Detach(0, closed=True, error=ErrorInfo("a:b", "text")), b""),
            (End(), b""),
            (Close(), b""),
        )
    ),
)


def value(data: bytes) -> None:
    """Read a value; what was read can be written and read again."""
    found, _ = decode_value(data)
    encode_value(found)


def performative(data: bytes) -> None:
    """Read a performative; what was read can be written."""
    found, _ = decode_performative(data)
    encode_performative(found)


def message(data: bytes) -> None:
    """Read a message, also as a batch; what was read can be written and read again."""
    for one in split_batch(data):
        read_message(one)
    read_message(write_message(read_message(data)))


def frames(data: bytes) -> None:
    """Split a stream in two chunkings; both give the same frames."""
    assert _frames_of([data]) == _frames_of([data[at : at + 7] for at in range(0, len(data), 7)])


def _frames_of(chunks: Sequence[bytes]) -> list[object]:
    framer, found = AmqpFramer(), list[object]()
    try:
        for chunk in chunks:
            framer.receive_data(chunk)
            while (frame := framer.next_frame()) is not None:
                found.append(frame)
    except AmqpError as error:
        found.append(error.condition)
    return found


def sasl(data: bytes) -> None:
    """Read a SASL-INIT, a PLAIN response, and the response to a challenge."""
    for read in (parse_plain, decode_response):
        with contextlib.suppress(AmqpError):
            read(data)
    read_identity(decode_init(data), _MECHANISMS)


def server(data: bytes) -> None:
    """Serve a client in two chunkings; nothing follows the end of the connection."""
    for step in (len(data) or 1, 11):
        seen = _serve([data[at : at + step] for at in range(0, len(data), step)])
        assert "ConnectionClosed" not in seen[:-1]


def client(data: bytes) -> None:
    """Answer a client in two chunkings; nothing follows the end of the connection."""
    for step in (len(data) or 1, 11):
        seen = _answer([data[at : at + step] for at in range(0, len(data), step)])
        assert "ConnectionClosed" not in seen[:-1]


def _answer(chunks: Sequence[bytes]) -> list[str]:
    engine = AmqpClientEngine("hub", container_id="c")
    engine.begin(0.0)
    seen: list[str] = []
    for chunk in chunks:
        for event in engine.receive_data(chunk, 0.0):
            match event:
                case ConnectionOpened() if engine.state is AmqpState.OPENED:
                    session = engine.begin_session()
                    session.attach_sender("s", "/events")
                    session.attach_receiver("r", "/out")
                case _:
                    _decide_on_link(event)
            seen.append(type(event).__name__)
        engine.data_to_send()
    engine.check_deadlines(1e6)
    return seen


def _serve(chunks: Sequence[bytes]) -> list[str]:
    engine = AmqpEngine()
    seen: list[str] = []
    for chunk in chunks:
        events = engine.receive_data(chunk, 0.0)
        while events:
            for event in events:
                _decide(engine, event)
                seen.append(type(event).__name__)
            events = engine.next_events()
    assert engine.held_bytes == 0
    engine.data_to_send()
    if engine.state is not AmqpState.CLOSED:
        engine.check_deadlines(1e6)
    return seen


def _decide(engine: AmqpEngine, event: AmqpEvent) -> None:
    match event:
        case SaslStarted(mechanism=SaslMechanism.TPM):
            engine.challenge_sasl(b"\0")
        case SaslResponded(response=response) if not response.endswith(b"token"):
            engine.challenge_sasl(b"\x80" + response[:100])
        case SaslStarted() | SaslResponded():
            engine.accept_sasl()
        case ConnectionOpened():
            engine.accept_open()
        case LinkRequested(link=ReceiverLink() as link):
            link.accept(credit=50)
        case LinkRequested(link=SenderLink() as link):
            link.accept()
        case _:
            _decide_on_link(event)


def _decide_on_link(event: AmqpEvent) -> None:
    match event:
        case DeliveryReceived(link=link, delivery_id=delivery_id):
            link.settle(delivery_id)
        case CreditChanged(link=link):
            link.send_many([b"m" * 700] * min(link.capacity, 5))
            link.complete_drain()
        case _:
            pass
