"""Module identities: parts of a device, each with its own credentials, twin and connection.

Source: "Understand and use module twins". A module can connect only while its device can, and is deleted with it. An
IoT Edge device has `$edgeAgent` and `$edgeHub` from the start.
"""

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from birthmark.broker.store import drop_client
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError, PolicyError, ThrottledError
from birthmark.iothub import store, twin_index_store
from birthmark.iothub.domain_events import DeviceChanged
from birthmark.iothub.model import (
    MAX_MODULES,
    AuthenticationType,
    Device,
    DeviceAuthentication,
    Hub,
    Module,
    Twin,
    parse_device_id,
    parse_new_id,
    space_of,
)
from birthmark.iothub.rules.configurations import EDGE_AGENT, EDGE_HUB
from birthmark.iothub.rules.routes import event_messages
from birthmark.iothub.service.evaluation_marks import EvaluationMarks
from birthmark.iothub.service.routing_events import RoutingEvents
from birthmark.iothub.wire.stored_routing_configuration import RouteSource
from birthmark.rate_limits import RateLimits
from birthmark.store import Changes, Database, Statement, retry_on_conflict, to_micros

_KEY_BYTES = 32


class UnknownModuleError(NotFoundError):
    """The device has no such module."""

    code = "iothub.unknown_module"
    message = "Module {module_id} of device {device_id} does not exist in hub {hub}"
    cause = "Hub {hub} has no device {device_id}, or the device has no module {module_id}. IDs are case-sensitive."
    fix = (
        "Create the module: `birthmark hub module create {device_id} {module_id} --hub {hub}`. List modules: "
        "`birthmark hub module ls {device_id} --hub {hub}`"
    )
    device_id: str
    hub: str
    module_id: str


class ModuleExistsError(ConflictError):
    """The module exists already."""

    code = "iothub.module_exists"
    message = "Module {module_id} already exists on device {device_id}"
    cause = "Device {device_id} of hub {hub} already has a module {module_id}."
    fix = (
        "Update the module with its etag (If-Match), or choose another ID. To list the device's modules: `birthmark "
        "hub module ls {device_id} --hub {hub}`"
    )
    device_id: str
    hub: str
    module_id: str


class ModuleEtagError(ConflictError):
    """The module has changed since it was read."""

    code = "iothub.module_etag"
    cause = "Module {module_id} of device {device_id} has changed since the etag {etag} was read."
    fix = (
        "Read the module again and repeat the change, or send If-Match: *. List modules: `birthmark hub module ls "
        "{device_id} --hub {hub}`"
    )
    device_id: str
    etag: str
    hub: str
    module_id: str


class TooManyModulesError(PolicyError):
    """The device has the maximum number of modules."""

    code = "iothub.too_many_modules"
    message = "Device {device_id} has the maximum of {limit} modules"
    cause = "Device {device_id} of hub {hub} has the maximum of {limit} modules."
    fix = "Delete an unused module. List modules: `birthmark hub module ls {device_id} --hub {hub}`"
    device_id: str
    hub: str
    limit: int = MAX_MODULES


class ModulesThrottledError(ThrottledError):
    """The device changes its modules too often."""

    code = "iothub.modules_throttled"
    cause = (
        "Device {device_id} exceeded the rate limit for module changes: {burst} changes in succession, then one "
        "change every {wait_s} s."
    )
    fix = "Wait {wait_s} s, or for the time in Retry-After. Check whether the device's program restarts repeatedly."
    burst: str
    device_id: str
    wait_s: str


BURST, EVERY_S = 100, 10
"""Rate limit of a device's changes to its own modules: each change is kept in the audit trail."""


