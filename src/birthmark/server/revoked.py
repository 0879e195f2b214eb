"""What a revocation ends: every live connection that the certificate, its key or a CA above it opened."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from birthmark.background import told
from birthmark.ca.events import CertificateRevoked
from birthmark.ca.revocation import digest_of
from birthmark.errors import BirthmarkError
from birthmark.net.admission import Closed
from birthmark.net.pump import MqttPump
from birthmark.pki.certificates import Certificate
from birthmark.pki.twin import twins_of

log = logging.getLogger(__name__)

_AT_ONCE = 200


class Connection(Protocol):
    """A connection of a room."""

    @property
    def pump(self) -> MqttPump: ...


class Connections(Protocol):
    """The live connections of a room."""

    def everyone(self) -> Sequence[Connection]: ...

    def revoked(self) -> None:
        """Let who is about to connect prove itself again."""
        ...


class EndRevoked:
    """Hears of revocations and closes what they concern. `check` raises for a certificate that is not good any more."""

    def __init__(
        self, check: Callable[[Certificate, Sequence[Certificate]], Awaitable[None]], rooms: Sequence[Connections]
    ) -> None:
        self._check = check
        self._rooms = rooms
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, revoked: CertificateRevoked) -> None:
        """End what the certificate, the key or the CA opened."""
        for room in self._rooms:
            room.revoked()
        connections = [connection for room in self._rooms for connection in room.everyone()]
        if revoked.is_ca:  # who hangs on it is for the chain to say
            task = asyncio.get_running_loop().create_task(told("ending what was revoked", self._look_at(connections)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        for connection in connections:
            leaf = connection.pump.peer.leaf
            if leaf is not None and (
                revoked.thumbprint in {leaf.thumbprint, *twins_of(leaf)}
                or (revoked.key and digest_of(leaf) == revoked.key)
            ):
                connection.pump.close(Closed.ADMINISTRATIVE)

    async def _look_at(self, connections: Sequence[Connection]) -> None:
        for number, connection in enumerate(connections):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # others get their turn
            peer = connection.pump.peer
            if peer.leaf is None or connection.pump.is_over:
                continue
            try:
                await self._check(peer.leaf, peer.chain)
            except BirthmarkError as error:
                log.info("connection.ended", extra={"code": error.code, "address": connection.pump.address})
                connection.pump.close(Closed.ADMINISTRATIVE)
