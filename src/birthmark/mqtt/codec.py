"""Packet codec for 3.1.1 (level 4) and MQTT 5 (level 5).

Input: the first byte of the fixed header and the body, as `framing` cuts them. Output: a packet, or
`RemoteProtocolError` for malformed input; encoding raises `LocalProtocolError`. CONNECT contains its level; all other
packets need the level of their connection.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from birthmark.mqtt import primitives as p
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import (
    LEVEL_3_1_1,
    LEVEL_5,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMessage,
)
from birthmark.mqtt.properties import (
    Properties,
    PropertyId,
    PropertyScope,
    get_property,
    read_properties,
    write_properties,
)
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.mqtt.topics import SHARED, is_valid_filter, is_valid_name, is_valid_shared

REFUSED_LEVEL: Final = 1
_BRIDGE: Final = 0x80  # level bit by which mosquitto marks a bridge
REFUSED_CLIENT_ID: Final = 2

NO_LOCAL, RETAIN_AS_PUBLISHED, RETAIN_HANDLING = 0x04, 0x08, 0x30
"""Subscription options in addition to the QoS (5.0 section 3.8.3.1)."""

# Header bytes without PUBLISH, whose flags vary (table 2.2).
CONNECT, CONNACK, PUBLISH = 0x10, 0x20, 0x30
PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x82, 0x90, 0xA2, 0xB0
PINGREQ, PINGRESP, DISCONNECT, AUTH = 0xC0, 0xD0, 0xE0, 0xF0

_Numbered = TypeVar("_Numbered", PubAck, PubRec, PubRel, PubComp)


def decode(first: int, body: bytes, level: int = LEVEL_3_1_1) -> Packet:
    """Return the packet, or raise `RemoteProtocolError`."""
    if first & 0xF0 == PUBLISH:
        return decode_publish(first, body, level)
    reader = _READERS.get(first)
    if reader is None:
        raise RemoteProtocolError(f"a packet begins with the reserved byte 0x{first:02x}")
    return reader(body, level)


def decode_publish(first: int, body: bytes, level: int) -> Publish:
    """Decode a PUBLISH (section 3.3)."""
    qos = first >> 1 & 3
    dup = bool(first & 8)
    if qos == 3:
        raise RemoteProtocolError("PUBLISH has QoS 3")
    if dup and not qos:
        raise RemoteProtocolError("PUBLISH with QoS 0 is marked as a duplicate")
    topic, at = p.read_utf8(body, 0)
    packet_id = None
    if qos:
        packet_id, at = _read_packet_id(body, at)
    properties: Properties = ()
    if level == LEVEL_5:
        properties, at = read_properties(body, at, PropertyScope.PUBLISH)
    if not topic and level == LEVEL_5:
        if get_property(properties, PropertyId.TOPIC_ALIAS) is None:
            told = "PUBLISH has neither a topic nor an alias"
            raise RemoteProtocolError(told, reason_code=ReasonCode.PROTOCOL_ERROR)
    elif not is_valid_name(topic):
        told = "PUBLISH has an empty topic or one with a wildcard"
        raise RemoteProtocolError(told, reason_code=ReasonCode.TOPIC_NAME_INVALID)
    return Publish(topic, body[at:], qos, bool(first & 1), dup, packet_id, properties)


def encode(packet: Packet, level: int = LEVEL_3_1_1) -> bytes:
    """Return the packet's bytes, or raise `LocalProtocolError`."""
    if type(packet) is Publish:
        return encode_publish(packet, level)
    first, body = _body(packet, level)
    return bytes((first,)) + p.write_varint(len(body)) + body


def encode_publish(packet: Publish, level: int) -> bytes:
    """Encode a PUBLISH; the payload is copied once."""
    if not 0 <= packet.qos <= 2:
        raise LocalProtocolError(f"QoS {packet.qos} does not exist")
    first = PUBLISH | packet.dup << 3 | packet.qos << 1 | packet.retain
    topic = p.write_utf8(packet.topic)
    if packet.qos:
        topic += _write_packet_id(packet.packet_id)
    elif packet.packet_id is not None or packet.dup:
        raise LocalProtocolError("PUBLISH with QoS 0 has neither a packet id nor a duplicate flag")
    if level == LEVEL_5:
        topic += write_properties(packet.properties, PropertyScope.PUBLISH)
        if not packet.topic and get_property(packet.properties, PropertyId.TOPIC_ALIAS) is not None:
            return b"".join((bytes((first,)), p.write_varint(len(topic) + len(packet.payload)), topic, packet.payload))
    if not is_valid_name(packet.topic):
        raise LocalProtocolError("a topic to publish to is not empty and has no wildcard")
    return b"".join((bytes((first,)), p.write_varint(len(topic) + len(packet.payload)), topic, packet.payload))


