"""Hubs and their registries: load, decide, commit."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from birthmark.auth.sas import check_resource, check_sas, parse_sas
from birthmark.clock import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError, UnauthenticatedError
from birthmark.iothub import store
from birthmark.iothub.model import (
    OPERATOR,
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceId,
    Hub,
    Message,
    parse_device_id,
)
from birthmark.iothub.rules.authentication import authenticate
from birthmark.iothub.rules.provisioning import check_maker
from birthmark.iothub.telemetry import Intake, messages_of
from birthmark.iothub.wire import DeviceBody, HubUser
from birthmark.pki.certificates import Certificate
from birthmark.store import Changes, Database, decided_again

POLICIES = ("iothubowner", "service", "device", "registryRead", "registryReadWrite")
READ = frozenset({"iothubowner", "registryRead", "registryReadWrite"})
WRITE = frozenset({"iothubowner", "registryReadWrite"})
CHANGED = "iothub.device_changed"
_PAGE = 100


class UnknownHubError(NotFoundError):
    """No hub answers to that host name."""

    code = "iothub.unknown_hub"
    message = "There is no hub {host}"
    cause = "There is no hub with the name or the host name {host} on this server."
    fix = "Those there are: `birthmark hub show`. To make it: `birthmark hub create {host} --host {host}`"
    host: str


class HubExistsError(ConflictError):
    """The name or the host is taken."""

    code = "iothub.hub_exists"
    message = "Hub {hub} exists already"
    cause = "A hub named {hub}, or one with the host {host}, exists already."
    fix = "Choose another name or host; `birthmark hub show` lists them."
    host: str
    hub: str


class UnknownDeviceError(NotFoundError):
    """The registry has no such device."""

    code = "iothub.unknown_device"
    message = "Device {device_id} is not in hub {hub}"
    cause = "Hub {hub} has no device {device_id}. Letter case counts."
    fix = (
        "Those there are: `birthmark hub devices --hub {hub}`. Let the device register at DPS first, or make it here: "
        '`birthmark hub device create {device_id} --hub {hub} --cert "$X509_CERT_FILE"`'
    )
    device_id: str
    hub: str


class DeviceExistsError(ConflictError):
    """Create of a device that exists."""

    code = "iothub.device_exists"
    message = "Device {device_id} exists already"
    cause = "Device {device_id} exists already in hub {hub}."
    fix = "`birthmark hub devices --hub {hub}` shows it: update it with its etag (If-Match), or choose another id."
    device_id: str
    hub: str


class EtagMismatchError(ConflictError):
    """The device was changed meanwhile."""

    code = "iothub.etag_mismatch"
    cause = "Device {device_id} was changed since the etag {etag} was read."
    fix = "Read it again and repeat the change, or send If-Match: *. What is on record now: `birthmark hub devices`"
    device_id: str
    etag: str


class PolicyKeyError(UnauthenticatedError):
    """The policy may not do this."""

    code = "iothub.policy_refused"
    cause = "The call needs a token of one of the policies {allowed}; it came with {shown}."
    fix = 'Use the connection string of the server, whose policy is iothubowner: `eval "$(birthmark env)"`'
    allowed: str
    shown: str


class Peer(Protocol):
    """What a handshake proved: possession of the leaf's key. Nothing else is verified."""

    @property
    def leaf(self) -> Certificate | None: ...

    @property
    def chain(self) -> tuple[Certificate, ...]: ...


