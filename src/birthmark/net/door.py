"""A listening socket, and who is let in by it.

The loop's own servers let one in at each of its turns, and a turn takes milliseconds while others keep it busy: whoever
connects often enough would fill the kernel's queue, which knows no shares, and keep everybody else in it for seconds.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from birthmark.background import told
from birthmark.net.backlog import SLICE_S, now

AT_ONCE = 32
"""Who is let in at one turn of the loop; there may be as many as are sent away in a slice of its time."""
FEW_AT_ONCE = 4
"""The same where newcomers push out who was let in before: that one has some turns in which it may ask."""
_AGAIN_S = 0.1  # where the process may hold no more descriptors
QUEUE = 4096
"""Who may wait before it in the kernel."""
_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Door:
    """Lets in by `make` whom `refuses` does not send away; it is asked with the address."""

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[], asyncio.BaseProtocol],
        refuses: Callable[[str], bool],
        at_once: int = AT_ONCE,
    ) -> None:
        listening.settimeout(0)
        self._socket = listening
        self._make, self._refuses, self._at_once = make, refuses, at_once
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._open()

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Let nobody in any more."""
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
                self._loop.remove_reader(self._socket.fileno())  # it would be asked again at once, and for ever
                self._later = self._loop.call_later(_AGAIN_S, self._open)
                return
            if isinstance(address, tuple) and self._refuses(address[0]):
                accepted.close()
                continue
            left -= 1
            coming = self._loop.create_task(told("net.accept", self._connect(accepted)))
            self._coming.add(coming)
            coming.add_done_callback(self._coming.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        with suppress(OSError):  # it went at once
            await self._loop.connect_accepted_socket(self._make, accepted)
