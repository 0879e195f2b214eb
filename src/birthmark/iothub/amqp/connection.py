"""One AMQP connection of a hub, of back ends or devices: claims, and the handler of each link."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionClosed,
    ConnectionOpened,
    CreditChanged,
    DeliveryReceived,
    DeliverySettled,
    LinkDetached,
    LinkRequested,
    SaslStarted,
)
from birthmark.amqp.link import LinkState
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sasl import SaslMechanism
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Symbol, UInt
from birthmark.auth.permission_statements import Right
from birthmark.auth.sas import SasScopeError
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import BirthmarkError, ForbiddenError, NotFoundError, ThrottledError, UnavailableError
from birthmark.iothub.amqp.c2d_links import (
    C2dLink,
    ServiceQueueLink,
    feedback_queue,
    file_notification_queue,
    watch_queue,
)
from birthmark.iothub.amqp.claims import CbsClaims, NoClaimError, parse_token
from birthmark.iothub.amqp.connection_devices import ConnectionDevices, is_of_device, is_plain_device
from birthmark.iothub.amqp.device import AmqpDevice
from birthmark.iothub.amqp.error_conditions import amqp_error
from birthmark.iothub.amqp.link_handler import LinkHandler
from birthmark.iothub.amqp.node_requests import NodeRequests
from birthmark.iothub.amqp.partition_reader_links import EventLink, EventLinks
from birthmark.iothub.amqp.shared_watch import SharedWatch
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.authentication import DEVICE_CONNECT
from birthmark.iothub.rules.publish_refusals import MAX_MESSAGE_BYTES, MessageTooLargeError
from birthmark.iothub.wire.amqp_addresses import (
    AmqpAddress,
    AmqpNode,
    DeviceNode,
    EventPartition,
    HubEvents,
    ServiceNode,
    is_in_entity,
    parse_address,
)
from birthmark.net.amqp_driver import AmqpDriver, AmqpProtocolError
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.supervised_tasks import note

_RECHECK_S = 10.0
MAX_LINKS_WITHOUT_TOKEN = 8
MAX_REFUSED_TOKENS = 20
"""Refused tokens and links after which a connection without valid credentials is closed."""
REFUSAL_FRAMES = 8  # control frames that a refusal counts as, on a connection with valid credentials
AMQPS_PORT = 5671
_MAX_SHOWN = 200


class AmqpAddressError(NotFoundError):
    """The hub has no such address."""

    code = "iothub.amqp_address_unknown"
    message = "The address {address} does not exist in this direction"
    cause = "A client attached a link to {address}, which this server does not have in this direction."
    fix = (
        "Read events with an Event Hubs SDK, send messages to devices with a service SDK, and connect devices with a "
        "device SDK. To print the connection strings: `birthmark hub key --policy service`"
    )
    address: str


class EventHubReadOnlyError(ForbiddenError):
    """A client wants to send events to the Event Hubs-compatible endpoint."""

    code = "iothub.event_hub_read_only"
    message = "The Event Hubs-compatible endpoint of hub {hub} is read-only"
    cause = "A client attached a link that sends events to {address}. Only devices send telemetry to a hub."
    fix = "Send telemetry as a device. To show the command: `birthmark device send --help`"
    address: str
    hub: str


class HubAmqpConnections:
    """All AMQP connections of this worker, and what they share."""

    def __init__(
        self,
        connections: HubConnections,
        entropy: Entropy,
        *,
        port: int = AMQPS_PORT,
        on_users_loaded: list[Callable[[], Awaitable[None]]] | None = None,
    ) -> None:
        """Create the registry; `connections` are the devices of this worker, over any protocol.

        `port` is that of AMQP over TLS, 0 without one. `on_users_loaded` takes a callback for changes of users, whose
        tokens connect back ends as well.
        """
        self.connections = connections
        self.iothub = connections.iothub
        self.clock = connections.clock
        self.port = port or AMQPS_PORT
        self.events = EventLinks(self.iothub, entropy, connections.holder)
        self._connections: set[HubAmqpConnection] = set()
        if on_users_loaded is not None:
            on_users_loaded.append(self._users_changed)
        self._queue_watches: dict[tuple[str, str], SharedWatch] = {}
        self.queues = {one.node: one for one in (feedback_queue(self.iothub), file_notification_queue(self.iothub))}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> tuple["HubAmqpConnection", ...]:
        """Every open connection."""
        return tuple(self._connections)

    def device_counts(self) -> Mapping[str, int]:
        """Return the number of connected devices and modules by hub."""
        counts = Counter({hub.name: 0 for hub in self.iothub.hubs.all()})
        for connection in self._connections:
            counts.update(connection.device_hubs())
        return counts

    def connect(self, driver: AmqpDriver, hostname: str = "") -> "HubAmqpConnection":
        """Return the hub's side of a new connection; `hostname` is that in OPEN, if it was already received."""
        made = HubAmqpConnection(self, driver, hostname)
        self._connections.add(made)
        return made

    def queue_watch(self, node: ServiceNode, hub: str) -> SharedWatch:
        """Return the watch of a queue to a hub's service, shared by its links."""
        if (known := self._queue_watches.get((node, hub))) is None:
            known = self._queue_watches[node, hub] = watch_queue(self.queues[node], hub)
        return known

    def forget(self, connection: "HubAmqpConnection") -> None:
        """Forget a closed connection."""
        self._connections.discard(connection)

    def recheck_soon(self, _event: object) -> None:
        """End the links whose hub or key is no longer valid, once the change is in memory."""
        task = asyncio.get_running_loop().create_task(self._recheck())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _users_changed(self) -> None:
        self.recheck_soon(None)

    async def _recheck(self) -> None:
        try:
            await self.iothub.hubs.load()
        except BirthmarkError as error:  # each connection also checks by itself
            note("the check of AMQP links", error)
        for connection in tuple(self._connections):
            connection.recheck()
            await asyncio.sleep(0)  # others run between two connections


