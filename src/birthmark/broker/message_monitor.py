"""Message monitor: observe the messages published to a filter without an MQTT client."""

import asyncio
from collections import deque
from collections.abc import Sequence

from birthmark.broker.connected_session import ConnectedSession, SessionNamespace
from birthmark.broker.model import BrokerMessage
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.mqtt_service_interface import CloseReason

MAX_WAITING = 1000
MAX_WAITING_BYTES = 4 * 1024 * 1024


class _NoConnection:
    """Connection of a monitor: sends nothing, because the viewer pulls messages."""

    def deliver(self, parcel: EncodedMessage, qos: int) -> None: ...

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        del parcel, packet_id, dup
        return False

    def may_get(self, topic: str) -> bool:
        del topic
        return True

    def end(self, reason: CloseReason) -> None: ...

    async def wait_released(self) -> None: ...


class Viewer(ConnectedSession):
    """A monitor that buffers messages until they are read; overflow is counted and dropped.

    It stays on hold, so that it gets messages and not their encoded form.
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
        """Return the received messages and the number dropped after them; empty on timeout."""
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
