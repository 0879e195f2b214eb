"""A message as the engine sees it, from whichever cloud's devices it came."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoutableMessage:
    """One published message with what is known of its way here."""

    topic: str
    """As it was published; a basic ingest topic with its first three levels."""
    payload: bytes
    client_id: str | None = None
    """None: it did not come over MQTT."""
    principal: str | None = None
    """Who published: a certificate's SHA-256 thumbprint in hex, or what the cloud in question calls its people."""
    account_id: str = ""
    timestamp_ms: int = 0
    """Milliseconds since 1970 UTC when it came in. `timestamp()` says this: seen twice, a message says the same."""
    trace_id: str | None = None
    qos: int = 0
    retain: bool = False
    user_properties: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    message_expiry_interval: int | None = None
    """Seconds."""
    payload_format_indicator: int | None = None
    """0: bytes; 1: UTF-8 (MQTT 5.0 section 3.3.2.3.2)."""
    source_ip: str | None = None
    protocol: str = "mqtt"
    system_properties: tuple[tuple[str, str], ...] = ()
    """What a hub knows of its message, by the names that conditions have without their $: `connectionDeviceId`, …"""
