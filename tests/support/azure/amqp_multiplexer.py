"""Devices on multiplexed AMQP connections, as gateways have them: each with its token, its session and its links."""

import asyncio
import contextlib
import ssl
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from birthmark.amqp.client_engine import AmqpClientEngine
from birthmark.amqp.client_session import ClientSession
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionClosed,
    ConnectionOpened,
    CreditChanged,
    DeliveryReceived,
    DeliverySettled,
    LinkAttached,
    LinkDetached,
    SessionEnded,
)
from birthmark.amqp.framer import Frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.performatives import RECEIVER, SENDER, Disposition, Outcome, Performative
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Symbol
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.iothub.amqp.device import CHANNEL
from birthmark.iothub.wire.amqp_tokens import CBS_ADDRESS, put_token_request, read_put_token_answer

EVENTS, DEVICEBOUND, TWIN, METHODS = "messages/events", "messages/devicebound", "twin", "methods/devicebound"
_SENDS, _RECEIVES = frozenset({EVENTS, TWIN, METHODS}), frozenset({DEVICEBOUND, TWIN, METHODS})
_RETRY_S = 0.3
_CONNECT_S = 10.0
_LIMITS = AmqpLimits(idle_timeout_ms=4000)


@dataclass(frozen=True)
class HubAddress:
    """Where a hub is, and what it is called."""

    address: str
    host: str
    ca_file: str
    port: int = 5671


class MultiplexedDevice:
    """A device; `confirms` whether it waits for the hub's confirmation of each message that it has settled."""

    def __init__(self, name: str, key: bytes, features: Iterable[str], *, confirms: bool = False) -> None:
        self.name, self.key, self.confirms = name, key, confirms
        self.features = frozenset(features)
        self.connection: MultiplexedConnection | None = None
        self.session: ClientSession | None = None
        self.sends: dict[str, SenderLink] = {}
        self.attached: set[object] = set()

    @property
    def is_attached(self) -> bool:
        """Whether the hub has answered for every link."""
        return len(self.attached) == len(self.features & _SENDS) + len(self.features & _RECEIVES)

    def capacity(self, feature: str) -> int:
        """Return how many messages it may send."""
        if not self.is_attached or self.session is None:
            return 0
        return min(self.sends[feature].capacity, self.session.unsettled_capacity)

    def send(self, feature: str, payload: bytes) -> int:
        """Send a message within the capacity; return its delivery ID."""
        assert self.connection is not None
        sent = self.sends[feature].send(payload)
        self.connection.wrote()
        return sent

    def settle(self, event: DeliveryReceived, outcome: Outcome) -> None:
        """Settle a delivery, or wait for the hub's confirmation."""
        assert self.connection is not None
        if self.confirms and self.session is not None:
            number = event.delivery_id
            self.session.write(Disposition(RECEIVER, number, number, settled=False, state=outcome))
        else:
            event.link.settle(event.delivery_id, outcome)
        self.connection.wrote()


class DeviceListener:
    """What happens to devices."""

    def attached(self, device: MultiplexedDevice) -> None:
        """All links are attached."""

    def lost(self, device: MultiplexedDevice) -> None:
        """Links have ended, and are attached again soon."""

    def received(self, device: MultiplexedDevice, feature: str, event: DeliveryReceived) -> None:
        """A message has come; it is settled already but for `DEVICEBOUND`."""

    def settled(self, device: MultiplexedDevice, delivery_id: int, outcome: Outcome | None) -> None:
        """The hub has settled telemetry."""

    def confirmed(self, device: MultiplexedDevice, delivery_id: int, state: Any) -> None:
        """The hub has confirmed an outcome, or told another."""


class _Engine(AmqpClientEngine):
    """Keeps the hub's confirmations of outcomes, which are no events."""

    def __init__(self, host: str) -> None:
        super().__init__(host, container_id="gateway", limits=_LIMITS)
        self.confirmations: list[tuple[ClientSession, Disposition]] = []

    def _route(self, frame: Frame, performative: Performative, payload: bytes) -> None:
        if isinstance(performative, Disposition) and performative.role is SENDER:
            self.confirmations.append((self._incoming[frame.channel], performative))
        super()._route(frame, performative, payload)


