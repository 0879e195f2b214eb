"""Listening socket with admission control.

The event loop's own servers accept one connection per iteration, and an iteration takes milliseconds under load. A fast
client could fill the kernel's queue, which has no shares per address, and delay all others for seconds.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from birthmark.net.fair_scheduler import SLICE_S, now
from birthmark.net.proxy_protocol import HEAD_BYTES, Proxies, ProxyHeaderError, rest_of, source_of
from birthmark.supervised_tasks import told

log = logging.getLogger(__name__)

AT_ONCE = 32
"""Connections accepted per loop iteration; refused connections do not count, within the time slice."""
FEW_AT_ONCE = 4
"""The same if new connections evict accepted ones, which then have some iterations to send a request."""
HEADER_S = 5.0
MAX_HEADERS = 1024
"""Maximum number of load balancer connections with a pending PROXY header.

`HEADER_S` is the time limit of one.
"""
_AGAIN_S = 0.1  # when the process is out of descriptors
QUEUE = 4096
"""Length of the kernel's accept queue."""
_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Accepts connections with `make` unless `refuses` rejects the client address.

    A connection from one of `proxies` starts with a PROXY header and counts for the address in it.
    """

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[str], asyncio.BaseProtocol],
        refuses: Callable[[str], bool],
        at_once: int = AT_ONCE,
        proxies: Proxies | None = None,
    ) -> None:
        listening.settimeout(0)
        self._socket = listening
        self._make, self._refuses, self._at_once, self._proxies = make, refuses, at_once, proxies
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._open()

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop accepting connections."""
        if self._later is not None:
            self._later.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _open(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket.fileno(), self._let_in)

    def _let_in(self) -> None:
        until, left = now() + SLICE_S, self._at_once
        while left and now() < until:
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_MORE:
                    raise
                self._loop.remove_reader(self._socket.fileno())  # otherwise a busy loop
                self._later = self._loop.call_later(_AGAIN_S, self._open)
                return
            host = address[0] if isinstance(address, tuple) else ""
            if is_proxy := self._proxies is not None and self._proxies(host):
                is_refused = len(self._coming) >= MAX_HEADERS
            else:
                is_refused = bool(host) and self._refuses(host)
            if is_refused:
                accepted.close()
                continue
            left -= 1
            connecting = self._connect_proxied(accepted, host) if is_proxy else self._connect(accepted, "")
            coming = self._loop.create_task(told("net.accept", connecting))
            self._coming.add(coming)
            coming.add_done_callback(self._coming.discard)

    async def _connect(self, accepted: socket.socket, address: str) -> None:
        with suppress(OSError):  # already gone
            await self._loop.connect_accepted_socket(lambda: self._make(address), accepted)

    async def _connect_proxied(self, accepted: socket.socket, proxy: str) -> None:
        """Read the client address from the PROXY header, which a load balancer sends first."""
        accepted.settimeout(0)
        try:
            async with asyncio.timeout(HEADER_S):
                head = await self._read_exactly(accepted, HEAD_BYTES)
                address = source_of(head, await self._read_exactly(accepted, rest_of(head))) or proxy
        except (OSError, ProxyHeaderError) as error:
            extra = {"address": proxy, "reason": str(error) or type(error).__name__}
            log.warning("net.proxy_header", extra=extra)
            accepted.close()
            return
        except BaseException:
            accepted.close()
            raise
        if self._refuses(address):
            accepted.close()
        else:
            await self._connect(accepted, address)

    async def _read_exactly(self, accepted: socket.socket, count: int) -> bytes:
        """Read exactly `count` bytes; the bytes after them belong to TLS."""
        received = b""
        while len(received) < count:
            if not (part := await self._loop.sock_recv(accepted, count - len(received))):
                raise ProxyHeaderError("it is incomplete")
            received += part
        return received