# ---- CONNECT and CONNACK


def _read_connect(body: bytes, _level: int) -> Connect:
    name, at = p.read_binary(body, 0)
    level, at = p.read_u8(body, at)
    if name not in (b"MQTT", b"MQIsdp"):
        raise RemoteProtocolError("CONNECT names another protocol than MQTT")
    if name == b"MQIsdp" or level not in (LEVEL_3_1_1, LEVEL_5):
        told = f"CONNECT requests protocol level {level}"
        if level & _BRIDGE:
            told += ", as a mosquitto bridge does first; the bridge then retries with MQTT 3.1.1"
        raise RemoteProtocolError(told, REFUSED_LEVEL, reason_code=ReasonCode.UNSUPPORTED_VERSION)
    flags, at = p.read_u8(body, at)
    _check_connect_flags(flags, level)
    keep_alive_s, at = p.read_u16(body, at)
    properties: Properties = ()
    if level == LEVEL_5:
        properties, at = read_properties(body, at, PropertyScope.CONNECT)
    client_id, at = p.read_utf8(body, at)
    clean_start = bool(flags & 0x02)
    if not client_id and not clean_start and level == LEVEL_3_1_1:
        raise RemoteProtocolError(
            "an empty client id needs a clean session", REFUSED_CLIENT_ID, reason_code=ReasonCode.CLIENT_ID_NOT_VALID
        )
    will = None
    if flags & 0x04:
        will, at = _read_will(body, at, flags, level)
    username = password = None
    if flags & 0x80:
        username, at = p.read_utf8(body, at)
    if flags & 0x40:
        password, at = p.read_binary(body, at)
    _expect_end(body, at)
    return Connect(client_id, clean_start, keep_alive_s, username, password, will, level, properties)


def _check_connect_flags(flags: int, level: int) -> None:
    """Raise `RemoteProtocolError` for invalid CONNECT flags (sections 3.1.2.3 to 3.1.2.9)."""
    if flags & 0x01:
        raise RemoteProtocolError("CONNECT sets the reserved flag")
    if not flags & 0x04 and flags & 0x38:
        raise RemoteProtocolError("CONNECT has will QoS or retain without a will")
    if flags & 0x18 == 0x18:
        raise RemoteProtocolError("CONNECT has will QoS 3")
    if level == LEVEL_3_1_1 and flags & 0xC0 == 0x40:
        raise RemoteProtocolError("CONNECT has a password without a user name")


def _read_will(body: bytes, offset: int, flags: int, level: int) -> tuple[WillMessage, int]:
    properties: Properties = ()
    if level == LEVEL_5:
        properties, offset = read_properties(body, offset, PropertyScope.WILL)
    topic, offset = p.read_utf8(body, offset)
    if not is_valid_name(topic):
        raise RemoteProtocolError(
            "the will topic is empty or has a wildcard", reason_code=ReasonCode.TOPIC_NAME_INVALID
        )
    payload, offset = p.read_binary(body, offset)
    return WillMessage(topic, payload, flags >> 3 & 3, bool(flags & 0x20), properties), offset


def _write_connect(packet: Connect) -> bytes:
    level, will = packet.level, packet.will
    flags = packet.clean_start << 1
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
    flags |= (packet.username is not None) << 7 | (packet.password is not None) << 6
    _check_connect(packet)
    parts = [b"\0\4MQTT", bytes((level, flags)), p.write_u16(packet.keep_alive_s)]
    if level == LEVEL_5:
        parts.append(write_properties(packet.properties, PropertyScope.CONNECT))
    parts.append(p.write_utf8(packet.client_id))
    if will is not None:
        if level == LEVEL_5:
            parts.append(write_properties(will.properties, PropertyScope.WILL))
        parts += [p.write_utf8(will.topic), p.write_binary(will.payload)]
    if packet.username is not None:
        parts.append(p.write_utf8(packet.username))
    if packet.password is not None:
        parts.append(p.write_binary(packet.password))
    return b"".join(parts)