class MultiplexedConnection(asyncio.Protocol):
    """One connection and its devices; `run` ends when it is lost, and may be called again."""

    def __init__(self, hub: HubAddress, devices: Iterable[MultiplexedDevice], listener: DeviceListener) -> None:
        self._hub, self._devices, self._listener = hub, list(devices), listener
        self._context = ssl.create_default_context(cafile=hub.ca_file)
        self._by_name = {device.name: device for device in self._devices}
        self.can_write = True
        self.connects = 0
        self.troubles: Counter[str] = Counter()
        self._is_dirty = False
        self._forget()

    def _forget(self) -> None:
        self._transport: Any = None
        self._engine: _Engine | None = None
        self._cbs: SenderLink | None = None
        self._tokens: deque[MultiplexedDevice] = deque()
        self._of_link: dict[object, tuple[MultiplexedDevice, str]] = {}
        self._of_session: dict[int, MultiplexedDevice] = {}
        self._received: dict[tuple[int, int], ReceiverLink] = {}

    async def run(self) -> None:
        """Connect all devices and keep them connected until the connection is lost."""
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        hub = self._hub
        try:
            async with asyncio.timeout(_CONNECT_S):
                await loop.create_connection(
                    lambda: self, hub.address, hub.port, ssl=self._context, server_hostname=hub.host
                )
            while not self._lost.done():
                await asyncio.wait({self._lost}, timeout=0.5)
                if self._engine is not None:
                    self._take(self._engine.check_deadlines(time.monotonic()))
        finally:
            self._end()

    def add(self, devices: Sequence[MultiplexedDevice]) -> None:
        """Connect more devices."""
        self._devices += devices
        self._by_name |= {device.name: device for device in devices}
        if self._cbs is not None:
            self._tokens.extend(devices)
            self._present()
            self.flush()

    def stop(self) -> None:
        """End the connection."""
        if self._engine is not None:
            self._engine.close()
            self.flush()
        self._end()

    def wrote(self) -> None:
        """Send what was written, at the end of this step."""
        if not self._is_dirty:
            self._is_dirty = True
            asyncio.get_running_loop().call_soon(self.flush)

    # ---- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._engine = _Engine(self._hub.host)
        self._engine.begin(time.monotonic())
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._engine is not None:
            self._take(self._engine.receive_data(data, time.monotonic()))

    def pause_writing(self) -> None:
        self.can_write = False

    def resume_writing(self) -> None:
        self.can_write = True

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()

    # ---- inside

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._engine is not None:
            self._engine.discard()
        self._forget()
        for device in self._devices:
            self._lose(device)
        if not self._lost.done():
            self._lost.set_result(None)

    def _lose(self, device: MultiplexedDevice) -> None:
        device.connection, device.session, device.sends = None, None, {}
        device.attached.clear()
        self._listener.lost(device)

    def flush(self) -> None:
        """Send what was written, now."""
        self._is_dirty = False
        if self._engine is not None and (data := self._engine.data_to_send(time.monotonic())):
            self._transport.write(data)

    def _take(self, events: list[AmqpEvent]) -> None:
        for event in events:
            if self._engine is None:
                return
            self._take_one(event)
        if self._engine is not None:
            confirmations, self._engine.confirmations = self._engine.confirmations, []
            for session, disposition in confirmations:
                self._confirm(session, disposition)
        self.flush()

    def _confirm(self, session: ClientSession, disposition: Disposition) -> None:
        last = disposition.first if disposition.last is None else disposition.last
        for delivery_id in range(disposition.first, last + 1):
            link = self._received.pop((session.session_id, delivery_id), None)
            if link is not None and (device := self._of_session.get(session.session_id)) is not None:
                link.settle(delivery_id)  # which renews credit
                self._listener.confirmed(device, delivery_id, disposition.state)

    def _take_one(self, event: AmqpEvent) -> None:
        match event:
            case ConnectionOpened():
                self.connects += 1
                self._open()
            case CreditChanged(link=link) if link is self._cbs:
                self._present()
            case DeliveryReceived(link=link, payload=payload) if link not in self._of_link:
                link.settle(event.delivery_id)
                self._answered(payload)
            case DeliveryReceived():
                self._receive(event)
            case DeliverySettled(link=link) if link in self._of_link:
                for delivery_id in event.delivery_ids:
                    self._listener.settled(self._of_link[link][0], delivery_id, event.outcome)
            case LinkAttached(link=link) if link in self._of_link:
                device, _ = self._of_link[link]
                device.attached.add(link)
                if device.is_attached:
                    self._listener.attached(device)
            case LinkDetached() | SessionEnded() | ConnectionClosed():
                self._take_end(event)
            case _:
                pass

    def _take_end(self, event: LinkDetached | SessionEnded | ConnectionClosed) -> None:
        why = "no error" if event.error is None else str(event.error.condition)
        match event:
            case LinkDetached(link=link):
                if (found := self._of_link.get(link)) is not None:
                    self._restart(found[0], f"link: {why}")
                elif link is self._cbs:
                    self._end()
            case SessionEnded(session_id=session_id):
                if (ended := self._of_session.get(session_id)) is not None:
                    self._restart(ended, f"session: {why}")
            case ConnectionClosed():
                self.troubles[f"connection: {why}"] += 1
                self.flush()
                self._end()

    def _open(self) -> None:
        assert self._engine is not None
        session = self._engine.begin_session()
        self._cbs = session.attach_sender("tokens", CBS_ADDRESS, settled=True)
        session.attach_receiver("answers", CBS_ADDRESS, target_address="answers")
        self._tokens.extend(self._devices)

    def _receive(self, event: DeliveryReceived) -> None:
        device, feature = self._of_link[event.link]
        if feature == DEVICEBOUND:
            self._received[event.link.session_id, event.delivery_id] = event.link
        else:
            event.link.settle(event.delivery_id)
        self._listener.received(device, feature, event)

    def _restart(self, device: MultiplexedDevice, why: str) -> None:
        """Begin a device again, in another session."""
        self.troubles[why] += 1
        if (session := device.session) is not None:
            self._of_session.pop(session.session_id, None)
            self._of_link = {link: one for link, one in self._of_link.items() if one[0] is not device}
            session.end()
        self._lose(device)
        self._soon(device)

    def _soon(self, device: MultiplexedDevice) -> None:
        engine = self._engine

        def present() -> None:
            if self._engine is engine is not None:
                self._tokens.append(device)
                self._present()
                self.flush()

        asyncio.get_running_loop().call_later(_RETRY_S, present)

    def _present(self) -> None:
        """Put the tokens that the credit allows."""
        while self._cbs is not None and self._tokens and self._cbs.capacity:
            device = self._tokens.popleft()
            resource = f"{self._hub.host}/devices/{device.name}"
            token = render_sas(resource, hmac_sha256(device.key), datetime.now(UTC) + timedelta(hours=1))
            self._cbs.send(put_token_request(resource, token, device.name, reply_to="answers"))

    def _answered(self, payload: bytes) -> None:
        answer = read_put_token_answer(payload)
        device = self._by_name[answer.correlation_id]
        if answer.is_ok:
            self._begin(device)
        else:
            self.troubles[f"token: {answer.status}"] += 1
            self._soon(device)

    def _begin(self, device: MultiplexedDevice) -> None:
        assert self._engine is not None
        device.connection, device.session = self, self._engine.begin_session()
        self._of_session[device.session.session_id] = device
        for feature in sorted(device.features):
            address = f"/devices/{device.name}/{feature}"
            pair = {Symbol(CHANNEL): str(uuid.uuid4())} if feature in _SENDS & _RECEIVES else None
            if feature in _SENDS:
                settled = feature != EVENTS
                link = device.session.attach_sender(f"to {feature}", address, settled=settled, properties=pair)
                device.sends[feature] = link
                self._of_link[link] = device, feature
            if feature in _RECEIVES:
                mode = int(device.confirms and feature == DEVICEBOUND)
                received = device.session.attach_receiver(
                    f"from {feature}", address, rcv_settle_mode=mode, properties=pair
                )
                self._of_link[received] = device, feature


async def keep_connected(connection: MultiplexedConnection, over: asyncio.Event) -> None:
    """Connect again and again until it is over."""
    while not over.is_set():
        with contextlib.suppress(OSError, TimeoutError):
            await connection.run()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await over.wait()
