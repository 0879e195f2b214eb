"""A back end at the other end of a hub's AMQP connection, frame by frame."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from birthmark.amqp.framer import AMQP_HEADER, AmqpFramer, encode_frame
from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, ValueBody, read_message, write_message
from birthmark.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    Flow,
    Open,
    Performative,
    Source,
    Target,
    Transfer,
    decode_performative,
    encode_performative,
)
from birthmark.amqp.values import Symbol
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.errors import BirthmarkError
from birthmark.iothub.amqp import HubAmqpConnections
from birthmark.iothub.connections import HubConnections
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.net.tls import NO_PEER, TlsPeer
from support.azure.hub_world import World
from support.fakes import SeededEntropy

P = TypeVar("P")
_FRAME_BYTES = 60_000


def connections(world: World, holder: str = "", seed: int = 1) -> HubAmqpConnections:
    """Return the AMQP connections of one worker."""
    devices = world.connections
    if holder:  # another worker
        devices = HubConnections(world.iothub, world.broker, world.clock)
        devices.holder = holder
    return HubAmqpConnections(devices, SeededEntropy(seed))


def token(
    world: World, policy: str = "service", key: bytes | None = None, lasts: timedelta = timedelta(hours=1)
) -> str:
    """Return a token of a policy, as IoT Hub's SDKs sign it."""
    sign = hmac_sha256(key or world.hub.policies[policy][0])
    return render_sas(world.hub.host, sign, world.clock.now() + lasts, policy)


def event_hubs_token(world: World) -> str:
    """Return a token as Event Hubs SDKs sign it: with the text of the key."""
    sign = hmac_sha256(base64.b64encode(world.hub.policies["service"][0]))
    return render_sas(f"sb://{world.hub.host}/main", sign, world.clock.now() + timedelta(hours=1), "service")


@dataclass(eq=False)
class BackEnd:
    """A client and its connection; what it received is in `heard`, with the payloads of transfers."""

    world: World
    driver: AmqpDriver
    refused: list[BirthmarkError]
    heard: list[tuple[Performative, bytes]] = field(default_factory=list)
    is_over: bool = False
    is_paused: bool = False
    deadline: Callable[[], None] | None = None
    delivery_id: int = 0
    handles: int = 0

    def __post_init__(self) -> None:
        self._framer = AmqpFramer(1 << 20)
        self._has_header = False

    # ---- the transport of the driver

    def write(self, data: bytes) -> None:
        self._framer.receive_data(data)
        if not self._has_header:
            self._has_header = self._framer.next_header() is not None
        while (frame := self._framer.next_frame()) is not None:
            if frame.body:
                performative, offset = decode_performative(frame.body)
                self.heard.append((performative, frame.body[offset:]))

    def close(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def set_deadline(self, _after_s: float | None, act: Callable[[], None] | None = None) -> None:
        self.deadline = act

    def mark_authenticated(self, owner: str) -> None: ...

    def record_incomplete(self, size: int) -> None: ...

    # ---- the client

    def send(self, performative: Performative, payload: bytes = b"") -> None:
        self.driver.data_received(encode_frame(0, encode_performative(performative) + payload))

    def got(self, kind: type[P]) -> list[P]:
        return [performative for performative, _ in self.heard if isinstance(performative, kind)]

    def messages(self) -> list[AmqpMessage]:
        return [read_message(payload) for performative, payload in self.heard if isinstance(performative, Transfer)]

    def bodies(self) -> list[str]:
        return [one.body.payload.decode() for one in self.messages() if isinstance(one.body, DataBody)]

    def begin(self) -> None:
        self.driver.data_received(AMQP_HEADER)
        self.send(Open("back-end", self.world.hub.host))
        self.send(Begin(None, 0, 2048, 2048))

    def attach(self, address: str, *, receives: bool, credit: int = 0, name: str = "", **fields: Any) -> int:
        """Attach a link, and return its handle."""
        handle = self.handles
        self.handles += 1
        name = name or f"link-{handle}"
        ends: dict[str, Any] = {"source": Source("me"), "target": Target(address), "initial_delivery_count": 0}
        if receives:
            source = fields.pop("source", None) or Source(address)
            ends = {"source": source, "target": Target("me")}
        self.send(Attach(name, handle, RECEIVER if receives else SENDER, **ends, **fields))
        if receives and credit:
            self.grant(handle, credit)
        return handle

    def grant(self, handle: int, credit: int, count: int = 0, *, drain: bool = False) -> None:
        self.send(
            Flow(
                *(0, 2048, 0, 2048),
                handle=handle,
                delivery_count=count,
                link_credit=credit,
                drain=drain,
            )
        )

    def transfer(self, handle: int, message: AmqpMessage | bytes) -> None:
        payload = message if isinstance(message, bytes) else write_message(message)
        for start in range(0, len(payload), _FRAME_BYTES):
            part = payload[start : start + _FRAME_BYTES]
            is_more = start + _FRAME_BYTES < len(payload)
            self.send(Transfer(handle, self.delivery_id, b"t", 0, settled=False, more=is_more), part)
        self.delivery_id += 1

    def claim(self, text: str, kind: str = "servicebus.windows.net:sastoken") -> None:
        """Attach both links of `$cbs`, and send a token; `answers` has the response."""
        asks = self.attach("$cbs", receives=False)
        self.attach("$cbs", receives=True, credit=10)
        asked = {"operation": "put-token", "type": kind, "name": "sb://hub.example/main"}
        self.transfer(asks, AmqpMessage(ValueBody(text), MessageProperties(message_id="1"), asked))

    def statuses(self) -> list[int]:
        found = [one.application_properties.get("status-code") for one in self.messages()]
        return [int(one) for one in found if one is not None]

    async def claimed(self, text: str) -> None:
        """Begin with an accepted token."""
        self.begin()
        self.claim(text)
        await self.until(lambda: self.statuses() == [202])
        self.heard.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    def conditions(self) -> list[str]:
        """Return the conditions of links that ended."""
        return [str(one.error.condition) for one in self.got(Detach) if one.error is not None]


B = TypeVar("B", bound=BackEnd)


def connect(world: World, shared: HubAmqpConnections) -> BackEnd:
    """Return a back end whose connection is open for bytes."""
    return connect_as(BackEnd, world, shared)


def connect_as(kind: type[B], world: World, shared: HubAmqpConnections, peer: TlsPeer = NO_PEER) -> B:
    """Return a client of a kind whose connection is open for bytes."""
    refused: list[BirthmarkError] = []

    def record(error: BirthmarkError, _address: str, _peer: TlsPeer) -> str:
        refused.append(error)
        return f"tracking-{len(refused)}"

    driver = AmqpDriver(shared.connect, record, world.clock, peer)
    made = kind(world, driver, refused)
    driver.start(made, "192.0.2.7")
    return made


def partition_address(world: World, partition: int, group: str = "$Default") -> str:
    return f"{world.hub.name}/ConsumerGroups/{group}/Partitions/{partition}"


def from_filter(address: str, text: str) -> Source:
    """Return the source of a reader with a start position."""
    return Source(address, filter={Symbol("apache.org:selector-filter:string"): text})