class Modules:
    """The modules of all devices."""

    def __init__(
        self, database: Database, clock: Clock, entropy: Entropy, tells: RoutingEvents, marks: EvaluationMarks
    ) -> None:
        self._telling = tells
        self._marks = marks
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._limits = RateLimits(burst=BURST, per_s=1 / EVERY_S, max_addresses=16384)

    def count_change(self, device: Device) -> None:
        """Count a change that a device makes itself. Raise `ModulesThrottledError`."""
        if not self._limits.has_room(f"{device.hub} {device.device_id}", self._clock.monotonic()):
            facts: dict[str, Any] = {"device_id": device.device_id, "burst": BURST, "wait_s": EVERY_S}
            raise ModulesThrottledError(retry_after_s=EVERY_S, **facts)

    async def module(self, hub: Hub, device_id: str, module_id: str) -> Module:
        """Return a module. Raise `UnknownModuleError`."""
        found = await self._find(hub.name, device_id, module_id)
        if found is None:
            raise UnknownModuleError(hub=hub.name, device_id=device_id, module_id=module_id[:128])
        return found

    async def of(self, hub: Hub, device_id: str) -> Sequence[Module]:
        """Return the modules of a device, by their ids."""
        rows = await self._database.all(store.MODULES_OF, hub=hub.name, device_id=device_id)
        return sorted(map(store.module_of, rows), key=lambda one: one.module_id)

    async def put(
        self,
        device: Device,
        module_id: str,
        authentication: DeviceAuthentication,
        *,
        managed_by: str | None = None,
        etag: str | None = None,
        actor: str,
    ) -> Module:
        """Create a module, or update it when `etag` is given ("*" for any). `managed_by` is kept unless given.

        Raise `ModuleExistsError`, `TooManyModulesError`, `UnknownModuleError` or `ModuleEtagError`.
        """
        known = parse_new_id(module_id) if etag is None else parse_device_id(module_id)
        if authentication.type is AuthenticationType.SAS:
            authentication = replace(
                authentication,
                primary_key=authentication.primary_key or self._entropy.token(_KEY_BYTES),
                secondary_key=authentication.secondary_key or self._entropy.token(_KEY_BYTES),
            )
        facts: dict[str, Any] = {"hub": device.hub, "device_id": device.device_id}
        name = f"{device.device_id}/{known}"
        audit = Changes().audit(actor, "iothub.module_put", name, hub=device.hub, **authentication.told)

        async def create() -> Module:
            if await self._find(device.hub, device.device_id, known) is not None:
                raise ModuleExistsError(module_id=known, **facts)
            made = self._module(device, known, authentication, managed_by or "", self._clock.now())
            changes = _guard_device(device).run(
                store.HAS_ROOM,
                expect=1,
                otherwise=TooManyModulesError(**facts),
                key_hub=device.hub,
                key_device_id=device.device_id,
                most=MAX_MODULES,
            )
            changes.merge(self._adding(made)).merge(await self._marks.changes(made.hub, made.name))
            await self._database.commit(changes.merge(audit))
            return made

        if etag is None:
            return await retry_on_conflict(create, after=ConflictError)

        async def decide() -> Module:
            present = await self._find(device.hub, device.device_id, known)
            if present is None:
                raise UnknownModuleError(module_id=known, **facts)
            if etag not in {"*", present.etag}:
                raise ModuleEtagError(module_id=known, etag=etag, **facts)
            manages = present.managed_by if managed_by is None else managed_by
            now, fresh = self._clock.now(), self._etag()
            done = replace(present, etag=fresh, authentication=authentication, managed_by=manages, updated_at=now)
            row = store.module_row(done)
            values = {name: row[name] for name in store.STATE_OF_MODULE}
            changes = _guard_device(device).merge(_if_as_read(store.REPLACE_MODULE, present, **values)).merge(audit)
            await self._database.commit(changes.event(DeviceChanged(device.hub, done.name)))
            return done

        return await retry_on_conflict(decide)

    async def remove(self, hub: Hub, device_id: str, module_id: str, etag: str | None, *, actor: str) -> None:
        """Delete a module with its twin. Raise `UnknownModuleError` or `ModuleEtagError`."""

        async def decide() -> None:
            present = await self.module(hub, device_id, module_id)
            if etag not in {None, "*", present.etag}:
                raise ModuleEtagError(hub=hub.name, device_id=device_id, module_id=module_id, etag=etag)
            changes = _if_as_read(store.DELETE_MODULE, present).merge(_without(present))
            changes.merge(await self._gone(present))
            changes.audit(actor, "iothub.module_delete", present.name, hub=hub.name)
            await self._database.commit(changes.event(DeviceChanged(hub.name, present.name)))

        await retry_on_conflict(decide)

    async def going_with(self, device: Device) -> Changes:
        """Return the changes that remove a device's modules, for the commit that removes the device."""
        changes = Changes()
        key: dict[str, Any] = {"hub": device.hub, "device_id": device.device_id}
        for row in await self._database.all(store.MODULES_OF, **key):
            module = store.module_of(row)
            changes.merge(drop_client(space_of(device.hub), module.name)).merge(await self._gone(module))
        for statement in store.DELETE_MODULES_OF:
            changes.run(statement, **key)
        return changes

    def taking_back(self, device: Device) -> Changes:
        """Return the changes that revoke all credentials of a device's modules when the device is revoked.

        An attacker with the device has the module keys and may be changing them. So all current module credentials are
        removed after the change of the device, on which every other module change waits.
        """
        proof = dict.fromkeys(("primary_thumbprint", "secondary_thumbprint", "primary_key", "secondary_key"))
        at = to_micros(self._clock.now())
        gone: dict[str, Any] = {
            "etag": self._etag(),
            "auth_type": AuthenticationType.SELF_SIGNED.value,
            "updated_at": at,
        }
        key: dict[str, Any] = {"key_hub": device.hub, "key_device_id": device.device_id}
        return Changes().run(store.TAKE_PROOFS, **gone, **proof, **key)

    async def edge_module_changes(self, device: Device) -> Changes:
        """Return the changes that add missing IoT Edge runtime modules to a device."""
        rows = await self._database.all(store.MODULES_OF, hub=device.hub, device_id=device.device_id)
        return self.fresh_of_edge(device, {row["module_id"] for row in rows})

    def fresh_of_edge(self, device: Device, known: set[str] | frozenset[str] = frozenset()) -> Changes:
        """Return the changes that add the IoT Edge runtime modules to a device, except the `known` ones."""
        changes = Changes()
        for name in (EDGE_AGENT, EDGE_HUB):
            if name not in known:
                keys = (self._entropy.token(_KEY_BYTES), self._entropy.token(_KEY_BYTES))
                proof = DeviceAuthentication(AuthenticationType.SAS, None, None, *keys)
                changes.merge(self._adding(self._module(device, name, proof, "iotEdge", device.updated_at)))
        return changes

    def _adding(self, module: Module) -> Changes:
        changes = Changes().run(store.ADD_MODULE, **store.module_row(module))
        return changes.merge(self._told(module, Twin(module.hub, module.name), is_made=True))

    async def _gone(self, module: Module) -> Changes:
        """Return the event of a deleted module."""
        if not self._telling.wants(module.hub, RouteSource.LIFECYCLE):
            return Changes()
        row = await self._database.one(store.GET_TWIN, hub=module.hub, device_id=module.name)
        return self._told(module, Twin(module.hub, module.name) if row is None else store.twin_of(row), is_made=False)

    def _told(self, module: Module, twin: Twin, *, is_made: bool) -> Changes:
        now = self._clock.now()
        return self._telling.event_changes(
            module.hub, RouteSource.LIFECYCLE, lambda: event_messages.lifecycle(module, twin, now, is_made=is_made)
        )

    async def _find(self, hub: str, device_id: str, module_id: str) -> Module | None:
        key = {"hub": hub, "device_id": device_id, "module_id": module_id}
        row = await self._database.one(store.GET_MODULE, **key)
        return None if row is None else store.module_of(row)

    def _module(
        self, device: Device, module_id: str, proof: DeviceAuthentication, managed_by: str, now: datetime
    ) -> Module:
        generation = str(int(now.timestamp() * 1_000_000_0))
        etag, enabled = self._etag(), device.is_enabled
        return Module(device.hub, device.device_id, module_id, generation, etag, enabled, proof, managed_by, now, now)

    def _etag(self) -> str:
        return base64.b64encode(self._entropy.token(8)).decode()


