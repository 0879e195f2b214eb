"""Who waits before a listening socket is let in soon, however busy the loop is, by a slice of each turn."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from birthmark.net.acceptor import AT_ONCE, Acceptor


class Guest(asyncio.Protocol):
    """Somebody who was let in."""

    def __init__(self, here: list["Guest"]) -> None:
        self.here = here

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.here.append(self)


class Lobby:
    """A door, who came by it, and who waits before it."""

    def __init__(self, refuses: Callable[[str], bool]) -> None:
        self.here: list[Guest] = []
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.door = Acceptor(self.listening, lambda _address: Guest(self.here), refuses)
        self.waiting: list[socket.socket] = []

    def come(self, count: int) -> None:
        self.waiting += [socket.create_connection(("127.0.0.1", self.door.port)) for _ in range(count)]

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)


@asynccontextmanager
async def a_lobby(refuses: Callable[[str], bool] = lambda _address: False) -> AsyncIterator[Lobby]:
    lobby = Lobby(refuses)
    try:
        yield lobby
    finally:
        lobby.door.close()
        for guest in lobby.here:
            guest.transport.close()
        for one in lobby.waiting:
            one.close()
        await asyncio.sleep(0)


async def test_many_are_let_in_at_one_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.net.acceptor.now", lambda: 0.0)
    async with a_lobby() as lobby:
        lobby.come(AT_ONCE + 1)
        await lobby.turns(1)
        await asyncio.sleep(0.05)
        assert len(lobby.here) == AT_ONCE + 1


async def test_no_turn_lets_more_in_than_a_slice_of_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 1.0])
    monkeypatch.setattr("birthmark.net.acceptor.now", lambda: next(times, 1.0))
    async with a_lobby() as lobby:
        lobby.come(10)
        lobby.door._let_in()
        assert len(lobby.door._coming) == 1


async def test_whoever_is_refused_never_has_a_connection() -> None:
    async with a_lobby(lambda address: address == "127.0.0.1") as lobby:
        lobby.come(3)
        await asyncio.sleep(0.05)
        assert not lobby.here
        assert [one.recv(1) for one in lobby.waiting] == [b"", b"", b""]


async def test_without_descriptors_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_lobby() as lobby:
        whole = lobby.door._socket

        class Full:
            fileno, getsockname, close = whole.fileno, whole.getsockname, whole.close

            def accept(self) -> tuple[socket.socket, object]:
                raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(lobby.door, "_socket", Full())
        lobby.come(1)
        lobby.door._let_in()
        assert not lobby.here
        monkeypatch.setattr(lobby.door, "_socket", whole)
        await asyncio.sleep(0.2)
        assert len(lobby.here) == 1


async def test_one_that_was_closed_lets_nobody_in() -> None:
    async with a_lobby() as lobby:
        port = lobby.door.port
        lobby.door.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
