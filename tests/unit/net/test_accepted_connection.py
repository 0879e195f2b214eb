"""How a connection ends."""

import asyncio
import contextlib
import errno
import itertools
import socket
import sys
import typing
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from birthmark.net import fair_scheduler
from birthmark.net.accepted_connection import Connection, ConnectionHost
from birthmark.net.fair_scheduler import SLICE_S, TURN_S, Backlog
from birthmark.net.listener import ClearConnection, Listeners, _Port
from birthmark.net.listener_limits import Limits
from birthmark.net.send_buffer_quota import SMALL_BYTES
from support.fakes import FakeClock


class ResetByPeer(asyncio.Transport):
    """What a socket is like when the peer has reset it and nobody was told yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def is_closing(self) -> bool:
        return self.is_aborted

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.is_aborted = True


def test_closing_what_the_peer_has_reset_ends_it() -> None:
    raw = ResetByPeer()
    connection = ClearConnection(typing.cast("ConnectionHost", None))
    connection._raw = raw
    connection.close()
    assert raw.is_aborted


async def test_what_is_queued_for_a_line_that_is_gone_is_not_counted_again() -> None:
    listeners = Listeners(FakeClock(), Limits(), lambda *_: None)
    await listeners.listen(["127.0.0.1"], 0, None, {})
    _, writer = await asyncio.open_connection("127.0.0.1", listeners.doors[0].port)
    async with asyncio.timeout(5):
        while not listeners._connections:
            await asyncio.sleep(0.01)
        (connection,) = listeners._connections
        assert connection.can_buffer(SMALL_BYTES)
        assert listeners._unread.used == SMALL_BYTES
        writer.transport.abort()
        while listeners._connections:
            await asyncio.sleep(0.01)
    assert not connection.can_buffer(SMALL_BYTES), "a WebSocket's pump is told of it later"
    assert listeners._unread.used == 0
    await listeners.close()


LAST_WORD, PAGE = b"Goodbye.", bytes(4096)


class Talker(asyncio.Protocol):
    """Says so much to whoever says anything."""

    def __init__(self, says: bytes) -> None:
        self.says = says
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = typing.cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        del data
        self.transport.write(self.says)


@contextlib.asynccontextmanager
async def talking(
    says: bytes, clock: FakeClock, **limits: int
) -> AsyncIterator[tuple[Listeners, Talker, socket.socket]]:
    """A real connection to a peer that has asked, and reads nothing by itself."""
    listeners, talker = Listeners(clock, Limits(), lambda *_: None), Talker(says)
    await listeners.listen(["127.0.0.1"], 0, None, {"http": lambda _peer: talker})
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", listeners.doors[0].port))
        peer.send(b"?")
        await asyncio.sleep(0.1)
        yield listeners, talker, peer
    await listeners.close()


async def read_until(peer: socket.socket, size: int = sys.maxsize) -> tuple[int, bool]:
    """Return how much came, so much or until the end, and whether it was an end in peace."""
    got = 0
    async with asyncio.timeout(5):
        await asyncio.sleep(0.1)  # whoever ends the connection does it now
        while got < size:
            try:
                data = await asyncio.get_running_loop().sock_recv(peer, 4096)
            except ConnectionResetError:
                return got, False
            if not data:
                break
            got += len(data)
    return got, True


async def test_the_kernel_keeps_nothing_long_for_a_peer_that_does_not_read_when_its_connection_is_ended() -> None:
    async with talking(PAGE * 30, FakeClock()) as (_, talker, peer):
        talker.transport.abort()
        got, is_in_peace = await read_until(peer)
    assert (got < len(PAGE) * 30, is_in_peace) == (True, False)


async def test_last_words_arrive_though_the_connection_is_ended_at_once() -> None:
    async with talking(LAST_WORD, FakeClock()) as (_, talker, peer):
        talker.transport.abort()
        assert await read_until(peer) == (len(LAST_WORD), True)


async def test_a_slow_line_takes_what_was_said_before_the_end_in_its_own_time() -> None:
    clock = FakeClock()
    async with talking(PAGE * 30, clock) as (listeners, talker, peer):
        talker.transport.close()
        got = 0
        for _ in range(5):
            clock.move(timedelta(seconds=11))
            listeners._sweep_deadlines()
            got += (await read_until(peer, 5 * len(PAGE)))[0]
        rest, is_in_peace = await read_until(peer)
    assert (got + rest, is_in_peace) == (len(PAGE) * 30, True)


async def test_a_peer_that_takes_nothing_after_the_end_is_let_go() -> None:
    clock = FakeClock()
    async with talking(PAGE * 30, clock) as (listeners, talker, peer):
        talker.transport.close()
        for _ in range(2):
            clock.move(timedelta(seconds=11))
            listeners._sweep_deadlines()
        assert (await read_until(peer))[1] is False


MUCH = bytes(6 * 1024 * 1024)


async def turned(listeners: Listeners, clock: FakeClock, times: int) -> None:
    for _ in range(times):
        clock.move(timedelta(seconds=11))
        listeners._sweep_deadlines()
        await asyncio.sleep(0.05)


async def test_what_waits_for_a_peer_of_a_connection_that_was_closed_makes_room_for_others() -> None:
    clock = FakeClock()
    async with talking(MUCH, clock) as (listeners, talker, _peer):
        talker.transport.close()
        (closed,) = listeners._connections
        listeners._unread.each = 1024 * 1024
        listeners.count_unread(closed, closed.unread_bytes)
        await asyncio.sleep(0.1)
        assert not listeners._connections


async def test_a_peer_that_ended_its_side_and_does_not_read_is_let_go() -> None:
    clock = FakeClock()
    async with talking(MUCH, clock) as (listeners, _talker, peer):
        peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.1)
        assert listeners._connections
        await turned(listeners, clock, 3)
        assert not listeners._connections


async def test_what_a_peer_has_begun_and_not_finished_counts_as_what_is_kept_for_it() -> None:
    async with talking(LAST_WORD, FakeClock()) as (listeners, _talker, _peer):
        (connection,) = listeners._connections
        connection.record_incomplete(200_000)
        assert listeners._unread.used >= 200_000
        connection.record_incomplete(10)
        assert listeners._unread.used == 0


A_RECORD = b"\x17\x03\x03\x00\x01x"


class Opened:
    """TLS that hands on each record as one byte; the handshake is done."""

    def __init__(self) -> None:
        self.plain: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self.plain += [b"x"] * (len(data) // len(A_RECORD))

    def read(self) -> bytes:
        return self.plain.pop() if self.plain else b""

    def drain(self) -> bytes:
        return b""

    def close(self) -> None: ...

    @property
    def is_dry(self) -> bool:
        return not self.plain


class Heard(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


class Reading(ResetByPeer):
    is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("192.0.2.1", 1) if name == "peername" else default

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Leaf:
    def __init__(self, name: bytes) -> None:
        self.thumbprint = name


@pytest.mark.parametrize(("whose", "waits"), [(b"many", True), (b"another", False)])
async def test_a_connection_waits_for_its_own_owners_turn_and_for_nobody_elses(whose: bytes, waits: bool) -> None:
    host = Listeners(FakeClock(), Limits(), lambda *_: None)
    connection, heard = Connection(_Port(host, {}), None), Heard()
    some: typing.Any = connection
    some._tls, some._inner, some._is_secure, some._is_unauthenticated = Opened(), heard, True, False
    raw = Reading()
    connection.connection_made(raw)
    some._is_unauthenticated, some._owner = False, whose.hex()
    turns = []
    Backlog.running().add(lambda: turns.append(heard.data), b"many".hex())
    connection.data_received(A_RECORD)
    assert (heard.data, raw.is_paused) == ((b"", True) if waits else (b"x", False))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (heard.data, raw.is_paused) == (b"x", False)
    assert turns == [b"" if waits else b"x"]


def a_connection(host: Listeners) -> tuple[Connection, Heard, Reading]:
    connection, heard, raw = Connection(_Port(host, {}), None), Heard(), Reading()
    some: typing.Any = connection
    some._tls, some._inner, some._is_secure = Opened(), heard, True
    connection.connection_made(raw)
    return connection, heard, raw


async def test_what_many_connections_of_an_owner_bring_in_one_round_is_counted_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks) * SLICE_S * 0.6)  # a read is this much work
    host = Listeners(FakeClock(), Limits(), lambda *_: None)
    known = [a_connection(host) for _ in range(50)]
    for connection, _, _ in known:
        connection.data_received(A_RECORD)
    at_once = sum(not raw.is_paused for _, _, raw in known)
    assert at_once <= TURN_S / SLICE_S / 0.6 + 1
    assert [bool(heard.data) for _, heard, _ in known] == [True] * at_once + [False] * (50 - at_once)
    for looks in range(1, 100):
        await asyncio.sleep(0)
        heard_of = sum(bool(heard.data) for _, heard, _ in known)
        assert heard_of <= at_once + 2 * looks * TURN_S / SLICE_S
        if heard_of == len(known):
            break
    assert not any(raw.is_paused for _, _, raw in known)


async def test_a_handshake_waits_for_its_turn_when_the_round_is_full_and_nobody_says_it_was_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: list[object] = []
    host = Listeners(FakeClock(), Limits(), lambda error, *_: refused.append(error))
    shaken = 0

    def shake(connection: Connection) -> bool:
        nonlocal shaken
        shaken += 1
        return False

    monkeypatch.setattr(Connection, "_continue_handshake", shake)
    host.backlog._spent = 2 * TURN_S
    newcomers = [a_connection(host)[0] for _ in range(3)]
    for number, connection in enumerate(newcomers):
        some: typing.Any = connection
        some._is_secure, some._awaits_trust, some.address = False, True, f"192.0.2.{number}"
        connection.data_received(A_RECORD)
    assert shaken == 0
    newcomers[0].connection_lost(None)
    assert refused == [], "its word on our certificate waits here"
    async with asyncio.timeout(5):
        while shaken < 2:  # a turn of a process that was kept from its core is over before it began
            await asyncio.sleep(0)
    assert shaken == 2


async def test_ends_that_come_together_are_work_of_their_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks) * TURN_S * 2)
    host = Listeners(FakeClock(), Limits(), lambda *_: None)
    connection, _, _ = a_connection(host)
    assert not host.backlog.is_behind(connection.owner)
    connection.connection_lost(None)
    assert host.backlog.is_behind(connection.owner)
