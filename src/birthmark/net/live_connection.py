"""A live connection of a client, over any protocol, as the rest of the server sees it."""

from typing import Protocol

from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.tls import TlsPeer


class LiveConnection(Protocol):
    """A client's connection; of a transport that several clients share, one client's part."""

    @property
    def peer(self) -> TlsPeer: ...

    @property
    def address(self) -> str: ...

    @property
    def is_over(self) -> bool: ...

    def close(self, reason: CloseReason) -> None:
        """End the connection."""
        ...