class Hubs:
    """All hubs of this server."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        revocations: Callable[[Certificate, Sequence[Certificate]], Awaitable[None]] | None = None,
    ) -> None:
        self._database = database
        self._revocations = revocations
        self._clock = clock
        self._entropy = entropy
        self._by_host: dict[str, Hub] = {}
        self._intakes: dict[str, Intake] = {}
        self.connected: dict[tuple[str, str], datetime] = {}

    async def load(self) -> None:
        """Read the hubs; there are few, and every connection needs them."""
        self._by_host = {}
        for row in await self._database.all(store.ALL_HUBS):
            hub = store.hub_of(row)
            self._by_host[hub.host.lower()] = hub

    async def create(self, name: str, host: str, *, actor: str) -> Hub:
        """Make a hub with fresh policy keys. Raise `HubExistsError`."""
        keys = {policy: (self._entropy.token(32), self._entropy.token(32)) for policy in POLICIES}
        hub = Hub(name, host, keys)
        exists = HubExistsError(hub=name, host=host)
        if any(known.name == name or known.host.lower() == host.lower() for known in self._by_host.values()):
            raise exists
        await self._database.commit(
            Changes().run(store.ADD_HUB, **store.hub_row(hub)).audit(actor, "iothub.create", name, host=host)
        )
        await self.load()
        return hub

    async def delete(self, name: str, *, actor: str) -> None:
        """Remove a hub with its devices and messages. Raise `UnknownHubError`."""
        hub = self.by_name(name)
        await self._database.commit(
            Changes()
            .run(store.DELETE_HUB, name=name)
            .run(store.DELETE_HUB_DEVICES, name=name)
            .run(store.DELETE_HUB_SUBSCRIPTIONS, name=name)
            .run(store.DELETE_HUB_SEGMENTS, name=name)
            .audit(actor, "iothub.delete", name, host=hub.host)
            .event("iothub.hub_deleted", hub=name)
        )
        await self.load()

    def all(self) -> Sequence[Hub]:
        """Return every hub, by name."""
        return sorted(self._by_host.values(), key=lambda hub: hub.name)

    def by_host(self, host: str) -> Hub:
        """Return the hub with this host name, with or without a port. Raise `UnknownHubError`."""
        low = host.lower()
        hub = self._by_host.get(low) or self._by_host.get(low.rpartition(":")[0].strip("[]"))
        if hub is None:
            raise UnknownHubError(host=host)
        return hub

    def by_name(self, name: str) -> Hub:
        """Return the hub with this name. Raise `UnknownHubError`."""
        hub = next((hub for hub in self._by_host.values() if hub.name == name), None)
        if hub is None:
            raise UnknownHubError(host=name)
        return hub

    def authorize(self, hub: Hub, authorization: str | None, allowed: frozenset[str], resource: str) -> str:
        """Return the policy a service call proved. Raise `UnauthenticatedError`."""
        names = ", ".join(sorted(allowed))
        if not authorization:
            raise PolicyKeyError(allowed=names, shown="no token")
        token = parse_sas(authorization)
        pair = hub.policies.get(token.policy or "")
        if pair is None or token.policy not in allowed:
            raise PolicyKeyError(allowed=names, shown=f"the policy {token.policy}")
        check_sas(token, pair, self._clock.now())
        check_resource(token, [f"{hub.host}/{resource}"])
        return str(token.policy)

    # Registry

    async def device(self, hub: Hub, device_id: str) -> Device:
        """Return a device. Raise `UnknownDeviceError`."""
        row = await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        if row is None:
            raise UnknownDeviceError(hub=hub.name, device_id=device_id)
        return store.device_of(row)

    async def devices(self, hub: Hub, *, after: str = "", limit: int = _PAGE) -> list[Device]:
        """Return devices in order of id, those greater than `after`."""
        rows = await self._database.all(store.LIST_DEVICES, hub=hub.name, after=after, limit=limit)
        return [store.device_of(row) for row in rows]

    async def count(self, hub: Hub) -> tuple[int, int]:
        """Return how many devices there are, and how many are enabled."""
        row = await self._database.one(store.COUNT_DEVICES, hub=hub.name)
        return (0, 0) if row is None else (row["total"], row["enabled"])

    async def put(
        self, hub: Hub, device_id: str, body: DeviceBody, wanted: DeviceAuthentication, etag: str | None, *, actor: str
    ) -> Device:
        """Create a device, or update it when `etag` is given ("*" for any). Raise `ConflictError`."""
        known = parse_device_id(device_id)
        now = self._clock.now()
        if wanted.type is AuthenticationType.SAS:
            wanted = replace(
                wanted,
                primary_key=wanted.primary_key or self._entropy.token(32),
                secondary_key=wanted.secondary_key or self._entropy.token(32),
            )
        made = Device(
            hub.name,
            known,
            _generation(now),
            self._etag(),
            body.status == "enabled",
            body.status_reason,
            wanted,
            bool(body.capabilities and body.capabilities.iot_edge),
            now,
            now,
        )
        changes = Changes().audit(actor, "iothub.device_put", known, hub=hub.name, status=body.status)
        if etag is None:
            exists = DeviceExistsError(hub=hub.name, device_id=known)
            row = await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=known)
            if row is not None:
                raise exists
            await self._database.commit(changes.run(store.ADD_DEVICE, **store.device_row(made)))
            return made

        async def decide() -> Device:
            present = await self.device(hub, known)
            if etag not in {"*", present.etag}:
                raise EtagMismatchError(device_id=known, etag=etag)
            # Who only switches it off or on does not become its maker: the device goes on registering.
            maker = present.maker if made.authentication == present.authentication else OPERATOR
            done = replace(made, generation_id=present.generation_id, created_at=present.created_at, maker=maker)
            await self._database.commit(self._replacing(present, done).merge(changes))
            return done

        return await decided_again(decide)

    async def remove(self, hub: Hub, device_id: str, etag: str | None, *, actor: str) -> None:
        """Delete a device. Raise `UnknownDeviceError` or `EtagMismatchError`."""

        async def decide() -> None:
            device = await self.device(hub, device_id)
            if etag not in {None, "*", device.etag}:
                raise EtagMismatchError(device_id=device_id, etag=etag)
            changes = _removing(device).audit(actor, "iothub.device_delete", device_id, hub=hub.name)
            await self._database.commit(changes)

        await decided_again(decide)

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that remove the device `maker` made; none where there is no such hub or device."""
        hub = self._by_host.get(host.lower())
        row = None if hub is None else await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        if hub is None or row is None or row["maker"] != maker:
            return Changes()
        return _removing(store.device_of(row))

    async def provision(
        self,
        host: str,
        device_id: str,
        authentication: DeviceAuthentication,
        *,
        iot_edge: bool,
        maker: str,
        now: datetime,
    ) -> Changes:
        """Return the changes that make `device_id` a device of the hub at `host`, for the caller's unit of work.

        An identity that is there keeps its generation, and its status: an operator's disable outlives registrations.
        Raise `DeviceHeldError` for one that somebody else made; the commit raises `ConflictError` when another was
        faster.
        """
        hub = self.by_host(host)
        row = await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        if row is None:
            known = parse_device_id(device_id)
            made = Device(
                hub.name,
                known,
                _generation(now),
                self._etag(),
                is_enabled=True,
                status_reason=None,
                authentication=authentication,
                is_iot_edge=iot_edge,
                created_at=now,
                updated_at=now,
                maker=maker,
            )
            return Changes().run(store.ADD_DEVICE, **store.device_row(made))
        present = store.device_of(row)
        check_maker(present, maker)
        if present.authentication == authentication and present.is_iot_edge == iot_edge:
            changed = ChangedMeanwhileError(what="The device")
            return Changes().run(
                store.SAME_DEVICE,
                expect=1,
                otherwise=changed,
                hub=hub.name,
                device_id=device_id,
                key_etag=present.etag,
            )
        made = replace(present, etag=self._etag(), authentication=authentication, is_iot_edge=iot_edge, updated_at=now)
        return self._replacing(present, made)

    def _replacing(self, present: Device, made: Device) -> Changes:
        row = store.device_row(made)
        values = {k: row[k] for k in row if k not in {"hub", "device_id", "generation_id", "created_at"}}
        changes = Changes().run(
            store.REPLACE_DEVICE,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The device"),
            key_hub=made.hub,
            key_device_id=made.device_id,
            key_etag=present.etag,
            **values,
        )
        return changes.event(CHANGED, hub=made.hub, device_id=made.device_id)

    # Connections

    async def connect(self, user: HubUser, peer: Peer, password: bytes | None) -> tuple[Hub, Device]:
        """Return the device a CONNECT proved to be, else raise why not."""
        hub = self.by_host(user.host)
        device = await self.device(hub, user.device_id)
        authenticate(device, user.host, peer.leaf, password, self._clock.now())
        if peer.leaf is not None and self._revocations is not None:
            await self._revocations(peer.leaf, peer.chain)
        return hub, device

    async def stored_subscriptions(self, hub: Hub, device_id: DeviceId) -> dict[str, int]:
        """Return the filters that a device subscribed to in an earlier connection, with their QoS."""
        rows = await self._database.all(store.SUBSCRIPTIONS, hub=hub.name, device_id=device_id)
        return {row["filter"]: row["qos"] for row in rows}

    async def keep_subscriptions(self, hub: Hub, device_id: DeviceId, filters: dict[str, int]) -> None:
        """Remember filters for the next connection."""
        changes = Changes()
        for name, qos in filters.items():
            changes.run(store.PUT_SUBSCRIPTION, hub=hub.name, device_id=device_id, filter=name, qos=qos)
        await self._database.commit(changes)

    async def drop_subscriptions(self, hub: Hub, device_id: DeviceId, filters: Sequence[str] | None) -> None:
        """Forget some filters, or all."""
        changes = Changes()
        if filters is None:
            changes.run(store.DROP_SUBSCRIPTIONS, hub=hub.name, device_id=device_id)
        for name in filters or ():
            changes.run(store.DROP_SUBSCRIPTION, hub=hub.name, device_id=device_id, filter=name)
        await self._database.commit(changes)

    # Telemetry

    def intake(self, hub: Hub) -> Intake:
        """Return the hub's way in for telemetry."""
        if (intake := self._intakes.get(hub.name)) is None:
            intake = self._intakes[hub.name] = Intake(hub.name, self._database, self._clock)
        return intake

    async def settled(self) -> None:
        """Return when all telemetry taken so far is durable or refused."""
        for intake in self._intakes.values():
            await intake.settled()

    async def latest_messages(self, hub: Hub, device_id: str | None, limit: int) -> list[Message]:
        """Return the latest messages, oldest first, of one device or of all."""
        found: list[Message] = []
        before = 2**62
        while len(found) < limit:
            rows = await self._database.all(store.SEGMENTS_BEFORE, hub=hub.name, before=before, limit=_PAGE)
            if not rows:
                break
            for row in rows:
                of_segment = [m for m in messages_of(row["body"]) if device_id in {None, m.device_id}]
                found = of_segment + found
            before = rows[-1]["seq"]
        return found[-limit:]

    def _etag(self) -> str:
        return base64.b64encode(self._entropy.token(8)).decode()


def _removing(device: Device) -> Changes:
    hub, device_id, changed = device.hub, device.device_id, ChangedMeanwhileError(what="The device")
    return (
        Changes()
        .run(store.DELETE_DEVICE, expect=1, otherwise=changed, hub=hub, device_id=device_id, key_etag=device.etag)
        .run(store.DROP_SUBSCRIPTIONS, hub=hub, device_id=device_id)
        .event(CHANGED, hub=hub, device_id=device_id)
    )


def _generation(now: datetime) -> str:
    return str(int(now.timestamp() * 1_000_000_0))
