"""What the account's services need of the broker, and of whatever they call."""

from collections.abc import Awaitable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from birthmark.broker.model import BrokerMessage, Done


class TopicPublisher(Protocol):
    """Whoever subscribed and may receive."""

    def publish(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        """Hand messages on in their order; what is returned has to be awaited before the next ones."""
        ...

    def may_hear(self, topic: str) -> bool:
        """Say False when certainly nobody would get a message to this topic."""
        ...


class FunctionCaller(Enum):
    """For whom a function is called."""

    STRANGER = "stranger"
    KNOWN = "known"
    PERSON = "person"


class Functions(Protocol):
    """What stands for functions of AWS Lambda: addresses that the configuration maps their ARNs to."""

    async def call(self, arn: str, event: Mapping[str, Any], caller: FunctionCaller, whose: str = "") -> Any:
        """Return what a function answers to an event, as JSON; callers of one kind wait for no others.

        Raise `FunctionNotMappedError` where no address is configured, `FunctionFailedError` where nothing came in time.
        """
        ...

    def is_mapped(self, arn: str) -> bool:
        """Say whether the configuration has an address for it."""
        ...
