"""A fault proxy between devices and a test server: it can cut, break or stall connections.

It accepts connections at the address that devices know and forwards the bytes unchanged to the server's address.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import cast

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: unsent data is dropped, and the peer gets an RST


class LineState(StrEnum):
    """How the proxy treats connections."""

    THROUGH = "through"
    CUT = "cut"
    """Reset every connection and accept no new ones."""
    STALL = "stall"
    """Keep connections open, but transfer nothing in either direction; accept new ones without a response."""
    BREAK = "break"
    """Reset every connection once, immediately or after a number of bytes; accept new ones."""


class FaultProxy:
    """A proxy between the addresses `front` and `behind`, on several ports. `lay` binds the available ports."""

    def __init__(self, front: str, behind: str) -> None:
        self._front, self._behind = front, behind
        self._ports: list[int] = []
        self._servers: list[asyncio.Server] = []
        self._ends: set[_End] = set()
        self._budget: int | None = None
        self.state = LineState.THROUGH

    async def bind_ports(self, ports: Sequence[int]) -> None:
        """Listen on the front address, on those of the ports on which the server listens."""
        for port in ports:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._behind, port)
                writer.close()
                self._ports.append(port)
        await self._listen()

    async def set_state(self, state: LineState, after_bytes: int = 0) -> None:
        """Set the state. With `BREAK`, `after_bytes` bytes from devices pass first."""
        self.state, self._budget = state, None
        if state is LineState.BREAK:
            self.state = LineState.THROUGH
            if after_bytes:
                self._budget = after_bytes
            else:
                self._drop()
        if state is LineState.CUT:
            self._close_doors()
            self._drop()
            return
        if not self._servers:
            await self._listen()
        for end in self._ends:
            end.hold(is_held=state is LineState.STALL)

    async def close(self) -> None:
        """Stop the proxy and close its connections."""
        self._close_doors()
        self._drop()
        await asyncio.sleep(0)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for port in self._ports:
            make = partial(_End, self, self._behind, port)
            self._servers.append(await loop.create_server(make, self._front, port))

    def _close_doors(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    def _drop(self) -> None:
        for end in tuple(self._ends):
            end.drop()

    # Callbacks of connection ends.

    def came(self, end: "_End") -> None:
        self._ends.add(end)
        if self.state is LineState.STALL:
            end.hold(is_held=True)

    def went(self, end: "_End") -> None:
        self._ends.discard(end)

    def take_passing_bytes(self, data: bytes) -> bytes:
        """Return the part of a device's bytes that passes before the connection breaks."""
        if self._budget is None:
            return data
        part = data[: self._budget]
        self._budget -= len(part)
        if not self._budget:
            self._budget = None
            asyncio.get_running_loop().call_soon(self._drop)
        return part


class _End(asyncio.Protocol):
    """One end of a proxied connection: the device's, or with `other` the server's."""

    def __init__(self, line: FaultProxy, host: str, port: int, other: "_End | None" = None) -> None:
        self._line, self._host, self._port = line, host, port
        self._is_devices = other is None
        self._other = other
        self._transport: asyncio.Transport | None = None
        self._waiting = b""
        self._is_over = self._is_full = self._is_held = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._line.came(self)
        if self._is_devices:
            self._task = asyncio.get_running_loop().create_task(self._reach())

    async def _reach(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(
                lambda: _End(self._line, self._host, self._port, self), self._host, self._port
            )
        except OSError:
            self.drop()
            return
        self._other = made
        if self._is_over:
            made.drop()
            return
        self.send(b"")
        waiting, self._waiting = self._waiting, b""
        made.send(waiting)

    def data_received(self, data: bytes) -> None:
        passing = self._line.take_passing_bytes(data) if self._is_devices else data
        if self._other is None:
            self._waiting += passing
        else:
            self._other.send(passing)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._line.went(self)
        self._is_over = True
        if self._other is not None:
            self._other.end(is_reset=exc is not None)

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.set_full(is_full=True)

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.set_full(is_full=False)

    def send(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def set_full(self, *, is_full: bool) -> None:
        self._is_full = is_full
        self._pause()

    def hold(self, *, is_held: bool) -> None:
        self._is_held = is_held
        self._pause()

    def _pause(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_full or self._is_held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def end(self, *, is_reset: bool) -> None:
        """Close or reset this end, as the other end was."""
        if is_reset:
            self.drop()
        elif self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """Reset the connection immediately."""
        if self._transport is None or self._is_over:
            return
        self._is_over = True
        found = self._transport.get_extra_info("socket")
        if found is not None:
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()
