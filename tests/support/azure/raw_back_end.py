"""A back end on a TLS connection to a hub's AMQP port, frame by frame; every refusal is raised."""

import base64
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

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
from birthmark.auth.sas import hmac_sha256, render_sas


class BackEndRefusedError(Exception):
    """The server refused a link, a message or the connection."""


class RawBackEnd:
    """The client of one connection. `connection_string` is that of the Event Hubs-compatible endpoint."""

    def __init__(
        self,
        address: str,
        ca_file: str,
        connection_string: str,
        *,
        source: str = "",
        identity: tuple[Path, Path] | None = None,
    ) -> None:
        """Connect to port 5671, from the address `source` if there is one, with a certificate and its key."""
        self._known = dict(part.split("=", 1) for part in connection_string.split(";"))
        raw = socket.create_connection((address, 5671), 10, (source, 0) if source else None)
        context = ssl.create_default_context(cafile=ca_file)
        if identity is not None:
            context.load_cert_chain(*identity)
        self.line = context.wrap_socket(raw, server_hostname=self._host)
        self.line.settimeout(10)
        self.is_held = False
        self._framer = AmqpFramer(1 << 20)
        self._handles = self._ids = 0
        self.line.sendall(AMQP_HEADER)
        self._has_header = False
        self.send(Open("back-end", self._host))
        self.send(Begin(None, 0, 2048, 2048))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_held:
            self.line.close()

    def send(self, performative: Performative, payload: bytes = b"") -> None:
        self.send_bytes(encode_frame(0, encode_performative(performative) + payload))

    def send_bytes(self, data: bytes) -> None:
        self.line.sendall(data)

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
                    raise BackEndRefusedError(str(found))
                return found, frame.body[offset:]
            if not (data := self.line.recv(65536)):
                raise BackEndRefusedError("the connection was closed")
            self._framer.receive_data(data)

    def attach(
        self, address: str, *, receives: bool = True, source: Source | None = None, credit: int = 1000, **fields: Any
    ) -> int:
        """Attach a link, wait until the server has decided, and return its handle."""
        handle, self._handles = self._handles, self._handles + 1
        ends: dict[str, Any] = {"source": Source("me"), "target": Target(address), "initial_delivery_count": 0}
        if receives:
            ends = {"source": source or Source(address), "target": Target("me")}
        self.send(Attach(f"l{handle}", handle, RECEIVER if receives else SENDER, **ends, **fields))
        if receives and credit:
            self.send(Flow(0, 2048, 0, 2048, handle=handle, delivery_count=0, link_credit=credit))
        while not isinstance(found := self.next()[0], Attach):
            pass
        if (found.source if receives else found.target) is None:
            self.next()  # which tells why
        return handle

    def transfer(self, handle: int, message: AmqpMessage | bytes) -> None:
        payload = message if isinstance(message, bytes) else write_message(message)
        self.send(Transfer(handle, self._ids, b"t", 0, settled=False), payload)
        self._ids += 1

    def ask(self, links: int, body: object, **asked: str) -> None:
        """Send a request to `$cbs`, and raise for a status above 299."""
        self.transfer(links, AmqpMessage(ValueBody(body), MessageProperties(message_id="1"), asked))
        while True:
            performative, payload = self.next()
            if isinstance(performative, Transfer):
                if (status := int(read_message(payload).application_properties["status-code"])) > 299:
                    raise BackEndRefusedError(str(status))
                return

    def cbs(self) -> int:
        asks = self.attach("$cbs", receives=False)
        self.attach("$cbs", credit=5000)
        return asks

    @property
    def _host(self) -> str:
        return self._known["Endpoint"].removeprefix("sb://").strip("/")

    @property
    def token(self) -> str:
        sign = hmac_sha256(base64.b64decode(self._known["SharedAccessKey"]))
        until = datetime.now(UTC) + timedelta(hours=1)
        return render_sas(self._host, sign, until, self._known["SharedAccessKeyName"])

    def claim(self) -> "RawBackEnd":
        self.ask(self.cbs(), self.token, operation="put-token", type="servicebus.windows.net:sastoken", name="sb://x")
        return self
