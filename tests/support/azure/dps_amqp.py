"""A device at the other end of a provisioning service's AMQP connection, frame by frame."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from birthmark.amqp.composite import decode_composite, encode_composite
from birthmark.amqp.framer import AMQP_HEADER, SASL_FRAME, SASL_HEADER, AmqpFramer, encode_frame
from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, read_message, write_message
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    ErrorInfo,
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
from birthmark.amqp.sasl import SaslChallenge, SaslInit, SaslOutcome, SaslResponse
from birthmark.amqp.values import Symbol
from birthmark.dps.connections import DpsConnections
from birthmark.errors import BirthmarkError
from birthmark.net.amqp_driver import AmqpDriver, MakeConnection
from birthmark.net.tls import NO_PEER, TlsPeer
from birthmark.pki.certificates import Certificate
from birthmark.refusals import Ledger
from support.azure.dps_world import DpsWorld
from support.fakes import SeededEntropy

P = TypeVar("P")
_FRAME_BYTES = 60_000


def connections(world: DpsWorld) -> DpsConnections:
    """Return the connections of one worker."""
    return DpsConnections(world.registrations, Ledger(world.database, world.clock, SeededEntropy()), world.clock)


@dataclass(eq=False)
class AmqpDevice:
    """A client and its connection; what it received is in `heard`, with the payloads of transfers."""

    world: DpsWorld
    driver: AmqpDriver
    refused: list[BirthmarkError]
    heard: list[tuple[Performative, bytes]] = field(default_factory=list)
    sasl: list[Any] = field(default_factory=list)
    is_over: bool = False
    owner: str = ""
    deadline: Callable[[], None] | None = None
    delivery_id: int = 0
    handles: int = 0
    _framer: AmqpFramer = field(default_factory=lambda: AmqpFramer(1 << 20))
    _has_header: bool = False

    # ---- the transport of the driver

    def write(self, data: bytes) -> None:
        self._framer.receive_data(data)
        while True:
            if not self._has_header:
                if self._framer.next_header() is None:
                    return
                self._has_header = True
            if (frame := self._framer.next_frame()) is None:
                return
            if frame.type == SASL_FRAME:
                found = decode_composite(frame.body)[0]
                self.sasl.append(found)
                self._has_header = not isinstance(found, SaslOutcome)
            elif frame.body:
                performative, offset = decode_performative(frame.body)
                self.heard.append((performative, frame.body[offset:]))

    def close(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_deadline(self, _after_s: float | None, act: Callable[[], None] | None = None) -> None:
        self.deadline = act

    def mark_authenticated(self, owner: str) -> None:
        self.owner = owner

    def record_incomplete(self, size: int) -> None: ...

    # ---- the client

    def send(self, performative: Performative, payload: bytes = b"") -> None:
        self.driver.data_received(encode_frame(0, encode_performative(performative) + payload))

    def got(self, kind: type[P]) -> list[P]:
        return [performative for performative, _ in self.heard if isinstance(performative, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def settle(self) -> None:
        """Wait until the driver has nothing to do."""
        for _ in range(20):
            await asyncio.sleep(0.005)

    def begin_sasl(self, mechanism: str, response: bytes = b"") -> None:
        self.driver.data_received(SASL_HEADER)
        body = encode_composite(SaslInit(mechanism, response, "dps"))
        self.driver.data_received(encode_frame(0, body, SASL_FRAME))

    def respond(self, response: bytes) -> None:
        self.driver.data_received(encode_frame(0, encode_composite(SaslResponse(response)), SASL_FRAME))

    def challenges(self) -> list[bytes]:
        return [one.challenge for one in self.sasl if isinstance(one, SaslChallenge)]

    async def outcome(self) -> int:
        await self.until(lambda: isinstance(self.sasl[-1:][0], SaslOutcome) if self.sasl else False)
        return int(self.sasl[-1].code)

    def begin(self) -> None:
        """Open the connection and a session."""
        self.driver.data_received(AMQP_HEADER)
        self.send(Open("device", "dps.example"))
        self.send(Begin(None, 0, 2048, 2048))

    def address(self, name: str) -> str:
        return f"{self.world.instance.id_scope}/registrations/{name}"

    def attach(self, address: str, *, receives: bool, credit: int = 100) -> int:
        """Attach a link, and return its handle."""
        handle = self.handles
        self.handles += 1
        properties = {Symbol("com.microsoft:api-version"): "2019-03-31"}
        ends: dict[str, Any] = {"source": Source("me"), "target": Target(address), "initial_delivery_count": 0}
        if receives:
            ends = {"source": Source(address), "target": Target("me")}
        role = RECEIVER if receives else SENDER
        self.send(Attach(f"link-{handle}", handle, role, **ends, properties=properties))
        if receives and credit:
            self.send(Flow(0, 2048, 0, 2048, handle=handle, delivery_count=0, link_credit=credit))
        return handle

    async def attach_both(self, name: str) -> int:
        """Attach both links, and return the sender's handle once it has credit."""
        self.attach(self.address(name), receives=True)
        handle = self.attach(self.address(name), receives=False)
        await self.until(
            lambda: any(one.handle == handle for one in self.got(Flow)) or self.got(Detach) or self.is_over
        )
        return handle

    def request(self, handle: int, operation: str = "iotdps-register", body: bytes = b"{}", **fields: Any) -> None:
        """Send a request; `correlation` is its correlation ID."""
        correlation = fields.pop("correlation", f"c{self.delivery_id}")
        properties = {"iotdps-operation-type": operation} | fields
        message = AmqpMessage(DataBody((body,)), MessageProperties(correlation_id=correlation), properties)
        self.transfer(handle, write_message(message))

    def transfer(self, handle: int, payload: bytes) -> None:
        for start in range(0, len(payload) or 1, _FRAME_BYTES):
            part = payload[start : start + _FRAME_BYTES]
            is_more = start + _FRAME_BYTES < len(payload)
            self.send(Transfer(handle, self.delivery_id, b"t", 0, settled=False, more=is_more), part)
        self.delivery_id += 1

    def answers(self) -> list[tuple[Any, dict[str, Any]]]:
        """Return correlation IDs and bodies of the responses."""
        found = [read_message(payload) for performative, payload in self.heard if isinstance(performative, Transfer)]
        return [
            (one.properties.correlation_id, json.loads(one.body.payload))
            for one in found
            if isinstance(one.body, DataBody)
        ]

    def rejections(self) -> list[tuple[str, int, Any]]:
        """Return condition, error number and `info` of the rejected requests."""
        states = [one.state for one in self.got(Disposition)]
        return [_error(one.error) for one in states if isinstance(one, RejectedOutcome) and one.error is not None]

    def detachments(self) -> list[str]:
        """Return the conditions of links that ended."""
        return [str(one.error.condition) for one in self.got(Detach) if one.error is not None]

    def closing(self) -> list[str]:
        """Return the condition of CLOSE."""
        return [str(one.error.condition) for one in self.got(Close) if one.error is not None]


def _error(info: ErrorInfo) -> tuple[str, int, Any]:
    return str(info.condition), json.loads(info.description or "{}")["errorCode"], info.info


def connect(
    world: DpsWorld, make: MakeConnection, leaf: Certificate | None = None, *, address: str = "192.0.2.7"
) -> AmqpDevice:
    """Return a client whose connection is open for bytes."""
    refused: list[BirthmarkError] = []

    def record(error: BirthmarkError, _address: str, _peer: TlsPeer) -> str:
        refused.append(error)
        return f"tracking-{len(refused)}"

    peer = NO_PEER if leaf is None else TlsPeer(leaf, (), b"", "", "TLSv1.3")
    driver = AmqpDriver(make, record, world.clock, peer)
    made = AmqpDevice(world, driver, refused)
    driver.start(made, address)
    return made
