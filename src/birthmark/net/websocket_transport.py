"""MQTT and AMQP over WebSocket: a protocol's driver behind an ASGI WebSocket.

The payload of binary messages is one byte stream; clients may split packets and frames across messages (MQTT 3.1.1
section 6).
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from birthmark.net.accepted_connection import Connection
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.net.errors import WebSocketSubprotocolError
from birthmark.net.fair_scheduler import Backlog
from birthmark.net.mqtt_driver import MqttDriver, MqttTransport, Report
from birthmark.net.tls import TlsPeer

AMQP_SUBPROTOCOL = "AMQPWSB10"
_CLOSE_S = 10.0
_HIGH_WATER_BYTES, _LOW_WATER_BYTES = 128 * 1024, 32 * 1024
_MAX_OFFERED = 100


class ProtocolDriver(Protocol):
    """Driver of a protocol, as this module calls it."""

    @property
    def is_over(self) -> bool: ...

    @property
    def owner(self) -> str: ...

    def start(self, transport: MqttTransport, address: str) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    async def wait_for_turn(self) -> None: ...


class _OverWebSocket:
    """Transport of a driver over a WebSocket: a queue that a sender task empties."""

    def __init__(self, connection: Connection | None, driver: ProtocolDriver | None = None) -> None:
        self._connection = connection
        self._driver = driver
        self._waits_for_peer = False
        self.outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        self._queued += len(data)
        self.outgoing.put_nowait(data)
        if self._queued > _HIGH_WATER_BYTES and self._driver is not None and not self._waits_for_peer:
            self._waits_for_peer = True
            self._driver.pause_writing()
        if self._connection is not None:
            self._connection.queued_bytes = self._queued
            if not self._connection.can_buffer(self._connection.unread_bytes):
                self.close()

    def sent(self, size: int) -> None:
        self._queued -= size
        if self._waits_for_peer and self._driver is not None and self._queued <= _LOW_WATER_BYTES:
            self._waits_for_peer = False
            self._driver.resume_writing()
        if self._connection is not None:
            self._connection.queued_bytes = self._queued

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.set_deadline(None)
            self.outgoing.put_nowait(None)
            if self._connection is not None:  # a peer that reads nothing blocks the sender's end
                self._connection.set_deadline(_CLOSE_S, self._connection.abort)
            self.may_read.set()  # no later event resumes it

    def pause_reading(self) -> None:
        self.may_read.clear()

    def resume_reading(self) -> None:
        self.may_read.set()

    def record_incomplete(self, size: int) -> None:
        if self._connection is not None:
            self._connection.record_incomplete(size)

    def mark_authenticated(self, owner: str) -> None:
        if self._connection is not None:
            self._connection.set_deadline(None)  # from now on keep alive applies
            self._connection.mark_authenticated(owner)

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(after_s, act or self.close)


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """Return the subprotocol to answer with, in the client's spelling; None if the client offers none.

    A client closes an upgrade without a subprotocol that it offered. SDKs before MQTT 3.1.1 offer `mqttv3.1`, others
    `MQTT`. Raise `WebSocketSubprotocolError`.
    """
    named = [one for one in offered if one.lower().startswith("mqtt")]
    if offered and not named:
        raise WebSocketSubprotocolError(offered=", ".join(offered)[:_MAX_OFFERED])
    return "mqtt" if "mqtt" in named else next(iter(named), None)


def offers_amqp(websocket: WebSocket) -> bool:
    """Return whether a client offers the subprotocol of AMQP, and none of MQTT."""
    offered = [one.upper() for one in websocket.scope.get("subprotocols") or []]
    return AMQP_SUBPROTOCOL in offered and not any(one.startswith("MQTT") for one in offered)


async def serve_mqtt(websocket: WebSocket, make_driver: Callable[[TlsPeer], MqttDriver], report: Report) -> None:
    """Run one MQTT connection over `websocket` until either side closes it."""
    extensions = websocket.scope["extensions"]
    try:
        subprotocol = choose_subprotocol(websocket.scope.get("subprotocols") or [])
    except WebSocketSubprotocolError as error:
        report(error, websocket.client.host if websocket.client else "", extensions["tls"])
        await websocket.close()  # before acceptance: 403
        return
    await _serve(websocket, make_driver(extensions["tls"]), subprotocol)


async def serve_amqp(websocket: WebSocket, make_driver: Callable[[TlsPeer], AmqpDriver]) -> None:
    """Run one AMQP connection over `websocket` until either side closes it."""
    await _serve(websocket, make_driver(websocket.scope["extensions"]["tls"]), AMQP_SUBPROTOCOL)


async def _serve(websocket: WebSocket, driver: ProtocolDriver, subprotocol: str | None) -> None:
    connection: Connection | None = websocket.scope["extensions"].get("connection")
    transport = _OverWebSocket(connection, driver)
    try:
        await websocket.accept(subprotocol=subprotocol)
    except WebSocketDisconnect:
        return
    driver.start(transport, websocket.client.host if websocket.client else "")
    backlog = Backlog.running()
    sender = asyncio.create_task(_send(websocket, transport))
    try:
        while not driver.is_over:
            await transport.may_read.wait()
            if not driver.is_over:
                data = await websocket.receive_bytes()
                await driver.wait_for_turn()
                backlog.begin()
                driver.data_received(data)
                backlog.end(driver.owner)
    except (WebSocketDisconnect, RuntimeError, KeyError):
        # RuntimeError: the peer was gone before the send; KeyError: a text message, which both protocols forbid.
        pass
    finally:
        driver.connection_lost(None if connection is None else connection.problem)
        transport.close()
        await sender


async def _send(websocket: WebSocket, transport: _OverWebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: the peer closed first
        while (data := await transport.outgoing.get()) is not None:
            await websocket.send_bytes(data)
            transport.sent(len(data))
        await websocket.close()
