"""Message model of the rule engine, independent of the cloud."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoutableMessage:
    """A published message with its metadata."""

    topic: str
    """Topic as published; a basic ingest topic includes its first three levels."""
    payload: bytes
    client_id: str | None = None
    """MQTT client id; None if the message did not arrive over MQTT."""
    principal: str | None = None
    """Publisher: a certificate's SHA-256 thumbprint in hex, or the cloud's name of the user."""
    account_id: str = ""
    timestamp_ms: int = 0
    """Arrival time in milliseconds since 1970 UTC, which `timestamp()` returns; the same for a redelivered message."""
    trace_id: str | None = None
    qos: int = 0
    retain: bool = False
    user_properties: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    message_expiry_interval: int | None = None
    """Expiry interval in seconds."""
    payload_format_indicator: int | None = None
    """0: bytes; 1: UTF-8 (MQTT 5.0 section 3.3.2.3.2)."""
    source_ip: str | None = None
    protocol: str = "mqtt"
    system_properties: tuple[tuple[str, str], ...] = ()
    """System properties of a hub message, by condition name without $: `connectionDeviceId` and others."""
