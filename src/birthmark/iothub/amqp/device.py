"""A device or module on an AMQP connection, which may have many: its session at the hub, and its links."""

from collections.abc import Callable
from typing import Final

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.link import LinkState
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.auth.sas import SasToken, check_expiry
from birthmark.broker import ConnectedSession
from birthmark.broker.model import Subscription
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.amqp.device_c2d_link import DeviceboundLink
from birthmark.iothub.amqp.device_requests import MethodLinks, TwinLinks
from birthmark.iothub.amqp.error_conditions import amqp_error
from birthmark.iothub.amqp.link_handler import LinkHandler
from birthmark.iothub.amqp.telemetry_link import TelemetryLink, ThrottledTelemetry, UnwrittenTelemetry
from birthmark.iothub.connections import DeviceConnection, HubConnections
from birthmark.iothub.model import Hub, Identity
from birthmark.iothub.rules.authentication import DEVICE_CONNECT
from birthmark.iothub.wire.amqp_addresses import DeviceFeature, DeviceNode
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.tls import TlsPeer

CHANNEL: Final = "com.microsoft:channel-correlation-id"
"""Property of a link that names the pair that it belongs to."""
MAX_LINKS = 16
"""Links of one device: SDKs use six."""
_Link = ReceiverLink | SenderLink
_ENDS = {CloseReason.TAKEN_OVER: (AmqpCondition.LINK_STOLEN, "another connection of the device has its links now")}
_ENDED = (AmqpCondition.DETACH_FORCED, "the hub ended the connection of the device")


class AmqpDeviceDriver:
    """A device's part of the connection, as the rest of the server sees it."""

    __slots__ = ("_device", "_driver")

    def __init__(self, device: "AmqpDevice", driver: AmqpDriver) -> None:
        self._device = device
        self._driver = driver

    @property
    def peer(self) -> TlsPeer:
        return self._driver.peer

    @property
    def address(self) -> str:
        return self._driver.address

    @property
    def is_over(self) -> bool:
        return self._device.is_over

    def note(self, error: BirthmarkError) -> str:
        """Record a refusal that does not end the links, and return its tracking ID."""
        error.add_facts(device_id=self._device.device_id)
        return self._driver.note(error)

    def refuse(self, error: BirthmarkError) -> None:
        """Record a refusal, and end the device's links."""
        self._device.end_links(amqp_error(error, self.note(error)))

    def close(self, reason: CloseReason) -> None:
        """End the device's links."""
        self._device.end(reason)


