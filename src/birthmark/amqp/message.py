"""Messages: sections in their order (part 3 section 3.2).

Input: the payload of a delivery. Output: an `AmqpMessage`, or an `AmqpError` of scope delivery, so that the caller
rejects this message only. Clients omit the body of some requests.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from birthmark.amqp.composite import (
    Binary,
    Boolean,
    LenientSymbol,
    MessageId,
    Milliseconds,
    String,
    UInt8,
    UInt32,
    composite,
    encode_trimmed,
    read_described,
)
from birthmark.amqp.decoder import DESCRIBED, SMALL_ULONG, DecodeBudget, guard, read_value
from birthmark.amqp.encoder import encode_binary, encode_value
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope, DecodeError
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.values import DescribedValue, Symbol

DELIVERY_ANNOTATIONS: Final = 0x71
MESSAGE_ANNOTATIONS: Final = 0x72
PROPERTIES: Final = 0x73
APPLICATION_PROPERTIES: Final = 0x74
DATA: Final = 0x75
SEQUENCE: Final = 0x76
VALUE: Final = 0x77
FOOTER: Final = 0x78

BATCH_FORMAT: Final = 0x80013700
"""Message format of Azure clients: each data section is an encoded message."""

_NAMES: Final = {
    "amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
    "amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
    "amqp:application-properties:map": APPLICATION_PROPERTIES,
    "amqp:data:binary": DATA,
    "amqp:amqp-sequence:list": SEQUENCE,
    "amqp:amqp-value:*": VALUE,
    "amqp:footer:map": FOOTER,
}
_KINDS: Final[dict[int, type]] = {
    DELIVERY_ANNOTATIONS: dict,
    MESSAGE_ANNOTATIONS: dict,
    APPLICATION_PROPERTIES: dict,
    DATA: bytes,
    SEQUENCE: list,
    VALUE: object,
    FOOTER: dict,
}
_DEFAULTS = AmqpLimits()
_NONE: Mapping[Any, Any] = {}


@composite(0x70, "amqp:header:list")
class MessageHeader(msgspec.Struct, frozen=True):
    """Section 3.2.1."""

    durable: Boolean = False
    priority: UInt8 = 4
    ttl: UInt32 | None = None
    first_acquirer: Boolean = False
    delivery_count: UInt32 = 0


@composite(0x73, "amqp:properties:list")
class MessageProperties(msgspec.Struct, frozen=True):
    """Section 3.2.4. Ids keep their AMQP types, because a response repeats the request's."""

    message_id: MessageId | None = None
    user_id: Binary | None = None
    to: String | None = None
    subject: String | None = None
    reply_to: String | None = None
    correlation_id: MessageId | None = None
    content_type: LenientSymbol | None = None
    content_encoding: LenientSymbol | None = None
    absolute_expiry_time: Milliseconds | None = None
    creation_time: Milliseconds | None = None
    group_id: String | None = None
    group_sequence: UInt32 | None = None
    reply_to_group_id: String | None = None


class DataBody(msgspec.Struct, frozen=True):
    """One or more data sections (section 3.2.6)."""

    sections: tuple[bytes, ...]

    @property
    def payload(self) -> bytes:
        """The sections, joined."""
        return self.sections[0] if len(self.sections) == 1 else b"".join(self.sections)


class SequenceBody(msgspec.Struct, frozen=True):
    """One or more sequence sections (section 3.2.7)."""

    sections: tuple[list[Any], ...]


class ValueBody(msgspec.Struct, frozen=True):
    """A single value (section 3.2.8)."""

    value: Any


Body: TypeAlias = DataBody | SequenceBody | ValueBody | None


class AmqpMessage(msgspec.Struct, frozen=True):
    """Sections of a message; a missing map is empty, and a missing body is None."""

    body: Body = None
    properties: MessageProperties = MessageProperties()
    application_properties: Mapping[str, Any] = _NONE
    message_annotations: Mapping[Any, Any] = _NONE
    delivery_annotations: Mapping[Any, Any] = _NONE
    header: MessageHeader = MessageHeader()
    footer: Mapping[Any, Any] = _NONE


_EMPTY: Final = AmqpMessage()


# ---- reading


def read_message(payload: bytes, limits: AmqpLimits = _DEFAULTS) -> AmqpMessage:
    """Return the message. Raise `AmqpError` of scope delivery."""
    try:
        return _message_of(_read_sections(payload, limits.max_sections))
    except AmqpError as error:
        raise AmqpError(error.condition, error.description, scope=AmqpErrorScope.DELIVERY) from None


def split_batch(payload: bytes, limits: AmqpLimits = _DEFAULTS) -> tuple[bytes, ...]:
    """Return the encoded messages in a delivery of format `BATCH_FORMAT`. Raise `AmqpError` of scope delivery."""
    try:
        sections = _read_sections(payload, limits.max_batch_messages)
    except AmqpError as error:
        raise AmqpError(error.condition, error.description, scope=AmqpErrorScope.DELIVERY) from None
    return tuple(value for code, value in sections if code == DATA)


