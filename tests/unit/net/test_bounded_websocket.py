"""Frames without end: taken for a slice of time at a time, all of them, in order."""

import asyncio
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from birthmark.net import bounded_websocket, fair_scheduler
from birthmark.net.bounded_websocket import PIECE_BYTES, BoundedWebSocket
from support.floods.unauthenticated import masked

REQUEST = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Transport(asyncio.Transport):
    """A transport below, whose peer is no stranger."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = SimpleNamespace(is_unauthenticated=False, owner="one")
        self.holds = 0
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def pause_reading(self) -> None:
        self.holds += 1

    def resume_reading(self) -> None:
        self.holds -= 1

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing


async def opened(received: list[bytes]) -> tuple[BoundedWebSocket, Transport]:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            received.append(event["bytes"])

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_ping_interval=None)
    config.load()
    protocol, transport = BoundedWebSocket(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    protocol.data_received(REQUEST)
    await turns()
    return protocol, transport


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each look at the clock find that a slice is used up."""
    ticks = count(step=2 * fair_scheduler.SLICE_S)
    monkeypatch.setattr(bounded_websocket, "now", lambda: next(ticks))


def test_a_record_of_tiny_frames_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        received: list[bytes] = []
        protocol, transport = await opened(received)
        slow_clock(monkeypatch)
        waited: list[bool] = []
        asyncio.get_running_loop().call_soon(lambda: waited.append(not received))
        protocol.data_received(b"".join(masked(bytes([number % 256])) for number in range(2000)))
        assert transport.holds, "more is read while there is a rest"
        monkeypatch.undo()
        await turns()
        assert waited == [True], "nobody else had a turn"
        assert b"".join(received) == bytes(number % 256 for number in range(2000))
        assert transport.holds == 0

    asyncio.run(run())


@pytest.mark.parametrize("is_closed_here", [True, False])
def test_what_is_left_of_a_connection_that_ends_is_let_go(
    monkeypatch: pytest.MonkeyPatch, *, is_closed_here: bool
) -> None:
    async def run() -> None:
        received: list[bytes] = []
        protocol, transport = await opened(received)
        slow_clock(monkeypatch)
        protocol.data_received(masked(b"x") * 2000)
        monkeypatch.undo()
        if is_closed_here:
            transport.close()
        else:
            protocol.connection_lost(ConnectionResetError())
        await turns()
        assert len(b"".join(received)) < 2000

    asyncio.run(run())


@pytest.mark.parametrize("fragments", [1, 5])
def test_a_message_that_never_ends_is_handed_on_as_it_comes(fragments: int) -> None:
    async def run() -> None:
        received: list[bytes] = []
        protocol, _ = await opened(received)
        payload = bytes(number % 251 for number in range(200_000))
        size = len(payload) // fragments
        sent = b"".join(
            Frame(Opcode.CONT if at else Opcode.BINARY, payload[at : at + size], fin=False).serialize(mask=True)
            for at in range(0, len(payload), size)
        )
        for at in range(0, len(sent) - 1, 8192):
            protocol.data_received(sent[at : min(at + 8192, len(sent) - 1)])
            await turns()
        got = b"".join(received)
        assert payload.startswith(got)
        assert len(payload) - len(got) <= PIECE_BYTES

    asyncio.run(run())


def test_a_ping_as_long_as_a_message_is_refused_at_its_head() -> None:
    async def run() -> None:
        protocol, transport = await opened([])
        protocol.data_received(b"\x89\xff" + (500_000).to_bytes(8) + bytes(4))
        await turns()
        assert transport.closing

    asyncio.run(run())


async def test_an_invalid_frame_before_the_answer_to_the_request_is_refused() -> None:
    """It has no close frame: the library raised, and each connection of a stranger wrote a trace to the log."""

    decided = asyncio.Event()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await decided.wait()
        await send({"type": "websocket.accept"})

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_ping_interval=None)
    config.load()
    protocol, transport = BoundedWebSocket(config, ServerState(), {}), Transport()
    refused: list[object] = []
    transport.connection.refused = refused.append
    protocol.connection_made(transport)
    protocol.data_received(REQUEST)
    await turns()
    protocol.data_received(masked(b"x", Opcode.CONT))
    assert transport.closing
    assert len(refused) == 1
    protocol.connection_lost(None)
    decided.set()
    await turns()
    assert not protocol.tasks


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"https://hub.example:443/$iothub/websocket?a=https://b", "/$iothub/websocket", b"a=https://b"),
        (b"HTTP://hub.example/mqtt", "/mqtt", b""),
        (b"/mqtt?a=1", "/mqtt", b"a=1"),
    ],
)
async def test_a_target_in_absolute_form_is_read_as_its_path(target: bytes, path: str, query: bytes) -> None:
    """Section 3.2.2 of RFC 9112; the device SDK of Azure for Java sends it."""
    asked: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        await receive()
        await send({"type": "websocket.accept"})

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_ping_interval=None)
    config.load()
    protocol, transport = BoundedWebSocket(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    protocol.data_received(REQUEST.replace(b"/mqtt", target, 1))
    await turns()
    assert [(one["path"], one["query_string"]) for one in asked] == [(path, query)]
    protocol.connection_lost(None)
    await turns()
