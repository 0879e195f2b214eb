"""Which end of a connection an engine is, how far it has come, and what it may cost."""

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """Which end of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class State(StrEnum):
    """How far the connection is."""

    NEW = "new"  # no CONNECT yet
    CONNECTING = "connecting"  # CONNECT sent or received, no CONNACK yet
    OPEN = "open"
    CLOSED = "closed"  # DISCONNECT or a refusing CONNACK went over the wire
    FAILED = "failed"


class Limits(msgspec.Struct, frozen=True):
    """What one connection may cost us. The defaults take 256 KiB of payload with its topic and header."""

    max_packet_bytes: int = 270_336
    max_topic_bytes: int = 65_535
    max_filters: int = 64
    max_in_flight: int = 100
    max_queued: int = 1000
    connect_timeout_s: float = 30.0  # server: from the first byte to the end of CONNECT
    ping_timeout_s: float = 30.0  # client: from PINGREQ to PINGRESP
