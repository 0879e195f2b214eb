"""AMQP errors: a condition that the peer reads, and the scope that the error ends (part 2 section 2.8.14 to 2.8.18)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

MAX_TEXT_CHARS = 200


class AmqpErrorScope(StrEnum):
    """The part of a connection that an error ends."""

    CONNECTION = "connection"
    SESSION = "session"
    LINK = "link"
    DELIVERY = "delivery"


class AmqpCondition(StrEnum):
    """Error conditions of the standard."""

    INTERNAL_ERROR = "amqp:internal-error"
    NOT_FOUND = "amqp:not-found"
    UNAUTHORIZED_ACCESS = "amqp:unauthorized-access"
    DECODE_ERROR = "amqp:decode-error"
    RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded"
    NOT_ALLOWED = "amqp:not-allowed"
    INVALID_FIELD = "amqp:invalid-field"
    NOT_IMPLEMENTED = "amqp:not-implemented"
    RESOURCE_LOCKED = "amqp:resource-locked"
    PRECONDITION_FAILED = "amqp:precondition-failed"
    RESOURCE_DELETED = "amqp:resource-deleted"
    ILLEGAL_STATE = "amqp:illegal-state"
    FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small"
    CONNECTION_FORCED = "amqp:connection:forced"
    FRAMING_ERROR = "amqp:connection:framing-error"
    CONNECTION_REDIRECT = "amqp:connection:redirect"
    WINDOW_VIOLATION = "amqp:session:window-violation"
    ERRANT_LINK = "amqp:session:errant-link"
    HANDLE_IN_USE = "amqp:session:handle-in-use"
    UNATTACHED_HANDLE = "amqp:session:unattached-handle"
    DETACH_FORCED = "amqp:link:detach-forced"
    TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded"
    MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
    LINK_REDIRECT = "amqp:link:redirect"
    LINK_STOLEN = "amqp:link:stolen"


class AmqpError(Exception):
    """An error that one end reports to the other; `description` is safe for the peer and for logs.

    Conditions outside the standard are plain text, such as `com.microsoft:message-lock-lost`.
    """

    def __init__(
        self,
        condition: str,
        description: str,
        *,
        scope: AmqpErrorScope = AmqpErrorScope.CONNECTION,
        info: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = str(condition)
        self.description = description
        self.scope = scope
        self.info = info


class DecodeError(AmqpError):
    """Bytes that are not what the standard describes."""

    def __init__(self, description: str, *, scope: AmqpErrorScope = AmqpErrorScope.CONNECTION) -> None:
        super().__init__(AmqpCondition.DECODE_ERROR, description, scope=scope)


class LocalProtocolError(Exception):
    """A call that AMQP forbids; no bytes were written and the connection is unchanged."""


def printable(text: str, limit: int = MAX_TEXT_CHARS) -> str:
    """Return a peer's text for an error or a log: at most `limit` characters, without invisible ones."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])
