"""Negotiated limits and features of an MQTT 5 connection, and checks of packets against them.

An engine has `Terms` at level 5 only; a 3.1.1 connection has no overhead.
"""

from functools import lru_cache

import msgspec

from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError, RemoteProtocolError
from birthmark.mqtt.packets import ConnAck, Connect, Disconnect, PubAck, Publish, SubAck, Subscribe, UnsubAck
from birthmark.mqtt.properties import Properties, PropertyId, get_property, replace_property
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.mqtt.topics import SHARED

MAX_ALIASES = 16  # our limit, whatever the receiver allows: bounds the cost
_MAX_SEEN = 64  # topics cached, including those that came once
_WORTH_IT = range(4, 1025)  # shorter ones cost as much as an alias, longer are not cached


class OutboundAliases:
    """Outbound topic aliases. The first topics sent occupy the aliases; later topics replace them."""

    __slots__ = ("_free", "_seen")

    def __init__(self, maximum: int) -> None:
        self._free = list(range(min(maximum, MAX_ALIASES), 0, -1))
        self._seen: dict[str, int] = {}  # topic -> alias, 0 if it came once

    def assign_alias(self, topic: str) -> tuple[int, bool]:
        """Return the alias to send, or 0 for none, and whether the packet must include the topic."""
        alias = self._seen.get(topic)
        if alias:
            return alias, False
        if alias is None:
            if len(topic) in _WORTH_IT:
                self._remember(topic)
            return 0, False
        if not self._free:
            return 0, False
        self._seen[topic] = alias = self._free.pop()
        return alias, True

    def forget(self, topic: str) -> None:
        """Release the alias of a topic that was not sent with it."""
        if alias := self._seen.pop(topic, 0):
            self._free.append(alias)

    def _remember(self, topic: str) -> None:
        if len(self._seen) >= _MAX_SEEN:
            self.forget(next(iter(self._seen)))
        self._seen[topic] = 0


class Offer(msgspec.Struct, frozen=True):
    """Limits and features announced in CONNECT or CONNACK; the defaults apply to absent properties."""

    receive_maximum: int = 65_535
    max_packet_bytes: int = 268_435_460
    alias_maximum: int = 0
    maximum_qos: int = 2
    has_retain: int = 1
    has_wildcards: int = 1
    has_subscription_ids: int = 1
    has_shared: int = 1
    session_expiry_s: int = 0
    wants_problems: int = 1
    keep_alive_s: int | None = None


_FIELDS: dict[PropertyId, str] = {
    PropertyId.RECEIVE_MAXIMUM: "receive_maximum",
    PropertyId.MAXIMUM_PACKET_SIZE: "max_packet_bytes",
    PropertyId.TOPIC_ALIAS_MAXIMUM: "alias_maximum",
    PropertyId.MAXIMUM_QOS: "maximum_qos",
    PropertyId.RETAIN_AVAILABLE: "has_retain",
    PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE: "has_wildcards",
    PropertyId.SUBSCRIPTION_IDS_AVAILABLE: "has_subscription_ids",
    PropertyId.SHARED_SUBSCRIPTION_AVAILABLE: "has_shared",
    PropertyId.SESSION_EXPIRY: "session_expiry_s",
    PropertyId.REQUEST_PROBLEM_INFO: "wants_problems",
    PropertyId.SERVER_KEEP_ALIVE: "keep_alive_s",
}
NOTHING_SAID = Offer()
_PROBLEMS = frozenset({PropertyId.REASON_STRING, PropertyId.USER_PROPERTY})
Answer = ConnAck | PubAck | SubAck | UnsubAck | Disconnect


def offer_of(properties: Properties) -> Offer:
    """Return the limits announced in a CONNECT or CONNACK; clients with equal properties share one object."""
    said = tuple(pair for pair in properties if pair[0] in _FIELDS)
    return _offer(said) if said else NOTHING_SAID


@lru_cache(maxsize=1024)
def _offer(properties: Properties) -> Offer:
    return msgspec.convert({_FIELDS[key]: value for key, value in properties}, Offer)


