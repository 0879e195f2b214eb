"""The live connections of devices: who is let in, and who must prove itself again. Who is there, the broker knows."""

import asyncio
import contextlib
import heapq
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Generic, Protocol, TypeVar
from weakref import ReferenceType, WeakSet, ref

from birthmark.auth.sas import SKEW, SasExpiredError, SasToken, check_expiry
from birthmark.broker import Arrival, Broker, ConnectedSession, Namespace, SpaceRules
from birthmark.broker.model import NEVER, BrokerMessage, Will
from birthmark.broker.rules.partitions import key_of
from birthmark.bus import Bus
from birthmark.bus.ports import EmptyReply
from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.iothub import wire
from birthmark.iothub.errors import connack_reason
from birthmark.iothub.events import DeviceChanged, HubCaChanged, HubDeleted, HubsChanged
from birthmark.iothub.model import Hub, space_of
from birthmark.iothub.mqtt.c2d import holder_of
from birthmark.iothub.mqtt.connection import HubConnection
from birthmark.iothub.mqtt.direct_methods import CallMethod, MethodCalls, MethodReply
from birthmark.iothub.ports import UNSEEN, Notify, SeenAt
from birthmark.iothub.rules.authentication import DEVICE_CONNECT, check_client_id
from birthmark.iothub.rules.d2c import check_will, telemetry_of
from birthmark.iothub.rules.tiers import ThrottleClass
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs import UnknownHubError
from birthmark.iothub.service.registry import still_there
from birthmark.metrics import Traffic
from birthmark.mqtt.packets import Connect
from birthmark.mqtt.packets import WillMessage as WillPacket
from birthmark.net.admission import Admission, CloseReason, MqttRefusedError, require_3_1_1
from birthmark.net.identity_conflicts import TakeoverHistory
from birthmark.net.mqtt_driver import MqttPump
from birthmark.store import from_micros

_MOST = 1024


class ConnectionTransport(Protocol):
    """What carries a connection."""

    @property
    def is_over(self) -> bool: ...


class TokenConnection(Protocol):
    """A connection that was opened with a token."""

    @property
    def pump(self) -> ConnectionTransport: ...


OneHeld = TypeVar("OneHeld", bound=TokenConnection)


class TokenConnections(Generic[OneHeld]):
    """Asked every few seconds: it looks at those whose time has come, however many there are."""

    def __init__(self) -> None:
        self._by_end: list[tuple[int, int, SasToken, ReferenceType[OneHeld]]] = []
        self._count = 0
        self._most = _MOST

    def __len__(self) -> int:
        return len(self._by_end)

    def add(self, token: SasToken, connection: OneHeld) -> None:
        """Remember until when a connection may be; of those that went, half of what is kept at most."""
        if len(self._by_end) >= self._most:
            self._by_end = [one for one in self._by_end if (known := one[3]()) is not None and not known.pump.is_over]
            heapq.heapify(self._by_end)
            self._most = max(_MOST, 2 * len(self._by_end))
        self._count += 1  # tokens that end together are never compared further
        heapq.heappush(self._by_end, (token.expiry_s, self._count, token, ref(connection)))

    def expired(self, now: datetime) -> Iterator[tuple[OneHeld, SasExpiredError]]:
        """Yield and forget the connections whose token is refused by now, each with that refusal."""
        until = (now - SKEW).timestamp()
        while self._by_end and self._by_end[0][0] < until:
            _, _, token, known = heapq.heappop(self._by_end)
            if (connection := known()) is None or connection.pump.is_over:
                continue
            try:
                check_expiry(token, now)
            except SasExpiredError as error:
                yield connection, error


_AGAIN_S = 1.0


class HubObserver:
    """See the module."""

    def __init__(self, hub: str, iothub: IotHub, clock: Clock) -> None:
        self._hub = hub
        self._iothub = iothub
        self._clock = clock

    def disconnected(self, attached: ConnectedSession, reason: CloseReason) -> None:
        del reason
        self._iothub.routes.told_later(self._hub, attached.client, is_connected=False)

    def lost(self, client: str, epoch: int) -> None:
        del epoch
        self._iothub.routes.told_later(self._hub, client, is_connected=False)

    def will(self, client: str, will: Will, *, is_late: bool) -> Awaitable[None] | None:
        del is_late  # who was taken back has no session that could have kept it
        return self._tell(client, will, self._clock.micros())

    def overrun(self, client: str, limit: int) -> None:
        del client, limit

    async def _tell(self, client: str, will: Will, at: int) -> None:
        """Return when the will is durable: nobody would send it again, so a database that is away is waited for."""
        left = will.message
        message = telemetry_of(client, left.topic, left.payload, at, is_retained=left.retain)
        while True:
            try:
                hub = self._iothub.hubs.by_name(self._hub)
            except UnknownHubError:
                return  # it was deleted, with its telemetry
            try:
                size = len(left.payload) + len(left.topic)
                await self._iothub.telemetry.written(hub, key_of(client.partition("/")[0]), (message,), size)
            except UnavailableError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return