class AmqpDevice(DeviceConnection):
    """The session begins with the first link or token, and ends with the last link."""

    __slots__ = (
        "__weakref__",
        "_amqp",
        "_backlog",
        "_children",
        "_connections",
        "_devicebound",
        "_links",
        "_methods",
        "_on_end",
        "_twins",
        "_unwritten",
        "attached",
        "device_id",
        "driver",
        "ended_with",
        "hub",
        "identity",
        "is_of_policy",
        "is_over",
        "renewed_at",
        "token",
    )
    driver: AmqpDeviceDriver

    def __init__(
        self,
        connections: HubConnections,
        driver: AmqpDriver,
        unwritten: UnwrittenTelemetry,
        on_end: Callable[["AmqpDevice"], None],
        *,
        hub: Hub,
        identity: Identity,
        is_of_policy: bool,
    ) -> None:
        """`on_end` is called once, when the session has ended."""
        self._connections = connections
        self._amqp = driver
        self._unwritten = unwritten
        self._on_end = on_end
        self._links: dict[_Link, LinkHandler] = {}
        self._methods: dict[str, MethodLinks] = {}
        self._twins: dict[str, TwinLinks] = {}
        self._devicebound: DeviceboundLink | None = None
        self.driver = AmqpDeviceDriver(self, driver)
        self.hub, self.identity, self.device_id = hub, identity, identity.name
        self.is_of_policy = is_of_policy
        self.is_over = False
        self.ended_with: AmqpError | None = None  # by the hub
        self._backlog = ThrottledTelemetry()
        self.token: SasToken | None = None
        self._children: list[AmqpDevice] = []
        self.attached: ConnectedSession

    def attach(self, session: ConnectedSession) -> None:
        self.attached = session

    def renew(self, token: SasToken | None) -> None:
        """Use the session until this token expires."""
        self.token = token
        self.renewed_at = self._connections.clock.micros()
        self.is_of_policy = token is not None and token.policy in DEVICE_CONNECT

    def add_child(self, device: "AmqpDevice") -> None:
        """End another device with this gateway, which authenticates it; at once, if the gateway has ended."""
        if self.is_over:
            device.end(CloseReason.ADMINISTRATIVE)
            return
        self._children = [one for one in self._children if not one.is_over]
        self._children.append(device)

    # ---- links

    @property
    def links(self) -> tuple[_Link, ...]:
        """Every attached link."""
        return tuple(self._links)

    async def attach_link(self, link: _Link, node: DeviceNode) -> LinkHandler | None:
        """Accept a link and return its handler, or None if the device has no such address in this direction."""
        if len(self._links) >= MAX_LINKS:
            told = f"a device has at most {MAX_LINKS} links"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told, scope=AmqpErrorScope.LINK)
        channel = str(link.properties.get(CHANNEL, ""))[:200]
        handler: LinkHandler
        match node.feature, link:
            case DeviceFeature.EVENTS, ReceiverLink():
                handler = TelemetryLink(
                    *(self._connections, self, self._amqp, link), unwritten=self._unwritten, backlog=self._backlog
                )
            case (DeviceFeature.EVENTS, SenderLink()) if node.module_id is not None:
                link.accept()  # inputs of a module come from edgeHub, never from the hub
                handler = LinkHandler()
            case (DeviceFeature.DEVICEBOUND, SenderLink()) if node.module_id is None:
                if self._devicebound is not None and self._devicebound.is_attached:
                    told = "the device receives its messages on another link"
                    raise AmqpError(AmqpCondition.RESOURCE_LOCKED, told, scope=AmqpErrorScope.LINK)
                handler = self._devicebound = DeviceboundLink(self._connections, self, self._amqp, link)
            case DeviceFeature.DEVICEBOUND, SenderLink():
                link.accept()  # the hub has no messages to modules
                handler = LinkHandler()
            case DeviceFeature.TWIN, _:
                twin = self._twins.setdefault(channel, TwinLinks(self._connections.iothub, self, self._amqp))
                twin.attach(link)
                handler = twin
            case DeviceFeature.METHODS, _:
                if isinstance(link, SenderLink):
                    await self.subscribe(wire.METHODS)
                methods = self._methods.setdefault(channel, MethodLinks(self._connections.methods, self, self._amqp))
                methods.attach(link)
                handler = methods
            case _:
                return None
        self._links[link] = handler
        return handler

    def detached(self, link: _Link) -> None:
        """Forget a link that has ended; the last one ends the session."""
        handler = self._links.pop(link, None)
        for channels in (self._twins, self._methods):
            for key in [key for key, one in channels.items() if one is handler and one not in self._links.values()]:
                del channels[key]
        if wire.METHODS in self.attached.subscriptions and not self._is_called:
            self._connections.space(self.hub.name).spawn(self._stop_calls())
        if not self._links and handler is not None:
            self.leave(CloseReason.DISCONNECT)

    @property
    def _is_called(self) -> bool:
        """Whether the device has a link that receives method calls."""
        return any(methods.can_send for methods in self._methods.values())

    async def _stop_calls(self) -> None:
        """Receive no method calls, unless the device has attached another link."""
        subscriptions = self._connections.space(self.hub.name).subscriptions
        if not self._is_called and not self.is_over:
            await subscriptions.unsubscribe(self.attached, [wire.METHODS])
        if self._is_called and not self.is_over:  # attached in that time
            await self.subscribe(wire.METHODS)

    def check(self) -> None:
        """Raise `SasExpiredError` once the token has expired."""
        if self.token is not None:
            check_expiry(self.token, self._connections.clock.now())

    # ---- for the broker and the hub

    def deliver(self, parcel: EncodedMessage, qos: int) -> None:
        del qos  # calls and notifications are sent settled
        try:
            match wire.parse_delivered(parcel.topic):
                case wire.MethodRequest() as call:
                    for methods in [one for one in self._methods.values() if one.can_send][-1:]:
                        methods.call(call, parcel.payload)
                case wire.DesiredChange() as change:
                    for twin in self._twins.values():
                        twin.notify(change, parcel.payload)
                case None:
                    pass
        except AmqpError:  # the link's queue is full
            self._connections.traffic.count_slow()

    def forward(self, parcel: EncodedMessage, packet_id: int, *, dup: bool) -> bool:
        del parcel, packet_id, dup  # sessions of a hub have no queues
        return False

    def may_get(self, topic: str) -> bool:
        del topic
        return True

    async def wait_released(self) -> None:
        if self._devicebound is not None:
            await self._devicebound.release()

    def deliver_messages(self) -> None:
        if self._devicebound is not None:
            self._devicebound.resume()

    async def subscribe(self, name: str) -> None:
        """Receive what the hub sends to a topic filter."""
        if name not in self.attached.subscriptions:
            space = self._connections.space(self.hub.name)
            await space.subscriptions.subscribe(self.attached, [Subscription(name, 0)])

    def end(self, reason: CloseReason) -> None:
        if reason is CloseReason.TAKEN_OVER and (
            two := self._connections.contested.record_takeover(self.device_id, self._amqp.address)
        ):
            self.driver.note(two)
        condition, told = _ENDS.get(reason, _ENDED)
        self.end_links(AmqpError(condition, told, scope=AmqpErrorScope.LINK), reason)

    def end_links(self, error: AmqpError, reason: CloseReason = CloseReason.REFUSED) -> None:
        """End all links with an error, and the session."""
        if self.is_over:
            return
        self.ended_with = error
        for link in self._links:
            if link.state is LinkState.ATTACHED:
                link.detach(error)
        self._amqp.wrote()
        self.leave(reason)

    def leave_unused(self) -> None:
        """End a session that has neither a link nor a token."""
        if not self._links and self.token is None:
            self.leave(CloseReason.DISCONNECT)

    def leave(self, reason: CloseReason) -> None:
        """End the session."""
        if self.is_over:
            return
        self.is_over = True
        self._connections.space(self.hub.name).disconnect(self.attached, reason, with_will=False)
        for handler in {*self._links.values()}:
            handler.ended()
        self._on_end(self)
        children, self._children = self._children, []
        for child in children:
            child.end(CloseReason.ADMINISTRATIVE)
