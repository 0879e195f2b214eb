"""What a revocation ends: every live connection that the certificate, its key or a CA above it opened."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet

from birthmark.ca.events import CertificateRevoked
from birthmark.ca.revocation import digest_of
from birthmark.component import MqttConnections, TrackedMqttConnection
from birthmark.errors import BirthmarkError
from birthmark.net.admission import CloseReason
from birthmark.net.fair_scheduler import Slices
from birthmark.pki.certificates import Certificate
from birthmark.pki.signature_malleability import twins_of
from birthmark.supervised_tasks import told

log = logging.getLogger(__name__)

_STEPS = 4
"""Connections that a CA is looked for at, between two looks at the clock."""


class EndConnectionsRequest:
    """Hears of revocations and closes what they concern. `check` raises for a certificate that is not good any more.

    All that is revoked in one turn of the loop is looked for at once: each connection is asked once for all of it.
    """

    def __init__(
        self, check: Callable[[Certificate, Sequence[Certificate]], Awaitable[None]], rooms: Sequence[MqttConnections]
    ) -> None:
        self._check = check
        self._rooms = rooms
        self._gone: list[CertificateRevoked] = []
        self._looking: asyncio.Task[None] | None = None
        self._looking_for_twins: set[asyncio.Task[None]] = set()
        self._looks_again = False

    def __call__(self, revoked: CertificateRevoked) -> None:
        """End what the certificate, the key or the CA opened."""
        for room in self._rooms:
            room.revoked()
        if revoked.is_ca:  # who hangs on it is for the chain to say
            self._looks_again = True
            if self._looking is None:
                self._looking = asyncio.create_task(told("ending what was revoked", self._look()))
            return
        if not self._gone:
            asyncio.get_running_loop().call_soon(self._end)
        self._gone.append(revoked)

    @property
    def _everyone(self) -> list[TrackedMqttConnection]:
        return [connection for room in self._rooms for connection in room.everyone()]

    def _end(self) -> None:
        gone, self._gone = self._gone, []
        keys = {one.key for one in gone if one.key}
        alone = {one.thumbprint for one in gone if not one.key and one.thumbprint}  # which may have another form
        others = []
        for connection in self._everyone:
            if (leaf := connection.pump.peer.leaf) is None:
                continue
            if digest_of(leaf) in keys or leaf.thumbprint in alone:
                connection.pump.close(CloseReason.ADMINISTRATIVE)
            elif alone:
                others.append(connection)
        if others:
            looking = asyncio.create_task(told("ending what was revoked", self._end_twins(others, alone)))
            self._looking_for_twins.add(looking)
            looking.add_done_callback(self._looking_for_twins.discard)

    async def _end_twins(self, connections: Sequence[TrackedMqttConnection], alone: AbstractSet[bytes]) -> None:
        """End those that showed another form of what is gone, which is dear to find out."""
        slices = Slices(_STEPS)
        for connection in connections:
            await slices.step()
            leaf = connection.pump.peer.leaf
            if leaf is not None and not alone.isdisjoint(twins_of(leaf)):
                connection.pump.close(CloseReason.ADMINISTRATIVE)

    async def _look(self) -> None:
        """Look at each connection, and again where more was revoked meanwhile."""
        slices = Slices(_STEPS)
        try:
            while self._looks_again:
                self._looks_again = False
                for connection in self._everyone:
                    await slices.step()
                    await self._look_at(connection)
        finally:
            self._looking = None

    async def _look_at(self, connection: TrackedMqttConnection) -> None:
        peer = connection.pump.peer
        if peer.leaf is None or connection.pump.is_over:
            return
        try:
            await self._check(peer.leaf, peer.chain)
        except BirthmarkError as error:
            log.info("connection.ended", extra={"code": error.code, "address": connection.pump.address})
            connection.pump.close(CloseReason.ADMINISTRATIVE)
