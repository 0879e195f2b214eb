"""Back ends that break AMQP, or want what a hub does not have."""

import base64
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from fixes.desk import Desk, RefusedError, Row, typing

from birthmark.amqp.framer import AMQP_HEADER, AmqpFramer, encode_frame
from birthmark.amqp.message import AmqpMessage, MessageProperties, ValueBody, read_message, write_message
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    Disposition,
    Flow,
    Open,
    Performative,
    RejectedOutcome,
    Source,
    Target,
    Transfer,
    decode_performative,
    encode_performative,
)
from birthmark.amqp.values import Symbol
from birthmark.auth.sas import hmac_sha256, render_sas

_HELD: list[socket.socket] = []
"""Lines that stay open while another one is refused."""


class BackEnd:
    """A connection to the hub's AMQP port; every refusal is raised."""

    def __init__(self, desk: Desk) -> None:
        self._line = desk.tls(5671)
        self._line.settimeout(10)
        self._framer = AmqpFramer(1 << 20)
        self._handles = self._ids = 0
        pairs = (part.split("=", 1) for part in desk.scene.environment["EVENT_HUB_CONNECTION_STR"].split(";"))
        self._known = dict(pairs)
        self._line.sendall(AMQP_HEADER)
        self._has_header = False
        self.send(Open("back-end"))
        self.send(Begin(None, 0, 2048, 2048))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line not in _HELD:
            self._line.close()

    def hold(self) -> None:
        _HELD.append(self._line)

    def send(self, performative: Performative, payload: bytes = b"") -> None:
        self.send_bytes(encode_frame(0, encode_performative(performative) + payload))

    def send_bytes(self, data: bytes) -> None:
        self._line.sendall(data)

    def next(self) -> tuple[Performative, bytes]:
        """Return the next performative; raise for one that refuses."""
        while True:
            if not self._has_header:
                self._has_header = self._framer.next_header() is not None
            if self._has_header and (frame := self._framer.next_frame()) is not None and frame.body:
                found, offset = decode_performative(frame.body)
                if isinstance(found, Detach) or (
                    isinstance(found, Disposition) and isinstance(found.state, RejectedOutcome)
                ):
                    raise RefusedError(str(found))
                return found, frame.body[offset:]
            if not (data := self._line.recv(65536)):
                raise RefusedError("the connection was closed")
            self._framer.receive_data(data)

    def attach(self, address: str, *, receives: bool = True, source: Source | None = None, **fields: Any) -> int:
        """Attach a link, and wait until the server has decided."""
        handle, self._handles = self._handles, self._handles + 1
        ends: dict[str, Any] = {"source": Source("me"), "target": Target(address), "initial_delivery_count": 0}
        if receives:
            ends = {"source": source or Source(address), "target": Target("me")}
        self.send(Attach(f"l{handle}", handle, RECEIVER if receives else SENDER, **ends, **fields))
        if receives:
            self.send(Flow(0, 2048, 0, 2048, handle=handle, delivery_count=0, link_credit=1000))
        while not isinstance(found := self.next()[0], Attach):
            pass
        if (found.source if receives else found.target) is None:
            self.next()  # which tells why
        return handle

    def transfer(self, handle: int, message: AmqpMessage) -> None:
        self.send(Transfer(handle, self._ids, b"t", 0, settled=False), write_message(message))
        self._ids += 1

    def ask(self, links: int, body: object, **asked: str) -> None:
        """Send a request to `$cbs`, and raise for a status above 299."""
        self.transfer(links, AmqpMessage(ValueBody(body), MessageProperties(message_id="1"), asked))
        while True:
            performative, payload = self.next()
            if isinstance(performative, Transfer):
                if (status := int(read_message(payload).application_properties["status-code"])) > 299:
                    raise RefusedError(str(status))
                return

    def cbs(self) -> int:
        asks = self.attach("$cbs", receives=False)
        self.attach("$cbs")
        return asks

    @property
    def token(self) -> str:
        host = self._known["Endpoint"].removeprefix("sb://").strip("/")
        sign = hmac_sha256(base64.b64decode(self._known["SharedAccessKey"]))
        return render_sas(host, sign, datetime.now(UTC) + timedelta(hours=1), "service")

    def claim(self) -> "BackEnd":
        self.ask(self.cbs(), self.token, operation="put-token", type="servicebus.windows.net:sastoken", name="sb://x")
        return self