class HubAmqpConnection:
    """Handles the events of one connection."""

    def __init__(self, shared: HubAmqpConnections, driver: AmqpDriver, hostname: str) -> None:
        self.driver = driver
        self._shared = shared
        self._known_claims: CbsClaims | None = None
        self._devices = ConnectionDevices(shared.connections, driver, self._device_ended)
        self._devices.connected_to(hostname)
        self._device_of: dict[ReceiverLink | SenderLink, AmqpDevice] = {}
        self._nodes = NodeRequests(shared.iothub, self, self._claim)
        self._handlers: dict[ReceiverLink | SenderLink, LinkHandler] = {}
        self._recheck_at = 0.0
        self._rechecked: dict[tuple[str, str, Right], str | BirthmarkError] | None = None
        self._refused_tokens = 0

    # ---- for the driver

    def handle(self, event: AmqpEvent) -> Awaitable[None] | None:
        """Handle an event of the peer."""
        match event:
            case SaslStarted():
                return self._sasl(event)
            case ConnectionOpened(hostname=hostname):
                self._devices.connected_to(hostname or "")
                self.driver.engine.accept_open()
            case LinkRequested(link=link):
                return self._attach(link)
            case DeliveryReceived(link=receiver) if (handler := self._handlers.get(receiver)) is not None:
                return handler.received(event)
            case DeliverySettled(link=sender) if (handler := self._handlers.get(sender)) is not None:
                return handler.settled(event)
            case CreditChanged(link=sender) if (handler := self._handlers.get(sender)) is not None:
                handler.resume()
            case LinkDetached(link=link, error=error, by_peer=by_peer):
                if error is not None and not by_peer:
                    self._note_violation(link, error)
                self._detached(link)
            case ConnectionClosed(by_peer=True):
                self._devices.close(CloseReason.DISCONNECT)
            case _:
                pass
        return None

    def writable(self) -> None:
        """Continue to send on every link."""
        for handler in self._handlers.values():
            handler.resume()

    def check_deadlines(self, at: float) -> float | None:
        """Detach links whose token has expired."""
        if at >= self._recheck_at:
            self._recheck_at = at + _RECHECK_S
            self._devices.check()
            self.recheck()
        return self._recheck_at if self._handlers or self._devices else None

    def closed(self) -> None:
        """End all links."""
        self._devices.close(CloseReason.LOST)
        for link in tuple(self._handlers):
            self._detached(link)
        self._known_claims = None
        self._shared.forget(self)

    def recheck(self) -> None:
        """Detach the links that no claim authorizes any more; links of one resource share the verification."""
        self._rechecked = {}
        for link, handler in tuple(self._handlers.items()):
            try:
                handler.recheck()
            except BirthmarkError as error:
                self.detach(link, error)
        self._rechecked = None

    def device_hubs(self) -> Iterable[str]:
        """Return the hub of each device of the connection."""
        return self._devices.hubs()

    # ---- for handlers

    @property
    def hub(self) -> Hub:
        """The hub of the claims. Raise `NoClaimError` without one."""
        if (hub := self._claims.hub(self._shared.clock.now())) is None:
            raise NoClaimError(hub="birthmark", resource=str(AmqpNode.MANAGEMENT))
        return hub

    def authorize(self, hub: Hub, resource: str, right: Right = Right.READ) -> str:
        """Return the policy or user that may use a resource. Raise `NoClaimError`, `RightMissingError`."""
        key = hub.name, resource, right
        found = None if self._rechecked is None else self._rechecked.get(key)
        if found is None:
            try:
                found = self._claims.authorize(hub, resource, right, self._shared.clock.now())
            except BirthmarkError as error:
                found = error
            if self._rechecked is not None:
                self._rechecked[key] = found
        if isinstance(found, BirthmarkError):
            raise found
        return found

    def detach(self, link: ReceiverLink | SenderLink, error: Exception) -> None:
        """Record a refusal or a bug, and end a link with its condition."""
        if isinstance(error, BirthmarkError):
            told = amqp_error(error, self.driver.note(error))
        else:
            note("an AMQP link", error)
            told = AmqpError(AmqpCondition.INTERNAL_ERROR, "the server failed", scope=AmqpErrorScope.LINK)
        if link.state is LinkState.ATTACHED:
            link.detach(told)
            self.driver.wrote()
        self._detached(link)

    # ---- inside

    def _note_violation(self, link: ReceiverLink | SenderLink, error: AmqpError) -> None:
        """Record why the engine ended a link."""
        device = self._device_of.get(link)
        if device is not None and error.condition == AmqpCondition.MESSAGE_SIZE_EXCEEDED:
            refused: BirthmarkError = MessageTooLargeError(device_id=device.device_id, size=MAX_MESSAGE_BYTES + 1)
        else:
            refused = AmqpProtocolError(reason=error.description)
        self.driver.note(refused)
        self._count_refused(refused)

    @property
    def _claims(self) -> CbsClaims:
        if self._known_claims is None:  # the address is known once the transport is
            self._known_claims = CbsClaims(self._shared.iothub.hubs, self.driver.address)
        return self._known_claims

    def _sasl(self, event: SaslStarted) -> Awaitable[None] | None:
        if event.mechanism == SaslMechanism.PLAIN:
            return self._sasl_plain(event)
        self.driver.engine.accept_sasl()
        return None

    async def _sasl_plain(self, event: SaslStarted) -> None:
        user, password = event.authentication_id, event.password
        try:
            if is_plain_device(user):
                await self._devices.present_plain(user, password)
            else:
                await self._claim(user, password, "")
        except BirthmarkError as error:
            self.driver.refuse_sasl(error)
        else:
            self.driver.engine.accept_sasl()

    async def _claim(self, audience: str, text: str, kind: str) -> Hub | None:
        """Accept the token of a back end or a device; return a back end's hub. Raise `BirthmarkError`."""
        try:
            if not text:
                raise NoClaimError(hub="birthmark", resource=audience[:_MAX_SHOWN])
            token = parse_token(text, kind)
            if is_of_device(token):
                await self._devices.present(audience, text, token)
                return None
            hub = self._claims.add(audience, text, token)
            if token.policy in DEVICE_CONNECT:  # it may connect devices, too, unless it is for the hub's events alone
                with suppress(SasScopeError):
                    await self._devices.present(audience, text, token)
        except BirthmarkError as error:
            self._count_refused(error)
            raise
        self.driver.mark_authenticated(f"hub:{hub.name}")
        return hub

    def _count_refused(self, error: BirthmarkError) -> None:
        """Close a connection that is refused too often; one with valid credentials, only if it is too frequent."""
        if isinstance(error, UnavailableError | ThrottledError):  # no fault of the credentials
            self.driver.allow_next_token()
            return
        self._refused_tokens += 1
        is_known = bool(self._devices or self._claims)
        if is_known and self.driver.engine.allowance.spend(REFUSAL_FRAMES):
            return
        if is_known or self._refused_tokens >= MAX_REFUSED_TOKENS:
            asyncio.get_running_loop().call_soon(self.driver.refuse, error)
        self.driver.allow_next_token()

    def _attach(self, link: ReceiverLink | SenderLink) -> Awaitable[None] | None:
        text = link.own_address
        try:
            address = parse_address(text)
            if len(self._handlers) >= MAX_LINKS_WITHOUT_TOKEN and not (self._claims or self._devices):
                raise NoClaimError(hub="birthmark", resource=text[:_MAX_SHOWN])
            if isinstance(address, EventPartition) and isinstance(link, SenderLink):
                return self._read(link, address)
            if isinstance(address, DeviceNode):
                return self._attach_device(link, address, text)
            self._handlers[link] = self._handler_of(link, address, text)
        except BirthmarkError as error:
            self._refuse(link, error)
        except AmqpError as redirect:
            link.refuse(redirect)
            self.driver.wrote()
        return None

    def _handler_of(self, link: ReceiverLink | SenderLink, address: AmqpAddress | None, text: str) -> LinkHandler:
        """Accept a link and return its handler. Raise `BirthmarkError`, or the redirect."""
        iothub = self._shared.iothub
        match address, link:
            case AmqpNode(), _:
                self._nodes.attach(link)
                return self._nodes
            case ServiceNode.C2D, ReceiverLink():
                return C2dLink(iothub, self, link)
            case (ServiceNode.FEEDBACK | ServiceNode.FILE_NOTIFICATIONS) as node, SenderLink():
                shared, watch = self._shared, self._shared.queue_watch(node, self.hub.name)
                holder, living = shared.connections.holder, shared.connections.living()
                return ServiceQueueLink(shared.queues[node], self, link, watch, holder=holder, living=living)
            case HubEvents(path=path), SenderLink():
                raise self._redirect(path)
            case _, ReceiverLink() if (hub := self._claims.hub(self._shared.clock.now())) is not None and is_in_entity(
                text, hub.name
            ):
                raise EventHubReadOnlyError(hub=hub.name, address=text[:_MAX_SHOWN])
            case _:
                raise AmqpAddressError(address=text[:_MAX_SHOWN])

    async def _read(self, link: SenderLink, address: EventPartition) -> None:
        shared = self._shared
        try:
            self._handlers[link] = await EventLink.attach(
                shared.events, self, link, address, shared.connections.living()
            )
        except BirthmarkError as error:
            self._refuse(link, error)
        else:
            if link.state is LinkState.DETACHED:  # by the peer, while it was decided
                self._detached(link)
        self.driver.resume_events()

    async def _attach_device(self, link: ReceiverLink | SenderLink, address: DeviceNode, text: str) -> None:
        try:
            device, handler = await self._devices.attach(link, address)
            if handler is None:
                device.leave_unused()
                raise AmqpAddressError(address=text[:_MAX_SHOWN])
        except BirthmarkError as error:
            self._refuse(link, error)
        except AmqpError as error:
            link.refuse(error)
        else:
            self._handlers[link], self._device_of[link] = handler, device
            if device.is_over:  # ended while it was decided
                if link.state is LinkState.ATTACHED:
                    link.detach(device.ended_with)
                self._detached(link)
            elif link.state is LinkState.DETACHED:  # by the peer, while it was decided
                self._detached(link)
        self.driver.wrote()
        self.driver.resume_events()

    def _device_ended(self, device: AmqpDevice) -> None:
        """Forget the links of a device that has ended. A connection without another use has time for a new token."""
        for link in device.links:
            self._handlers.pop(link, None)
            self._device_of.pop(link, None)
        is_used = self._devices or any(handler is not self._nodes for handler in self._handlers.values())
        if device.ended_with is not None and not is_used:
            self.driver.expect_token()

    def _redirect(self, path: str) -> AmqpError:
        hub, port = self.hub, self._shared.port
        address = f"amqps://{hub.host}:{port}/{hub.name}/{path.strip('/') or AmqpNode.MANAGEMENT}"
        info = {
            Symbol("hostname"): hub.host,
            Symbol("network-host"): hub.host,
            Symbol("port"): UInt(port),
            Symbol("address"): address,
        }
        told = "use the Event Hubs-compatible endpoint"
        return AmqpError(AmqpCondition.LINK_REDIRECT, told, scope=AmqpErrorScope.LINK, info=info)

    def _refuse(self, link: ReceiverLink | SenderLink, error: BirthmarkError) -> None:
        self._count_refused(error)
        link.refuse(amqp_error(error, self.driver.note(error)))
        self.driver.wrote()

    def _detached(self, link: ReceiverLink | SenderLink) -> None:
        self._nodes.forget(link)
        if (handler := self._handlers.pop(link, None)) is not None:
            handler.ended()
        if (device := self._device_of.pop(link, None)) is not None:
            device.detached(link)
