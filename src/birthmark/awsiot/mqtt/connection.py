"""One client's connection: publishes and subscribes under its policies, and receives messages."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

from birthmark.awsiot.error_mapping import reason_of, suback_reason_of
from birthmark.awsiot.rules import mqtt_protocol_limits
from birthmark.awsiot.rules.policy import PolicyDeniedError
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.rules.reserved_topics import is_query_only
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.awsiot.service.fleet_provisioning import ProvisioningCaller, ReplyTopicNotSubscribedError
from birthmark.broker import ConnectedSession
from birthmark.broker.model import BrokerMessage, Done, Subscription, forwarded_properties, subscription_of
from birthmark.errors import BirthmarkError
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import LEVEL_5, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.mqtt.properties import Properties
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.mqtt.topics import matches
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import CloseReason

if TYPE_CHECKING:
    from birthmark.awsiot.mqtt.admission_and_reauthentication import AwsConnections

WINDOW = 100


class ReceiveWindow:
    """Messages of one connection that are not yet stored; the engine keeps PUBACKs in order."""

    __slots__ = ("_driver", "_room", "_unwritten")

    def __init__(self, driver: MqttDriver) -> None:
        self._driver = driver
        self._unwritten = 0
        self._room: asyncio.Event | None = None

    def track_messages(self, ids: Sequence[int], count: int) -> Done:
        """Return the completion callback of `count` messages; on success, those with QoS 1 are acknowledged."""
        self._unwritten += count

        def done(problem: BaseException | None) -> None:
            self._unwritten -= count
            if problem is None:
                if ids:
                    self._driver.ack_all(ids)
            else:
                self._driver.close(CloseReason.SERVER)  # the client resends it after it reconnects
            if self._room is not None and self._unwritten < WINDOW:
                self._room.set()
                self._room = None

        return done

    def wait_for_capacity(self) -> Awaitable[None] | None:
        """Return an awaitable until fewer than `WINDOW` messages are unstored; None if so already."""
        if self._unwritten < WINDOW:
            return None
        if self._room is None:
            self._room = asyncio.Event()
        return _true(self._room)


async def _true(event: asyncio.Event) -> None:
    await event.wait()


__all__ = ["MAX_EXPIRY_S", "WINDOW", "AwsConnection"]
MAX_EXPIRY_S = 7 * 24 * 3600
"""Maximum session expiry, whether requested by CONNECT or DISCONNECT."""
_MAX_NOTED = 16


class AwsConnection:
    """A client's connection. `grant` is its permissions, reloaded when a dependency changes."""

    __slots__ = (
        "__weakref__",
        "_acks",
        "_changes",
        "_changes_seen",
        "_connections",
        "_noted",
        "_usual_topic",
        "_visitor",
        "attached",
        "client_id",
        "driver",
        "grant",
        "identifier",
        "is_open",
    )

    def __init__(
        self,
        connections: "AwsConnections",
        driver: MqttDriver,
        visitor: ConnectionContext,
        grant: ConnectionGrant,
        client_id: str,
        *,
        identifier: str,
    ) -> None:
        self._connections = connections
        self._visitor = visitor
        self._acks = ReceiveWindow(driver)
        self._changes = self._changes_seen = 0
        self._noted: frozenset[str] = frozenset()
        self._usual_topic = ""  # permitted publish topic of the previous packet
        self.driver = driver
        self.grant = grant
        self.client_id = client_id
        self.identifier = identifier
        self.is_open = False
        self.attached: ConnectedSession

    def attach(self, session: ConnectedSession) -> None:
        """Start with the session from the broker."""
        self.attached = session

    # ---- driver callbacks

    def opened(self) -> None:
        self.is_open = True
        self._connections.connected(self.attached)
        self.attached.resume()

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        if self._changes != self._changes_seen:
            return self._publish_fresh(packets)
        waiting, rest = self._publish_until_service_request(packets)
        if rest:
            waiting = self._ask(waiting, rest)
        return self._acks.wait_for_capacity() if waiting is None else self._wait_for_capacity(waiting)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        return self._subscribe(packet) if self._changes == self._changes_seen else self._subscribe_fresh(packet)

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        return self._unsubscribe(packet)

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        self.attached.acknowledge(packet_ids)
        return None

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None:
        with_will = self.is_open and reason is not CloseReason.DISCONNECT
        if session_expiry_s is not None:
            session_expiry_s = min(session_expiry_s, MAX_EXPIRY_S)
        self._connections.space.disconnect(self.attached, reason, with_will=with_will, expiry_s=session_expiry_s)

    # ---- broker callbacks

    def may_get(self, topic: str) -> bool:
        return self.grant.receives.get(topic) or self._may_receive(topic)  # the first is a cache of the second

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        topic = parcel.topic
        if self.grant.receives.get(topic) or self._may_receive(topic):
            try:
                self.driver.deliver(parcel, qos)
            except LocalProtocolError:  # full queue
                self._connections.traffic.count_slow()
                self._connections.overrun(self.client_id, self._connections.space.rules.max_waiting)

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        may = self.grant.receives.get(parcel.topic) or self._may_receive(parcel.topic)
        return may and self.driver.forward(parcel, packet_id, dup=dup)

    async def wait_released(self) -> None:
        """Release the connection; unacknowledged messages stay in its session."""

    def end(self, reason: CloseReason) -> None:
        self.driver.close(reason)
        if reason is CloseReason.TAKEN_OVER and (
            two := self._connections.contested.record_takeover(self.client_id, self.driver.address)
        ):
            self.driver.note(two)

    # ---- account callbacks

    def mark_stale(self) -> None:
        """Require a permission check before the next packet in either direction."""
        if self.grant.certificate_id is None:  # no stored object decides its permissions
            return
        self._changes += 1
        if not self.attached.is_on_hold:
            self.attached.hold()
            self._connections.space.spawn(self._reload_and_deliver())

    def replace_grant(self, grant: ConnectionGrant) -> None:
        """Apply the authorizer's latest result."""
        self.grant, self._usual_topic = grant, ""

    def note_once(self, error: BirthmarkError) -> None:
        """Record a recurring refusal only once."""
        if error.code not in self._noted and len(self._noted) < _MAX_NOTED:
            self._noted |= {error.code}
            self.driver.note(error)

    # ---- cloud service callbacks

    @property
    def asker(self) -> ProvisioningCaller:
        return ProvisioningCaller(self.grant.principal, self.client_id)

    def answer(self, topic: str, body: bytes) -> None:
        """Send a response to this connection only; it is never stored, as it may contain a key."""
        if not any(matches(one, topic) for one in self.attached.subscriptions):
            self.note_once(ReplyTopicNotSubscribedError(thing=self.client_id, topic=topic))
            return
        try:
            self._connections.check(self.grant, "iot:Receive", "topic", topic, self.client_id)
        except PolicyDeniedError as error:
            self.note_once(error)
            return
        self.attached.deliver(BrokerMessage(topic, body), 0, 0)

    # ---- inside

    def _may_receive(self, topic: str) -> bool:
        if self._connections.may_receive(self.grant, topic):
            return True
        self._connections.traffic.count_denied()
        return False

    @property
    def _is_stale(self) -> bool:
        return self._changes != self._changes_seen

    async def reload_grant(self) -> None:
        """Reload the permissions, regardless of earlier notifications."""
        self._changes += 1
        await self._refresh()

    async def _refresh(self) -> None:
        if self._is_stale:
            async with self._connections.looking.lock(self):  # no late reply restores state
                while self._is_stale:
                    await self._load_grant()

    async def _load_grant(self) -> None:
        """Load the permissions; they apply unless a dependency changed during the load."""
        seen, before, tags = self._changes, self._connections.changes, self.attached.tags
        grant = await self._connections.admit(self._visitor)
        self._connections.retag(self, grant)
        has_heard = tags == self.attached.tags or before == self._connections.changes
        if has_heard and seen == self._changes:
            self._connections.check(grant, "iot:Connect", "client", self.client_id, self.client_id)
            self.grant, self._usual_topic, self._changes_seen = grant, "", seen

    async def _reload_and_deliver(self) -> None:
        """Reload after a change; messages received during it are delivered afterwards."""
        try:
            await self._refresh()
        except BirthmarkError as error:
            self.driver.refuse(error)
            return
        except Exception:
            self.driver.close(CloseReason.SERVER)  # otherwise on hold forever
            raise
        if self.is_open:
            self.attached.resume()

    async def _publish_fresh(self, packets: Sequence[Publish]) -> None:
        await self._refresh()
        await self._wait_for_capacity(self._publish(packets))

    async def _wait_for_capacity(self, waiting: Awaitable[None] | None) -> None:
        """Wait until the delivery is in progress and the number of unstored messages is within the limit."""
        if waiting is not None:
            await waiting
        if (room := self._acks.wait_for_capacity()) is not None:
            await room

    def _publish(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        """Publish a batch of packets; MQTT 5 rejects denied ones individually."""
        waiting, rest = self._publish_until_service_request(packets)
        return self._ask(waiting, rest) if rest else waiting

    def _publish_until_service_request(
        self, packets: Sequence[Publish]
    ) -> tuple[Awaitable[None] | None, Sequence[Publish]]:
        """Publish the packets before the first service request; return that request and all following packets."""
        while True:
            messages, ids, denied = self._check_publishes(packets)
            waiting = self._hand_on(messages, ids)
            packets = packets[len(messages) :]
            if denied is None:
                return waiting, packets
            packet = packets[0]
            if self.driver.level != LEVEL_5 or packet.packet_id is None:
                if waiting is not None:
                    self._connections.space.spawn(waiting)
                raise denied
            self.driver.note(denied)
            self.driver.ack(packet.packet_id, reason_of(denied))
            packets = packets[1:]
            if waiting is not None:
                return self._publish_after(waiting, packets), ()

    async def _publish_after(self, waiting: Awaitable[None], packets: Sequence[Publish]) -> None:
        await waiting
        await self._refresh()  # permissions may have been revoked
        if not self.driver.is_over and (more := self._publish(packets)) is not None:
            await more

    async def _ask(self, waiting: Awaitable[None] | None, packets: Sequence[Publish]) -> None:
        """Execute service requests on reserved topics in order with the packets between them."""
        while packets:
            if waiting is not None:
                await waiting
            await self.driver.wait_for_turn()
            await self._refresh()
            if self.driver.is_over:
                return
            waiting, packets = self._publish_until_service_request(packets)  # decide again: rights may be revoked
            if packets and waiting is None:
                packet, packets = packets[0], packets[1:]
                if not (self.driver.is_lost and is_query_only(packet.topic)):
                    await self._connections.reserved.ask(
                        packet.topic, packet.payload, self.note_once, self.asker.principal, self
                    )
                self.driver.ack(packet.packet_id)
        if waiting is not None:
            await waiting

    def _check_publishes(
        self, packets: Sequence[Publish]
    ) -> tuple[list[BrokerMessage], list[int], PolicyDeniedError | None]:
        """Return the messages before the first denial or service request, their packet IDs, and the denial."""
        messages: list[BrokerMessage] = []
        ids: list[int] = []
        topic, now = self._usual_topic, 0
        properties: Properties = ()
        expires_at: int | None = None
        for packet in packets:
            # Most clients publish to one topic, so packets like the previous one skip most checks.
            if packet.topic is not topic or packet.retain or packet.qos > 1:
                try:
                    self._check_publish(packet)
                except PolicyDeniedError as error:
                    return messages, ids, error
                if packet.topic.startswith("$"):
                    return messages, ids, None
                topic = packet.topic
                if not self.grant.asks_time:
                    self._usual_topic = topic
            if len(packet.payload) > mqtt_protocol_limits.MAX_PAYLOAD_BYTES:
                raise mqtt_protocol_limits.PayloadTooLargeError(thing=self.client_id, size=len(packet.payload))
            if packet.properties:
                now = now or self._connections.space.now()
                properties, expires_at = forwarded_properties(packet.properties, now)
            else:
                properties, expires_at = (), None
            if packet.packet_id is not None:
                ids.append(packet.packet_id)
            whose = self.client_id, self.grant.principal if packet.retain else ""
            messages.append(
                BrokerMessage(packet.topic, packet.payload, packet.qos, packet.retain, properties, expires_at, *whose)
            )
        return messages, ids, None

    def _check_publish(self, packet: Publish) -> None:
        mqtt_protocol_limits.check_publish(
            self.client_id, packet.topic, len(packet.payload), packet.qos, retain=packet.retain
        )
        self._connections.check(self.grant, "iot:Publish", "topic", packet.topic, self.client_id)
        if packet.retain:
            self._connections.check(self.grant, "iot:RetainPublish", "topic", packet.topic, self.client_id)

    def _hand_on(self, messages: Sequence[BrokerMessage], ids: Sequence[int]) -> Awaitable[None] | None:
        if not messages:
            return None
        return self._connections.space.messages.publish(messages, self._acks.track_messages(ids, len(messages)))

    async def _subscribe_fresh(self, packet: Subscribe) -> None:
        await self._refresh()
        if not self.driver.is_over and (waiting := self._subscribe(packet)) is not None:
            await waiting

    def _subscribe(self, packet: Subscribe) -> Awaitable[None] | None:
        """Subscribe; immediately if the session is not stored, so that messages published from now on arrive."""
        wanted, codes = self._granted(packet)
        are_new = self._connections.space.subscriptions.enter(self.attached, wanted)
        if are_new is None:
            return self._subscribe_stored(packet, wanted, codes)
        return self._subscribed(packet, wanted, are_new, codes)

    async def _subscribe_stored(
        self, packet: Subscribe, subscriptions: Sequence[Subscription], codes: Sequence[int]
    ) -> None:
        are_new = await self._connections.space.subscriptions.subscribe(self.attached, subscriptions)
        if (waiting := self._subscribed(packet, subscriptions, are_new, codes)) is not None:
            await waiting

    def _granted(self, packet: Subscribe) -> tuple[Sequence[Subscription], Sequence[int]]:
        """Return the granted subscriptions and the codes of the SUBACK."""
        if len(packet.filters) > mqtt_protocol_limits.MAX_FILTERS:
            raise mqtt_protocol_limits.TooManyFiltersError(
                thing=self.client_id,
                count=len(packet.filters),
                limit=mqtt_protocol_limits.MAX_FILTERS,
                scope="in a packet",
            )
        codes: list[int] = []
        granted: dict[str, Subscription] = {}
        for name, options in packet.filters:
            try:
                mqtt_protocol_limits.check_filter(self.client_id, name)
                self._connections.check(self.grant, "iot:Subscribe", "topicfilter", name, self.client_id)
            except (mqtt_protocol_limits.ReservedTopicError, PolicyDeniedError) as error:
                if isinstance(error, PolicyDeniedError) and self.driver.level != LEVEL_5:
                    raise
                self._connections.record(self, error)
                codes.append(suback_reason_of(error))
                continue
            granted[name] = subscription_of(name, options)
            codes.append(granted[name].qos)
        facts = dict[str, Any](thing=self.client_id)
        facts["count"] = len({**self.attached.subscriptions, **granted})
        if facts["count"] > mqtt_protocol_limits.MAX_SUBSCRIPTIONS:
            raise mqtt_protocol_limits.TooManyFiltersError(
                limit=mqtt_protocol_limits.MAX_SUBSCRIPTIONS, scope="on a connection", **facts
            )
        return list(granted.values()), codes

    def _subscribed(
        self, packet: Subscribe, subscriptions: Sequence[Subscription], are_new: Sequence[bool], codes: Sequence[int]
    ) -> Awaitable[None] | None:
        self.driver.send(SubAck(packet.packet_id, tuple(codes)))
        if subscriptions:
            self._connections.subscriptions_changed(self, "subscribed", [one.name for one in subscriptions])
        asking = [one for one, is_new in zip(subscriptions, are_new, strict=True) if _asks_retained(one, is_new=is_new)]
        return self._send_retained(asking) if asking else None

    async def _send_retained(self, asking: Sequence[Subscription]) -> None:
        for one in asking:
            if (kept := await self._connections.space.retained.of(one.topic_filter)) is not None:
                message, _ = kept
                self._connections.space.messages.send_to(self.attached, message, min(one.qos, message.qos))

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        were_there = await self._connections.space.subscriptions.unsubscribe(self.attached, packet.filters)
        codes = [ReasonCode.SUCCESS if was else ReasonCode.NO_SUBSCRIPTION_EXISTED for was in were_there]
        self.driver.send(UnsubAck(packet.packet_id, tuple(codes)))
        self._connections.subscriptions_changed(self, "unsubscribed", packet.filters)


def _asks_retained(subscription: Subscription, *, is_new: bool) -> bool:
    """Return whether retained messages are sent to the subscription; AWS excludes filters with a wildcard."""
    if subscription.share or subscription.retain_handling == 2 or (subscription.retain_handling == 1 and not is_new):  # noqa: PLR2004 - never
        return False
    return "+" not in subscription.topic_filter and "#" not in subscription.topic_filter