LOOK_S = 5.0
MAX_KEEP_ALIVE_S = 1177  # times 1.5 this is the hub's cap of 1767 s
_RULES = SpaceRules(routes=False)


class HubConnections:
    """One connection for each device; a new one ends the old."""

    def __init__(self, iothub: IotHub, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._changes = 0  # of anything that a device may depend on
        self._spaces: dict[str, Namespace] = {}
        self._modules: dict[tuple[str, str], WeakSet[HubConnection]] = {}
        """The connections of modules, by hub and device: as many as were here since the device was off."""
        self.iothub = iothub
        self.clock = clock
        self._bus: Bus | None = None
        self.holder = holder_of("" if broker.is_alone else broker.worker)
        """Who holds what a device's connection here took of its inbox."""
        self.living = broker.living
        self.methods = MethodCalls(broker.database.sharing, clock)
        self._tokens = TokenConnections[HubConnection]()
        self.traffic = Traffic()
        self.contested = TakeoverHistory(clock)

    def space(self, hub: str) -> Namespace:
        """Return the sessions of a hub."""
        if (known := self._spaces.get(hub)) is None:
            observer = HubObserver(hub, self.iothub, self.clock)
            known = self._spaces[hub] = self._broker.space(space_of(hub), _RULES, observer, partial(still_there, hub))
        return known

    async def begin(self) -> None:
        """Make the spaces of the hubs there are: what a worker that was killed left behind belongs to them.

        What its connections had taken of their devices' inboxes is there again.
        """
        for hub in self.iothub.hubs.all():
            self.space(hub.name)
        if self._broker.is_alone:  # else it may be a worker that goes on
            await self.iothub.c2d.inboxes.free_held(self.holder)

    async def look_anywhere(self, hub: str, device_id: str) -> None:
        """Let a device look into its inbox, wherever it is connected."""
        owner = await self.space(hub).owner(device_id)
        if owner is not None and self._bus is not None:
            self._bus.tell(owner, (Notify(hub, device_id),))

    def look_at(self, hub: str, device_id: str) -> None:
        """Let a device that is connected here look into its inbox."""
        attached = self.space(hub).live.get(device_id)
        if attached is not None and isinstance(attached.connection, HubConnection):
            attached.connection.mail_came()

    async def keep_looking_for_mail(self) -> None:
        """Look every few seconds. Never ends by itself."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(UnavailableError):  # a database that is away comes back
                await self.look_for_mail()

    async def keep_ending_expired(self) -> None:
        """End, every few seconds, what outlived its token. Never ends by itself."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.end_expired()

    def end_expired(self) -> None:
        """End connections whose token ended longer ago than clocks differ; the SDKs renew theirs minutes before."""
        for connection, error in self._tokens.expired(self.clock.now()):
            connection.pump.refuse(error)
        self._modules = {name: held for name, held in self._modules.items() if held}

    async def look_for_mail(self) -> None:
        """Let whoever is connected and has messages that nobody holds look again, whatever woke it or did not."""
        hubs = {space_of(hub.name): hub.name for hub in self.iothub.hubs.all()}
        for space, device_id in await self.iothub.c2d.inboxes.waiting():
            if (hub := hubs.get(space)) is not None:
                self.look_at(hub, device_id)

    async def seen(self, hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        """Return when devices came or went last, in their order."""
        found = await self.space(hub).seen_anywhere(device_ids)
        known = [found.get(device_id) for device_id in device_ids]
        return [UNSEEN if one is None else SeenAt(from_micros(one.at), one.reason is None) for one in known]

    async def connected(self, hub: str) -> int:
        """Return how many devices and modules of a hub are connected, to whichever worker."""
        return (await self._broker.connected()).get(space_of(hub), 0)

    async def accept(self, pump: MqttPump, packet: Connect) -> Admission:
        """Admit the client of a CONNECT, or raise `MqttRefusedError`."""
        require_3_1_1(packet)
        names: dict[str, str] = {}
        try:
            user = wire.parse_username(packet.username or "")
            names = {"device_id": user.name, "hub": user.host}
            seen = self._changes
            hub, identity, token = await self.iothub.registry.authenticate(
                user, pump.peer, packet.password, address=pump.address
            )
            check_client_id(identity, packet.client_id)
            self.iothub.throttles.take(hub, ThrottleClass.CONNECTION)
            if user.model_id:
                await self.iothub.twins.model(hub, identity, user.model_id)
            will = None if packet.will is None else _will_of(packet.will, identity.name)
            space = self.space(hub.name)
            is_of_policy = token is not None and token.policy in DEVICE_CONNECT
            connection = HubConnection(self, pump, space, hub=hub, identity=identity, is_of_policy=is_of_policy)
            expiry_s = 0 if packet.clean_start else NEVER
            attached = await space.connect(Arrival(identity.name, connection, packet.clean_start, expiry_s, will))
            connection.attach(attached)
            if user.module_id is not None:
                self._modules.setdefault((hub.name, user.device_id), WeakSet()).add(connection)
            try:
                if seen != self._changes:  # nobody told a connection that was not there: it proves itself again
                    await self.iothub.registry.authenticate(user, pump.peer, packet.password, address=pump.address)
            except BirthmarkError:
                space.disconnect(attached, CloseReason.REFUSED, with_will=False)
                raise
            await self.iothub.routes.told(hub.name, identity.name, is_connected=True)
        except BirthmarkError as error:
            error.add_facts(**names)
            raise MqttRefusedError(connack_reason(error), error) from error
        if token is not None:
            self._tokens.add(token, connection)
        return Admission(
            connection=connection,
            proved_by="" if token is None else f"device {hub.name}/{identity.name}",
            session_present=attached.session_present,
            keep_alive_s=min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S),
            traffic=self.traffic,
        )

    # ---- what the service asks

    def listen(self, bus: Bus) -> None:
        """Serve what other workers ask for the devices that are connected here."""
        self._bus = bus
        bus.serve(CallMethod, self._called)
        bus.serve(Notify, self._notified)

    async def _called(self, asked: CallMethod) -> MethodReply:
        return await self.methods.call(self.space(asked.hub), asked)

    async def _notified(self, asked: Notify) -> EmptyReply:
        attached = self.space(asked.hub).live.get(asked.device_id)
        if not asked.topic:
            self.look_at(asked.hub, asked.device_id)
        elif attached is not None and (wanted := attached.subscriptions.get(wire.DESIRED)) is not None:
            attached.deliver(BrokerMessage(asked.topic, asked.payload, 1), wanted.qos, 0)
        return EmptyReply()

    # ---- what the hub announces

    def recheck(self, changed: DeviceChanged) -> None:
        """An identity changed: its connection must prove itself again, and its modules' where it is off."""
        self._changes += 1
        attached = self.space(changed.hub).live.get(changed.device_id)
        if attached is not None:
            attached.connection.end(CloseReason.ADMINISTRATIVE)
        if changed.is_off:
            for connection in self._modules.pop((changed.hub, changed.device_id), ()):
                connection.end(CloseReason.ADMINISTRATIVE)

    def recheck_vouched(self, changed: HubCaChanged) -> None:
        """A CA of a hub changed: where it is gone, those that are known by CAs must prove themselves again."""
        self._changes += 1
        if changed.is_gone:
            for attached in tuple(self.space(changed.hub).live.values()):
                if isinstance(attached.connection, HubConnection) and attached.connection.is_vouched_for:
                    attached.connection.end(CloseReason.ADMINISTRATIVE)

    def recheck_policies(self, changed: HubsChanged) -> None:
        """A key of a hub's policy may be another: whoever came with a token of one must prove itself again."""
        self._changes += 1
        for attached in tuple(self.space(changed.hub).live.values()):
            if isinstance(attached.connection, HubConnection) and attached.connection.is_of_policy:
                attached.connection.end(CloseReason.ADMINISTRATIVE)

    def everyone(self) -> tuple[HubConnection, ...]:
        """Return every connection."""
        return tuple(self._of(self.iothub.hubs.all()))

    def revoked(self) -> None:
        """Something was revoked: whoever is between CONNECT and CONNACK must prove itself again."""
        self._changes += 1

    def drop_hub(self, deleted: HubDeleted) -> None:
        """A hub was deleted: its connections end."""
        self._changes += 1
        for attached in tuple(self.space(deleted.hub).live.values()):
            attached.connection.end(CloseReason.ADMINISTRATIVE)

    def _of(self, hubs: Iterable[Hub]) -> Iterator[HubConnection]:
        for hub in hubs:
            for attached in self.space(hub.name).live.values():
                if isinstance(attached.connection, HubConnection):
                    yield attached.connection


def _will_of(will: WillPacket, name: str) -> Will:
    """Return a device's will. Raise `WillInvalidError` or `PropertyBagError`."""
    check_will(name, will.topic, will.qos)
    return Will(BrokerMessage(will.topic, will.payload, will.qos, will.retain, publisher=name))