def _check_connect(packet: Connect) -> None:
    if packet.level not in (LEVEL_3_1_1, LEVEL_5):
        raise LocalProtocolError(f"protocol level {packet.level} is not spoken here")
    if packet.level == LEVEL_3_1_1 and packet.username is None and packet.password is not None:
        raise LocalProtocolError("3.1.1 allows no password without a user name")
    if packet.level == LEVEL_3_1_1 and not packet.client_id and not packet.clean_start:
        raise LocalProtocolError("an empty client id needs a clean session")
    if packet.will is not None and not (0 <= packet.will.qos <= 2 and is_valid_name(packet.will.topic)):
        raise LocalProtocolError("the will has no valid topic or QoS")


def _read_connack(body: bytes, level: int) -> ConnAck:
    flags, at = p.read_u8(body, 0)
    code, at = p.read_u8(body, at)
    if flags > 1:
        raise RemoteProtocolError("CONNACK sets reserved flags")
    if flags and code:
        raise RemoteProtocolError("CONNACK rejects the connection but reports a present session")
    properties: Properties = ()
    # A server for 3.1.1 only answers level 5 in 3.1.1 format.
    if level == LEVEL_5 and at < len(body):
        properties, at = read_properties(body, at, PropertyScope.CONNACK)
    _expect_end(body, at)
    return ConnAck(bool(flags), code, properties)


def _write_connack(packet: ConnAck, level: int) -> bytes:
    if packet.session_present and packet.code:
        raise LocalProtocolError("a refused connection has no session")
    if not 0 <= packet.code <= 0xFF:
        raise LocalProtocolError(f"{packet.code} is not a CONNACK code")
    head = bytes((packet.session_present, packet.code))
    if level == LEVEL_5 and packet.code != REFUSED_LEVEL:
        return head + write_properties(packet.properties, PropertyScope.CONNACK)
    return head


# ---- acknowledgements of PUBLISH


def _numbered_reader(kind: type[_Numbered]) -> Callable[[bytes, int], _Numbered]:
    def read(body: bytes, level: int) -> _Numbered:
        packet_id, at = _read_packet_id(body, 0)
        code = 0
        properties: Properties = ()
        if level == LEVEL_5 and at < len(body):
            code, at = p.read_u8(body, at)
            if at < len(body):
                properties, at = read_properties(body, at, PropertyScope.ACK)
        _expect_end(body, at)
        return kind(packet_id, code, properties)

    return read


def _write_numbered(packet: PubAck | PubRec | PubRel | PubComp, level: int) -> bytes:
    head = _write_packet_id(packet.packet_id)
    if level == LEVEL_3_1_1 or (not packet.code and not packet.properties):
        return head
    return head + _write_code(packet.code, packet.properties, PropertyScope.ACK)


# ---- subscriptions


MAX_FILTERS = 256
"""Maximum topic filters decoded per packet: with one character each, a packet could contain 90,000."""


def _too_many_filters() -> RemoteProtocolError:
    told = f"the packet has more than {MAX_FILTERS} topic filters"
    return RemoteProtocolError(told, reason_code=ReasonCode.QUOTA_EXCEEDED)


def _read_subscribe(body: bytes, level: int) -> Subscribe:
    packet_id, at = _read_packet_id(body, 0)
    properties: Properties = ()
    if level == LEVEL_5:
        properties, at = read_properties(body, at, PropertyScope.SUBSCRIBE)
    filters: list[tuple[str, int]] = []
    while at < len(body):
        topic_filter, at = p.read_utf8(body, at)
        options, at = p.read_u8(body, at)
        _check_options(topic_filter, options, level)
        filters.append((_checked_filter(topic_filter, level), options))
        if len(filters) > MAX_FILTERS:
            raise _too_many_filters()
    if not filters:
        raise RemoteProtocolError("SUBSCRIBE has no filter", reason_code=ReasonCode.PROTOCOL_ERROR)
    return Subscribe(packet_id, tuple(filters), properties)


def _check_options(topic_filter: str, options: int, level: int) -> None:
    """Raise `RemoteProtocolError` for invalid subscription options (section 3.8.3.1 of either version)."""
    if options & (0xFC if level == LEVEL_3_1_1 else 0xC0):
        raise RemoteProtocolError("SUBSCRIBE sets an option that does not exist")
    if options & 3 == 3 or options & 0x30 == 0x30:
        told = "SUBSCRIBE requests an undefined QoS or retain handling"
        raise RemoteProtocolError(told, reason_code=ReasonCode.PROTOCOL_ERROR)
    if options & NO_LOCAL and topic_filter.startswith(SHARED):  # [MQTT-3.8.3-4]
        told = "SUBSCRIBE sets No Local on a shared subscription"
        raise RemoteProtocolError(told, reason_code=ReasonCode.PROTOCOL_ERROR)


