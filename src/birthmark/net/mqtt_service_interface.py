"""Interface between the MQTT driver and a service: admission, refusal, and close reasons.

A service does not depend on the MQTT version. It grants and refuses with MQTT 5 reason codes. The driver encodes
CONNACK, PUBACK and DISCONNECT for the client's protocol level.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from birthmark import errors
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.metric_catalog import Traffic
from birthmark.mqtt.packets import LEVEL_5, Connect, Publish, Subscribe, Unsubscribe
from birthmark.mqtt.properties import Properties, PropertyId, PropertyValue
from birthmark.mqtt.reason_codes import ReasonCode


class MqttProtocolError(InvalidRequestError):
    """The client violated the protocol."""

    code = "mqtt.protocol_error"
    cause = "The client violated the MQTT protocol: {reason}."
    fix = (
        "Check the client library; docs/reference/limits.md lists the size limits. To send a valid request for "
        'comparison: `birthmark device send hello --hub "$PROVISIONING_HOST"`'
    )
    reason: str


class MqttVersionError(InvalidRequestError):
    """MQTT 5 is not supported by this endpoint."""

    code = "mqtt.version_unsupported"
    cause = "The client uses MQTT 5; this endpoint supports MQTT 3.1.1."
    fix = (
        "Configure the client for MQTT 3.1.1 (protocol level 4), as in this command: `birthmark device "
        'send hello --hub "$PROVISIONING_HOST"`'
    )


class MqttRefusedError(Exception):
    """Refused CONNECT: an MQTT 5 reason code, and the reason for the ledger.

    A 3.1.1 client receives the equivalent return code; `is_silent_in_3` closes without CONNACK instead, as AWS does.
    """

    def __init__(self, reason_code: int, error: BirthmarkError, *, is_silent_in_3: bool = False) -> None:
        super().__init__(str(error))
        self.reason_code = reason_code
        self.error = error
        self.is_silent_in_3 = is_silent_in_3


def require_3_1_1(packet: Connect) -> None:
    """Raise `MqttRefusedError` for an MQTT 5 client of a service that does not support MQTT 5."""
    if packet.level == LEVEL_5:
        raise MqttRefusedError(ReasonCode.UNSUPPORTED_VERSION, MqttVersionError())


class CloseReason(StrEnum):
    """Reason for the end of a connection. Only after `DISCONNECT` the will is not published ([MQTT-3.14.4-3])."""

    DISCONNECT = "disconnect"  # sent by the client
    DISCONNECT_WITH_WILL = "disconnect_with_will"  # requested by the client with its will, or after an error
    LOST = "lost"
    KEEP_ALIVE = "keep_alive"
    PROTOCOL = "protocol"
    REFUSED = "refused"
    TAKEN_OVER = "taken_over"
    ADMINISTRATIVE = "administrative"  # by an operator: a certificate revoked, a hub deleted
    ENDED = "ended"  # the allowed session time is over
    ASKED = "asked"  # an operator requested only that: reconnects are allowed
    STOPPING = "stopping"  # server shutdown
    SERVER = "server"


CLOSE_CODES: Mapping[CloseReason, int] = {
    CloseReason.DISCONNECT: ReasonCode.SUCCESS,
    CloseReason.DISCONNECT_WITH_WILL: ReasonCode.SUCCESS,
    CloseReason.LOST: ReasonCode.UNSPECIFIED_ERROR,
    CloseReason.KEEP_ALIVE: ReasonCode.KEEP_ALIVE_TIMEOUT,
    CloseReason.PROTOCOL: ReasonCode.PROTOCOL_ERROR,
    CloseReason.REFUSED: ReasonCode.NOT_AUTHORIZED,
    CloseReason.TAKEN_OVER: ReasonCode.SESSION_TAKEN_OVER,
    CloseReason.ADMINISTRATIVE: ReasonCode.ADMINISTRATIVE_ACTION,
    CloseReason.ENDED: ReasonCode.MAXIMUM_CONNECT_TIME,
    CloseReason.ASKED: ReasonCode.ADMINISTRATIVE_ACTION,
    CloseReason.STOPPING: ReasonCode.SHUTTING_DOWN,
    CloseReason.SERVER: ReasonCode.UNSPECIFIED_ERROR,
}
"""DISCONNECT reason codes for connections that the server ends."""

REASONS: Mapping[type[BirthmarkError], int] = {
    errors.InvalidRequestError: ReasonCode.IMPLEMENTATION_ERROR,
    errors.UnauthenticatedError: ReasonCode.NOT_AUTHORIZED,
    errors.ForbiddenError: ReasonCode.NOT_AUTHORIZED,
    errors.ThrottledError: ReasonCode.QUOTA_EXCEEDED,
    errors.PolicyError: ReasonCode.QUOTA_EXCEEDED,
    errors.UnavailableError: ReasonCode.SERVER_UNAVAILABLE,
    BirthmarkError: ReasonCode.UNSPECIFIED_ERROR,
}


def reason_of(error: BirthmarkError, table: Mapping[type[BirthmarkError], int] = REASONS) -> int:
    """Return the reason code of the nearest ancestor class in `table`, or otherwise in `REASONS`."""
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return reason_of(error)


class MqttConnection(Protocol):
    """A service's side of one connection.

    A raised `BirthmarkError` is recorded as a refusal and closes the connection.
    """

    def opened(self) -> None:
        """Handle the connection's start; CONNACK is queued."""
        ...

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        """Handle messages that arrived together, in order."""
        ...

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None: ...

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None: ...

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        """Handle the client's acknowledgements of QoS 1 messages, positive or negative."""
        ...

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None:
        """Handle the end of the connection; called once, also if it ended during an await.

        `session_expiry_s` is the DISCONNECT value that overrides CONNECT (5.0 section 3.14.2.2.2), or None.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Accepted CONNECT. Granted MQTT 5 limits are sent to MQTT 5 clients and enforced.

    The maximum QoS is always 1.
    """

    connection: MqttConnection
    proved_by: str = ""
    """Identity proven by a credential other than the certificate, shared by all its connections.

    Empty for a certificate. A client with a token may present any certificate; quotas therefore do not use that
    certificate.
    """
    session_present: bool = False
    keep_alive_s: int
    """Granted keep-alive in seconds, possibly less than requested; 0 disables the check."""
    assigned_client_id: str | None = None
    session_expiry_s: int | None = None
    """Session expiry, only if it differs from the requested value."""
    receive_maximum: int = 100
    topic_alias_maximum: int = 8
    """Maximum number of topic aliases that the client may use."""
    maximum_packet_bytes: int | None = None
    is_retain_available: bool = True
    are_wildcards_available: bool = True
    are_subscription_ids_available: bool = False
    are_shared_subscriptions_available: bool = True
    traffic: Traffic | None = None
    """Traffic counters of the connection."""
    reason_of: Callable[[BirthmarkError], int] = reason_of
    """Maps a service error to the DISCONNECT reason code."""

    def properties(self, max_packet_bytes: int) -> Properties:
        """Return the CONNACK properties; `max_packet_bytes` applies unless the service sets a smaller limit."""
        found: list[tuple[PropertyId, PropertyValue]] = [
            (PropertyId.RECEIVE_MAXIMUM, self.receive_maximum),
            (PropertyId.MAXIMUM_QOS, 1),
            (PropertyId.RETAIN_AVAILABLE, int(self.is_retain_available)),
            (PropertyId.MAXIMUM_PACKET_SIZE, min(self.maximum_packet_bytes or max_packet_bytes, max_packet_bytes)),
            (PropertyId.TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum),
            (PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE, int(self.are_wildcards_available)),
            (PropertyId.SUBSCRIPTION_IDS_AVAILABLE, int(self.are_subscription_ids_available)),
            (PropertyId.SHARED_SUBSCRIPTION_AVAILABLE, int(self.are_shared_subscriptions_available)),
            (PropertyId.SERVER_KEEP_ALIVE, self.keep_alive_s),
        ]
        if self.session_expiry_s is not None:
            found.append((PropertyId.SESSION_EXPIRY, self.session_expiry_s))
        if self.assigned_client_id is not None:
            found.append((PropertyId.ASSIGNED_CLIENT_ID, self.assigned_client_id))
        return tuple(found)
