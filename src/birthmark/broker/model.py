"""Sessions, messages and subscriptions as values.

A *space* is an AWS account or a hub; a session is named by its space and its client id. Positions in a session's queue
are whole numbers from 1 on, one for each message, never used twice.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from birthmark.mqtt.properties import Properties, PropertyId, size_of

NEVER = 0xFFFFFFFF
"""A session expiry that is none (MQTT 5.0 section 3.1.2.11.2)."""
MICROS = 1_000_000
Done: TypeAlias = Callable[[BaseException | None], None]
"""Called once: with None when a message is as safe as it has to be, else with why it is not."""

# What a server hands on of a PUBLISH (5.0 section 3.3.2.3); the alias is the connection's own.
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
    """A message on its way. `expires_at` is in microseconds since 1970."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: tuple[Any, ...] = ()
    """`Properties`; a union of text and bytes is more than their decoder can check."""
    expires_at: int | None = None
    publisher: str = ""
    principal: str = ""
    """Whose share a message to be retained counts in; and in whose turns it goes to many, where nobody sent it here."""

    @property
    def size(self) -> int:
        """About how many bytes it takes while it waits, beside its topic."""
        return len(self.payload) + (size_of(self.properties) if self.properties else 0)


_encode = msgspec.msgpack.Encoder().encode
_read_messages = msgspec.msgpack.Decoder(list[BrokerMessage]).decode


def encode_messages(messages: Sequence[BrokerMessage]) -> bytes:
    """Return the row that holds messages."""
    return _encode(messages)


def decode_messages(body: bytes) -> list[BrokerMessage]:
    """Return the messages of a row."""
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
    """What is published for a client that is gone, `delay_s` after its connection ended."""

    message: BrokerMessage
    delay_s: int = 0
    expiry_s: int | None = None


_read_will = msgspec.msgpack.Decoder(Will).decode


def encode_will(will: Will) -> bytes:
    """Return the column that holds a will."""
    return _encode(will)


def decode_will(body: bytes) -> Will:
    """Return the will of a column."""
    will = _read_will(body)
    return msgspec.structs.replace(will, message=_readable(will.message))


NO_LOCAL, RETAIN_AS_PUBLISHED = 0x04, 0x08
_RETAIN_HANDLING = 0x30


class Subscription(msgspec.Struct, frozen=True):
    """One filter of a session. `options` are those of 5.0 section 3.8.3.1 without the QoS."""

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
        """0: send what is retained; 1: only where the subscription is new; 2: never."""
        return (self.options & _RETAIN_HANDLING) >> 4


def subscription_of(name: str, asked: int, *, max_qos: int = 1) -> Subscription:
    """Return the subscription that a filter of SUBSCRIBE, with its options byte, asks for."""
    qos, options = min(asked & 3, max_qos), asked & 0x3C
    if not name.startswith("$share/"):
        return Subscription(name, qos, options)
    _, share, topic_filter = name.split("/", 2)
    return Subscription(topic_filter, qos, options, share)


class SessionRecord(msgspec.Struct, frozen=True):
    """A stored session as it was read: everything up to `cursor` is delivered, `tail` is the last that is queued."""

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
        """Say whether a client that comes back finds it: one that ends with its connection does not outlive it."""
        return self.expiry_s > 0 and not self.is_expired(now, since)

    def is_expired(self, now: int, since: int) -> bool:
        """Say whether its time is over, whether or not anybody has swept it up; not if it began before `since`."""
        if self.expires_at is None or self.expires_at > now:
            return False
        return self.expires_at - self.expiry_s * MICROS >= since


def handed_on(properties: Properties, now: int) -> tuple[Properties, int | None]:
    """Return what of a PUBLISH's properties goes on to subscribers, and when the message expires."""
    if not properties:
        return (), None
    seconds = next((value for key, value in properties if key is PropertyId.MESSAGE_EXPIRY), None)
    expires_at = now + seconds * MICROS if isinstance(seconds, int) else None
    return tuple([pair for pair in properties if pair[0] in _HANDED_ON]), expires_at


def properties_at(message: BrokerMessage, now: int) -> Properties:
    """Return the properties to send at `now`: what is left of the expiry goes along ([MQTT-3.3.2-6])."""
    if message.expires_at is None:
        return message.properties
    left = max(0, -(-(message.expires_at - now) // MICROS))
    return (*message.properties, (PropertyId.MESSAGE_EXPIRY, left))
