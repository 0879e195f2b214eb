"""Twin updates with optimistic concurrency: load, decide, commit, and retry after a concurrent change."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from birthmark.broker.keyed_lock import KeyedLock
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub import store
from birthmark.iothub.model import Hub, Identity, Twin
from birthmark.iothub.ports import Notifier
from birthmark.iothub.rules import twins as rules
from birthmark.iothub.rules.digital_twins import desired_by, merge_patch
from birthmark.iothub.rules.routes import event_messages
from birthmark.iothub.rules.twins import TwinVersionError
from birthmark.iothub.service.registry import Registry, UnknownDeviceError
from birthmark.iothub.wire.stored_routing_configuration import RouteSource
from birthmark.late_reference import Ref
from birthmark.store import Changes, Database, retry_on_conflict

_ATTEMPTS = 8


class Twins:
    """The twins of all devices."""

    def __init__(
        self, database: Database, clock: Clock, registry: Registry, notifier: Ref[Notifier] | None = None
    ) -> None:
        """Without a `notifier`, or while it is unset, no device is notified of changes."""
        self._database = database
        self._telling = registry.telling
        self._clock = clock
        self._registry = registry
        self._notifier = notifier or Ref()
        self._turns: KeyedLock[tuple[str, str]] = KeyedLock()
        self.updates: Counter[str] = Counter()

    async def get(self, hub: Hub, name: str) -> Twin:
        """Return the twin of a device or module that is known to exist."""
        row = await self._database.one(store.GET_TWIN, hub=hub.name, device_id=name)
        return Twin(hub.name, name) if row is None else store.twin_of(row)

    async def report(self, hub: Hub, identity: Identity, patch: object, version: int | None) -> Twin:
        """Merge a device's reported patch. Raise `TwinInvalidError`, or `TwinVersionError` for another version.

        Raise `UnknownDeviceError` if a later device has the name, as it has another twin.
        """
        now = self._clock.micros()
        made = await self._change(hub, identity, Changes, lambda twin: rules.report(twin, patch, now, version=version))
        self.updates["device"] += 1
        return made

    async def model(self, hub: Hub, identity: Identity, model_id: str) -> None:
        """Store the model id that a device or module announces."""
        if (await self.get(hub, identity.name)).model_id != model_id:
            await self._change(hub, identity, Changes, lambda twin: rules.modelled(twin, model_id))

    async def desire(
        self,
        hub: Hub,
        name: str,
        body: Mapping[str, Any],
        etag: str | None,
        *,
        replaces: bool,
        actor: str,
        along: Callable[[], Changes] = Changes,
    ) -> Twin:
        """Update tags and desired properties, notify the device, and return its twin. `etag` is the expected one.

        `along` returns changes of the same commit.
        """
        now = self._clock.micros()

        def decide(twin: Twin) -> Twin:
            _check_etag(twin, etag)
            return rules.replace(twin, body, now) if replaces else rules.desire(twin, body, now)

        before, made = await self._desired(hub, name, decide, actor, replaces=replaces, along=along)
        return self._notified(before, made, (body.get("properties") or {}).get("desired"), replaces=replaces)

    async def patch_digital(self, hub: Hub, name: str, patch: object, etag: str | None, *, actor: str) -> Twin:
        """Apply a JSON Patch of the digital twin to desired properties, notify the device, and return its twin.

        Raise `DigitalTwinPatchError`, `TwinInvalidError`, or `TwinVersionError` for another etag.
        """
        now = self._clock.micros()

        def decide(twin: Twin) -> Twin:
            _check_etag(twin, etag)
            return rules.desire(twin, {"properties": {"desired": desired_by(twin, patch)}}, now)

        before, made = await self._desired(hub, name, decide, actor)
        return self._notified(before, made, merge_patch(before.desired.values, made.desired.values), replaces=False)

    async def configure(self, hub: Hub, name: str, content: Mapping[str, Any], *, actor: str) -> Twin:
        """Apply a configuration's content to desired properties, notify the device, and return its twin."""
        now = self._clock.micros()
        before, made = await self._desired(hub, name, lambda twin: rules.apply_configuration(twin, content, now), actor)
        return self._notified(before, made, made.desired.values, replaces=True)

    async def set_configurations(self, hub: Hub, identity: Identity, decide: Callable[[Twin], Twin]) -> Twin:
        """Apply the configurations that target a twin, and notify the device of changed desired properties.

        `decide` returns the same twin if nothing changes. Raise `UnknownDeviceError` for a deleted identity.
        """
        before: list[Twin] = []

        def decided(twin: Twin) -> Twin:
            before[:] = [twin]
            return decide(twin)

        made = await self._change(hub, identity, Changes, decided)
        if made is before[0]:
            return made
        self.updates["configuration"] += 1
        patch = merge_patch(before[0].desired.values, made.desired.values)
        return self._notified(before[0], made, patch, replaces=False)

    def _notified(self, before: Twin, twin: Twin, patch: object, *, replaces: bool) -> Twin:
        if (notifier := self._notifier.get()) is not None:
            notifier.desired_changed(before, twin, patch, replaces=replaces)
        return twin

    async def _desired(
        self,
        hub: Hub,
        name: str,
        decide: Callable[[Twin], Twin],
        actor: str,
        *,
        replaces: bool = False,
        along: Callable[[], Changes] = Changes,
    ) -> tuple[Twin, Twin]:
        identity = await self._registry.identity(hub, name)
        before: list[Twin] = []

        def decided(twin: Twin) -> Twin:
            before[:] = [twin]
            return decide(twin)

        def audited() -> Changes:
            return Changes().audit(actor, "iothub.twin_changed", name, hub=hub.name).merge(along())

        made = await self._change(hub, identity, audited, decided, replaces=replaces)
        self.updates["service"] += 1
        return before[0], made

    async def _change(
        self,
        hub: Hub,
        identity: Identity,
        changes: Callable[[], Changes],
        decide: Callable[[Twin], Twin],
        *,
        replaces: bool = False,
    ) -> Twin:
        name = identity.name
        same_generation, change_twin, key = store.twin_keys(identity)
        gone = UnknownDeviceError(hub=hub.name, device_id=name)

        async def change() -> Twin:
            row = await self._database.one(store.GET_TWIN, hub=hub.name, device_id=name)
            twin = Twin(hub.name, name) if row is None else store.twin_of(row)
            made = decide(twin)
            if made is twin:
                return made
            values: dict[str, Any] = {"version": made.version, "body": store.twin_body(made)}
            values["updated_at"] = max(made.desired.at, made.reported.at)
            if row is None:
                write = changes().run(same_generation, expect=1, otherwise=gone, **key)
                write.run(store.ADD_TWIN, hub=hub.name, device_id=name, **values)
            else:
                write = changes().run(change_twin, expect=1, **values, **key, key_version=twin.version)
            await self._database.commit(write.merge(self._event_changes(hub, twin, made, replaces=replaces)))
            return made

        # Serialized here, so that a change of any version never conflicts.
        async with self._turns.lock((hub.name, name)):
            return await retry_on_conflict(change, after=ChangedMeanwhileError, attempts=_ATTEMPTS)

    def _event_changes(self, hub: Hub, before: Twin, twin: Twin, *, replaces: bool) -> Changes:
        """Return changes that write the twin change event; the device's model id is not part of it."""
        if (before.tags, before.desired, before.reported) == (twin.tags, twin.desired, twin.reported):
            return Changes()
        now = self._clock.now()
        return self._telling.event_changes(
            hub.name, RouteSource.TWINS, lambda: event_messages.twin_changed(before, twin, now, replaces=replaces)
        )


def _check_etag(twin: Twin, etag: str | None) -> None:
    if etag not in {None, "*", twin.etag}:
        raise TwinVersionError(device_id=twin.device_id, version=twin.etag, wanted=str(etag))
