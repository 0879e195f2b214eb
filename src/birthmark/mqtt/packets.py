"""MQTT control packets as frozen values (section 3). `properties` are for MQTT 5 and empty in 3.1.1.

They are `msgspec.Struct`s because creating a frozen dataclass takes 1 µs, and a broker creates one for every message.
"""

from typing import TypeAlias

import msgspec

from birthmark.mqtt.properties import Properties, PropertyId, get_property

LEVEL_3_1_1 = 4
LEVEL_5 = 5
NEVER = 0xFFFFFFFF  # no expiry


class WillMessage(msgspec.Struct, frozen=True):
    """Will message, which the server publishes if the connection ends without DISCONNECT (section 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = ()


class Connect(msgspec.Struct, frozen=True):
    """Section 3.1. `clean_start` is the 3.1.1 clean session flag; `level` is 4 for 3.1.1 and 5 for MQTT 5."""

    client_id: str
    clean_start: bool = True
    keep_alive_s: int = 60
    username: str | None = None
    password: bytes | None = None
    will: WillMessage | None = None
    level: int = LEVEL_3_1_1
    properties: Properties = ()

    @property
    def session_expiry_s(self) -> int:
        """Session expiry interval in seconds; `NEVER` for no expiry (5.0 section 3.1.2.11.2).

        A 3.1.1 session ends with the connection, or never.
        """
        if self.level == LEVEL_3_1_1:
            return 0 if self.clean_start else NEVER
        expiry = get_property(self.properties, PropertyId.SESSION_EXPIRY)
        return expiry if isinstance(expiry, int) else 0

    def __repr__(self) -> str:
        password = "None" if self.password is None else "<hidden>"
        return (
            f"Connect(client_id={self.client_id!r}, clean_start={self.clean_start}, keep_alive_s={self.keep_alive_s}, "
            f"username={_hide_signature(self.username)!r}, password={password}, will={self.will!r}, level={self.level})"
        )


class ConnAck(msgspec.Struct, frozen=True):
    """Section 3.2. `code` 0 accepts; 1 to 5 refuse in 3.1.1, 0x80 and up in MQTT 5."""

    session_present: bool = False
    code: int = 0
    properties: Properties = ()


class Publish(msgspec.Struct, frozen=True, gc=False):
    """PUBLISH (section 3.3). `packet_id` is None exactly when `qos` is 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties = ()


class PubAck(msgspec.Struct, frozen=True, gc=False):
    """Section 3.4: QoS 1 delivered."""

    packet_id: int
    code: int = 0
    properties: Properties = ()


class PubRec(msgspec.Struct, frozen=True, gc=False):
    """Section 3.5: QoS 2 received."""

    packet_id: int
    code: int = 0
    properties: Properties = ()


class PubRel(msgspec.Struct, frozen=True, gc=False):
    """Section 3.6: QoS 2 released."""

    packet_id: int
    code: int = 0
    properties: Properties = ()


class PubComp(msgspec.Struct, frozen=True, gc=False):
    """Section 3.7: QoS 2 complete."""

    packet_id: int
    code: int = 0
    properties: Properties = ()


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE (section 3.8).

    Each filter has its requested QoS; in MQTT 5 the complete options byte (5.0 section 3.8.3.1).
    """

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    properties: Properties = ()


class SubAck(msgspec.Struct, frozen=True):
    """SUBACK (section 3.9): one code per filter, the granted QoS or 0x80 and above for a refusal."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = ()


class Unsubscribe(msgspec.Struct, frozen=True):
    """Section 3.10."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = ()


class UnsubAck(msgspec.Struct, frozen=True):
    """UNSUBACK (section 3.11). `codes` are for MQTT 5 only: one per filter."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = ()


class PingReq(msgspec.Struct, frozen=True):
    """Section 3.12."""


class PingResp(msgspec.Struct, frozen=True):
    """Section 3.13."""


class Disconnect(msgspec.Struct, frozen=True):
    """Section 3.14. In 3.1.1 only the client sends it, and without a code."""

    code: int = 0
    properties: Properties = ()


class Auth(msgspec.Struct, frozen=True):
    """MQTT 5.0 section 3.15: a step of enhanced authentication."""

    code: int = 0
    properties: Properties = ()


Packet: TypeAlias = (
    Connect
    | ConnAck
    | Publish
    | PubAck
    | PubRec
    | PubRel
    | PubComp
    | Subscribe
    | SubAck
    | Unsubscribe
    | UnsubAck
    | PingReq
    | PingResp
    | Disconnect
    | Auth
)


def _hide_signature(username: str | None) -> str | None:
    """Remove a query string that contains credentials: AWS custom authorizers carry tokens in the user name."""
    if username is None or not any(word in username.lower() for word in ("signature", "x-amz-customauthorizer-")):
        return username
    return username.split("?", 1)[0] + "?<hidden>"
