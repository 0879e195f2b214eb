"""Live connections of devices, over any protocol: admission and re-authentication. The broker tracks presence."""

import asyncio
import contextlib
import heapq
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar
from weakref import ReferenceType, WeakSet, ref

from birthmark.auth.sas import SKEW, SasExpiredError, SasToken, check_expiry
from birthmark.broker import Arrival, Broker, ConnectedSession, Namespace, SpaceRules
from birthmark.broker.model import NEVER, BrokerMessage, Will
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.bus import Bus
from birthmark.bus.ports import EmptyReply
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.iothub import wire
from birthmark.iothub.connections.c2d_delivery import holder_of
from birthmark.iothub.connections.device_connection import DeviceConnection
from birthmark.iothub.connections.direct_methods import CallMethod, MethodCalls, MethodReply
from birthmark.iothub.domain_events import DeviceChanged, HubCaChanged, HubDeleted, HubsChanged
from birthmark.iothub.model import Hub, Identity, space_of
from birthmark.iothub.ports import UNSEEN, Notify, SeenAt
from birthmark.iothub.rules.authentication import DEVICE_CONNECT
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass
from birthmark.iothub.rules.will_messages import telemetry_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.iothub.service.registry import guard_identity
from birthmark.metric_catalog import Traffic
from birthmark.net.identity_conflicts import TakeoverHistory
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import from_micros

_MOST = 1024


class ConnectionTransport(Protocol):
    """Transport of a connection."""

    @property
    def is_over(self) -> bool: ...


class TokenConnection(Protocol):
    """A connection that was opened with a token."""

    @property
    def driver(self) -> ConnectionTransport: ...


OneHeld = TypeVar("OneHeld", bound=TokenConnection)


class TokenConnections(Generic[OneHeld]):
    """Connections by token expiry, in a heap: each check reads the expired ones only."""

    def __init__(self) -> None:
        self._by_end: list[tuple[int, int, SasToken, ReferenceType[OneHeld]]] = []
        self._count = 0
        self._most = _MOST

    def __len__(self) -> int:
        return len(self._by_end)

    def add(self, token: SasToken, connection: OneHeld) -> None:
        """Track a connection until its token expires; at most half of the entries are closed connections."""
        if len(self._by_end) >= self._most:
            self._by_end = [one for one in self._by_end if (known := one[3]()) is not None and not known.driver.is_over]
            heapq.heapify(self._by_end)
            self._most = max(_MOST, 2 * len(self._by_end))
        self._count += 1  # equal expiry times compare no further field
        heapq.heappush(self._by_end, (token.expiry_s, self._count, token, ref(connection)))

    def expired(self, now: datetime) -> Iterator[tuple[OneHeld, SasExpiredError]]:
        """Yield and remove connections with an expired token, each with its error."""
        until = (now - SKEW).timestamp()
        while self._by_end and self._by_end[0][0] < until:
            _, _, token, known = heapq.heappop(self._by_end)
            if (connection := known()) is None or connection.driver.is_over:
                continue
            try:
                check_expiry(token, now)
            except SasExpiredError as error:
                yield connection, error


_AGAIN_S = 1.0


class HubObserver:
    """Observer of broker sessions of a hub: disconnects and wills."""

    def __init__(self, hub: str, iothub: IotHub, clock: Clock) -> None:
        self._hub = hub
        self._iothub = iothub
        self._clock = clock

    def disconnected(self, attached: ConnectedSession, reason: CloseReason) -> None:
        del reason
        self._iothub.routes.schedule_connection_event(self._hub, attached.client, is_connected=False)

    def lost(self, client: str, epoch: int) -> None:
        del epoch
        self._iothub.routes.schedule_connection_event(self._hub, client, is_connected=False)

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        del is_late  # a revoked device has no session to keep a will
        return self._tell(client, will, self._clock.micros())

    def overrun(self, client: str, limit: int) -> None:
        del client, limit

    async def _tell(self, client: str, will: Will, timestamp: int) -> None:
        """Store a will durably; retry while the database is unavailable, as no client sends it again."""
        left = will.message
        message = telemetry_of(client, left.topic, left.payload, timestamp, is_retained=left.retain)
        while True:
            try:
                hub = self._iothub.hubs.by_name(self._hub)
            except UnknownHubError:
                return  # deleted, with its telemetry
            try:
                size = len(left.payload) + len(left.topic)
                await self._iothub.telemetry.write(hub, key_of(client.partition("/")[0]), (message,), size)
            except UnavailableError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return


LOOK_S = 5.0
MakeConnection = Callable[[Hub, Identity, bool], DeviceConnection]
"""Makes the connection of an authenticated device; the flag means that a token of a hub policy opened it."""


Authenticate = Callable[[], Awaitable[tuple[Hub, Identity, SasToken | None]]]
"""Authenticates a device, and returns its hub, its identity, and its token if it has one. Raise `BirthmarkError`."""


