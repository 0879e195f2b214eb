"""Events of a connection, in the order of the peer's frames."""

from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.amqp.errors import AmqpError
from birthmark.amqp.performatives import Outcome
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink


class AmqpEvent(msgspec.Struct, frozen=True):
    """Base of all events."""


class SaslStarted(AmqpEvent, frozen=True):
    """The peer presents an identity; decide with `accept_sasl` or `refuse_sasl`, or continue with `challenge_sasl`."""

    mechanism: str
    authentication_id: str
    password: str
    authorization_id: str
    hostname: str | None
    response: bytes = b""
    """Initial response of a mechanism with challenges."""

    def __repr__(self) -> str:
        return f"SaslStarted(mechanism={self.mechanism!r}, authentication_id={self.authentication_id!r})"


class SaslResponded(AmqpEvent, frozen=True):
    """The peer's answer to a challenge; decide as for `SaslStarted`."""

    response: bytes

    def __repr__(self) -> str:
        return "SaslResponded(response=<hidden>)"


class ConnectionOpened(AmqpEvent, frozen=True):
    """The peer's OPEN. A server decides with `accept_open` or `close`; a client may begin sessions."""

    container_id: str
    hostname: str | None
    idle_timeout_ms: int
    max_frame_bytes: int
    used_sasl: bool
    properties: Mapping[Any, Any]


class LinkRequested(AmqpEvent, frozen=True):
    """The peer's ATTACH; decide with the link's `accept` or `refuse`. Its session holds all further frames back."""

    link: ReceiverLink | SenderLink
    session_id: int


class SessionBegan(AmqpEvent, frozen=True):
    """The answer to a client's BEGIN."""

    session_id: int


class LinkAttached(AmqpEvent, frozen=True):
    """The answer to a client's ATTACH; a refused link has only the event `LinkDetached`, with the error."""

    link: ReceiverLink | SenderLink
    properties: Mapping[Any, Any]


class DeliveryReceived(AmqpEvent, frozen=True):
    """A complete delivery. Call the link's `settle`, also if the peer has settled it: that renews credit."""

    link: ReceiverLink
    delivery_id: int
    tag: bytes
    message_format: int
    payload: bytes
    settled: bool


class CreditChanged(AmqpEvent, frozen=True):
    """The link may be able to send; call `complete_drain` after the last message if `drain` is set."""

    link: SenderLink
    credit: int
    drain: bool


class DeliverySettled(AmqpEvent, frozen=True):
    """The peer's outcome of deliveries; None if it named none. Call the link's `confirm` if it is not settled."""

    link: SenderLink
    delivery_ids: tuple[int, ...]
    tags: tuple[bytes, ...]
    outcome: Outcome | None
    settled: bool


class LinkDetached(AmqpEvent, frozen=True):
    """A link has ended: by the peer, by an error that this end detected, or with its session.

    At a client, it is also the peer's answer to `detach`.
    """

    link: ReceiverLink | SenderLink
    error: AmqpError | None
    by_peer: bool
    unsettled_tags: tuple[bytes, ...]
    """Deliveries of a sender link that have no outcome."""


class SessionEnded(AmqpEvent, frozen=True):
    """A session has ended, after all its links; at a client also by the peer's answer to `end`."""

    session_id: int
    error: AmqpError | None
    by_peer: bool


class ConnectionClosed(AmqpEvent, frozen=True):
    """The last event, for all sessions and links. Send the rest of `data_to_send`, and close the transport."""

    error: AmqpError | None
    by_peer: bool