def _read_sections(payload: bytes, maximum: int) -> list[tuple[int, Any]]:
    """Return descriptors and values, in the order of the standard."""
    budget = DecodeBudget()
    sections: list[tuple[int, Any]] = []
    offset = previous = 0
    while offset < len(payload):
        (code, value), offset = guard(_read_section, payload, offset, budget)
        is_body_changed = code in _BODIES and previous in _BODIES and code != previous
        if code < previous or (code == previous and code not in (DATA, SEQUENCE)) or is_body_changed:
            raise DecodeError("sections of a message are repeated or not in order")
        previous = code
        sections.append((code, value))
        if len(sections) > maximum:
            told = f"a message has more than {maximum} sections"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told)
    return sections


def _read_section(data: bytes, offset: int, budget: DecodeBudget) -> tuple[tuple[int, Any], int]:
    if data[offset] != DESCRIBED:
        raise DecodeError("a message has a part that is not a section")
    code = data[offset + 2] if data[offset + 1] == SMALL_ULONG else 0
    if (kind := _KINDS.get(code)) is not None:  # nearly always
        found, offset = read_value(data, offset + 3, budget)
        if isinstance(found, kind):
            return (code, found), offset
        raise DecodeError("a message has a section of an unknown type")
    value, offset = read_described(data, offset + 1, budget)
    if isinstance(value, MessageHeader):
        return (_HEADER, value), offset
    if isinstance(value, MessageProperties):
        return (PROPERTIES, value), offset
    if isinstance(value, DescribedValue):
        named = _NAMES.get(value.descriptor, 0) if isinstance(value.descriptor, Symbol) else value.descriptor
        code = named if isinstance(named, int) else 0
        kind = _KINDS.get(code)
        if kind is not None and isinstance(value.value, kind):
            return (code, value.value), offset
    raise DecodeError("a message has a section of an unknown type")


_HEADER: Final = 0x70
_BODIES: Final = frozenset({DATA, SEQUENCE, VALUE})


def _message_of(sections: list[tuple[int, Any]]) -> AmqpMessage:
    found = dict(sections)
    body: Body = None
    if DATA in found:
        body = DataBody(tuple(value for code, value in sections if code == DATA))
    elif SEQUENCE in found:
        body = SequenceBody(tuple(value for code, value in sections if code == SEQUENCE))
    elif VALUE in found:
        body = ValueBody(found[VALUE])
    application_properties = found.get(APPLICATION_PROPERTIES, _NONE)
    if not all(isinstance(name, str) for name in application_properties):
        raise DecodeError("an application property has a name that is not text")
    return AmqpMessage(
        body,
        found.get(PROPERTIES, _EMPTY.properties),
        application_properties,
        found.get(MESSAGE_ANNOTATIONS, _NONE),
        found.get(DELIVERY_ANNOTATIONS, _NONE),
        found.get(_HEADER, _EMPTY.header),
        found.get(FOOTER, _NONE),
    )


# ---- writing


def write_message(message: AmqpMessage) -> bytes:
    """Return the message's bytes. Raise `LocalProtocolError` for a value that AMQP cannot express."""
    parts = [
        encode_trimmed(message.header) if message.header != _EMPTY.header else b"",
        _map_section(DELIVERY_ANNOTATIONS, message.delivery_annotations),
        _map_section(MESSAGE_ANNOTATIONS, message.message_annotations),
        encode_trimmed(message.properties) if message.properties != _EMPTY.properties else b"",
        _map_section(APPLICATION_PROPERTIES, message.application_properties),
    ]
    match message.body:
        case DataBody(sections):
            parts += [_DATA_PREFIX + encode_binary(section) for section in sections]
        case SequenceBody(sequences):
            parts += [_section(SEQUENCE, sequence) for sequence in sequences]
        case ValueBody(value):
            parts.append(_section(VALUE, value))
        case None:
            pass
    parts.append(_map_section(FOOTER, message.footer))
    return b"".join(parts)


def write_batch(messages: tuple[bytes, ...]) -> bytes:
    """Return the payload of a delivery of format `BATCH_FORMAT`."""
    return b"".join([_DATA_PREFIX + encode_binary(message) for message in messages])


def section_prefix(code: int) -> bytes:
    """Return the bytes before the value of a section."""
    return bytes((0x00, 0x53, code))


_DATA_PREFIX: Final = section_prefix(DATA)


def _section(code: int, value: Any) -> bytes:
    return section_prefix(code) + encode_value(value)


def _map_section(code: int, pairs: Mapping[Any, Any]) -> bytes:
    return _section(code, dict(pairs)) if pairs else b""
