"""Identity registry of a hub: devices and their authentication."""

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from msgspec import structs

from birthmark.actor import Actor
from birthmark.auth.sas import SasToken
from birthmark.broker.store import drop_client
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError
from birthmark.iothub import store, twin_index_store
from birthmark.iothub.domain_events import DeviceChanged
from birthmark.iothub.model import (
    OPERATOR,
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceId,
    Hub,
    Identity,
    Twin,
    parse_device_id,
    parse_new_id,
    space_of,
)
from birthmark.iothub.rules.authentication import authenticate
from birthmark.iothub.rules.provisioned_identity_ownership import check_holder
from birthmark.iothub.rules.routes import event_messages
from birthmark.iothub.rules.twins import begun
from birthmark.iothub.service.ca_certificates import HubAuthorities
from birthmark.iothub.service.evaluation_marks import EvaluationMarks
from birthmark.iothub.service.hubs_and_authorization import Hubs, UnknownHubError
from birthmark.iothub.service.modules import Modules, guard_module
from birthmark.iothub.service.routing_events import RoutingEvents
from birthmark.iothub.service.throttles import Throttles
from birthmark.iothub.wire import DeviceBody, HubUser
from birthmark.iothub.wire.stored_routing_configuration import RouteSource
from birthmark.pki.certificates import Certificate
from birthmark.store import Changes, Database, Statement, device_name_prefix_index, object_counters, retry_on_conflict
from birthmark.store.plain_and_encrypted_column_types import to_micros

_PAGE = 100
RevocationCheck = Callable[[Certificate, Sequence[Certificate]], Awaitable[None]]


class UnknownDeviceError(NotFoundError):
    """The hub has no such device."""

    code = "iothub.unknown_device"
    message = "Device {device_id} does not exist in hub {hub}"
    cause = "Hub {hub} has no device {device_id}. Device IDs are case-sensitive."
    fix = (
        "List devices: `birthmark hub device ls --hub {hub}`. Register the device through DPS first, or create the "
        "device: `birthmark hub device create {device_id} --hub {hub}{options}`. Without a certificate, the new "
        "device gets a symmetric key."
    )
    device_id: str
    hub: str
    options: str = ""


class DeviceExistsError(ConflictError):
    """The device exists already."""

    code = "iothub.device_exists"
    message = "Device {device_id} already exists"
    cause = "Device {device_id} already exists in hub {hub}."
    fix = (
        "Update the device with its etag (If-Match), or choose another ID. To list the devices: `birthmark hub "
        "device ls --hub {hub}`."
    )
    device_id: str
    hub: str


class EtagMismatchError(ConflictError):
    """The device has changed since it was read."""

    code = "iothub.etag_mismatch"
    cause = "Device {device_id} has changed since the etag {etag} was read."
    fix = "Read the device again and repeat the change, or send If-Match: *. List devices: `birthmark hub device ls`"
    device_id: str
    etag: str


class RegistryPeer(Protocol):
    """Peer of a handshake: possession of the leaf's key is proven. Nothing more is verified."""

    @property
    def leaf(self) -> Certificate | None: ...

    @property
    def chain(self) -> tuple[Certificate, ...]: ...


@dataclass(frozen=True, slots=True)
class ProvisionedDevice:
    """A device as defined by a provisioning service; `twin` is its initial twin."""

    authentication: DeviceAuthentication | None
    """Credentials; None keeps those of an existing device."""
    maker: str
    is_iot_edge: bool = False
    twin: Mapping[str, Any] | None = None
    is_issued: bool = False
    """Whether the second credential was just issued, so that a connection with another valid one may stay."""
    unused: bytes | None = None
    """Certificate that was issued before and never used to connect."""
    proved: tuple[bytes, ...] = ()
    """Thumbprints or keys with which the device is enrolled or proved its group membership."""
    is_individual: bool = False
    """Whether the device has an individual enrollment, not a group's."""


