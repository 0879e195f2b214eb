"""Termination of connections on revocation: every live connection that the certificate, its key or its CA opened."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet

from birthmark.ca.domain_events import CertificateRevoked
from birthmark.ca.revocation import digest_of
from birthmark.errors import BirthmarkError
from birthmark.net.fair_scheduler import Slices
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.pki.certificates import Certificate
from birthmark.pki.signature_malleability import twins_of
from birthmark.protocol_component import MqttConnections, TrackedMqttConnection
from birthmark.supervised_tasks import told

log = logging.getLogger(__name__)

_STEPS = 4
"""Connections that are matched against a CA between two checks of the clock."""


class EndConnectionsRequest:
    """Closes the connections that a revocation affects. `check` raises for a certificate that is no longer valid.

    All revocations of one event loop iteration are handled together: each connection is checked once for all of them.
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
        """Close the connections that the certificate, the key or the CA opened."""
        for room in self._rooms:
            room.recheck_connecting_clients()
        if revoked.is_ca:  # its chains show affected clients
            self._looks_again = True
            if self._looking is None:
                self._looking = asyncio.create_task(told("closing of revoked connections", self._look()))
            return
        if not self._gone:
            asyncio.get_running_loop().call_soon(self._end)
        self._gone.append(revoked)

    @property
    def _everyone(self) -> list[TrackedMqttConnection]:
        return [connection for room in self._rooms for connection in room.live_connections()]

    def _end(self) -> None:
        gone, self._gone = self._gone, []
        keys = {one.key for one in gone if one.key}
        alone = {one.thumbprint for one in gone if not one.key and one.thumbprint}  # may have a twin form
        others = []
        for connection in self._everyone:
            if (leaf := connection.driver.peer.leaf) is None:
                continue
            if digest_of(leaf) in keys or leaf.thumbprint in alone:
                connection.driver.close(CloseReason.ADMINISTRATIVE)
            elif alone:
                others.append(connection)
        if others:
            looking = asyncio.create_task(told("closing of revoked connections", self._end_twins(others, alone)))
            self._looking_for_twins.add(looking)
            looking.add_done_callback(self._looking_for_twins.discard)

    async def _end_twins(self, connections: Sequence[TrackedMqttConnection], alone: AbstractSet[bytes]) -> None:
        """Close connections that presented another encoding of a revoked certificate, which is expensive to find."""
        slices = Slices(_STEPS)
        for connection in connections:
            await slices.step()
            leaf = connection.driver.peer.leaf
            if leaf is not None and not alone.isdisjoint(twins_of(leaf)):
                connection.driver.close(CloseReason.ADMINISTRATIVE)

    async def _look(self) -> None:
        """Check each connection, and repeat if more certificates were revoked during the check."""
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
        peer = connection.driver.peer
        if peer.leaf is None or connection.driver.is_over:
            return
        try:
            await self._check(peer.leaf, peer.chain)
        except BirthmarkError as error:
            log.info("connection.ended", extra={"code": error.code, "address": connection.driver.address})
            connection.driver.close(CloseReason.ADMINISTRATIVE)
