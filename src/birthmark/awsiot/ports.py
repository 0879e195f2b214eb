"""Ports of the account's services to the broker and external services."""

from collections.abc import Awaitable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from birthmark.broker.model import BrokerMessage, Done


class TopicPublisher(Protocol):
    """Publisher to permitted subscribers."""

    def publish(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        """Publish messages in order; await the result before the next call."""
        ...

    def may_have_subscribers(self, topic: str) -> bool:
        """Return False if the topic certainly has no recipient."""
        ...


class FunctionCaller(Enum):
    """Purpose of a function call."""

    UNAUTHENTICATED = "stranger"
    KNOWN = "known"
    PERSON = "person"


class Functions(Protocol):
    """Replacement for AWS Lambda: addresses that the configuration maps to function ARNs."""

    async def call(self, arn: str, event: Mapping[str, Any], caller: FunctionCaller, whose: str = "") -> Any:
        """Return a function's JSON response to an event; each kind of caller has its own queue.

        Raise `FunctionNotMappedError` if no address is configured, `FunctionFailedError` without a timely response.
        """
        ...

    def is_mapped(self, arn: str) -> bool:
        """Return whether the configuration has an address for it."""
        ...