def _write_subscribe(packet: Subscribe, level: int) -> bytes:
    if not packet.filters:
        raise LocalProtocolError("SUBSCRIBE needs a filter")
    parts = [_write_packet_id(packet.packet_id)]
    if level == LEVEL_5:
        parts.append(write_properties(packet.properties, PropertyScope.SUBSCRIBE))
    for topic_filter, options in packet.filters:
        if not is_valid_filter(topic_filter) or options & 3 == 3 or not 0 <= options <= (2, 0x2F)[level == LEVEL_5]:
            raise LocalProtocolError(f"{topic_filter!r} with options {options} is not a valid subscription")
        parts += [p.write_utf8(topic_filter), bytes((options,))]
    return b"".join(parts)


def _read_suback(body: bytes, level: int) -> SubAck:
    packet_id, at = _read_packet_id(body, 0)
    properties: Properties = ()
    if level == LEVEL_5:
        properties, at = read_properties(body, at, PropertyScope.ACK)
    codes = tuple(body[at:])
    if not codes:
        raise RemoteProtocolError("SUBACK has no code", reason_code=ReasonCode.PROTOCOL_ERROR)
    if any(2 < code < 0x80 or (level == LEVEL_3_1_1 and code > 0x80) for code in codes):
        raise RemoteProtocolError("SUBACK has a reserved code")
    return SubAck(packet_id, codes, properties)


def _write_suback(packet: SubAck, level: int) -> bytes:
    if not packet.codes or any(not (0 <= code <= 2 or 0x80 <= code <= 0xFF) for code in packet.codes):
        raise LocalProtocolError("SUBACK needs codes of 0, 1, 2 or 0x80 and up")
    properties = write_properties(packet.properties, PropertyScope.ACK) if level == LEVEL_5 else b""
    # 3.1.1 has only one failure code.
    codes = packet.codes if level == LEVEL_5 else (min(code, 0x80) for code in packet.codes)
    return _write_packet_id(packet.packet_id) + properties + bytes(codes)


def _read_unsubscribe(body: bytes, level: int) -> Unsubscribe:
    packet_id, at = _read_packet_id(body, 0)
    properties: Properties = ()
    if level == LEVEL_5:
        properties, at = read_properties(body, at, PropertyScope.UNSUBSCRIBE)
    filters: list[str] = []
    while at < len(body):
        topic_filter, at = p.read_utf8(body, at)
        filters.append(_checked_filter(topic_filter, level))
        if len(filters) > MAX_FILTERS:
            raise _too_many_filters()
    if not filters:
        raise RemoteProtocolError("UNSUBSCRIBE has no filter", reason_code=ReasonCode.PROTOCOL_ERROR)
    return Unsubscribe(packet_id, tuple(filters), properties)


def _write_unsubscribe(packet: Unsubscribe, level: int) -> bytes:
    if not packet.filters or not all(map(is_valid_filter, packet.filters)):
        raise LocalProtocolError("UNSUBSCRIBE needs valid filters")
    properties = write_properties(packet.properties, PropertyScope.UNSUBSCRIBE) if level == LEVEL_5 else b""
    return _write_packet_id(packet.packet_id) + properties + b"".join(map(p.write_utf8, packet.filters))


def _read_unsuback(body: bytes, level: int) -> UnsubAck:
    packet_id, at = _read_packet_id(body, 0)
    if level == LEVEL_3_1_1:
        _expect_end(body, at)
        return UnsubAck(packet_id)
    properties, at = read_properties(body, at, PropertyScope.ACK)
    if at == len(body):
        raise RemoteProtocolError("UNSUBACK has no code", reason_code=ReasonCode.PROTOCOL_ERROR)
    return UnsubAck(packet_id, tuple(body[at:]), properties)


def _write_unsuback(packet: UnsubAck, level: int) -> bytes:
    head = _write_packet_id(packet.packet_id)
    if level == LEVEL_3_1_1:
        return head
    if not packet.codes:
        raise LocalProtocolError("UNSUBACK needs one code per filter in MQTT 5")
    return head + write_properties(packet.properties, PropertyScope.ACK) + bytes(packet.codes)


# ---- other packets


def _read_pingreq(body: bytes, _level: int) -> PingReq:
    _expect_end(body, 0)
    return PingReq()


def _read_pingresp(body: bytes, _level: int) -> PingResp:
    _expect_end(body, 0)
    return PingResp()


