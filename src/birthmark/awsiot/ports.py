"""What the account's services need of the broker."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from birthmark.broker.model import Done, Message


class Audience(Protocol):
    """Whoever subscribed and may receive."""

    def publish(self, messages: Sequence[Message], done: Done) -> Awaitable[None] | None:
        """Hand messages on in their order; what is returned has to be awaited before the next ones."""
        ...

    def may_hear(self, topic: str) -> bool:
        """Say False when certainly nobody would get a message to this topic."""
        ...
