"""MQTT 5 properties: pairs of identifier and value (5.0 section 2.2.2). A table says which packet may carry which."""

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import TypeAlias

from birthmark.mqtt import primitives as p
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError


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


class Place(StrEnum):
    """Where a property block stands."""

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
_MESSAGE = frozenset({Place.PUBLISH, Place.WILL})
_CONNECTING = frozenset({Place.CONNECT, Place.CONNACK})
_WITH_REASON = frozenset({Place.CONNACK, Place.ACK, Place.DISCONNECT, Place.AUTH})

_TABLE: dict[PropertyId, tuple[_Type, frozenset[Place]]] = {
    _I.PAYLOAD_FORMAT: (_Type.FLAG, _MESSAGE),
    _I.MESSAGE_EXPIRY: (_Type.U32, _MESSAGE),
    _I.CONTENT_TYPE: (_Type.UTF8, _MESSAGE),
    _I.RESPONSE_TOPIC: (_Type.UTF8, _MESSAGE),
    _I.CORRELATION_DATA: (_Type.BINARY, _MESSAGE),
    _I.SUBSCRIPTION_ID: (_Type.VARINT, frozenset({Place.PUBLISH, Place.SUBSCRIBE})),
    _I.SESSION_EXPIRY: (_Type.U32, _CONNECTING | {Place.DISCONNECT}),
    _I.ASSIGNED_CLIENT_ID: (_Type.UTF8, frozenset({Place.CONNACK})),
    _I.SERVER_KEEP_ALIVE: (_Type.U16, frozenset({Place.CONNACK})),
    _I.AUTH_METHOD: (_Type.UTF8, _CONNECTING | {Place.AUTH}),
    _I.AUTH_DATA: (_Type.BINARY, _CONNECTING | {Place.AUTH}),
    _I.REQUEST_PROBLEM_INFO: (_Type.FLAG, frozenset({Place.CONNECT})),
    _I.WILL_DELAY: (_Type.U32, frozenset({Place.WILL})),
    _I.REQUEST_RESPONSE_INFO: (_Type.FLAG, frozenset({Place.CONNECT})),
    _I.RESPONSE_INFO: (_Type.UTF8, frozenset({Place.CONNACK})),
    _I.SERVER_REFERENCE: (_Type.UTF8, frozenset({Place.CONNACK, Place.DISCONNECT})),
    _I.REASON_STRING: (_Type.UTF8, _WITH_REASON),
    _I.RECEIVE_MAXIMUM: (_Type.U16, _CONNECTING),
    _I.TOPIC_ALIAS_MAXIMUM: (_Type.U16, _CONNECTING),
    _I.TOPIC_ALIAS: (_Type.U16, frozenset({Place.PUBLISH})),
    _I.MAXIMUM_QOS: (_Type.FLAG, frozenset({Place.CONNACK})),
    _I.RETAIN_AVAILABLE: (_Type.FLAG, frozenset({Place.CONNACK})),
    _I.USER_PROPERTY: (_Type.PAIR, frozenset(Place)),
    _I.MAXIMUM_PACKET_SIZE: (_Type.U32, _CONNECTING),
    _I.WILDCARD_SUBSCRIPTION_AVAILABLE: (_Type.FLAG, frozenset({Place.CONNACK})),
    _I.SUBSCRIPTION_IDS_AVAILABLE: (_Type.FLAG, frozenset({Place.CONNACK})),
    _I.SHARED_SUBSCRIPTION_AVAILABLE: (_Type.FLAG, frozenset({Place.CONNACK})),
}
_NEVER_ZERO = frozenset({_I.SUBSCRIPTION_ID, _I.RECEIVE_MAXIMUM, _I.TOPIC_ALIAS, _I.MAXIMUM_PACKET_SIZE})


def get_property(properties: Properties, wanted: PropertyId) -> PropertyValue | None:
    """Return the first value of `wanted`, or None."""
    return next((value for key, value in properties if key is wanted), None)


def read_properties(body: bytes, at: int, place: Place) -> tuple[Properties, int]:
    """Read a property block with its length; raise `RemoteProtocolError` for what does not belong there."""
    length, at = p.read_varint(body, at)
    end = at + length
    if end > len(body):
        raise RemoteProtocolError("the packet ends inside its properties")
    out: list[tuple[PropertyId, PropertyValue]] = []
    seen: set[PropertyId] = set()
    while at < end:
        number, at = p.read_varint(body, at)
        key = _known(number)
        kind, places = _TABLE[key]
        if place not in places:
            raise RemoteProtocolError(f"{key.name} does not belong into {place}", reason_code=0x82)
        may_repeat = key is _I.USER_PROPERTY or (key is _I.SUBSCRIPTION_ID and place is Place.PUBLISH)
        if key in seen and not may_repeat:
            raise RemoteProtocolError(f"{key.name} is there twice", reason_code=0x82)
        seen.add(key)
        value, at = _READERS[kind](body, at)
        if value == 0 and key in _NEVER_ZERO:
            raise RemoteProtocolError(f"{key.name} is 0", reason_code=0x82)
        out.append((key, value))
    if at != end:
        raise RemoteProtocolError("a property reaches beyond its block")
    return tuple(out), at


def write_properties(properties: Properties, place: Place) -> bytes:
    """Return the property block with its length."""
    if not properties:
        return b"\0"
    out = bytearray()
    for key, value in properties:
        kind, places = _TABLE[key]
        if place not in places:
            raise LocalProtocolError(f"{key.name} does not belong into {place}")
        out.append(key)
        out += _write(kind, value)
    return p.write_varint(len(out)) + bytes(out)


def _known(number: int) -> PropertyId:
    try:
        return PropertyId(number)
    except ValueError:
        raise RemoteProtocolError(f"property 0x{number:02x} does not exist") from None


def _read_flag(body: bytes, at: int) -> tuple[PropertyValue, int]:
    value, at = p.read_u8(body, at)
    if value > 1:
        raise RemoteProtocolError("a flag property is neither 0 nor 1", reason_code=0x82)
    return value, at


def _read_pair(body: bytes, at: int) -> tuple[PropertyValue, int]:
    name, at = p.read_utf8(body, at)
    value, at = p.read_utf8(body, at)
    return (name, value), at


_READERS: dict[_Type, Callable[[bytes, int], tuple[PropertyValue, int]]] = {
    _Type.FLAG: _read_flag,
    _Type.U16: p.read_u16,
    _Type.U32: p.read_u32,
    _Type.VARINT: p.read_varint,
    _Type.UTF8: p.read_utf8,
    _Type.BINARY: p.read_binary,
    _Type.PAIR: _read_pair,
}


def _write(kind: _Type, value: PropertyValue) -> bytes:  # noqa: PLR0911 (one return per type is the table)
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
