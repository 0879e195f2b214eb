"""Telemetry as AMQP messages of the Event Hubs-compatible endpoint (facts of Azure's SDKs; AMQP 1.0 part 3).

The sections are composed of encoded values: this is done for every event and reader.
"""

from collections.abc import Mapping
from typing import Any, Final

from birthmark.amqp.encoder import (
    LIST_CODE,
    MAP_CODE,
    NULL_BYTES,
    SYMBOL_CODE,
    encode_binary,
    encode_compound,
    encode_long,
    encode_string,
    encode_symbol,
    encode_value,
    encode_variable,
)
from birthmark.amqp.message import (
    APPLICATION_PROPERTIES,
    DATA,
    DELIVERY_ANNOTATIONS,
    MESSAGE_ANNOTATIONS,
    PROPERTIES,
    section_prefix,
)
from birthmark.amqp.values import Timestamp
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.wire.d2c_property_bags import auth_method_json

_NUMBER, _OFFSET, _TIME = map(encode_symbol, ("x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time"))
_DEVICE, _HUB_TIME = map(encode_symbol, ("iothub-connection-device-id", "iothub-enqueuedtime"))
_SOURCE: Final = "iothub-message-source"
_SOURCE_SYMBOL = encode_symbol(_SOURCE)
_TELEMETRY = encode_string("Telemetry")
_IN_PROPERTIES = frozenset({"message-id", "user-id", "correlation-id", "content-type", "content-encoding", _SOURCE})
_AUTH_METHOD, _GENERATION = map(
    encode_symbol, ("iothub-connection-auth-method", "iothub-connection-auth-generation-id")
)
_DELIVERY_PREFIX, _ANNOTATIONS_PREFIX, _PROPERTIES_PREFIX, _APPLICATION_PREFIX, _DATA_PREFIX = map(
    section_prefix, (DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES, DATA)
)


def render_event(
    position: int, number: int, message: TelemetryMessage, delivery: dict[Any, Any] | None = None
) -> bytes:
    """Return a telemetry message with its offset and sequence number; `delivery` are delivery annotations."""
    system, device = message.system, message.device_id
    at = encode_value(Timestamp(message.enqueued_micros // 1000))
    source = system.get(_SOURCE)
    annotations = [_NUMBER, encode_long(number), _OFFSET, encode_string(str(position)), _TIME, at]
    annotations += [_DEVICE, encode_string(device), _HUB_TIME, at]
    annotations += [_SOURCE_SYMBOL, encode_string(source) if source else _TELEMETRY]
    if message.auth_method:
        annotations += [_AUTH_METHOD, encode_string(auth_method_json(message))]
        annotations += [_GENERATION, encode_string(str(message.generation_id))]
    for name, value in system.items():
        if name not in _IN_PROPERTIES:
            annotations += [_symbol(name), encode_string(value or "")]
    properties = _properties(system, f"/devices/{device}/messages/events")
    parts = [
        _DELIVERY_PREFIX + encode_value(delivery) if delivery else b"",
        _ANNOTATIONS_PREFIX,
        encode_compound(MAP_CODE, len(annotations), b"".join(annotations)),
        _PROPERTIES_PREFIX,
        encode_compound(LIST_CODE, len(properties), b"".join(properties)),
    ]
    if message.properties:
        own = [encode_string(part or "") for pair in message.properties.items() for part in pair]
        parts += [_APPLICATION_PREFIX, encode_compound(MAP_CODE, len(own), b"".join(own))]
    parts += [_DATA_PREFIX, encode_binary(message.body)]
    return b"".join(parts)


def _properties(system: Mapping[str, str | None], to: str) -> list[bytes]:
    """Return the fields of the properties section, up to the last that has a value (section 3.2.4)."""
    get = system.get
    message_id, user_id, correlation_id = get("message-id"), get("user-id"), get("correlation-id")
    fields = [
        NULL_BYTES if message_id is None else encode_string(message_id),
        NULL_BYTES if user_id is None else encode_binary(user_id.encode()),
        encode_string(to),
    ]
    types = [get("content-type"), get("content-encoding")]
    if correlation_id is None and types == [None, None]:
        return fields
    fields += [NULL_BYTES, NULL_BYTES, NULL_BYTES if correlation_id is None else encode_string(correlation_id)]
    while types and types[-1] is None:
        types.pop()
    return fields + [NULL_BYTES if one is None else _symbol(one) for one in types]


def _symbol(text: str) -> bytes:
    """Return a symbol, which is ASCII: other characters of a device are replaced, so that its event is delivered."""
    return encode_variable(SYMBOL_CODE, text.encode("ascii", "replace"))