class Terms:
    """Negotiated limits of a connection, with topic aliases that are valid for its lifetime."""

    __slots__ = ("aliases", "by_server", "heard", "ours", "theirs")

    def __init__(self, *, by_server: bool, ours: Offer = NOTHING_SAID, theirs: Offer = NOTHING_SAID) -> None:
        self.by_server = by_server  # the receiver is a server
        self.ours = ours
        self.theirs = theirs
        self.heard: dict[int, str] | None = None  # alias -> topic, from the peer
        self.aliases: OutboundAliases | None = None

    def resolve(self, topic: str, properties: Properties) -> tuple[str, Properties]:
        """Return the topic of a message and its properties without the alias.

        A topic in the packet registers its alias. Raise `RemoteProtocolError` for an invalid alias and for properties
        that a client must not send.
        """
        if self.by_server and get_property(properties, PropertyId.SUBSCRIPTION_ID) is not None:  # [MQTT-3.3.4-6]
            told = "a client's PUBLISH has a subscription id"
            raise RemoteProtocolError(told, reason_code=ReasonCode.PROTOCOL_ERROR)
        alias = get_property(properties, PropertyId.TOPIC_ALIAS)
        if not isinstance(alias, int):
            return topic, properties
        if alias > self.ours.alias_maximum:
            told = f"topic alias {alias} is above {self.ours.alias_maximum}"
            raise RemoteProtocolError(told, reason_code=ReasonCode.TOPIC_ALIAS_INVALID)
        if self.heard is None:
            self.heard = {}
        if topic:
            self.heard[alias] = topic
        elif (known := self.heard.get(alias)) is not None:
            topic = known
        else:
            raise RemoteProtocolError(f"topic alias {alias} is not defined", reason_code=ReasonCode.PROTOCOL_ERROR)
        return topic, replace_property(properties, PropertyId.TOPIC_ALIAS, None)

    def received(self, packet: Publish) -> Publish:
        """Return the message with its topic instead of its alias.

        Raise `RemoteProtocolError` for features not offered.
        """
        if packet.qos > self.ours.maximum_qos:
            raise RemoteProtocolError(f"PUBLISH has QoS {packet.qos}", reason_code=ReasonCode.QOS_NOT_SUPPORTED)
        if packet.retain and not self.ours.has_retain:
            raise RemoteProtocolError("PUBLISH is retained", reason_code=ReasonCode.RETAIN_NOT_SUPPORTED)
        if not packet.properties:
            return packet
        topic, properties = self.resolve(packet.topic, packet.properties)
        if properties is packet.properties:
            return packet
        return msgspec.structs.replace(packet, topic=topic, properties=properties)

    def encode_parts(self, parcel: EncodedMessage, qos: int) -> tuple[bytes, bytes] | None:
        """Return the encoded parts around the packet ID, or None if the packet is too large for the peer."""
        theirs, alias, is_new = self.theirs, 0, False
        if theirs.alias_maximum:
            if self.aliases is None:
                self.aliases = OutboundAliases(theirs.alias_maximum)
            alias, is_new = self.aliases.assign_alias(parcel.topic)
        before, block, size = parcel.form(qos, alias, is_new=is_new)
        if size > theirs.max_packet_bytes and is_new and self.aliases is not None:
            self.aliases.forget(parcel.topic)
            before, block, size = parcel.form(qos)
        return None if size > theirs.max_packet_bytes else (before, block)


def strip_diagnostics(packet: Answer) -> Answer:
    """Return the packet without its reason string and user properties.

    For peers that did not request them, or whose maximum packet size they exceed.
    """
    kept = tuple(pair for pair in packet.properties if pair[0] not in _PROBLEMS)
    return packet if kept == packet.properties else msgspec.structs.replace(packet, properties=kept)


def check_payload(payload: bytes, properties: Properties) -> None:
    """Raise `RemoteProtocolError` if the payload is declared as UTF-8 but is not (5.0 section 3.3.2.3.2)."""
    if get_property(properties, PropertyId.PAYLOAD_FORMAT) == 1:
        try:
            payload.decode()
        except UnicodeDecodeError:
            told = "the payload is marked as UTF-8 but is not valid UTF-8"
            raise RemoteProtocolError(told, reason_code=ReasonCode.PAYLOAD_FORMAT_INVALID) from None


def check_connect(packet: Connect) -> None:
    """Raise `RemoteProtocolError` for enhanced authentication (unsupported) or an invalid will payload.

    The will payload is checked only if its properties declare it as UTF-8.
    """
    if get_property(packet.properties, PropertyId.AUTH_METHOD) is not None:
        raise RemoteProtocolError(
            "CONNECT names an authentication method", reason_code=ReasonCode.BAD_AUTHENTICATION_METHOD
        )
    if get_property(packet.properties, PropertyId.AUTH_DATA) is not None:
        raise RemoteProtocolError(
            "CONNECT has authentication data without a method", reason_code=ReasonCode.PROTOCOL_ERROR
        )
    if packet.will is not None:
        check_payload(packet.will.payload, packet.will.properties)


def check_disconnect(packet: Disconnect, theirs: Offer) -> None:
    """Raise `RemoteProtocolError` if DISCONNECT sets a session expiry although CONNECT set none."""
    if get_property(packet.properties, PropertyId.SESSION_EXPIRY) and not theirs.session_expiry_s:
        told = "DISCONNECT sets a session expiry, but CONNECT set none"
        raise RemoteProtocolError(told, reason_code=ReasonCode.PROTOCOL_ERROR)


def check_publish(parcel: EncodedMessage, qos: int, theirs: Offer) -> None:
    """Raise `LocalProtocolError` for a message that the server's CONNACK does not permit."""
    if qos > theirs.maximum_qos:  # [MQTT-3.2.2-11]
        raise LocalProtocolError(f"the server takes no QoS {qos}")
    if parcel.retain and not theirs.has_retain:  # [MQTT-3.2.2-14]
        raise LocalProtocolError("the server takes no retained messages")
    if parcel.form(qos)[2] > theirs.max_packet_bytes:  # [MQTT-3.2.2-15]
        raise LocalProtocolError(f"the server takes no packet of {parcel.form(qos)[2]} bytes")


def check_subscribe(packet: Subscribe, ours: Offer) -> None:
    """Raise `RemoteProtocolError` for a subscription type that our CONNACK does not permit."""
    if not ours.has_subscription_ids and get_property(packet.properties, PropertyId.SUBSCRIPTION_ID) is not None:
        raise RemoteProtocolError(
            "SUBSCRIBE has a subscription id", reason_code=ReasonCode.SUBSCRIPTION_IDS_NOT_SUPPORTED
        )
    for topic_filter, _ in packet.filters:
        if not ours.has_shared and topic_filter.startswith(SHARED):
            raise RemoteProtocolError("SUBSCRIBE is shared", reason_code=ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED)
        if not ours.has_wildcards and ("+" in topic_filter or "#" in topic_filter):
            raise RemoteProtocolError("SUBSCRIBE has a wildcard", reason_code=ReasonCode.WILDCARDS_NOT_SUPPORTED)