def guard_module(hub: str, device_id: str, module_id: str) -> Changes:
    """Return a write guard that requires the module to exist; it raises `UnknownModuleError`."""
    gone = UnknownModuleError(hub=hub, device_id=device_id, module_id=module_id)
    key: dict[str, Any] = {"key_hub": hub, "key_owner": device_id, "key_module": module_id}
    return Changes().run(store.MODULE_IS_THERE, expect=1, otherwise=gone, **key)


def _guard_device(device: Device) -> Changes:
    """Return a write guard that requires the device to be unchanged, and blocks concurrent writes until the commit.

    So a client authenticated as a device that is being revoked can no longer change it.
    """
    key: dict[str, Any] = {"key_hub": device.hub, "key_device_id": device.device_id, "key_etag": device.etag}
    return Changes().run(store.SAME_DEVICE, expect=1, otherwise=ChangedMeanwhileError(what="The device"), **key)


def _without(module: Module) -> Changes:
    """Return the changes that delete a module's session and twin."""
    changes = drop_client(space_of(module.hub), module.name)
    changes.run(store.DELETE_TWIN, hub=module.hub, device_id=module.name)
    return changes.merge(twin_index_store.without_terms(module.hub, module.name))


def _if_as_read(statement: Statement, read: Module, **values: object) -> Changes:
    key = store.module_key(read) | {"key_etag": read.etag}
    return Changes().run(statement, expect=1, otherwise=ChangedMeanwhileError(what="The module"), **key, **values)
