"""An MQTT connection of a device: telemetry, twin, direct methods and cloud-to-device messages."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from birthmark.broker import ConnectedSession, Namespace
from birthmark.broker.model import Subscription
from birthmark.clock_and_entropy import Clock, SystemEntropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.connections import DeviceConnection
from birthmark.iothub.connections.c2d_delivery import C2dDelivery
from birthmark.iothub.connections.direct_methods import MethodCalls
from birthmark.iothub.connections.twin_requests import read_twin, report_properties
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.model import Device, Hub, Identity, authentication_of
from birthmark.iothub.mqtt.c2d_receiver import MqttC2dReceiver
from birthmark.iothub.mqtt.telemetry_window import TelemetryWindow
from birthmark.iothub.rules.certificate_renewal import CredentialBusyError
from birthmark.iothub.rules.publish_refusals import QosNotServedError, TopicNotServedError
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.certificate_renewal import AcceptedIssuance, CertificateRequests
from birthmark.metric_catalog import Traffic
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.net.identity_conflicts import TakeoverHistory
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.pki.csr import CsrRefusedError
from birthmark.store import Changes

_ENTROPY = SystemEntropy()
_ACCEPTED, _ISSUED = 202, 200


class CredentialRequests:
    """Certificate requests of one connection."""

    __slots__ = ("_clock", "_credentials", "_device", "_driver", "_hub", "_session")

    def __init__(
        self, credentials: CertificateRequests, driver: MqttDriver, clock: Clock, *, hub: Hub, device: Device
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._driver = driver
        self._hub = hub
        self._device = device
        self._session = credentials.session()

    async def accept(self, payload: bytes, rid: str) -> Awaitable[None] | None:
        """Accept a request and return the pending issuance, or publish the error and return None."""
        correlation = new_uuid(_ENTROPY)
        try:
            asked = wire.parse_credential_request(payload)
            leaf = self._driver.peer.leaf
            accepted = await self._credentials.accept(
                self._hub, self._device, leaf, asked, request_id=rid, session=self._session
            )
        except BirthmarkError as error:
            self._refuse(error, rid, correlation)
            return None
        self._publish_response(_ACCEPTED, rid, wire.accepted_json(correlation, accepted.expires_at))
        return self._finish(accepted, rid, correlation)

    async def _finish(self, accepted: AcceptedIssuance, rid: str, correlation: str) -> None:
        try:
            chain = await self._credentials.finish(accepted)
        except BirthmarkError as error:
            self._refuse(error, rid, correlation)
        else:
            self._publish_response(_ISSUED, rid, wire.issued_json(correlation, chain))

    def _refuse(self, error: BirthmarkError, rid: str, correlation: str) -> None:
        status, name, number = http_error(error)
        leaf = self._driver.peer.leaf
        error.add_facts(device_id=self._device.device_id, hub=self._hub.name, request_id=rid, tracking_id=correlation)
        if leaf is not None:
            error.add_facts(renews=leaf.thumbprint.hex())
        self._driver.note(error)
        info = {"credentialError": name, "credentialMessage": str(error)}
        if isinstance(error, CsrRefusedError):
            info["credentialError"] = "FailedToDecodeCsr"
        if isinstance(error, CredentialBusyError):
            info = {"requestId": error.request_id, "operationExpires": wire.operation_time(error.expires_at)}
        body = wire.credential_error_json(number, str(error), correlation, self._clock.now(), info)
        self._publish_response(status, rid, body)

    def _publish_response(self, status: int, rid: str, body: bytes) -> None:
        """Publish a response to the requester, subscribed or not, as for twins."""
        with suppress(LocalProtocolError):
            self._driver.publish(wire.credential_response_topic(status, rid), body)


MAX_SUBSCRIPTIONS = 50
_FAILURE = 0x80
_SERVED = ("$iothub/twin/", "$iothub/methods/")
_Asked = tuple[Publish, wire.TwinGet | wire.TwinReport | wire.CredentialAsk]


class ConnectionsPort(Protocol):
    """Dependencies of a connection on the connection registry."""

    iothub: IotHub
    clock: Clock
    methods: MethodCalls
    traffic: Traffic
    holder: str
    living: Callable[[], Changes]
    contested: TakeoverHistory

    async def notify_anywhere(self, hub: str, device_id: str) -> None:
        """Make a device check its queue, on whichever worker it is connected."""
        ...


class HubConnection(DeviceConnection):
    """An MQTT connection of a device or module."""

    __slots__ = (
        "__weakref__",
        "_asked",
        "_connections",
        "_credentials",
        "_devicebound",
        "_space",
        "_telemetry",
        "attached",
        "device_id",
        "driver",
        "hub",
        "identity",
        "is_of_policy",
    )
    driver: MqttDriver

    def __init__(
        self,
        connections: ConnectionsPort,
        driver: MqttDriver,
        space: Namespace,
        *,
        hub: Hub,
        identity: Identity,
        is_of_policy: bool,
    ) -> None:
        """Create the connection of a device or module.

        `is_of_policy` means that a token of a hub policy opened it, without a proof of the device.
        """
        self._connections = connections
        self._asked: tuple[_Asked, ...] = ()  # of the current burst
        self._credentials: CredentialRequests | None = None
        self._devicebound: C2dDelivery | None = None
        stream = connections.iothub.telemetry.stream(hub)
        throttles = connections.iothub.throttles
        self._telemetry = TelemetryWindow(
            driver,
            identity.name,
            stream,
            connections.clock,
            hub=hub.name,
            throttles=throttles,
            authentication=authentication_of(identity, is_of_policy=is_of_policy),
        )
        self.identity = identity
        self._space = space
        self.driver = driver
        self.hub = hub
        self.device_id = identity.name
        self.is_of_policy = is_of_policy
        self.attached: ConnectedSession

    def attach(self, session: ConnectedSession) -> None:
        """Start with the session that the broker assigned."""
        self.attached = session

    # ---- driver callbacks

    def opened(self) -> None:
        self.attached.resume()
        if self.attached.subscriptions:
            self.deliver_messages()

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        waiting = self._telemetry.take(packets, self._topic_of)
        return None if waiting is None and not self._asked else self._answer(waiting)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        device_id = self.device_id
        allowed = (wire.own_topics(device_id), "$iothub/")
        known = self.attached.subscriptions
        granted: dict[str, int] = {}
        for name, options in packet.filters:
            if not name.startswith(allowed):
                raise TopicNotServedError(device_id=device_id, topic=name[:200])
            if name.startswith("$iothub/") and not self._is_served(name):  # a publish there would be rejected
                self.driver.note(TopicNotServedError(device_id=device_id, topic=name[:200]))
            elif name in known or len(known.keys() | granted) < MAX_SUBSCRIPTIONS:
                granted[name] = min(options & 3, 1)
        return self._subscribe(packet, granted)

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        return self._unsubscribe(packet)

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        return None if self._devicebound is None else self._devicebound.complete(packet_ids)

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None:
        del session_expiry_s
        was_open = not self.attached.is_on_hold
        self._space.disconnect(self.attached, reason, with_will=was_open and reason is not CloseReason.DISCONNECT)
        if self._devicebound is not None:
            self._space.spawn(self._release_unacknowledged(self._devicebound))

    # ---- broker callbacks

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        try:
            self.driver.deliver(parcel, qos)
        except LocalProtocolError:  # full queue
            self._connections.traffic.count_slow()

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        return self.driver.forward(parcel, packet_id, dup=dup)

    def may_get(self, topic: str) -> bool:
        del topic
        return True

    async def wait_released(self) -> None:
        if self._devicebound is not None:
            await self._devicebound.release_unacknowledged()

    def end(self, reason: CloseReason) -> None:
        self.driver.close(reason)
        if reason is CloseReason.TAKEN_OVER and (
            two := self._connections.contested.record_takeover(self.device_id, self.driver.address)
        ):
            self.driver.note(two)

    # ---- hub callbacks

    def deliver_messages(self) -> None:
        """Deliver queued messages if the device is subscribed."""
        if self.driver.is_over:
            return
        known = self.attached.subscriptions
        if wire.devicebound(self.device_id) not in known:
            return
        if self._devicebound is None:
            c2d = self._connections.iothub.c2d
            holder, living = self._connections.holder, self._connections.living
            self._devicebound = C2dDelivery(
                c2d,
                MqttC2dReceiver(c2d, self.driver, self.device_id, known),
                self.hub,
                self.device_id,
                holder=holder,
                living=living,
                look=self.deliver_messages,
            )
        self.attached.space.spawn(self._devicebound.flow())

    # ---- inside

    def _is_served(self, name: str) -> bool:
        """Return whether a `$iothub/` filter is supported; certificate requests are for devices only."""
        return name.startswith(_SERVED) or (name == wire.CREDENTIALS and isinstance(self.identity, Device))

    def _topic_of(self, packet: Publish) -> wire.TelemetryTopic | None:
        """Return the topic of telemetry; queue other requests for later."""
        device_id = self.device_id
        if packet.qos > 1:
            raise QosNotServedError(device_id=device_id)
        match wire.parse_topic(packet.topic, device_id):
            case wire.TelemetryTopic() as topic:
                return topic
            case wire.MethodAnswer() as answer:
                self._connections.methods.accept_response(self.hub.name, device_id, answer, packet.payload)
                self.driver.ack(packet.packet_id)
            case wire.CredentialAsk() if not isinstance(self.identity, Device):
                raise TopicNotServedError(device_id=device_id, topic=packet.topic[:200])
            case wire.TwinGet() | wire.TwinReport() | wire.CredentialAsk() as asked:
                self._asked = (*self._asked, (packet, asked))
            case None:
                raise TopicNotServedError(device_id=device_id, topic=packet.topic[:200])
        return None

    async def _answer(self, waiting: Awaitable[None] | None) -> None:
        """Answer queued requests, also behind telemetry that had to wait for the window."""
        if waiting is not None:
            await waiting
        asked, self._asked = self._asked, ()
        for packet, request in asked:
            await self.driver.wait_for_turn()
            if self.driver.is_over:
                return
            if self.driver.is_lost and not isinstance(request, wire.TwinReport):  # no receiver for it
                continue
            if isinstance(request, wire.CredentialAsk):
                await self._issue(packet, request)
            else:
                await self._answer_one(packet, request)

    async def _issue(self, packet: Publish, request: wire.CredentialAsk) -> None:
        """Handle a certificate request; the issuance runs in the background."""
        if self._credentials is None:
            assert isinstance(self.identity, Device)  # noqa: S101 - the topic check rejects all other clients
            known, clock = self._connections.iothub.credentials, self._connections.clock
            self._credentials = CredentialRequests(known, self.driver, clock, hub=self.hub, device=self.identity)
        goes_on = await self._credentials.accept(packet.payload, request.rid)
        self.driver.ack(packet.packet_id)
        if goes_on is not None:
            self._space.spawn(goes_on)

    async def _answer_one(self, packet: Publish, request: wire.TwinGet | wire.TwinReport) -> None:
        """Answer a twin request, subscribed or not: SDKs rely on the session of an earlier connection."""
        iothub, hub, identity = self._connections.iothub, self.hub, self.identity
        try:
            if isinstance(request, wire.TwinGet):
                body = await read_twin(iothub, hub, identity)
                topic = wire.twin_response_topic(200, request.rid)
            else:
                version = await report_properties(iothub, hub, identity, packet.payload, request.version)
                topic, body = wire.twin_response_topic(204, request.rid, version), b""
        except BirthmarkError as error:
            status, _, number = http_error(error)
            error.add_facts(device_id=self.device_id)
            self.driver.note(error)
            topic = wire.twin_response_topic(status, request.rid)
            body = msgspec.json.encode({"errorCode": number, "message": str(error)})
        self.driver.ack(packet.packet_id)
        with suppress(LocalProtocolError):
            self.driver.publish(topic, body)

    async def _release_unacknowledged(self, devicebound: C2dDelivery) -> None:
        """Return unacknowledged messages to the queue for the connection that follows."""
        await devicebound.release_unacknowledged()
        await self._connections.notify_anywhere(self.hub.name, self.device_id)

    async def _subscribe(self, packet: Subscribe, granted: dict[str, int]) -> None:
        wanted = [Subscription(name, qos) for name, qos in granted.items()]
        await self._space.subscriptions.subscribe(self.attached, wanted)
        self.driver.send(SubAck(packet.packet_id, tuple(granted.get(name, _FAILURE) for name, _ in packet.filters)))
        if wire.devicebound(self.device_id) in granted:
            self.deliver_messages()

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        await self._space.subscriptions.unsubscribe(self.attached, packet.filters)
        self.driver.send(UnsubAck(packet.packet_id))