def _read_disconnect(body: bytes, level: int) -> Disconnect:
    return Disconnect(*_read_code(body, level, PropertyScope.DISCONNECT))


def _read_auth(body: bytes, level: int) -> Auth:
    if level == LEVEL_3_1_1:
        raise RemoteProtocolError("AUTH does not exist in 3.1.1")
    return Auth(*_read_code(body, level, PropertyScope.AUTH))


def _read_code(body: bytes, level: int, scope: PropertyScope) -> tuple[int, Properties]:
    code, at = 0, 0
    properties: Properties = ()
    if level == LEVEL_5 and body:
        code, at = p.read_u8(body, at)
        if at < len(body):
            properties, at = read_properties(body, at, scope)
    _expect_end(body, at)
    return code, properties


def _write_code(code: int, properties: Properties, scope: PropertyScope) -> bytes:
    if not 0 <= code <= 0xFF:
        raise LocalProtocolError(f"{code} is not a reason code")
    return bytes((code,)) + (write_properties(properties, scope) if properties else b"")


def _write_disconnect(packet: Disconnect, level: int) -> bytes:
    if level == LEVEL_3_1_1 or (not packet.code and not packet.properties):
        return b""
    return _write_code(packet.code, packet.properties, PropertyScope.DISCONNECT)


def _write_auth(packet: Auth, level: int) -> bytes:
    if level == LEVEL_3_1_1:
        raise LocalProtocolError("AUTH does not exist in 3.1.1")
    return _write_code(packet.code, packet.properties, PropertyScope.AUTH) if packet.code or packet.properties else b""


def _read_packet_id(body: bytes, offset: int) -> tuple[int, int]:
    packet_id, offset = p.read_u16(body, offset)
    if not packet_id:
        raise RemoteProtocolError("the packet id is 0")
    return packet_id, offset


def _write_packet_id(packet_id: int | None) -> bytes:
    if packet_id is None or not 1 <= packet_id <= p.MAX_U16:
        raise LocalProtocolError(f"{packet_id} is not a packet identifier")
    return packet_id.to_bytes(2, "big")


def _checked_filter(topic_filter: str, level: int) -> str:
    if not (is_valid_shared if level == LEVEL_5 else is_valid_filter)(topic_filter):
        raise RemoteProtocolError(
            "a topic filter is empty or has a misplaced wildcard", reason_code=ReasonCode.TOPIC_FILTER_INVALID
        )
    return topic_filter


def _expect_end(body: bytes, offset: int) -> None:
    if offset != len(body):
        raise RemoteProtocolError("the packet is longer than its content")


_READERS: dict[int, Callable[[bytes, int], Packet]] = {
    CONNECT: _read_connect,
    CONNACK: _read_connack,
    PUBACK: _numbered_reader(PubAck),
    PUBREC: _numbered_reader(PubRec),
    PUBREL: _numbered_reader(PubRel),
    PUBCOMP: _numbered_reader(PubComp),
    SUBSCRIBE: _read_subscribe,
    SUBACK: _read_suback,
    UNSUBSCRIBE: _read_unsubscribe,
    UNSUBACK: _read_unsuback,
    PINGREQ: _read_pingreq,
    PINGRESP: _read_pingresp,
    DISCONNECT: _read_disconnect,
    AUTH: _read_auth,
}


def _body(packet: Packet, level: int) -> tuple[int, bytes]:  # noqa: C901, PLR0911, PLR0912 (one case per packet type)
    match packet:
        case Connect():
            return CONNECT, _write_connect(packet)
        case ConnAck():
            return CONNACK, _write_connack(packet, level)
        case PubAck():
            return PUBACK, _write_numbered(packet, level)
        case PubRec():
            return PUBREC, _write_numbered(packet, level)
        case PubRel():
            return PUBREL, _write_numbered(packet, level)
        case PubComp():
            return PUBCOMP, _write_numbered(packet, level)
        case Subscribe():
            return SUBSCRIBE, _write_subscribe(packet, level)
        case SubAck():
            return SUBACK, _write_suback(packet, level)
        case Unsubscribe():
            return UNSUBSCRIBE, _write_unsubscribe(packet, level)
        case UnsubAck():
            return UNSUBACK, _write_unsuback(packet, level)
        case PingReq():
            return PINGREQ, b""
        case PingResp():
            return PINGRESP, b""
        case Disconnect():
            return DISCONNECT, _write_disconnect(packet, level)
        case Auth():
            return AUTH, _write_auth(packet, level)
        case Publish():
            raise AssertionError("encode_publish writes these")