class Registry:
    """The devices of all hubs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        hubs: Hubs,
        *,
        authorities: HubAuthorities,
        tells: RoutingEvents,
        revocations: RevocationCheck | None = None,
        throttles: Throttles | None = None,
        used: Callable[[Hub, Device, Certificate], Awaitable[None]] | None = None,
    ) -> None:
        """Create the registry; `throttles` limit a hub by tier, `used` is called when a second certificate connects."""
        self._marks = EvaluationMarks(database)
        self.modules = Modules(database, clock, entropy, tells, self._marks)
        self.telling = tells
        self._authorities = authorities
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._hubs = hubs
        self._revocations = revocations
        self.throttles = throttles
        self._used = used

    async def device(self, hub: Hub, device_id: str) -> Device:
        """Return a device. Raise `UnknownDeviceError`."""
        row = await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        if row is None:
            raise UnknownDeviceError(hub=hub.name, device_id=device_id)
        return store.device_of(row)

    async def identity(self, hub: Hub, name: str) -> Identity:
        """Return a device, or a module by its name. Raise `UnknownDeviceError` or `UnknownModuleError`."""
        device_id, slash, module_id = name.partition("/")
        return await (self.modules.module(hub, device_id, module_id) if slash else self.device(hub, name))

    async def check_is_there(self, hub: Hub, identity: Identity) -> None:
        """Raise `UnknownHubError`, `UnknownDeviceError` or `UnknownModuleError` if the identity no longer exists.

        A re-created identity of the same name is a different one.
        """
        self._hubs.check_is_there(hub)
        if (await self.identity(hub, identity.name)).generation_id != identity.generation_id:
            raise UnknownDeviceError(hub=hub.name, device_id=identity.name)

    async def has(self, host: str, device_id: str) -> bool:
        """Return whether the hub with this host name exists and has the device."""
        hub = self._hubs.find(host)
        if hub is None:
            return False
        return await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id) is not None

    async def find(self, host: str, device_id: str) -> tuple[Device | None, Hub | None]:
        """Return a device and its hub by host name; None for each that does not exist."""
        hub = self._hubs.find(host)
        row = None if hub is None else await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        return None if row is None else store.device_of(row), hub

    async def spellings(self, name: str) -> set[str]:
        """Return the case variants of a name in the hubs, which are case-sensitive."""
        places = [store.place_of(hub.name) for hub in self._hubs.all()]
        return set().union(
            *[await device_name_prefix_index.find_spellings(self._database, place, name) for place in places]
        )

    async def devices(self, hub: Hub, *, after: str = "", limit: int = _PAGE) -> list[Device]:
        """Return devices by id, those greater than `after`."""
        rows = await self._database.all(store.LIST_DEVICES, hub=hub.name, after=after, limit=limit)
        return [store.device_of(row) for row in rows]

    async def audit_key_display(self, hub: Hub, identities: Sequence[Identity], *, actor: str) -> None:
        """Audit the display of device keys to a user; holders of a policy are not known by name."""
        shown = [one for one in identities if one.authentication.primary_key is not None]
        if not shown or not isinstance(actor, Actor):
            return
        subject = shown[0].name if len(identities) == 1 else "*"
        changes = Changes().audit(actor, "iothub.device_key_show", subject, hub=hub.name, count=len(shown))
        await self._database.commit(changes)

    async def count(self, hub: Hub) -> tuple[int, int]:
        """Return the numbers of all and of enabled devices."""
        rows = await self._database.all(object_counters.OF_PLACE, name=store.DEVICES, place=hub.name)
        counts = {row["state"]: int(row["value"]) for row in rows}  # PostgreSQL sums to a Decimal
        return sum(counts.values()), counts.get(store.state_of(is_enabled=True), 0)

    async def put(
        self,
        hub: Hub,
        device_id: str,
        body: DeviceBody,
        authentication: DeviceAuthentication,
        etag: str | None,
        *,
        twin: Mapping[str, Any] | None = None,
        actor: str,
    ) -> Device:
        """Create a device with its initial twin, or update it when `etag` is given ("*": any).

        Raise `ConflictError`.
        """
        known = parse_new_id(device_id) if etag is None else parse_device_id(device_id)
        now = self._clock.now()
        if authentication.type is AuthenticationType.SAS:
            authentication = replace(
                authentication,
                primary_key=authentication.primary_key or self._entropy.token(32),
                secondary_key=authentication.secondary_key or self._entropy.token(32),
            )
        is_edge = bool(body.capabilities and body.capabilities.iot_edge)
        made = self._device(hub, known, authentication, now, is_iot_edge=is_edge)
        made = replace(made, is_enabled=body.status == "enabled", status_reason=body.status_reason)
        made = replace(made, parent_scopes=body.parents)
        changes = Changes().audit(
            actor, "iothub.device_put", known, hub=hub.name, status=body.status, **authentication.told
        )
        if etag is None:
            exists = DeviceExistsError(hub=hub.name, device_id=known)
            row = await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=known)
            if row is not None:
                raise exists
            changes = Changes().audit(
                actor, "iothub.device_put", known, hub=hub.name, status=body.status, created=True, **authentication.told
            )
            await self._check_room(hub)
            first = _begun(made, twin, now) if twin else None
            adding = self._adding(hub, made, first).merge(changes)
            if first is None:
                adding.merge(await self._marks.changes(hub.name, known))
            await self._database.commit(adding if first is None else _with_twin(adding, first, now))
            return made

        async def decide() -> Device:
            present = await self.device(hub, known)
            if etag not in {"*", present.etag}:
                raise EtagMismatchError(device_id=known, etag=etag)
            # Enabling or disabling a device does not change its owner: the device continues to register.
            maker = present.maker if made.authentication == present.authentication else OPERATOR
            done = replace(made, generation_id=present.generation_id, created_at=present.created_at, maker=maker)
            await self._database.commit((await self._replacing(present, done)).merge(changes))
            return done

        return await retry_on_conflict(decide)

    async def set_enabled(self, hub: Hub, device_id: str, *, is_enabled: bool, actor: str) -> Device:
        """Enable a device, or disable it and close its connections. Raise `UnknownDeviceError`."""
        status = "enabled" if is_enabled else "disabled"
        changes = Changes().audit(actor, "iothub.device_put", device_id, hub=hub.name, status=status)

        async def decide() -> Device:
            present = await self.device(hub, device_id)
            if present.is_enabled == is_enabled:
                return present
            now = self._clock.now()
            done = replace(present, etag=self._etag(), is_enabled=is_enabled, status_reason=None, updated_at=now)
            await self._database.commit((await self._replacing(present, done)).merge(changes))
            return done

        return await retry_on_conflict(decide)

    async def revoke(self, hub: Hub, device_id: str, why: str, *, actor: str) -> Device:
        """Revoke a device: disable it, delete its symmetric keys and close its connections.

        Raise `UnknownDeviceError`.
        """
        changes = Changes().audit(actor, "iothub.device_take_back", device_id, hub=hub.name, why=why)

        async def decide() -> Device:
            present = await self.device(hub, device_id)
            proof = present.authentication
            if proof.type is AuthenticationType.SAS:
                proof = replace(proof, primary_key=self._entropy.token(32), secondary_key=self._entropy.token(32))
            now = self._clock.now()
            done = replace(present, etag=self._etag(), is_enabled=False, authentication=proof, updated_at=now)
            done = replace(done, status_reason=why)
            taking = (await self._replacing(present, done)).merge(self.modules.taking_back(present))
            await self._database.commit(taking.merge(changes))
            return done

        return await retry_on_conflict(decide)

    async def remove(self, hub: Hub, device_id: str, etag: str | None, *, actor: str) -> None:
        """Delete a device. Raise `UnknownDeviceError` or `EtagMismatchError`."""

        async def decide() -> None:
            device = await self.device(hub, device_id)
            if etag not in {None, "*", device.etag}:
                raise EtagMismatchError(device_id=device_id, etag=etag)
            changes = (await self._removing(device)).audit(actor, "iothub.device_delete", device_id, hub=hub.name)
            await self._database.commit(changes)

        await retry_on_conflict(decide)

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that delete the device created by `maker`; none if there is no such hub or device."""
        hub = self._hubs.find(host)
        row = None if hub is None else await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        if hub is None or row is None or row["maker"] != maker:
            return Changes()
        return await self._removing(store.device_of(row))

    async def provision(self, host: str, device_id: str, device: ProvisionedDevice, now: datetime) -> Changes:
        """Return the changes that create or update `device_id` at the hub of `host`, for the caller's unit of work.

        An existing identity keeps its generation and its status: an operator's disable outlives registrations. Raise
        `DeviceHeldError` for one that it may not take over; the commit raises `ConflictError` after a concurrent
        change.
        """
        hub = self._hubs.by_host(host)
        row = await self._database.one(store.GET_DEVICE, hub=hub.name, device_id=device_id)
        if row is None:
            await self._check_room(hub)
            adding = self._provisioned(hub, device_id, device, now)
            return adding if device.twin else adding.merge(await self._marks.changes(hub.name, device_id))
        present = store.device_of(row)
        check_holder(present, device.maker, device.proved, is_individual=device.is_individual)
        proof = device.authentication or present.authentication
        if present.maker == device.maker and present.is_iot_edge == device.is_iot_edge:
            if present.authentication == proof:
                return _guarded_change(store.SAME_DEVICE, present)
            if _counts_still(present, proof, device):
                return self.replace_credentials(present, proof, now)
        made = replace(present, etag=self._etag(), authentication=proof, updated_at=now, maker=device.maker)
        return await self._replacing(present, replace(made, is_iot_edge=device.is_iot_edge))

    async def move(
        self, device_id: str, present: str, target: str, device: ProvisionedDevice, now: datetime, *, with_twin: bool
    ) -> Changes:
        """Return the changes that move a device from the hub at `present` to the one at `target`.

        The twin is moved or reset; the status, set by an operator, is kept. Raise the errors of `provision`.
        """
        old = self._hubs.find(present)
        row = None if old is None else await self._database.one(store.GET_DEVICE, hub=old.name, device_id=device_id)
        to = self._hubs.by_host(target)
        if old is None or row is None or old.name == to.name:
            return await self.provision(target, device_id, device, now)
        leaving = store.device_of(row)
        check_holder(leaving, device.maker)
        there = await self._database.one(store.GET_DEVICE, hub=to.name, device_id=device_id)
        kept = await self._database.one(store.GET_TWIN, hub=old.name, device_id=device_id)
        as_read: dict[str, Any] = {"hub": old.name, "device_id": device_id}
        changed = ChangedMeanwhileError(what="The twin")
        if kept is None:  # nor is there a newer one
            changes = Changes().run(store.DELETE_TWIN, expect=0, otherwise=changed, **as_read)
        else:
            as_read["version"] = kept["version"]
            changes = Changes().run(store.DELETE_TWIN_AS_READ, expect=1, otherwise=changed, **as_read)
        changes.merge(await self._removing(leaving))
        if there is not None:  # left there when its registration was deleted
            before = store.device_of(there)
            check_holder(before, device.maker)
            changes.merge(await self._removing(before))
            if not before.is_enabled:
                leaving = replace(leaving, is_enabled=False, status_reason=before.status_reason)
        await self._check_room(to)
        along = None if kept is None or not with_twin else structs.replace(store.twin_of(kept), hub=to.name)
        device = replace(device, twin=None) if with_twin else device
        changes.merge(self._provisioned(to, device_id, device, now, like=leaving, along=along))
        if along is not None and kept is not None:
            values = {"version": kept["version"], "body": kept["body"], "updated_at": kept["updated_at"]}
            return changes.run(store.ADD_TWIN, hub=to.name, device_id=device_id, **values)
        return changes if device.twin else changes.merge(await self._marks.changes(to.name, device_id))

    async def room(self, hub: Hub) -> int | None:
        """Return how many more devices the hub's tier allows; None without a tier."""
        if self.throttles is None or (throttle := self.throttles.of(hub.name)) is None:
            return None
        return throttle.room((await self.count(hub))[0])

    async def _check_room(self, hub: Hub) -> None:
        """Raise `TooManyDevicesError` if the hub's tier is full; concurrent requests may exceed it slightly."""
        if self.throttles is not None and (throttle := self.throttles.of(hub.name)) is not None:
            throttle.check_room((await self.count(hub))[0])

    def _provisioned(
        self,
        hub: Hub,
        device_id: str,
        device: ProvisionedDevice,
        now: datetime,
        *,
        like: Device | None = None,
        along: Twin | None = None,
    ) -> Changes:
        """Return the changes that create a device, with an initial twin unless the caller moves one `along`."""
        before = None if like is None else like.authentication
        name, proof = parse_device_id(device_id), device.authentication or before
        proof = proof or DeviceAuthentication(AuthenticationType.SELF_SIGNED)
        made = self._device(hub, name, proof, now, is_iot_edge=device.is_iot_edge)
        made = replace(made, maker=device.maker)
        if like is not None:
            made = replace(made, is_enabled=like.is_enabled, status_reason=like.status_reason)
        first = _begun(made, device.twin, now) if device.twin else None
        adding = self._adding(hub, made, first or along)
        return adding if first is None else _with_twin(adding, first, now)

    async def _replacing(self, present: Device, device: Device) -> Changes:
        row = store.device_row(device)
        values = {k: row[k] for k in row if k not in {"hub", "device_id", "generation_id", "created_at"}}
        changed = _guarded_change(store.REPLACE_DEVICE, present, **values)
        if device.is_enabled != present.is_enabled:
            _counted(_counted(changed, present, -1), device)
        if device.is_iot_edge and not present.is_iot_edge:
            changed.merge(await self.modules.edge_module_changes(device))
        changed.merge(await self._marks.changes(device.hub, device.device_id))
        return changed.event(DeviceChanged(device.hub, device.device_id, is_off=not device.is_enabled))

    async def _removing(self, device: Device) -> Changes:
        removed = _guarded_change(store.DELETE_DEVICE, device).merge(
            drop_client(space_of(device.hub), device.device_id)
        )
        removed.run(store.DELETE_TWIN, hub=device.hub, device_id=device.device_id)
        removed.run(store.DELETE_CREDENTIAL, hub=device.hub, device_id=device.device_id)
        removed.merge(twin_index_store.without_terms(device.hub, device.device_id))
        removed.merge(await self.modules.going_with(device))
        if self.telling.wants(device.hub, RouteSource.LIFECYCLE):
            row = await self._database.one(store.GET_TWIN, hub=device.hub, device_id=device.device_id)
            gone = Twin(device.hub, device.device_id) if row is None else store.twin_of(row)
            removed.merge(self._told(device, gone, is_made=False))
        removed.merge(device_name_prefix_index.unindex_name(store.place_of(device.hub), device.device_id))
        return _counted(removed, device, -1).event(DeviceChanged(device.hub, device.device_id, is_off=True))

    def _told(self, device: Device, twin: Twin, *, is_made: bool) -> Changes:
        now = self._clock.now()
        return self.telling.event_changes(
            device.hub, RouteSource.LIFECYCLE, lambda: event_messages.lifecycle(device, twin, now, is_made=is_made)
        )

    def _adding(self, hub: Hub, device: Device, twin: Twin | None = None) -> Changes:
        """Return the changes that add a device, guarded by its hub; a later hub of that name does not get it."""
        gone = partial(UnknownHubError, host=hub.host)
        changes = Changes().run(store.HUB_IS_THERE, expect=1, otherwise=gone, key_name=hub.name)
        changes.run(store.ADD_DEVICE, **store.device_row(device))
        if device.is_iot_edge:
            changes.merge(self.modules.fresh_of_edge(device))
        changes.merge(self._told(device, twin or Twin(device.hub, device.device_id), is_made=True))
        return _counted(
            changes.merge(device_name_prefix_index.found(store.place_of(device.hub), device.device_id)), device
        )

    def replace_credentials(self, present: Device, authentication: DeviceAuthentication, now: datetime) -> Changes:
        """Return the changes that replace an unchanged device's credentials; the device stays connected."""
        row = store.device_row(replace(present, etag=self._etag(), authentication=authentication, updated_at=now))
        values = {k: row[k] for k in row if k not in {"hub", "device_id", "generation_id", "created_at"}}
        return _guarded_change(store.REPLACE_DEVICE, present, **values)

    async def authenticate(
        self, user: HubUser, peer: RegistryPeer, password: bytes | None, *, address: str = "", path: str = ""
    ) -> tuple[Hub, Identity, SasToken | None]:
        """Authenticate a request and return its hub, device or module, and token. Raise the refusal.

        `path` is that of an HTTPS request.
        """
        hub = self._hubs.by_host(user.host)
        try:
            identity = await self.identity(hub, user.name)
        except UnknownDeviceError as error:
            if peer.leaf is None:
                raise
            options = f" --presented {peer.leaf.thumbprint.hex()}"
            raise UnknownDeviceError(**{**error.facts, "options": options}) from None
        token = authenticate(
            identity, user.host, peer.leaf, password, self._clock.now(), path=path, policies=hub.policies
        )
        if identity.authentication.type is AuthenticationType.AUTHORITY and peer.leaf is not None:
            await self._authorities.check(hub, identity, peer.leaf, peer.chain, address)
        if peer.leaf is not None and self._revocations is not None:
            await self._revocations(peer.leaf, peer.chain)
        second = identity.authentication.secondary_thumbprint
        is_second = peer.leaf is not None and second == peer.leaf.thumbprint
        if is_second and self._used is not None and isinstance(identity, Device) and peer.leaf is not None:
            await self._used(hub, identity, peer.leaf)
        return hub, identity, token

    def _device(
        self, hub: Hub, device_id: DeviceId, authentication: DeviceAuthentication, now: datetime, *, is_iot_edge: bool
    ) -> Device:
        """Return a new device."""
        generation, etag = generation_of(now), self._etag()
        return Device(hub.name, device_id, generation, etag, True, None, authentication, is_iot_edge, now, now)  # noqa: FBT003 - enabled

    def _etag(self) -> str:
        return base64.b64encode(self._entropy.token(8)).decode()


