"""Looking on: what is published to a filter, for somebody who is no client."""

import asyncio
from collections import deque
from collections.abc import Sequence

from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.model import BrokerMessage
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.admission import CloseReason

MAX_WAITING = 1000
MAX_WAITING_BYTES = 4 * 1024 * 1024


class _NoConnection:
    """Nothing is sent to one who looks on: it takes what it wants to see."""

    def deliver(self, parcel: EncodedMessage, qos: int) -> None: ...

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        del parcel, packet_id, dup
        return False

    def may_get(self, topic: str) -> bool:
        del topic
        return True

    def end(self, reason: CloseReason) -> None: ...

    async def left(self) -> None: ...


class Viewer(ConnectedSession):
    """One that keeps what it gets until somebody takes it; what is too much is counted, and lost.

    It stays on hold, so that it is handed messages and not what is sent of them.
    """

    def __init__(self, space: SessionNamespace, name: str) -> None:
        super().__init__(
            space,
            name,
            _NoConnection(),
            epoch=0,
            is_claimed=False,
            is_stored=False,
            session_present=False,
            expiry_s=0,
            since=space.now(),
            subscriptions={},
            outgoing=None,
            will=None,
        )
        self._waiting: deque[BrokerMessage] = deque()
        self._bytes = self._lost = 0
        self._came = asyncio.Event()

    def deliver(self, message: BrokerMessage, qos: int, options: int) -> None:
        del qos, options
        self._came.set()
        if len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES:
            self._lost += 1
            return
        self._waiting.append(message)
        self._bytes += message.size

    async def take(self, wait_s: float) -> tuple[Sequence[BrokerMessage], int]:
        """Return what came, and how many messages were lost after it; nothing when the time is up first."""
        try:
            async with asyncio.timeout(wait_s):
                await self._came.wait()
        except TimeoutError:
            return (), 0
        found, lost = tuple(self._waiting), self._lost
        self._waiting.clear()
        self._bytes = self._lost = 0
        self._came.clear()
        return found, lost
