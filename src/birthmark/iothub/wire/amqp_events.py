"""Telemetry as AMQP messages of the Event Hubs-compatible endpoint (facts of Azure's SDKs; AMQP 1.0 part 3)."""

from typing import Any

from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, write_message
from birthmark.amqp.values import Symbol, Timestamp
from birthmark.iothub.model import TelemetryMessage

_PROPERTIES = {
    "message-id": "message_id",
    "correlation-id": "correlation_id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
}
_NUMBER, _OFFSET, _TIME = Symbol("x-opt-sequence-number"), Symbol("x-opt-offset"), Symbol("x-opt-enqueued-time")
_DEVICE, _HUB_TIME = Symbol("iothub-connection-device-id"), Symbol("iothub-enqueuedtime")
_SOURCE = Symbol("iothub-message-source")


def render_event(
    position: int, number: int, message: TelemetryMessage, delivery: dict[Any, Any] | None = None
) -> bytes:
    """Return a telemetry message with its offset and sequence number; `delivery` are delivery annotations."""
    at = Timestamp(message.enqueued_micros // 1000)
    annotations: dict[Any, Any] = {
        _NUMBER: number,
        _OFFSET: str(position),
        _TIME: at,
        _DEVICE: message.device_id,
        _HUB_TIME: at,
        _SOURCE: message.system.get(_SOURCE) or "Telemetry",
    }
    properties: dict[str, Any] = {"to": f"/devices/{message.device_id}/messages/events"}
    for name, value in message.system.items():
        if name in _PROPERTIES:
            properties[_PROPERTIES[name]] = value
        elif name == "user-id" and value is not None:
            properties["user_id"] = value.encode()
        elif name != _SOURCE:
            annotations[Symbol(name)] = value or ""
    return write_message(
        AmqpMessage(
            DataBody((message.body,)),
            MessageProperties(**properties),
            {name: value or "" for name, value in message.properties.items()},
            annotations,
            delivery or {},
        )
    )
