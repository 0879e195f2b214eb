"""Configurations and edge deployments of hubs: create, update, delete and list.

Another service evaluates which twins they target.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub import configuration_store as store
from birthmark.iothub import store as hub_store
from birthmark.iothub.domain_events import ConfigurationsChanged
from birthmark.iothub.model import Configuration, ConfigurationKind, Hub, RolloutPlan, RolloutState
from birthmark.iothub.rules import configurations as rules
from birthmark.iothub.rules.configurations import (
    ConfigurationEtagError,
    ConfigurationExistsError,
    ConfigurationInvalidError,
    TooManyConfigurationsError,
    UnknownConfigurationError,
)
from birthmark.iothub.rules.index_terms import encode, path_key
from birthmark.iothub.rules.tier_throttles_and_quotas import Tier
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.iothub.service.throttles import Throttles
from birthmark.iothub.wire.configurations import ConfigurationRequest
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.database import Row

_NO_CONTENT = "it has no content"
STATUSES = ("Applied", "Targeted")


class Configurations:
    """Configurations of all hubs."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy, throttles: Throttles) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._throttles = throttles

    async def all(self, hub: Hub) -> Sequence[Configuration]:
        """Return the configurations of a hub, by ID."""
        rows = await self._database.all(store.CONFIGURATIONS_OF, hub=hub.name)
        return [store.configuration_of(row) for row in rows if not row["is_deleted"]]

    async def get(self, hub: Hub, configuration_id: str) -> Configuration:
        """Return a configuration. Raise `UnknownConfigurationError`."""
        row = await self._row(hub, configuration_id)
        if row is None or row["is_deleted"]:
            raise UnknownConfigurationError(configuration_id=configuration_id[:128], hub=hub.name)
        return store.configuration_of(row)

    async def create(
        self,
        hub: Hub,
        configuration_id: str,
        request: ConfigurationRequest,
        *,
        plan: RolloutPlan | None = None,
        actor: str,
    ) -> Configuration:
        """Create a configuration, with a `plan` for a phased rollout.

        Raise `ConfigurationInvalidError`, `ConfigurationExistsError`, `TooManyConfigurationsError`.
        """
        known_id = rules.check_id(configuration_id)
        rules.check_request(known_id, request)
        if request.kind is None:
            raise ConfigurationInvalidError(configuration_id=known_id, detail=_NO_CONTENT)
        if plan is not None:
            rules.check_plan(known_id, plan)
        made = self._made(hub, known_id, request.kind, request, plan)

        async def decide() -> Configuration:
            row = await self._row(hub, known_id)
            if row is not None and not row["is_deleted"]:
                raise ConfigurationExistsError(configuration_id=known_id, hub=hub.name)
            changes = self._room(hub, made.kind)
            self._write(changes, row, made)
            changes.audit(actor, "iothub.configuration_create", known_id, hub=hub.name, priority=made.priority)
            await self._database.commit(changes.event(ConfigurationsChanged(hub.name)))
            return made

        return await retry_on_conflict(decide)

    async def update(
        self, hub: Hub, configuration_id: str, request: ConfigurationRequest, etag: str, *, actor: str
    ) -> Configuration:
        """Change everything but the content; `etag` is the expected one, "*" for any.

        Raise `UnknownConfigurationError`, `ConfigurationEtagError`, `ConfigurationInvalidError`.
        """

        async def decide() -> Configuration:
            present = await self.get(hub, configuration_id)
            if etag not in {"*", present.etag}:
                raise ConfigurationEtagError(configuration_id=present.id, etag=etag[:128], hub=hub.name)
            kept = request
            if request.kind is None:
                kept = replace(request, kind=present.kind, content=present.content)
            rules.check_request(present.id, kept)
            if (kept.kind, kept.content) != (present.kind, present.content):
                detail = "the content of an existing configuration cannot change; create another one"
                raise ConfigurationInvalidError(configuration_id=present.id, detail=detail)
            made = replace(
                self._made(hub, present.id, present.kind, kept, present.plan),
                created_at=present.created_at,
                rollout=present.rollout,
                results={name: value for name, value in present.results.items() if name in kept.metrics},
            )
            await self._replace(present, made, "iothub.configuration_update", actor)
            return made

        return await retry_on_conflict(decide)

    async def proposed(
        self,
        hub: Hub,
        configuration_id: str,
        request: ConfigurationRequest,
        plan: RolloutPlan | None,
        *,
        is_new: bool = False,
    ) -> Configuration:
        """Return a new or changed configuration without storing it.

        Raise `ConfigurationInvalidError`; with `is_new`, also `ConfigurationExistsError`.
        """
        row = await self._row(hub, rules.check_id(configuration_id))
        present = None if row is None or row["is_deleted"] else store.configuration_of(row)
        if is_new and present is not None:
            raise ConfigurationExistsError(configuration_id=configuration_id, hub=hub.name)
        if request.kind is None and present is not None:
            request = replace(request, kind=present.kind, content=present.content)
        if request.kind is None:
            raise ConfigurationInvalidError(configuration_id=configuration_id, detail=_NO_CONTENT)
        rules.check_request(configuration_id, request)
        if plan is not None:
            rules.check_plan(configuration_id, plan)
        made = self._made(hub, configuration_id, request.kind, request, plan)
        return made if present is None else replace(made, created_at=present.created_at)

    async def set_rollout(
        self, hub: Hub, configuration_id: str, phase: int | None, *, is_stopped: bool, actor: str
    ) -> Configuration:
        """Set the phase of a rollout, None for the current one, and stop or resume it.

        Raise `UnknownConfigurationError`, `ConfigurationInvalidError`.
        """

        async def decide() -> Configuration:
            present = await self.get(hub, configuration_id)
            if present.plan is None or present.rollout is None:
                detail = "it has no phased rollout"
                raise ConfigurationInvalidError(configuration_id=present.id, detail=detail)
            wanted = present.rollout.phase if phase is None else phase
            if not 0 <= wanted < len(present.plan.percents):
                detail = f"its rollout has the phases 1 to {len(present.plan.percents)}"
                raise ConfigurationInvalidError(configuration_id=present.id, detail=detail)
            if phase is None and is_stopped == bool(present.rollout.stopped):
                return present
            stopped = "an operator stopped it" if is_stopped else ""
            state = RolloutState(wanted, self._clock.now(), stopped)
            made = replace(present, etag=self._etag(), updated_at=self._clock.now(), rollout=state)
            await self._replace(present, made, "iothub.configuration_rollout", actor)
            return made

        return await retry_on_conflict(decide)

    async def delete(self, hub: Hub, configuration_id: str, etag: str | None, *, actor: str) -> None:
        """Delete a configuration; it is then removed from twins.

        Raise `UnknownConfigurationError` or `ConfigurationEtagError`.
        """

        async def decide() -> None:
            present = await self.get(hub, configuration_id)
            if etag not in {None, "*", present.etag}:
                raise ConfigurationEtagError(configuration_id=present.id, etag=str(etag)[:128], hub=hub.name)
            made = replace(present, etag=self._etag(), updated_at=self._clock.now())
            await self._replace(present, made, "iothub.configuration_delete", actor, is_deleted=True)

        await retry_on_conflict(decide)

    async def counts(self, configuration: Configuration) -> Mapping[str, int]:
        """Return the results of a configuration's system metrics, by name."""
        path = path_key(("configurations", configuration.id, "status"))
        found: list[int] = []
        for status in STATUSES:
            asked: dict[str, Any] = {"hub": configuration.hub, "path": path, "value": encode(status)}
            row = await self._database.one(store.COUNT_STATUS, **asked)
            found.append(0 if row is None else int(row["count"]))
        counts = {"targetedCount": sum(found), "appliedCount": found[0]}
        if configuration.kind is ConfigurationKind.DEPLOYMENT:
            for name in rules.REPORTED_METRICS:
                counts[name] = int(configuration.results.get(name, 0))
        return counts

    async def _replace(
        self, present: Configuration, made: Configuration, action: str, actor: str, *, is_deleted: bool = False
    ) -> None:
        row = store.CONFIGURATIONS.row(store.stored_configuration(made, is_pending=True, is_deleted=is_deleted))
        values = {name: value for name, value in row.items() if name not in {"hub", "id"}}
        key: dict[str, Any] = {"key_hub": present.hub, "key_id": present.id, "key_etag": present.etag}
        gone = ChangedMeanwhileError(what="The configuration")
        changes = Changes().run(store.REPLACE_CONFIGURATION, expect=1, otherwise=gone, **values, **key)
        changes.audit(actor, action, present.id, hub=present.hub, priority=made.priority)
        await self._database.commit(changes.event(ConfigurationsChanged(present.hub)))

    def _write(self, changes: Changes, row: Row | None, made: Configuration) -> None:
        """Add the new row; the ID of a deleted one may still have a row."""
        values = store.CONFIGURATIONS.row(store.stored_configuration(made, is_pending=True))
        raced = ChangedMeanwhileError(what="The configuration")
        if row is None:
            changes.run(store.ADD_CONFIGURATION, expect=1, otherwise=raced, **values)
            return
        key: dict[str, Any] = {"key_hub": made.hub, "key_id": made.id, "key_etag": row["etag"]}
        values = {name: value for name, value in values.items() if name not in {"hub", "id"}}
        changes.run(store.REPLACE_CONFIGURATION, expect=1, otherwise=raced, **values, **key)

    def _room(self, hub: Hub, kind: ConfigurationKind) -> Changes:
        """Return the guard that limits the number of configurations of a hub."""
        throttle = self._throttles.of(hub.name)
        is_free = throttle is not None and throttle.edition.tier is Tier.F1
        guard, most, named = store.HAS_CONFIGURATION_ROOM, rules.MAX_CONFIGURATIONS, "configurations"
        if kind is ConfigurationKind.DEPLOYMENT:
            guard, most, named = store.HAS_DEPLOYMENT_ROOM, rules.MAX_DEPLOYMENTS, "edge deployments"
        if is_free:
            most = rules.MAX_FREE_DEPLOYMENTS if named == "edge deployments" else rules.MAX_FREE_CONFIGURATIONS
        changes = Changes().run(
            hub_store.LOCK_HUB, expect=1, otherwise=UnknownHubError(host=hub.name), key_name=hub.name
        )
        full = TooManyConfigurationsError(hub=hub.name, kind=named, limit=most)
        return changes.run(guard, expect=1, otherwise=full, key_name=hub.name, most=most)

    def _made(
        self,
        hub: Hub,
        configuration_id: str,
        kind: ConfigurationKind,
        request: ConfigurationRequest,
        plan: RolloutPlan | None,
    ) -> Configuration:
        now = self._clock.now()
        return Configuration(
            hub.name,
            configuration_id,
            self._etag(),
            kind,
            request.priority,
            request.target_condition,
            request.content,
            now,
            now,
            labels=request.labels,
            metrics=request.metrics,
            schema_version=request.schema_version,
            plan=plan,
            rollout=None if plan is None else RolloutState(0, now),
        )

    async def _row(self, hub: Hub, configuration_id: str) -> Row | None:
        return await self._database.one(store.GET_CONFIGURATION, hub=hub.name, id=configuration_id)

    def _etag(self) -> str:
        return base64.b64encode(self._entropy.token(8)).decode()
