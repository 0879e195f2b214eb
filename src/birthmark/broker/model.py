"""Value types: sessions, messages and subscriptions.

A *space* is an AWS account or a hub; a session is identified by its space and client ID. Positions in a session's queue
are integers from 1, one per message, and never reused.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from birthmark.mqtt.properties import Properties, PropertyId, size_of

NEVER = 0xFFFFFFFF
"""Session expiry interval that never expires (MQTT 5.0 section 3.1.2.11.2)."""
MICROS = 1_000_000
Done: TypeAlias = Callable[[BaseException | None], None]
"""Called once: with None when a message meets its durability requirement, otherwise with the error."""

# PUBLISH properties that a server forwards (5.0 section 3.3.2.3); the alias belongs to the connection.
_HANDED_ON = frozenset(
    {
        PropertyId.PAYLOAD_FORMAT,
        PropertyId.CONTENT_TYPE,
        PropertyId.RESPONSE_TOPIC,
        PropertyId.CORRELATION_DATA,
        PropertyId.USER_PROPERTY,
    }
)


class BrokerMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message in flight; `expires_at` is in microseconds since 1970."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: tuple[Any, ...] = ()
    """MQTT `Properties`; the type is loose because the decoder cannot check a union of text and bytes."""
    expires_at: int | None = None
    publisher: str = ""
    principal: str = ""
    """Principal whose quota a retained message counts against.

    If no client of this worker sent the message, it also selects the time slices for a large fan-out.
    """

    @property
    def size(self) -> int:
        """Approximate size in bytes while queued, without the topic."""
        return len(self.payload) + (size_of(self.properties) if self.properties else 0)


_encode = msgspec.msgpack.Encoder().encode
_read_messages = msgspec.msgpack.Decoder(list[BrokerMessage]).decode


def encode_messages(messages: Sequence[BrokerMessage]) -> bytes:
    """Return the row value that stores messages."""
    return _encode(messages)


def decode_messages(body: bytes) -> list[BrokerMessage]:
    """Return the messages that a row stores."""
    messages = _read_messages(body)
    return [_readable(message) if message.properties else message for message in messages]


def _readable(message: BrokerMessage) -> BrokerMessage:
    properties = tuple(
        [
            (PropertyId(key), (value[0], value[1]) if isinstance(value, list) else value)
            for key, value in message.properties
        ]
    )
    return msgspec.structs.replace(message, properties=properties)


class Will(msgspec.Struct, frozen=True, array_like=True):
    """Will message, published `delay_s` after the connection ends."""

    message: BrokerMessage
    delay_s: int = 0
    expiry_s: int | None = None


_read_will = msgspec.msgpack.Decoder(Will).decode


def encode_will(will: Will) -> bytes:
    """Return the column value that stores a will."""
    return _encode(will)


def decode_will(body: bytes) -> Will:
    """Return the will that a column stores."""
    will = _read_will(body)
    return msgspec.structs.replace(will, message=_readable(will.message))


NO_LOCAL, RETAIN_AS_PUBLISHED = 0x04, 0x08
_RETAIN_HANDLING = 0x30


class Subscription(msgspec.Struct, frozen=True):
    """A session's topic filter; `options` are those of MQTT 5.0 section 3.8.3.1 without the QoS."""

    topic_filter: str
    qos: int
    options: int = 0
    share: str = ""

    @property
    def name(self) -> str:
        """The filter as the client wrote it."""
        return f"$share/{self.share}/{self.topic_filter}" if self.share else self.topic_filter

    @property
    def retain_handling(self) -> int:
        """0: send retained messages; 1: send them only for a new subscription; 2: never send them."""
        return (self.options & _RETAIN_HANDLING) >> 4


def subscription_of(name: str, asked: int, *, max_qos: int = 1) -> Subscription:
    """Return the subscription for a filter of SUBSCRIBE and its options byte."""
    qos, options = min(asked & 3, max_qos), asked & 0x3C
    if not name.startswith("$share/"):
        return Subscription(name, qos, options)
    _, share, topic_filter = name.split("/", 2)
    return Subscription(topic_filter, qos, options, share)


class SessionRecord(msgspec.Struct, frozen=True):
    """A stored session: messages up to `cursor` are delivered, and `tail` is the last queued message."""

    epoch: int
    owner: str | None
    expires_at: int | None
    expiry_s: int
    tail: int
    cursor: int
    sent: int
    will: bytes | None
    will_at: int | None

    def goes_on(self, now: int, since: int) -> bool:
        """Return whether a reconnecting client resumes the session.

        An expiry of 0 ends it with its connection.
        """
        return self.expiry_s > 0 and not self.is_expired(now, since)

    def is_expired(self, now: int, since: int) -> bool:
        """Return whether the session has expired, even if it is not deleted yet.

        Return False if it began before `since`.
        """
        if self.expires_at is None or self.expires_at > now:
            return False
        return self.expires_at - self.expiry_s * MICROS >= since


def forwarded_properties(properties: Properties, now: int) -> tuple[Properties, int | None]:
    """Return the PUBLISH properties to forward to subscribers, and the message's expiry time."""
    if not properties:
        return (), None
    seconds = next((value for key, value in properties if key is PropertyId.MESSAGE_EXPIRY), None)
    expires_at = now + seconds * MICROS if isinstance(seconds, int) else None
    return tuple([pair for pair in properties if pair[0] in _HANDED_ON]), expires_at


def properties_at(message: BrokerMessage, now: int) -> Properties:
    """Return the properties to send at `now`, with the remaining message expiry interval ([MQTT-3.3.2-6])."""
    if message.expires_at is None:
        return message.properties
    left = max(0, -(-(message.expires_at - now) // MICROS))
    return (*message.properties, (PropertyId.MESSAGE_EXPIRY, left))
