"""Twins: load, decide, commit; whoever was faster makes us decide again."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from birthmark.broker.turns import Turns
from birthmark.clock import Clock
from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub import store
from birthmark.iothub.model import Device, DeviceId, Hub, Twin
from birthmark.iothub.rules import twins as rules
from birthmark.iothub.rules.twins import TwinVersionError
from birthmark.iothub.service.registry import Registry, UnknownDeviceError
from birthmark.store import Changes, Database, decided_again

_ATTEMPTS = 8


class Twins:
    """The twins of all devices."""

    def __init__(self, database: Database, clock: Clock, registry: Registry) -> None:
        self._database = database
        self._clock = clock
        self._registry = registry
        self._turns: Turns[tuple[str, str]] = Turns()
        self.updates: Counter[str] = Counter()

    async def get(self, hub: Hub, device_id: str) -> Twin:
        """Return a device's twin, for whoever knows that the device is there."""
        row = await self._database.one(store.GET_TWIN, hub=hub.name, device_id=device_id)
        return Twin(hub.name, DeviceId(device_id)) if row is None else store.twin_of(row)

    async def report(self, hub: Hub, device: Device, patch: object, version: int | None) -> Twin:
        """Merge what a device reports. Raise `TwinInvalidError`, or `TwinVersionError` where it means another.

        The next device of that name has another twin: then raise `UnknownDeviceError`.
        """
        now = self._clock.micros()
        made = await self._change(hub, device, Changes, lambda twin: rules.report(twin, patch, now, version=version))
        self.updates["device"] += 1
        return made

    async def desire(
        self, hub: Hub, device_id: str, body: Mapping[str, Any], etag: str | None, *, replaces: bool, actor: str
    ) -> tuple[Twin, Twin]:
        """Change tags and desired properties; return the twin before and after. `etag` is the one it is meant for."""
        device = await self._registry.device(hub, device_id)
        now = self._clock.micros()
        before: list[Twin] = []

        def decide(twin: Twin) -> Twin:
            if etag not in {None, "*", twin.etag}:
                raise TwinVersionError(device_id=device_id, version=twin.etag, wanted=str(etag))
            before[:] = [twin]
            return rules.replace(twin, body, now) if replaces else rules.desire(twin, body, now)

        def audited() -> Changes:
            return Changes().audit(actor, "iothub.twin_changed", device_id, hub=hub.name)

        made = await self._change(hub, device, audited, decide)
        self.updates["service"] += 1
        return before[0], made

    async def _change(
        self, hub: Hub, device: Device, changes: Callable[[], Changes], decide: Callable[[Twin], Twin]
    ) -> Twin:
        device_id = device.device_id
        key: dict[str, Any] = {"key_hub": hub.name, "key_device_id": device_id}
        key["key_generation_id"] = device.generation_id
        gone = UnknownDeviceError(hub=hub.name, device_id=device_id)

        async def change() -> Twin:
            row = await self._database.one(store.GET_TWIN, hub=hub.name, device_id=device_id)
            twin = Twin(hub.name, DeviceId(device_id)) if row is None else store.twin_of(row)
            made = decide(twin)
            values: dict[str, Any] = {"version": made.version, "body": store.twin_body(made)}
            values["updated_at"] = max(made.desired.at, made.reported.at)
            if row is None:
                write = changes().run(store.SAME_GENERATION, expect=1, otherwise=gone, **key)
                write.run(store.ADD_TWIN, hub=hub.name, device_id=device_id, unindexed=store.NEVER_INDEXED, **values)
            else:
                write = changes().run(store.CHANGE_TWIN, expect=1, **values, **key, key_version=twin.version)
            await self._database.commit(write)
            return made

        # One after the other here: who means any state of it never hears that it changed meanwhile.
        async with self._turns.alone_with((hub.name, device_id)):
            return await decided_again(change, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
