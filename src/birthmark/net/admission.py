"""Between the MQTT pump and a room: what admits or refuses a client, and how a connection ends.

A room knows no MQTT version here: it says what it grants and refuses with reason codes of MQTT 5, and the pump renders
CONNACK, PUBACK and DISCONNECT for the level that the client speaks.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from birthmark import errors
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.metrics import Traffic
from birthmark.mqtt.packets import LEVEL_5, Connect, Publish, Subscribe, Unsubscribe
from birthmark.mqtt.properties import Properties, PropertyId, PropertyValue
from birthmark.mqtt.reason_codes import ReasonCode


class MqttProtocolError(InvalidRequestError):
    """The client violated the protocol."""

    code = "mqtt.protocol_error"
    cause = "The client violated the MQTT protocol: {reason}."
    fix = (
        "Check the client library; docs/reference/limits.md lists the size limits. A valid request for "
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
    """A room's answer to CONNECT: a reason code of MQTT 5, and the reason for the ledger.

    3.1.1 gets the return code that means the same; `is_silent_in_3` closes there without CONNACK, as AWS does.
    """

    def __init__(self, reason_code: int, error: BirthmarkError, *, is_silent_in_3: bool = False) -> None:
        super().__init__(str(error))
        self.reason_code = reason_code
        self.error = error
        self.is_silent_in_3 = is_silent_in_3


def require_3_1_1(packet: Connect) -> None:
    """Raise `MqttRefusedError` for a client of MQTT 5, in a room that does not serve it."""
    if packet.level == LEVEL_5:
        raise MqttRefusedError(ReasonCode.UNSUPPORTED_VERSION, MqttVersionError())


class CloseReason(StrEnum):
    """Why a connection ended. After `DISCONNECT` alone the will is not published ([MQTT-3.14.4-3])."""

    DISCONNECT = "disconnect"  # the client said so
    DISCONNECT_WITH_WILL = "disconnect_with_will"  # it said so and wants its will published, or told of an error
    LOST = "lost"
    KEEP_ALIVE = "keep_alive"
    PROTOCOL = "protocol"
    REFUSED = "refused"
    TAKEN_OVER = "taken_over"
    ADMINISTRATIVE = "administrative"  # an operator ended it: a certificate revoked, a hub deleted
    ENDED = "ended"  # the time for which it was let in is over
    ASKED = "asked"  # an operator asked for that alone: the client may come back
    STOPPING = "stopping"  # this server ends
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
"""What DISCONNECT says when we end a connection."""

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
    """Return the reason code of the nearest ancestor listed in `table`, else in `REASONS`."""
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return reason_of(error)


class MqttConnection(Protocol):
    """A room's side of one connection. Raise `BirthmarkError` to record a refusal and close."""

    def opened(self) -> None:
        """CONNACK is on its way."""
        ...

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        """Take messages that came together, in their order."""
        ...

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None: ...

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None: ...

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        """Take the client's word on QoS 1 messages that it got, or refused."""
        ...

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None:
        """The connection is over; called once, also when it ended during an await.

        `session_expiry_s` is what its DISCONNECT said instead of its CONNECT (5.0 section 3.14.2.2.2), or None.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A room's yes to CONNECT. What it grants of MQTT 5 is told to a client that speaks it, and that client held to it.

    QoS is 1 at most, everywhere.
    """

    connection: MqttConnection
    proved_by: str = ""
    """By what the client proved who it is, as one name for all its connections; nothing where its certificate did.

    It may show any certificate beside a token: turns and shares are not that one's."""
    session_present: bool = False
    keep_alive_s: int
    """As granted, which may be less than was asked for; 0 watches nothing."""
    assigned_client_id: str | None = None
    session_expiry_s: int | None = None
    """Only where it differs from what was asked for."""
    receive_maximum: int = 100
    topic_alias_maximum: int = 8
    """How many aliases of the client's own are taken."""
    maximum_packet_bytes: int | None = None
    is_retain_available: bool = True
    are_wildcards_available: bool = True
    are_subscription_ids_available: bool = False
    are_shared_subscriptions_available: bool = True
    traffic: Traffic | None = None
    """Where it is counted."""
    reason_of: Callable[[BirthmarkError], int] = reason_of
    """What DISCONNECT says of an error of the room."""

    def properties(self, max_packet_bytes: int) -> Properties:
        """Return the properties of CONNACK; `max_packet_bytes` is what is taken where the room says nothing smaller."""
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
