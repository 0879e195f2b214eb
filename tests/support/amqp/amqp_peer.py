"""The client's end of an AMQP connection, frame by frame, against an engine."""

from typing import Any, TypeVar

from birthmark.amqp.composite import decode_composite, encode_composite
from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.events import AmqpEvent, ConnectionOpened, LinkRequested
from birthmark.amqp.framer import AMQP_HEADER, SASL_FRAME, AmqpFramer, encode_frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
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
from birthmark.amqp.sasl import SaslInit
from birthmark.amqp.sender_link import SenderLink

DEFAULTS = AmqpLimits()
Kind = TypeVar("Kind")


class AmqpPeer:
    """Sends performatives to an engine and decodes what the engine sends."""

    def __init__(self, engine: AmqpEngine) -> None:
        self.engine = engine
        self.now = 0.0
        self._framer = AmqpFramer(1 << 20)
        self.next_id = 0

    def send_bytes(self, data: bytes) -> list[AmqpEvent]:
        return self.engine.receive_data(data, self.now)

    def send(self, performative: Performative, payload: bytes = b"", channel: int = 0) -> list[AmqpEvent]:
        return self.send_bytes(encode_frame(channel, encode_performative(performative) + payload))

    def send_init(self, init: SaslInit) -> list[AmqpEvent]:
        return self.send_bytes(encode_frame(0, encode_composite(init), SASL_FRAME))

    def transfer(self, payload: bytes = b"", *, handle: int = 0, channel: int = 0, **fields: Any) -> list[AmqpEvent]:
        """Send a delivery in one frame, unless the fields say otherwise."""
        defaults: dict[str, Any] = {"delivery_id": self.next_id, "delivery_tag": b"t"}
        transfer = Transfer(handle, **(defaults | fields))
        if transfer.delivery_id is not None and not transfer.more:
            self.next_id = transfer.delivery_id + 1
        return self.send(transfer, payload, channel)

    def header(self) -> bytes | None:
        self._framer.receive_data(self.engine.data_to_send())
        return self._framer.next_header()

    def bodies(self) -> list[tuple[int, bytes]]:
        """Return channels and bodies of the frames that the engine sends."""
        self._framer.receive_data(self.engine.data_to_send())
        found = []
        while (frame := self._framer.next_frame()) is not None:
            found.append((frame.channel, frame.body))
        return found

    def received(self) -> list[Performative]:
        return [decode_performative(body)[0] for _, body in self.bodies() if body]

    def payloads(self) -> list[bytes]:
        """Return what the transfers among the next frames contain."""
        return [body[decode_performative(body)[1] :] for _, body in self.bodies()]

    def sasl_frames(self) -> list[Any]:
        return [decode_composite(body)[0] for _, body in self.bodies()]


def only(kind: type[Kind], values: list[Any]) -> Kind:
    """Return the single value of a kind."""
    (found,) = [value for value in values if isinstance(value, kind)]
    return found


def an_open_connection(limits: AmqpLimits = DEFAULTS, *, max_frame_size: int = 65_536, **fields: Any) -> AmqpPeer:
    peer = AmqpPeer(AmqpEngine(limits))
    peer.send_bytes(AMQP_HEADER)
    assert peer.header() == AMQP_HEADER
    only(ConnectionOpened, peer.send(Open("client", max_frame_size=max_frame_size, **fields)))
    peer.engine.accept_open()
    peer.received()
    return peer


def a_session(limits: AmqpLimits = DEFAULTS, *, window: int = 2048, **fields: Any) -> AmqpPeer:
    peer = an_open_connection(limits, **fields)
    peer.send(Begin(None, 0, window, 2048))
    peer.received()
    return peer


def attach_sender(peer: AmqpPeer, handle: int = 0, name: str = "s", **fields: Any) -> list[AmqpEvent]:
    """Attach the peer's sender."""
    defaults: dict[str, Any] = {"source": Source("s"), "target": Target("/events"), "initial_delivery_count": 0}
    return peer.send(Attach(name, handle, SENDER, **(defaults | fields)))


def attach_receiver(peer: AmqpPeer, handle: int = 0, name: str = "r", **fields: Any) -> list[AmqpEvent]:
    """Attach the peer's receiver."""
    return peer.send(Attach(name, handle, RECEIVER, **({"source": Source("/out"), "target": Target("r")} | fields)))


def grant(peer: AmqpPeer, credit: int, *, handle: int = 0, count: int = 0, **fields: Any) -> list[AmqpEvent]:
    """Grant credit for the engine's sender, in a window of 2,048 transfers."""
    window = {"next_incoming_id": count, "incoming_window": 2048} | fields
    flow = Flow(
        next_outgoing_id=0, outgoing_window=2048, handle=handle, delivery_count=count, link_credit=credit, **window
    )
    return peer.send(flow)


def a_receiver_link(
    limits: AmqpLimits = DEFAULTS, *, credit: int | None = None, **fields: Any
) -> tuple[AmqpPeer, ReceiverLink]:
    """Return an attached link on which the engine receives."""
    peer = a_session(limits)
    link = only(LinkRequested, attach_sender(peer, **fields)).link
    assert isinstance(link, ReceiverLink)
    link.accept(credit=credit)
    peer.received()
    return peer, link


def a_sender_link(
    limits: AmqpLimits = DEFAULTS,
    *,
    credit: int = 0,
    settled: bool | None = None,
    window: int = 2048,
    max_frame_size: int = 65_536,
) -> tuple[AmqpPeer, SenderLink]:
    """Return an attached link on which the engine sends."""
    peer = a_session(limits, window=window, max_frame_size=max_frame_size)
    link = only(LinkRequested, attach_receiver(peer)).link
    assert isinstance(link, SenderLink)
    link.accept(settled=settled)
    if credit:
        grant(peer, credit, incoming_window=window)
    peer.received()
    return peer, link
