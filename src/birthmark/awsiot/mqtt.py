"""AWS IoT over MQTT 3.1.1 and 5: CONNECT, publish and subscribe under policies, one connection per client id.

In 3.1.1 refused is closed without CONNACK, and a denied publish or subscribe closes the connection, as AWS does. MQTT 5
is told why: in CONNACK, PUBACK and SUBACK, and with QoS 0 in DISCONNECT. A subscription to what is not served yet gets
failure in its SUBACK, so that a client that only asks keeps its connection.
"""

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from birthmark.awsiot.errors import reason_of, suback_reason_of
from birthmark.awsiot.model import AccessKey
from birthmark.awsiot.rules import topics
from birthmark.awsiot.rules.policy import PolicyDeniedError
from birthmark.awsiot.rules.topics import PRESENCE
from birthmark.awsiot.rules.variables import Visitor
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.broker import MAX_SUBSCRIPTIONS, SESSION_LIFETIME, Broker
from birthmark.awsiot.service.devices import CertificateInactiveError, Grant
from birthmark.clock import Clock, Entropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import LEVEL_3_1_1, Connect, PubAck, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.mqtt.reasons import ReasonCode
from birthmark.mqtt.topics import TreeFullError
from birthmark.net.admission import Admission, Closed, MqttRefusedError
from birthmark.net.pump import Accept, MqttPump
from birthmark.refusals import Ledger

log = logging.getLogger(__name__)

MIN_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S = 30, 1200
RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, MAX_PACKET_BYTES = 100, 8, 149_504  # what AWS tells MQTT 5
WINDOW = 100
_REASONS: Mapping[Closed, str] = {
    Closed.DISCONNECT: "CLIENT_INITIATED_DISCONNECT",
    Closed.DISCONNECT_WITH_WILL: "CLIENT_INITIATED_DISCONNECT",
    Closed.LOST: "CONNECTION_LOST",
    Closed.KEEP_ALIVE: "MQTT_KEEP_ALIVE_TIMEOUT",
    Closed.PROTOCOL: "CLIENT_ERROR",
    Closed.REFUSED: "FORBIDDEN_ACCESS",
    Closed.TAKEN_OVER: "DUPLICATE_CLIENTID",
    Closed.ADMINISTRATIVE: "SERVER_INITIATED_DISCONNECT",
    Closed.STOPPING: "SERVER_INITIATED_DISCONNECT",
    Closed.SERVER: "SERVER_INITIATED_DISCONNECT",
}


