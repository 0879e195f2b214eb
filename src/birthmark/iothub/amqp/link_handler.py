"""What a connection calls on the handler of each of its links, and what a handler may use of its connection."""

from collections.abc import Awaitable
from typing import Protocol

from birthmark.amqp.events import DeliveryReceived, DeliverySettled
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.auth.permission_statements import Right
from birthmark.iothub.connections.device_connection import DeviceDriver
from birthmark.iothub.model import Hub, Identity
from birthmark.net.amqp_driver import AmqpDriver


class LinkHandler:
    """Handler of one link; the defaults ignore what the link does not have."""

    __slots__ = ()

    def received(self, _event: DeliveryReceived) -> Awaitable[None] | None:
        """Handle a delivery, and settle it."""
        return None

    def settled(self, _event: DeliverySettled) -> Awaitable[None] | None:
        """Handle the peer's outcome of deliveries."""
        return None

    def resume(self) -> None:
        """Send again: the peer granted credit, or reads again."""

    def recheck(self) -> None:
        """Raise the `BirthmarkError` for which the link must end, if it is no longer authorized."""

    def ended(self) -> None:
        """Release everything: the link has ended."""


class LinkDevice(Protocol):
    """The device of a link, for its handler."""

    @property
    def hub(self) -> Hub: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def is_of_policy(self) -> bool:
        """Whether a token of a hub policy opened the connection."""
        ...

    @property
    def is_over(self) -> bool: ...

    @property
    def driver(self) -> DeviceDriver: ...

    async def subscribe(self, name: str) -> None:
        """Receive what the hub sends to a topic filter."""
        ...


class LinkConnection(Protocol):
    """The connection of a link, for its handler."""

    @property
    def driver(self) -> AmqpDriver: ...

    @property
    def hub(self) -> Hub:
        """The hub of the connection's claims. Raise `NoClaimError` without one."""
        ...

    def authorize(self, hub: Hub, resource: str, right: Right = Right.READ) -> str:
        """Return the policy or user that may use a resource. Raise `NoClaimError`, `RightMissingError`."""
        ...

    def detach(self, link: ReceiverLink | SenderLink, error: Exception) -> None:
        """Record a refusal or a bug, and end a link with its condition."""
        ...
