"""MQTT 5 properties: pairs of identifier and value (5.0 section 2.2.2).

A table defines which packet permits which property.
"""

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import TypeAlias

from birthmark.mqtt import primitives as p
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.mqtt.topics import is_valid_name


class PropertyId(IntEnum):
    """Table 2-4."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTH_METHOD = 0x15
    AUTH_DATA = 0x16
    REQUEST_PROBLEM_INFO = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE_INFO = 0x19
    RESPONSE_INFO = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDS_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


PropertyValue: TypeAlias = int | str | bytes | tuple[str, str]
Properties: TypeAlias = tuple[tuple[PropertyId, PropertyValue], ...]


class PropertyScope(StrEnum):
    """Location of a property block: a packet type or the will."""

    CONNECT = "CONNECT"
    WILL = "Will"
    CONNACK = "CONNACK"
    PUBLISH = "PUBLISH"
    ACK = "PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK"
    SUBSCRIBE = "SUBSCRIBE"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    DISCONNECT = "DISCONNECT"
    AUTH = "AUTH"


class _Type(StrEnum):
    FLAG = "flag"
    U16 = "two bytes"
    U32 = "four bytes"
    VARINT = "variable byte integer"
    UTF8 = "string"
    BINARY = "binary data"
    PAIR = "string pair"


_I = PropertyId
_MESSAGE = frozenset({PropertyScope.PUBLISH, PropertyScope.WILL})
_CONNECTING = frozenset({PropertyScope.CONNECT, PropertyScope.CONNACK})
_WITH_REASON = frozenset({PropertyScope.CONNACK, PropertyScope.ACK, PropertyScope.DISCONNECT, PropertyScope.AUTH})

_TABLE: dict[PropertyId, tuple[_Type, frozenset[PropertyScope]]] = {
    _I.PAYLOAD_FORMAT: (_Type.FLAG, _MESSAGE),
    _I.MESSAGE_EXPIRY: (_Type.U32, _MESSAGE),
    _I.CONTENT_TYPE: (_Type.UTF8, _MESSAGE),
    _I.RESPONSE_TOPIC: (_Type.UTF8, _MESSAGE),
    _I.CORRELATION_DATA: (_Type.BINARY, _MESSAGE),
    _I.SUBSCRIPTION_ID: (_Type.VARINT, frozenset({PropertyScope.PUBLISH, PropertyScope.SUBSCRIBE})),
    _I.SESSION_EXPIRY: (_Type.U32, _CONNECTING | {PropertyScope.DISCONNECT}),
    _I.ASSIGNED_CLIENT_ID: (_Type.UTF8, frozenset({PropertyScope.CONNACK})),
    _I.SERVER_KEEP_ALIVE: (_Type.U16, frozenset({PropertyScope.CONNACK})),
    _I.AUTH_METHOD: (_Type.UTF8, _CONNECTING | {PropertyScope.AUTH}),
    _I.AUTH_DATA: (_Type.BINARY, _CONNECTING | {PropertyScope.AUTH}),
    _I.REQUEST_PROBLEM_INFO: (_Type.FLAG, frozenset({PropertyScope.CONNECT})),
    _I.WILL_DELAY: (_Type.U32, frozenset({PropertyScope.WILL})),
    _I.REQUEST_RESPONSE_INFO: (_Type.FLAG, frozenset({PropertyScope.CONNECT})),
    _I.RESPONSE_INFO: (_Type.UTF8, frozenset({PropertyScope.CONNACK})),
    _I.SERVER_REFERENCE: (_Type.UTF8, frozenset({PropertyScope.CONNACK, PropertyScope.DISCONNECT})),
    _I.REASON_STRING: (_Type.UTF8, _WITH_REASON),
    _I.RECEIVE_MAXIMUM: (_Type.U16, _CONNECTING),
    _I.TOPIC_ALIAS_MAXIMUM: (_Type.U16, _CONNECTING),
    _I.TOPIC_ALIAS: (_Type.U16, frozenset({PropertyScope.PUBLISH})),
    _I.MAXIMUM_QOS: (_Type.FLAG, frozenset({PropertyScope.CONNACK})),
    _I.RETAIN_AVAILABLE: (_Type.FLAG, frozenset({PropertyScope.CONNACK})),
    _I.USER_PROPERTY: (_Type.PAIR, frozenset(PropertyScope)),
    _I.MAXIMUM_PACKET_SIZE: (_Type.U32, _CONNECTING),
    _I.WILDCARD_SUBSCRIPTION_AVAILABLE: (_Type.FLAG, frozenset({PropertyScope.CONNACK})),
    _I.SUBSCRIPTION_IDS_AVAILABLE: (_Type.FLAG, frozenset({PropertyScope.CONNACK})),
    _I.SHARED_SUBSCRIPTION_AVAILABLE: (_Type.FLAG, frozenset({PropertyScope.CONNACK})),
}
_NEVER_ZERO: dict[PropertyId, ReasonCode] = {
    _I.SUBSCRIPTION_ID: ReasonCode.PROTOCOL_ERROR,
    _I.RECEIVE_MAXIMUM: ReasonCode.PROTOCOL_ERROR,
    _I.MAXIMUM_PACKET_SIZE: ReasonCode.PROTOCOL_ERROR,
    _I.TOPIC_ALIAS: ReasonCode.TOPIC_ALIAS_INVALID,
}
"""Properties that must not be 0, each with the reason code for a violation."""


MAX_PROPERTIES = 1024
"""Maximum number of properties per packet. Each costs many times its size to read, store and write."""
_EACH_BYTES = 256  # memory each, without its text


def get_property(properties: Properties, property_id: PropertyId) -> PropertyValue | None:
    """Return the first value of property `wanted`, or None."""
    for key, value in properties:
        if key is property_id:
            return value
    return None


def replace_property(properties: Properties, key: PropertyId, value: PropertyValue | None) -> Properties:
    """Return the properties with a single, last value for `key`, or without `key` if the value is None."""
    others = tuple(pair for pair in properties if pair[0] is not key)
    return others if value is None else (*others, (key, value))


def size_of(properties: Properties) -> int:
    """Return the approximate memory size of properties in bytes."""
    size = 0
    for _, value in properties:
        size += _EACH_BYTES
        if isinstance(value, tuple):
            size += len(value[0]) + len(value[1])
        elif not isinstance(value, int):
            size += len(value)
    return size


def read_properties(body: bytes, offset: int, scope: PropertyScope) -> tuple[Properties, int]:
    """Read a property block with its length.

    Raise `RemoteProtocolError` for a property that is not permitted here.
    """
    length, offset = p.read_varint(body, offset)
    end = offset + length
    if end > len(body):
        raise RemoteProtocolError("the packet ends inside its properties")
    if not length:
        return (), offset
    out: list[tuple[PropertyId, PropertyValue]] = []
    entries = _ENTRIES[scope]
    seen = 0
    while offset < end:
        number = body[offset]  # all defined identifiers are one byte
        entry = entries.get(number)
        if entry is None:
            raise _unauthenticated(number, scope)
        key, read, may_repeat = entry
        if seen >> number & 1 and not may_repeat:
            raise RemoteProtocolError(f"{key.name} occurs twice", reason_code=ReasonCode.PROTOCOL_ERROR)
        seen |= 1 << number
        if len(out) >= MAX_PROPERTIES:
            told = f"the packet has more than {MAX_PROPERTIES} properties"
            raise RemoteProtocolError(told, reason_code=ReasonCode.QUOTA_EXCEEDED)
        value, offset = read(body, offset + 1)
        if not value and key in _NEVER_ZERO:
            raise RemoteProtocolError(f"{key.name} is 0", reason_code=_NEVER_ZERO[key])
        out.append((key, value))
    if offset != end:
        raise RemoteProtocolError("a property reaches beyond its block")
    return tuple(out), offset


def write_properties(properties: Properties, scope: PropertyScope) -> bytes:
    """Return the property block with its length."""
    if not properties:
        return b"\0"
    out = bytearray()
    for key, value in properties:
        kind, places = _TABLE[key]
        if scope not in places:
            raise LocalProtocolError(f"{key.name} does not belong into {scope}")
        if key is _I.RESPONSE_TOPIC and not is_valid_name(str(value)):
            raise LocalProtocolError("a response topic is not empty and has no wildcard")
        out.append(key)
        out += _write(kind, value)
    return p.write_varint(len(out)) + bytes(out)


def _unauthenticated(number: int, scope: PropertyScope) -> RemoteProtocolError:
    """Return the error for a property that is not permitted here: a malformed packet (5.0 section 2.2.2.2)."""
    try:
        name = PropertyId(number).name
    except ValueError:
        return RemoteProtocolError(f"property 0x{number:02x} does not exist")
    return RemoteProtocolError(f"{name} does not belong into {scope}")


def _read_flag(body: bytes, offset: int) -> tuple[PropertyValue, int]:
    value, offset = p.read_u8(body, offset)
    if value > 1:
        raise RemoteProtocolError("a flag property is neither 0 nor 1", reason_code=ReasonCode.PROTOCOL_ERROR)
    return value, offset


def _read_pair(body: bytes, offset: int) -> tuple[PropertyValue, int]:
    name, offset = p.read_utf8(body, offset)
    value, offset = p.read_utf8(body, offset)
    return (name, value), offset


def _read_response_topic(body: bytes, offset: int) -> tuple[PropertyValue, int]:
    topic, offset = p.read_utf8(body, offset)
    if not is_valid_name(topic):  # [MQTT-3.3.2-14]
        raise RemoteProtocolError("RESPONSE_TOPIC is empty or has a wildcard", reason_code=ReasonCode.PROTOCOL_ERROR)
    return topic, offset


_Reader: TypeAlias = Callable[[bytes, int], tuple[PropertyValue, int]]
_READERS: dict[_Type, _Reader] = {
    _Type.FLAG: _read_flag,
    _Type.U16: p.read_u16,
    _Type.U32: p.read_u32,
    _Type.VARINT: p.read_varint,
    _Type.UTF8: p.read_utf8,
    _Type.BINARY: p.read_binary,
    _Type.PAIR: _read_pair,
}
_OWN_READERS: dict[PropertyId, _Reader] = {_I.RESPONSE_TOPIC: _read_response_topic}


def _may_repeat(key: PropertyId, scope: PropertyScope) -> bool:
    return key is _I.USER_PROPERTY or (key is _I.SUBSCRIPTION_ID and scope is PropertyScope.PUBLISH)


_ENTRIES: dict[PropertyScope, dict[int, tuple[PropertyId, _Reader, bool]]] = {
    place: {
        int(key): (key, _OWN_READERS.get(key, _READERS[kind]), _may_repeat(key, place))
        for key, (kind, places) in _TABLE.items()
        if place in places
    }
    for place in PropertyScope
}


def _write(kind: _Type, value: PropertyValue) -> bytes:  # noqa: PLR0911 (one return per type)
    match kind, value:
        case _Type.FLAG, int() if value in (0, 1):
            return bytes((value,))
        case _Type.U16, int():
            return p.write_u16(value)
        case _Type.U32, int() if 0 <= value <= 0xFFFFFFFF:
            return value.to_bytes(4, "big")
        case _Type.VARINT, int():
            return p.write_varint(value)
        case _Type.UTF8, str():
            return p.write_utf8(value)
        case _Type.BINARY, bytes():
            return p.write_binary(value)
        case _Type.PAIR, (str(name), str(text)):
            return p.write_utf8(name) + p.write_utf8(text)
        case _:
            raise LocalProtocolError(f"a property of type {kind} cannot hold {type(value).__name__}")