class AwsConnections:
    """The live connections."""

    def __init__(self, aws: AwsIot, broker: Broker, ledger: Ledger, clock: Clock, entropy: Entropy) -> None:
        self._aws = aws
        self._ledger = ledger
        self._clock = clock
        self._entropy = entropy
        self._by_certificate: defaultdict[str, set[AwsConnection]] = defaultdict(set)
        self._changes = 0  # of anything that a connection may depend on
        self._under_another_name: set[AwsConnection] = set()  # their thing is not their client id
        self.broker = broker

    async def accept(self, pump: MqttPump, packet: Connect) -> Admission:
        """Admit a device that shows its certificate, or raise `MqttRefusedError`."""
        return await self._accept(pump, packet, None)

    def acceptor(self, key: AccessKey) -> Accept:
        """Return what accepts a connection whose WebSocket request was signed with `key`."""

        async def accept(pump: MqttPump, packet: Connect) -> Admission:
            return await self._accept(pump, packet, Grant(key.id, None, None, None))

        return accept

    async def admit(self, visitor: Visitor) -> Grant:
        """Return what a visitor may do now."""
        return await self._aws.devices.admit(visitor)

    def check(self, grant: Grant, action: str, kind: str, name: str, client_id: str) -> None:
        """Raise `PolicyDeniedError` unless it is allowed."""
        self._aws.devices.check(grant, action, kind, name, client_id)

    def may_receive(self, grant: Grant, topic: str) -> bool:
        """Say whether a message may go out; iot:Receive is asked at every delivery."""
        return self._aws.devices.allows(grant, "iot:Receive", "topic", topic)

    def record(self, connection: "AwsConnection", error: BirthmarkError) -> None:
        """File a refusal that does not end the connection."""
        self._ledger.record(error, address=connection.pump.address, presented=connection.pump.peer.leaf)

    # What the account announces.

    def access_changed(self, body: dict[str, str]) -> None:
        """Policies or attachments changed: whoever depends on them looks again at the next packet."""
        self._changes += 1
        for connection in self._about(body):
            connection.mark_stale()

    def everyone(self) -> tuple["AwsConnection", ...]:
        """Return every connection."""
        return tuple(connection for connection in self.broker.everyone() if isinstance(connection, AwsConnection))

    def revoked(self) -> None:
        """Something was revoked: whoever is between CONNECT and CONNACK must prove itself again."""
        self._changes += 1

    def certificate_changed(self, body: dict[str, str]) -> None:
        """A certificate that is no longer ACTIVE ends its connections at once."""
        self._changes += 1
        if body["status"] == "ACTIVE":
            return
        for connection in tuple(self._by_certificate.get(body["certificate_id"], ())):
            error = CertificateInactiveError(
                thing=connection.client_id, certificate_id=body["certificate_id"], status=body["status"]
            )
            connection.pump.refuse(error)

    # What connections tell.

    def entered(self, connection: "AwsConnection") -> None:
        """A connection is open: it takes the place of an older one, and is announced."""
        old = self.broker.enter(connection)
        if isinstance(old, AwsConnection):
            old.pump.close(Closed.TAKEN_OVER)
        self.index(connection)
        self._announce(connection, "connected", {"ipAddress": connection.pump.address})

    def index(self, connection: "AwsConnection") -> None:
        """Note what `connection` depends on."""
        if connection.grant.certificate_id is not None:
            self._by_certificate[connection.grant.certificate_id].add(connection)
        if connection.grant.thing not in {None, connection.client_id}:
            self._under_another_name.add(connection)

    def left(self, connection: "AwsConnection", reason: Closed, *, was_open: bool) -> None:
        """A connection is over."""
        self._under_another_name.discard(connection)
        certificate_id = connection.grant.certificate_id
        if certificate_id is not None and certificate_id in self._by_certificate:
            self._by_certificate[certificate_id].discard(connection)
            if not self._by_certificate[certificate_id]:
                del self._by_certificate[certificate_id]
        self.broker.leave(connection)
        if not was_open:
            return
        if connection.will is not None and reason is not Closed.DISCONNECT:
            self.broker.route_later(connection.will.topic, connection.will.payload, connection.will.qos)
        self._announce(
            connection,
            "disconnected",
            {
                "clientInitiatedDisconnect": reason in {Closed.DISCONNECT, Closed.DISCONNECT_WITH_WILL},
                "disconnectReason": _REASONS[reason],
            },
        )

    async def _accept(self, pump: MqttPump, packet: Connect, grant: Grant | None) -> Admission:
        # An empty client id gets one of our making, which a 3.1.1 client never learns ([MQTT-3.1.3-6]).
        client_id = packet.client_id or f"$GEN/{new_uuid(self._entropy)}"
        is_persistent = packet.session_expiry_s > 0
        attributes = ("PersistentConnect",) * is_persistent + ("LastWill",) * (packet.will is not None)
        visitor = Visitor(pump.peer.leaf, client_id, pump.address, pump.peer.sni, attributes, pump.peer.chain)
        seen = self._changes
        try:
            topics.check_client_id(packet.client_id, is_kept=is_persistent and packet.level == LEVEL_3_1_1)
            admitted = await self.admit(visitor) if grant is None else grant
            self.check(admitted, "iot:Connect", "client", client_id, client_id)
            if (will := packet.will) is not None:
                topics.check_publish(client_id, will.topic, len(will.payload), will.qos, retain=will.retain)
                self.check(admitted, "iot:Publish", "topic", will.topic, client_id)
            if is_persistent and packet.clean_start:  # a new session, and one that is kept: MQTT 5 only
                await self.broker.open(client_id, is_persistent=False)
            session_present = await self.broker.open(client_id, is_persistent=is_persistent)
            while seen != self._changes:  # nobody told a connection that was not there yet: it must prove itself again
                seen = self._changes
                admitted = await self.admit(visitor) if grant is None else grant
                self.check(admitted, "iot:Connect", "client", client_id, client_id)
        except BirthmarkError as error:
            raise MqttRefusedError(reason_of(error), error, is_silent_in_3=True) from error
        connection = AwsConnection(
            self,
            pump,
            visitor,
            admitted,
            packet,
            client_id=client_id,
            session_present=session_present,
            at_ms=int(self._clock.now().timestamp() * 1000),
        )
        lifetime_s = int(SESSION_LIFETIME.total_seconds())
        return Admission(
            connection=connection,
            session_present=session_present,
            keep_alive_s=max(MIN_KEEP_ALIVE_S, min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S)),
            assigned_client_id=None if packet.client_id else client_id,
            session_expiry_s=lifetime_s if is_persistent and packet.session_expiry_s != lifetime_s else None,
            receive_maximum=RECEIVE_MAXIMUM,
            topic_alias_maximum=TOPIC_ALIAS_MAXIMUM,
            maximum_packet_bytes=MAX_PACKET_BYTES,
            is_retain_available=False,  # not served yet, as shared subscriptions
            are_shared_subscriptions_available=False,
            reason_of=reason_of,
        )

    def _about(self, body: Mapping[str, str]) -> set["AwsConnection"]:
        found: set[AwsConnection] = set()
        if certificate_id := body.get("certificate_id"):
            found |= self._by_certificate.get(certificate_id, set())
        if policy := body.get("policy"):
            for connections in self._by_certificate.values():
                found |= {connection for connection in connections if policy in connection.grant.policies}
        if thing := body.get("thing"):
            live = self.broker.live(thing)
            if isinstance(live, AwsConnection):
                found.add(live)
            found |= {connection for connection in self._under_another_name if connection.grant.thing == thing}
        return found

    def _announce(self, connection: "AwsConnection", what: str, more: Mapping[str, object]) -> None:
        if "#" in connection.client_id or "+" in connection.client_id:
            return
        event = {
            "clientId": connection.client_id,
            "timestamp": int(self._clock.now().timestamp() * 1000),
            "eventType": what,
            "sessionIdentifier": new_uuid(self._entropy) if what == "connected" else connection.identifier,
            "principalIdentifier": connection.grant.principal,
            "versionNumber": connection.at_ms,
            **more,
        }
        connection.identifier = str(event["sessionIdentifier"])
        self.broker.route_later(f"{PRESENCE}{what}/{connection.client_id}", json.dumps(event).encode(), 1)