def partition(group: str = "$Default", number: int = 0) -> str:
    return f"birthmark/ConsumerGroups/{group}/Partitions/{number}"


def attaching(address: str, *, is_known: bool = True, **fields: Any) -> Callable[[Desk], object]:
    def attach(desk: Desk) -> None:
        with BackEnd(desk) as back_end:
            (back_end.claim() if is_known else back_end).attach(address, **fields)

    return attach


def holding(count: int, address: str = "", **fields: Any) -> Callable[[Desk], object]:
    """Attach readers that stay."""

    def attach(desk: Desk) -> None:
        for _ in range(count):
            with BackEnd(desk) as back_end:
                back_end.claim().attach(address or partition(), **fields)
                back_end.hold()

    return attach


def claiming(count: int = 1, text: str = "", **asked: str) -> Callable[[Desk], object]:
    def claim(desk: Desk) -> None:
        with BackEnd(desk) as back_end:
            asks = back_end.cbs()
            for number in range(count):
                given = {"operation": "put-token", "type": "jwt" if text else "x", "name": str(number)} | asked
                back_end.ask(asks, text or back_end.token, **given)

    return claim


def breaking(desk: Desk) -> None:
    with BackEnd(desk) as back_end:
        back_end.send_bytes(b"\x00\x00\x00\x09\x02\x00\x00\x00\xff")
        while True:
            back_end.next()


def sending_nowhere(desk: Desk) -> None:
    with BackEnd(desk) as back_end:
        link = back_end.claim().attach("messages/devicebound", receives=False)
        back_end.transfer(link, AmqpMessage(None, MessageProperties(to="/nowhere")))
        while True:
            back_end.next()


def epoch(value: object) -> dict[str, Any]:
    return {"properties": {Symbol("com.microsoft:epoch"): value}}


_FILTER = {Symbol("apache.org:selector-filter:string"): "site = 'north'"}

AMQP: Mapping[str, Row] = {
    "amqp.protocol_error": Row(breaking, is_instead=True),
    "iothub.amqp_not_authorized": Row(attaching(partition(), is_known=False), is_instead=True),
    "iothub.amqp_token_type": Row(claiming(text="eyJ0eXAi"), is_instead=True),
    "iothub.amqp_request_invalid": Row(claiming(operation="take-token"), is_instead=True),
    "iothub.too_many_tokens": Row(claiming(101), is_instead=True),
    "iothub.amqp_address_unknown": Row(attaching("devices/fix/messages/devicebound"), is_instead=True),
    "iothub.unknown_partition": Row(attaching(partition(number=9)), is_instead=True),
    "iothub.unknown_consumer_group": Row(attaching(partition("fix-group"))),
    "iothub.event_filter_invalid": Row(
        attaching(partition(), source=Source(partition(), filter=_FILTER)), is_instead=True
    ),
    "iothub.event_reader_invalid": Row(attaching(partition(), **epoch("x")), is_instead=True),
    "iothub.too_many_readers": Row(holding(1), holding(5), is_instead=True),
    "iothub.exclusive_reader": Row(
        attaching(partition(number=1)), holding(1, partition(number=1), **epoch(3)), is_instead=True
    ),
    "iothub.c2d_amqp_invalid": Row(sending_nowhere, is_instead=True),
    "iothub.consumer_group_name_invalid": Row(typing('birthmark hub consumer-group create "a b"'), is_instead=True),
    "iothub.too_many_consumer_groups": Row(
        typing("birthmark hub consumer-group create fix-more --hub fix-groups"),
        typing(
            "birthmark hub create fix-groups --host fix-groups.example",
            "for n in $(seq 19); do birthmark hub consumer-group create g$n --hub fix-groups; done",
        ),
        is_instead=True,
    ),
}
