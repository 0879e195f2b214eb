"""A TLS connection that costs little when idle: the ssl library's socket, monitored by the event loop.

asyncio's TLS allocates a quarter of a megabyte of buffers per connection, and a context per device costs as much as the
connection. Here all devices of a run share one context. OpenSSL copies certificate and key into a connection when it is
created, so they are loaded immediately before, in the loop's only thread.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from birthmark.device_transports.errors import LinkLostError
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.certificate_time import check_dates
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.device_transports.urls import TIMEOUT_S
from birthmark.errors import BirthmarkError
from birthmark.keys.errors import KeyFileInvalidError
from birthmark.untrusted_json_and_text import reason_of

_ROOM = memoryview(bytearray(64 * 1024))  # shared read buffer of all connections, in turns
_MAX_UNSENT_BYTES = 1024 * 1024
_READS_A_TURN = 16
_CLOSED = "the server closed it"
_ADDRESS_S = 60.0
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_TRY_AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)

_Address: TypeAlias = tuple[int, tuple[Any, ...]]
OnData = Callable[[bytes], None]
OnEnd = Callable[[BirthmarkError], None]


@dataclass(slots=True)
class Dialer:
    """Opens connections to servers that `trust` verifies."""

    trust: ServerTrust
    tls: str = ""
    alpn: tuple[str, ...] = ()
    _context: ssl.SSLContext | None = None
    _bare: ssl.SSLContext | None = None
    """Context for connections without a client certificate; no certificate is ever loaded into it."""
    _addresses: dict[tuple[str, int], tuple[float, list[_Address]]] = field(default_factory=dict)

    async def open(self, host: str, port: int, pem: Path | None) -> "ByteStream":
        """Return a connection after its handshake; `pem` has key and chain. Raise an error of the transports.

        With TLS 1.3 a server rejects a client certificate only after that, so the first read reports it.
        """
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                sock = await self.dial(host, port)
                tls = self._wrapped(sock, host, pem)
                sock = tls
                await _shake_hands(tls)
            check_dates(tls, self.trust, host, port)
        except OSError as error:
            _close(sock)
            raise translate_error(error, host, port) from error
        except BaseException:
            _close(sock)
            raise
        return ByteStream(tls, host, port)

    async def dial(self, host: str, port: int) -> socket.socket:
        """Return a connection without TLS, to the first address of the host that accepts it. Raise `OSError`."""
        addresses = await self._resolved(host, port)
        for place, address in enumerate(addresses):
            try:
                sock = await _connected(*address)
            except OSError:
                if place == len(addresses) - 1:
                    raise
            else:
                addresses[0], addresses[place] = address, addresses[0]  # start for the next device
                return sock
        raise OSError(errno.EADDRNOTAVAIL, "the name has no address")

    async def _resolved(self, host: str, port: int) -> list[_Address]:
        """Return the addresses of a host name, cached for one minute for all devices."""
        loop = asyncio.get_running_loop()
        known = self._addresses.get((host, port))
        if known is None or known[0] < loop.time():
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            known = loop.time() + _ADDRESS_S, [(int(family), address) for family, _, _, _, address in found]
            self._addresses[host, port] = known
        return known[1]

    def _wrapped(self, sock: socket.socket, host: str, pem: Path | None) -> ssl.SSLSocket:
        if pem is None:
            context = self._bare = self._bare or self._made()
        else:
            context = self._context = self._context or self._made()
            try:
                context.load_cert_chain(pem, password=lambda: "")
            except (ssl.SSLError, OSError) as error:
                reason = (getattr(error, "reason", None) or reason_of(error)).lower()
                raise KeyFileInvalidError(path=pem, detail=f"OpenSSL rejects it: {reason}") from error
        return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)

    def _made(self) -> ssl.SSLContext:
        context = client_context(None, self.trust)
        if self.tls:
            context.minimum_version = context.maximum_version = _VERSIONS[self.tls]
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


async def _connected(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _shake_hands(tls: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(loop.add_reader, loop.remove_reader, tls)
        except ssl.SSLWantWriteError:
            await _ready(loop.add_writer, loop.remove_writer, tls)
        else:
            return


async def _ready(add: Callable[..., None], remove: Callable[[int], bool], sock: socket.socket) -> None:
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    number = sock.fileno()
    add(number, _release, waiting)
    try:
        await waiting
    finally:
        remove(number)


def _release(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


class ByteStream:
    """A bidirectional byte stream; listeners receive data and the end of the connection."""

    __slots__ = ("_number", "_on_data", "_on_end", "_tls", "_unsent", "host", "port")

    def __init__(self, tls: ssl.SSLSocket, host: str, port: int) -> None:
        self._tls: ssl.SSLSocket | None = tls
        self._number = tls.fileno()
        self.host, self.port = host, port
        self._unsent = b""
        self._on_data: OnData | None = None
        self._on_end: OnEnd | None = None

    def listen(self, on_data: OnData, on_end: OnEnd) -> None:
        """Start to read. No callback follows `close`, and the end is reported once."""
        self._on_data, self._on_end = on_data, on_end
        asyncio.get_running_loop().add_reader(self._number, self._read)

    def write(self, data: bytes) -> None:
        """Send data, and buffer what cannot be sent immediately."""
        if self._tls is None or not data:
            return
        if self._unsent:
            self._unsent += data
            if len(self._unsent) > _MAX_UNSENT_BYTES:
                self._end(LinkLostError(host=self.host, reason="the server does not read"))
            return
        self._unsent = data
        self._send()

    def close(self, *, politely: bool = True) -> None:
        """Close the connection; with `politely` notify the peer, otherwise cut it as a network failure does."""
        tls, self._tls = self._tls, None
        if tls is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._number)
        loop.remove_writer(self._number)
        self._on_data = self._on_end = None
        self._unsent = b""
        if politely:
            with contextlib.suppress(OSError, ValueError):
                tls.unwrap()
        _close(tls)

    def _read(self) -> None:
        for _ in range(_READS_A_TURN):
            tls = self._tls
            if tls is None or self._on_data is None:
                return
            try:
                size = tls.recv_into(_ROOM)
            except _TRY_AGAIN:
                return
            except OSError as error:
                self._end(translate_error(error, self.host, self.port))
                return
            if not size:
                self._end(LinkLostError(host=self.host, reason=_CLOSED))
                return
            self._on_data(bytes(_ROOM[:size]))
        asyncio.get_running_loop().call_soon(self._read)  # yield to others; data inside TLS triggers no read event

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while self._tls is not None and self._unsent:
            try:
                sent = self._tls.send(self._unsent)
            except _TRY_AGAIN:
                loop.add_writer(self._number, self._send)
                return
            except OSError as error:
                # The server's last message is worth more than the fact that it closed: the reader reports it.
                if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    self._end(translate_error(error, self.host, self.port))
                return
            self._unsent = self._unsent[sent:]
        loop.remove_writer(self._number)

    def _end(self, error: BirthmarkError) -> None:
        on_end = self._on_end
        self.close(politely=False)
        if on_end is not None:
            on_end(error)


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.close()