class AwsConnection:
    """One connection. `grant` is what it may do; it is read again when something it depends on changed."""

    def __init__(
        self,
        connections: AwsConnections,
        pump: MqttPump,
        visitor: Visitor,
        grant: Grant,
        packet: Connect,
        *,
        client_id: str,
        session_present: bool,
        at_ms: int,
    ) -> None:
        self._connections = connections
        self._visitor = visitor
        self._changes_seen = 0
        self._changes = 0
        self._is_open = False
        self._unwritten: set[asyncio.Task[None]] = set()
        self._held: list[tuple[str, bytes, int]] = []
        self._in_flight: dict[int, int] = {}  # packet id -> number of the stored message
        self._last_sent = 0
        self._sending: asyncio.Task[None] | None = None
        self._send_again = False
        self.pump = pump
        self.grant = grant
        self.client_id = client_id
        self.is_persistent = packet.session_expiry_s > 0
        self.session_present = session_present
        self.will = packet.will
        self.at_ms = at_ms
        self.identifier = ""

    # What the pump calls.

    def opened(self) -> None:
        self._is_open = True
        self._connections.entered(self)
        if self.is_persistent:
            self.wake()

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        for place, packet in enumerate(packets, 1):
            if (waiting := self._take(packet)) is not None:
                return self._take_rest(waiting, packets[place:])
        return None

    async def _take_rest(self, waiting: Awaitable[None], packets: Sequence[Publish]) -> None:
        await waiting
        for packet in packets:
            if self.pump.is_over:
                return
            if (more := self._take(packet)) is not None:
                await more

    def _take(self, packet: Publish) -> Awaitable[None] | None:
        topics.check_publish(self.client_id, packet.topic, len(packet.payload), packet.qos, retain=packet.retain)
        if self._is_stale:
            return self._publish_fresh(packet)
        return self._publish(packet)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        return self._subscribe(packet)

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        return self._unsubscribe(packet)

    def acknowledged(self, packet: PubAck) -> Awaitable[None] | None:
        number = self._in_flight.pop(packet.packet_id, None)
        if number is not None:
            self._connections.broker.delivered(self.client_id, number)
            self.wake()
        return None

    def closed(self, reason: Closed, session_expiry_s: int | None) -> None:
        self._held.clear()
        self._connections.left(self, reason, was_open=self._is_open)

    # What the broker calls.

    def deliver(self, topic: str, payload: bytes, qos: int) -> None:
        if self._is_stale:
            self._held.append((topic, payload, qos))
            if len(self._held) == 1:
                self._connections.broker.spawn(self._deliver_held())
            return
        if not self._connections.may_receive(self.grant, topic):
            return
        try:
            self.pump.publish(topic, payload, qos)
        except LocalProtocolError as error:  # its queue is full
            log.info("awsiot.dropped", extra={"client_id": self.client_id, "reason": error.reason})

    def wake(self) -> None:
        self._send_again = True
        if self._sending is None and not self.pump.is_over:
            self._sending = self._connections.broker.spawn(self._send_stored())

    # What the connections call.

    def mark_stale(self) -> None:
        """What this connection may do must be looked at again before the next packet, either way."""
        if self.grant.permissions is not None:
            self._changes += 1

    # Inside.

    @property
    def _is_stale(self) -> bool:
        return self._changes != self._changes_seen

    async def _refresh(self) -> None:
        if self._is_stale:
            seen = self._changes
            self.grant = await self._connections.admit(self._visitor)
            self._connections.check(self.grant, "iot:Connect", "client", self.client_id, self.client_id)
            if not self.pump.is_over:
                self._connections.index(self)
            self._changes_seen = seen

    async def _publish_fresh(self, packet: Publish) -> None:
        await self._refresh()
        waiting = self._publish(packet)
        if waiting is not None:
            await waiting

    def _publish(self, packet: Publish) -> Awaitable[None] | None:
        try:
            self._connections.check(self.grant, "iot:Publish", "topic", packet.topic, self.client_id)
        except PolicyDeniedError as error:
            self._deny(error, packet.packet_id)
            return None
        waiting = self._connections.broker.route(packet.topic, packet.payload, packet.qos)
        if waiting is None:
            self.pump.ack(packet.packet_id)
            return None
        task = self._connections.broker.spawn(self._acknowledge(waiting, packet.packet_id))
        self._unwritten.add(task)
        task.add_done_callback(self._unwritten.discard)
        return self._room() if len(self._unwritten) >= WINDOW else None

    def _deny(self, error: PolicyDeniedError, packet_id: int | None) -> None:
        """Say no to one message; raise where the client can only be told by the end of its connection."""
        if packet_id is None or self.pump.level == LEVEL_3_1_1:
            raise error
        self._connections.record(self, error)
        self.pump.ack(packet_id, reason_of(error))

    async def _room(self) -> None:
        await asyncio.wait(self._unwritten, return_when=asyncio.FIRST_COMPLETED)

    async def _acknowledge(self, waiting: Awaitable[None], packet_id: int | None) -> None:
        try:
            await waiting
        except BirthmarkError:
            self.pump.close(Closed.SERVER)  # the client sends again after it reconnects
            raise
        self.pump.ack(packet_id)

    async def _subscribe(self, packet: Subscribe) -> None:
        await self._refresh()
        if len(packet.filters) > topics.MAX_FILTERS:
            raise topics.TooManyFiltersError(
                thing=self.client_id, count=len(packet.filters), limit=topics.MAX_FILTERS, scope="in a packet"
            )
        codes: list[int] = []
        granted: dict[str, int] = {}
        for topic_filter, options in packet.filters:
            try:
                topics.check_filter(self.client_id, topic_filter)
                self._connections.check(self.grant, "iot:Subscribe", "topicfilter", topic_filter, self.client_id)
            except (topics.ReservedTopicError, topics.SharedSubscriptionError, PolicyDeniedError) as error:
                if isinstance(error, PolicyDeniedError) and self.pump.level == LEVEL_3_1_1:
                    raise
                self._connections.record(self, error)
                codes.append(suback_reason_of(error))
                continue
            granted[topic_filter] = min(options & 3, 1)
            codes.append(granted[topic_filter])
        broker = self._connections.broker
        facts: dict[str, Any] = {"thing": self.client_id}
        facts["count"] = len({**broker.filters_of(self.client_id), **granted})
        if facts["count"] > topics.MAX_SUBSCRIPTIONS:
            raise topics.TooManyFiltersError(limit=topics.MAX_SUBSCRIPTIONS, scope="on a connection", **facts)
        if self.pump.is_over:
            return
        try:
            await broker.subscribe(self, granted)
        except TreeFullError as error:
            raise topics.TooManyFiltersError(
                limit=MAX_SUBSCRIPTIONS, scope="of all clients together", **facts
            ) from error
        self.pump.send(SubAck(packet.packet_id, tuple(codes)))

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        known = self._connections.broker.filters_of(self.client_id)
        gone = ReasonCode.SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED
        codes = tuple(gone[topic_filter not in known] for topic_filter in packet.filters)
        await self._connections.broker.unsubscribe(self, packet.filters)
        self.pump.send(UnsubAck(packet.packet_id, codes))

    async def _deliver_held(self) -> None:
        try:
            await self._refresh()
        except BirthmarkError as error:
            self.pump.refuse(error)
            return
        held, self._held = self._held, []
        for topic, payload, qos in held:
            self.deliver(topic, payload, qos)

    async def _send_stored(self) -> None:
        """Send what is stored, oldest first, as far as the window of unacknowledged messages goes."""
        broker = self._connections.broker
        try:
            while self._send_again and not self.pump.is_over and len(self._in_flight) < WINDOW:
                self._send_again = False
                room = WINDOW - len(self._in_flight)
                found = await broker.stored_after(self.client_id, self._last_sent, room)
                await self._refresh()
                for number, topic, payload in found:
                    self._last_sent = number
                    if not self._connections.may_receive(self.grant, topic):
                        broker.delivered(self.client_id, number)
                    elif (packet_id := self.pump.publish(topic, payload, 1)) is not None:
                        self._in_flight[packet_id] = number
                self._send_again = self._send_again or len(found) == room
        except LocalProtocolError as error:
            log.info("awsiot.not_sent", extra={"client_id": self.client_id, "reason": error.reason})
        except BirthmarkError as error:
            self.pump.refuse(error)
        finally:
            self._sending = None