class AdmittedDevice(NamedTuple):
    """A connection that was admitted, with its session, and its token if it has one."""

    connection: DeviceConnection
    attached: ConnectedSession
    token: SasToken | None


def _without_will(_identity: Identity) -> None:
    return None


_RULES = SpaceRules(routes=False)


class HubConnections:
    """One connection per device; a new one closes the old one."""

    def __init__(self, iothub: IotHub, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._changes = 0  # of anything a device depends on
        self._spaces: dict[str, Namespace] = {}
        self._modules: dict[tuple[str, str], WeakSet[DeviceConnection]] = {}
        """Module connections by hub and device, since the device was last disabled."""
        self._chained: dict[tuple[str, str], WeakSet[DeviceConnection]] = {}
        """Connections by gateways, by hub and each device of their chains."""
        self.iothub = iothub
        self.clock = clock
        self._bus: Bus | None = None
        self.holder = holder_of("" if broker.is_alone else broker.worker)
        """Lock holder of messages that connections on this worker took."""
        self.living = broker.liveness_guard
        self.methods = MethodCalls(broker.database.sharing, clock)
        self._tokens = TokenConnections[DeviceConnection]()
        self.traffic = Traffic()
        self.contested = TakeoverHistory(clock)

    def space(self, hub: str) -> Namespace:
        """Return the broker namespace of a hub."""
        if (known := self._spaces.get(hub)) is None:
            observer = HubObserver(hub, self.iothub, self.clock)
            known = self._spaces[hub] = self._broker.space(
                space_of(hub), _RULES, observer, partial(guard_identity, hub)
            )
        return known

    async def begin(self) -> None:
        """Create the namespaces of existing hubs and adopt those of a killed worker.

        Messages that its connections had taken return to their queues, and its exclusive readers have ended.
        """
        for hub in self.iothub.hubs.all():
            self.space(hub.name)
        if self._broker.is_alone:  # otherwise a worker may continue
            await self.iothub.free_held(self.holder)

    async def notify_anywhere(self, hub: str, device_id: str) -> None:
        """Make a device check its queue, on whichever worker it is connected."""
        owner = await self.space(hub).owner(device_id)
        if owner is not None and self._bus is not None:
            self._bus.tell(owner, (Notify(hub, device_id),))

    def notify_device(self, hub: str, device_id: str) -> None:
        """Make a device that is connected to this worker check its queue."""
        attached = self.space(hub).live.get(device_id)
        if attached is not None and isinstance(attached.connection, DeviceConnection):
            attached.connection.deliver_messages()

    async def run_queue_check_loop(self) -> None:
        """Check device queues every few seconds, forever."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(UnavailableError):  # retry: database outages end
                await self.check_queues()

    async def run_token_expiry_loop(self) -> None:
        """Close connections with expired tokens every few seconds, forever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.close_expired()

    def close_expired(self) -> None:
        """Close connections whose token expired longer ago than the clock skew; the SDKs renew minutes before."""
        for connection, error in self._tokens.expired(self.clock.now()):
            connection.driver.refuse(error)
        self._modules = {name: held for name, held in self._modules.items() if held}
        self._chained = {name: held for name, held in self._chained.items() if held}

    async def check_queues(self) -> None:
        """Make connected devices with unlocked messages check their queues, as a fallback for lost notifications."""
        hubs = {space_of(hub.name): hub.name for hub in self.iothub.hubs.all()}
        for space, device_id in await self.iothub.c2d.inboxes.waiting():
            if (hub := hubs.get(space)) is not None:
                self.notify_device(hub, device_id)

    async def seen(self, hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        """Return when devices last connected or disconnected, in their order."""
        found = await self.space(hub).get_last_contacts(device_ids)
        known = [found.get(device_id) for device_id in device_ids]
        return [UNSEEN if one is None else SeenAt(from_micros(one.at), one.reason is None) for one in known]

    async def connected(self, hub: str) -> int:
        """Return the number of connected devices and modules of a hub, over all workers."""
        return (await self._broker.connected()).get(space_of(hub), 0)

    async def admit(
        self,
        user: wire.HubUser,
        authenticate: Authenticate,
        *,
        make: MakeConnection,
        clean_start: bool = True,
        chain: Sequence[str] = (),
        may_connect: Callable[[Identity], Will | None] = _without_will,
    ) -> AdmittedDevice:
        """Authenticate a device and open its session, which ends its earlier connection.

        `make` returns its connection, and `may_connect` its will, or raises its refusal. A device that gateways connect
        has a `chain` of devices, of whose changes each ends its connection. Raise `BirthmarkError`.
        """
        seen = self._changes
        hub, identity, token = await authenticate()
        will = may_connect(identity)
        self.iothub.throttles.take(hub, ThrottleClass.CONNECTION)
        if user.model_id:
            await self.iothub.twins.model(hub, identity, user.model_id)
        space = self.space(hub.name)
        is_of_policy = token is not None and token.policy in DEVICE_CONNECT
        connection = make(hub, identity, is_of_policy)
        expiry_s = 0 if clean_start else NEVER
        attached = await space.connect(Arrival(identity.name, connection, clean_start, expiry_s, will))
        connection.attach(attached)
        if user.module_id is not None:
            self._modules.setdefault((hub.name, user.device_id), WeakSet()).add(connection)
        for name in chain:
            self._chained.setdefault((hub.name, name), WeakSet()).add(connection)
        try:
            if seen != self._changes:  # new connections miss earlier events: authenticate again
                await authenticate()
        except BirthmarkError:
            space.disconnect(attached, CloseReason.REFUSED, with_will=False)
            raise
        await self.iothub.routes.write_connection_event(hub.name, identity.name, is_connected=True)
        return AdmittedDevice(connection, attached, token)

    def close_with_token(self, token: SasToken, connection: DeviceConnection) -> None:
        """Close a connection when its token expires."""
        self._tokens.add(token, connection)

    # ---- service requests

    def listen(self, bus: Bus) -> None:
        """Handle requests from other workers for devices that are connected here."""
        self._bus = bus
        bus.serve(CallMethod, self._called)
        bus.serve(Notify, self._notified)

    async def _called(self, request: CallMethod) -> MethodReply:
        return await self.methods.call(self.space(request.hub), request)

    async def _notified(self, notification: Notify) -> EmptyReply:
        attached = self.space(notification.hub).live.get(notification.device_id)
        if not notification.topic:
            self.notify_device(notification.hub, notification.device_id)
        elif attached is not None and (wanted := attached.subscriptions.get(wire.DESIRED)) is not None:
            attached.deliver(BrokerMessage(notification.topic, notification.payload, 1), wanted.qos, 0)
        return EmptyReply()

    # ---- hub events

    def recheck(self, changed: DeviceChanged) -> None:
        """Re-authenticate the connection of a changed identity, and its modules' where the device is disabled."""
        self._changes += 1
        attached = self.space(changed.hub).live.get(changed.device_id)
        if attached is not None:
            attached.connection.end(CloseReason.ADMINISTRATIVE)
        for connection in self._chained.pop((changed.hub, changed.device_id), ()):
            connection.end(CloseReason.ADMINISTRATIVE)
        if changed.is_off:
            for connection in self._modules.pop((changed.hub, changed.device_id), ()):
                connection.end(CloseReason.ADMINISTRATIVE)

    def recheck_vouched(self, changed: HubCaChanged) -> None:
        """Re-authenticate connections authenticated by a CA of the hub, where the CA was deleted."""
        self._changes += 1
        if changed.is_gone:
            for attached in tuple(self.space(changed.hub).live.values()):
                if isinstance(attached.connection, DeviceConnection) and attached.connection.is_vouched_for:
                    attached.connection.end(CloseReason.ADMINISTRATIVE)

    def recheck_policies(self, changed: HubsChanged) -> None:
        """Re-authenticate connections with a token of a hub policy whose key may have changed."""
        self._changes += 1
        self._end_policies(changed.hub, 0)
        self.space(changed.hub).spawn(self._recheck_with_new_keys(changed.hub, self.clock.micros()))

    async def _recheck_with_new_keys(self, hub: str, since: int) -> None:
        """Once the new keys are in memory, end what the old ones have authenticated since the event."""
        while True:
            try:
                await self.iothub.hubs.load()
            except UnavailableError:
                await asyncio.sleep(_AGAIN_S)
            else:
                break
        self._changes += 1
        self._end_policies(hub, since)

    def _end_policies(self, hub: str, since: int) -> None:
        for attached in tuple(self.space(hub).live.values()):
            connection = attached.connection
            if not isinstance(connection, DeviceConnection) or not connection.is_of_policy:
                continue
            if max(attached.since, connection.renewed_at) >= since:
                connection.end(CloseReason.ADMINISTRATIVE)

    def live_connections(self) -> tuple[DeviceConnection, ...]:
        """Return every connection."""
        return tuple(self._of(self.iothub.hubs.all()))

    def recheck_connecting_clients(self) -> None:
        """Re-authenticate connections between CONNECT and CONNACK after a revocation."""
        self._changes += 1

    def drop_hub(self, deleted: HubDeleted) -> None:
        """Close all connections of a deleted hub."""
        self._changes += 1
        for attached in tuple(self.space(deleted.hub).live.values()):
            attached.connection.end(CloseReason.ADMINISTRATIVE)

    def _of(self, hubs: Iterable[Hub]) -> Iterator[DeviceConnection]:
        for hub in hubs:
            for attached in self.space(hub.name).live.values():
                if isinstance(attached.connection, DeviceConnection):
                    yield attached.connection
