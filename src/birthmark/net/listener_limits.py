"""Resource limits for one peer. Every default is documented in docs/reference/limits.md."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on connections, time and bytes. Times are in seconds.

    Limits for `strangers` apply to unauthenticated clients.
    """

    handshake_s: float = 10.0
    first_byte_s: float = 20.0
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    mqtt_connect_s: float = 10.0
    max_header_bytes: int = 32 * 1024
    max_body_bytes: int = 1024 * 1024
    max_connections: int = 20_000
    max_connections_per_peer: int = 10_000
    max_connections_per_key: int = 1_000
    max_sessions_per_key: int = 1_000
    max_unauthenticated: int = 4096
    max_unauthenticated_per_peer: int = 512
    max_unauthenticated_bytes: int = 64 * 1024 * 1024
    max_unauthenticated_bytes_per_peer: int = 8 * 1024 * 1024
    max_pending_handshakes: int = 2_000
    max_write_buffer_bytes: int = 8 * 1024 * 1024
    max_unread_bytes: int = 256 * 1024 * 1024
    max_unread_bytes_per_peer: int = 64 * 1024 * 1024