def generation_of(now: datetime) -> str:
    """Return the generation id of a device created now."""
    return str(int(now.timestamp() * 1_000_000_0))


def guard_identity(hub: str, name: str) -> Changes:
    """Return a write guard that requires the device or module to exist.

    It raises `UnknownDeviceError` or `UnknownModuleError`.
    """
    device_id, slash, module_id = name.partition("/")
    if slash:
        return guard_module(hub, device_id, module_id)
    key: dict[str, Any] = {"key_hub": hub, "key_device_id": name}
    gone = UnknownDeviceError(hub=hub, device_id=name)
    return Changes().run(store.DEVICE_IS_THERE, expect=1, otherwise=gone, **key)


def _guarded_change(statement: Statement, read: Device, **values: object) -> Changes:
    """Return a change guarded by the device being unchanged since it was read."""
    key: dict[str, Any] = {"key_hub": read.hub, "key_device_id": read.device_id, "key_etag": read.etag}
    return Changes().run(statement, expect=1, otherwise=ChangedMeanwhileError(what="The device"), **key, **values)


def _counted(changes: Changes, device: Device, by: int = 1) -> Changes:
    return changes.count(store.DEVICES, device.hub, store.state_of(is_enabled=device.is_enabled), by=by)


def _counts_still(present: Device, proof: DeviceAuthentication, device: ProvisionedDevice) -> bool:
    """Return whether all credentials that the device may be connected with stay valid."""
    known = present.authentication
    shown = {known.primary_thumbprint, known.secondary_thumbprint} - {None, device.unused}
    return bool(shown) and shown <= {proof.primary_thumbprint, proof.secondary_thumbprint}


def _begun(device: Device, body: Mapping[str, Any], now: datetime) -> Twin:
    """Return the initial twin of a new device."""
    return begun(Twin(device.hub, device.device_id), body, to_micros(now))


def _with_twin(changes: Changes, twin: Twin, now: datetime) -> Changes:
    values: dict[str, Any] = {"version": twin.version, "body": store.twin_body(twin), "updated_at": to_micros(now)}
    return changes.run(store.ADD_TWIN, hub=twin.hub, device_id=twin.device_id, **values)
