"""Evaluation of configurations: which twins they target, and what the twins contain then.

One worker evaluates for all: each changed twin before it is indexed, the candidates of each changed configuration, and
every twin again after `SWEEP_S`. Every step can be repeated, so nothing is lost when the worker is killed.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from birthmark.clock_and_entropy import Clock
from birthmark.documents.queries import paths_in
from birthmark.errors import BirthmarkError
from birthmark.iothub import configuration_store as store
from birthmark.iothub import wire
from birthmark.iothub.domain_events import ConfigurationsChanged
from birthmark.iothub.model import (
    AuthenticationType,
    Configuration,
    ConfigurationKind,
    Device,
    DeviceAuthentication,
    Hub,
    Identity,
    Module,
    RolloutState,
    Twin,
    name_of,
)
from birthmark.iothub.ports import UNSEEN, DevicePresence, SeenAt
from birthmark.iothub.rules import configuration_overlays as overlays
from birthmark.iothub.rules import configurations as rules
from birthmark.iothub.rules.configuration_overlays import Composition
from birthmark.iothub.rules.configurations import EDGE_AGENT, EDGE_HUB, TargetCondition
from birthmark.iothub.rules.index_terms import encode, path_key
from birthmark.iothub.rules.twin_query_plans import AllTwins, AnyOf, Edge, Plan, TwinsByTerm, plan
from birthmark.iothub.service.configurations import STATUSES
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.iothub.service.queries import MAX_PAGE, HubQueries
from birthmark.iothub.service.registry import Registry
from birthmark.iothub.service.twin_search import TwinMatch, are_whole, modules_of
from birthmark.iothub.service.twins import Twins
from birthmark.late_reference import Ref
from birthmark.net.fair_scheduler import yield_turn
from birthmark.store import Changes, Database
from birthmark.supervised_tasks import Leads, always

log = logging.getLogger(__name__)
LOOK_S = 1.0
SWEEP_S = 300.0
_RESTS = 5
"""Rest after each read and each decision, as a multiple of its duration: other requests have priority."""
_BATCH, _MODULES_BATCH = 50, 200
_MAX_METRIC_PAGES = 100
_MANAGER = "iotEdge"
ACTOR = "iothub.configurations"


@dataclass(frozen=True, slots=True)
class TargetedConfiguration:
    """A configuration and the twins that it targets."""

    configuration: Configuration
    condition: TargetCondition

    def includes(self, device_id: str, document: Mapping[str, Any]) -> bool:
        """Return whether it targets a twin, and its rollout has reached the device."""
        return rules.is_in_phase(self.configuration, device_id) and self.condition.matches(document)


@dataclass(frozen=True, slots=True)
class HubTargets:
    """Configurations of a hub at one moment, by kind."""

    versions: Mapping[str, tuple[str, str]]
    by_kind: Mapping[ConfigurationKind, Sequence[TargetedConfiguration]]
    is_whole: bool
    """Whether a condition reads metadata of twins."""

    def targeting(
        self, kind: ConfigurationKind, identity: Identity, document: Mapping[str, Any]
    ) -> list[Configuration]:
        """Return the configurations of a kind that target a twin."""
        return [one.configuration for one in self.by_kind[kind] if one.includes(identity.device_id, document)]


def targets_of(configurations: Sequence[Configuration], versions: Mapping[str, tuple[str, str]]) -> HubTargets:
    """Return configurations with their parsed conditions."""
    by_kind: dict[ConfigurationKind, list[TargetedConfiguration]] = {kind: [] for kind in ConfigurationKind}
    is_whole = False
    for one in configurations:
        condition = rules.parse_target(one.id, one.kind, one.target_condition)
        is_whole |= condition.condition is not None and are_whole(list(paths_in(condition.condition)))
        by_kind[one.kind].append(TargetedConfiguration(one, condition))
    return HubTargets(versions, by_kind, is_whole)


class _NoPresence:
    """Presence of a process that has no connections."""

    async def seen(self, _hub: str, device_ids: Sequence[str]) -> Sequence[SeenAt]:
        return [UNSEEN for _ in device_ids]

    async def connected_ids(self, _hub: str, _limit: int) -> Sequence[str] | None:
        return ()

    async def connected(self, _hub: str) -> int:
        return 0


class ConfigurationEvaluation:
    """Background evaluation of all hubs' configurations."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hubs: Hubs,
        registry: Registry,
        twins: Twins,
        *,
        queries: HubQueries,
        leads: Leads = always,
    ) -> None:
        """`leads` returns whether this worker evaluates for all."""
        self.presence: Ref[DevicePresence] = Ref()
        """Connected devices, for metrics about them."""
        self._database = database
        self._clock = clock
        self._hubs = hubs
        self._registry = registry
        self._twins = twins
        self._queries = queries
        self._leads = leads
        self._known: dict[str, HubTargets] = {}
        self._work = asyncio.Event()
        database.on_events(self._hear)

    # ---- the background

    async def run_evaluation_loop(self) -> None:
        """Evaluate changed configurations and advance rollouts forever, at once when one changes."""
        while True:
            self._work.clear()
            if await self._leads():
                await self.evaluate_changed_configurations()
                await self.advance_rollouts()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), LOOK_S)

    async def run_sweep_loop(self) -> None:
        """Evaluate all twins of hubs with configurations forever, every `SWEEP_S`."""
        while True:
            if await self._leads():
                await self.sweep()
            await asyncio.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Evaluate all twins of hubs with configurations."""
        for row in await self._database.all(store.HUBS_WITH_CONFIGURATIONS):
            if (hub := self._hub(row["hub"])) is not None:
                await self._sweep_hub(hub)

    async def evaluate_changed_configurations(self) -> None:
        """Evaluate the candidates of each configuration that changed."""
        while rows := await self._database.all(store.PENDING):
            for row in rows:
                hub = self._hub(row["hub"])
                if hub is not None:
                    await self._evaluate_configuration(hub, row["id"])
            if not any(self._hub(row["hub"]) for row in rows):
                return

    async def twins_changed(self, hub_name: str, names: Sequence[str]) -> None:
        """Evaluate twins that changed: of devices, or of modules (`DEVICE/MODULE`)."""
        hub = self._hub(hub_name)
        if hub is None or (known := await self.targets(hub)) is None:
            return
        devices = {name for name in names if "/" not in name}
        for name in names:
            device_id, slash, module_id = name.partition("/")
            if slash and known.by_kind[ConfigurationKind.DEPLOYMENT]:
                devices.add(device_id)  # a deployment manages the module
            if slash and module_id not in {EDGE_AGENT, EDGE_HUB}:
                await self._evaluate_module(hub, name, known)
        ordered = sorted(devices)
        for first in range(0, len(ordered), _BATCH):
            batch = await self._queries.finding.named(hub, ordered[first : first + _BATCH])
            await self._evaluate_devices(hub, batch, known)

    # ---- one configuration, one hub

    async def _evaluate_configuration(self, hub: Hub, configuration_id: str) -> None:
        """Evaluate the twins that a changed configuration targets or targeted; stop if it changes again."""
        row = await self._database.one(store.GET_CONFIGURATION, hub=hub.name, id=configuration_id)
        known = await self.targets(hub)
        if row is None or known is None:
            return
        configuration = store.configuration_of(row)
        condition = rules.parse_target(configuration.id, configuration.kind, configuration.target_condition)
        if configuration.kind is ConfigurationKind.MODULE:
            await self._sweep_modules(hub, known)
        else:
            is_edge = configuration.kind is ConfigurationKind.DEPLOYMENT
            candidates = Edge() if is_edge else self._candidates(configuration.id, condition)
            async for batch in self._rested(self._scan(hub, candidates)):
                await self._evaluate_devices(hub, batch, known)
        key: dict[str, Any] = {"key_hub": hub.name, "key_id": configuration.id, "key_etag": configuration.etag}
        changes = Changes().run(store.SET_EVALUATED, is_pending=0, **key)
        changes.run(store.REMOVE_CONFIGURATION, hub=hub.name, id=configuration.id, etag=configuration.etag)
        await self._database.commit(changes)
        if not row["is_deleted"]:
            await self._measure(hub, configuration)

    async def candidates(self, hub: Hub, configuration: Configuration) -> AsyncIterator[tuple[Identity, Twin]]:
        """Yield the twins that a configuration may target or have targeted; for a preview."""
        condition = rules.parse_target(configuration.id, configuration.kind, configuration.target_condition)
        if configuration.kind is ConfigurationKind.MODULE:
            read, after = modules_of(self._database), ""
            while some := await read(hub, after, _MODULES_BATCH):
                for match in some:
                    yield match.identity, match.twin()
                after = some[-1].key
            return
        is_edge = configuration.kind is ConfigurationKind.DEPLOYMENT
        async for batch in self._scan(hub, Edge() if is_edge else self._candidates(configuration.id, condition)):
            for match in batch:
                yield match.identity, match.twin()
                await yield_turn()

    def _candidates(self, configuration_id: str, condition: TargetCondition) -> Plan:
        path = path_key(("configurations", configuration_id, "status"))
        assert path is not None  # noqa: S101 - an ID has no dots
        targeted = TwinsByTerm(path, tuple(encode(status) for status in STATUSES))
        return targeted if condition.is_empty else AnyOf((plan(condition.condition), targeted))

    async def _sweep_hub(self, hub: Hub) -> None:
        """Evaluate all twins of a hub, and measure its metrics."""
        if (known := await self.targets(hub)) is None:
            return
        async for batch in self._rested(self._scan(hub, AllTwins())):
            await self._evaluate_devices(hub, batch, known)
        if known.by_kind[ConfigurationKind.MODULE]:
            await self._sweep_modules(hub, known)
        for targets in known.by_kind.values():
            for one in targets:
                await self._measure(hub, one.configuration)

    async def _sweep_modules(self, hub: Hub, known: HubTargets) -> None:
        read, after = modules_of(self._database), ""
        while True:
            began = self._clock.monotonic()
            some = await read(hub, after, _MODULES_BATCH)
            for match in some:
                if self._is_due(match, known, ConfigurationKind.MODULE):
                    await self._apply(hub, match.identity, known, ConfigurationKind.MODULE)
                await asyncio.sleep(0)
            if len(some) < _MODULES_BATCH:
                return
            after = some[-1].key
            await asyncio.sleep(_RESTS * (self._clock.monotonic() - began))

    async def _scan(self, hub: Hub, candidates: Plan) -> AsyncIterator[Sequence[TwinMatch]]:
        async for batch in self._queries.finding.scan(hub, candidates, self._presence(), _BATCH):
            yield batch

    async def _rested(self, batches: AsyncIterator[Sequence[TwinMatch]]) -> AsyncIterator[Sequence[TwinMatch]]:
        """Rest after each batch for a multiple of the time that its read took."""
        began = self._clock.monotonic()
        async for batch in batches:
            spent = self._clock.monotonic() - began
            yield batch
            await asyncio.sleep(_RESTS * spent)
            began = self._clock.monotonic()

    # ---- twins

    async def _evaluate_devices(self, hub: Hub, matches: Sequence[TwinMatch], known: HubTargets) -> None:
        turn = asyncio.Lock()

        async def evaluate(match: TwinMatch) -> None:
            async with turn:  # one twin at a time, with a rest; only the writes are concurrent, as they share commits
                began = self._clock.monotonic()
                is_due = self._is_due(match, known, ConfigurationKind.DEVICE)
                if isinstance(match.identity, Device) and match.identity.is_iot_edge:
                    document = match.document(is_whole=known.is_whole)
                    await self._evaluate_deployments(hub, match.identity, document, known)
                await asyncio.sleep(_RESTS * (self._clock.monotonic() - began))
            if is_due:
                await self._apply(hub, match.identity, known, ConfigurationKind.DEVICE)

        await asyncio.gather(*map(evaluate, matches))

    async def _evaluate_module(self, hub: Hub, name: str, known: HubTargets) -> None:
        with contextlib.suppress(BirthmarkError):  # deleted
            module = await self._registry.identity(hub, name)
            await self._apply(hub, module, known, ConfigurationKind.MODULE)

    def _is_due(self, match: TwinMatch, known: HubTargets, kind: ConfigurationKind) -> bool:
        """Return whether device or module configurations change a twin."""
        if kind is ConfigurationKind.MODULE and match.key.endswith((f"/{EDGE_AGENT}", f"/{EDGE_HUB}")):
            return False  # deployments manage these
        targeting = known.targeting(kind, match.identity, match.document(is_whole=known.is_whole))
        twin = match.twin()
        if not targeting and not twin.configurations:
            return False
        return _composed(twin, targeting, self._clock.micros()) is not twin

    async def _apply(self, hub: Hub, identity: Identity, known: HubTargets, kind: ConfigurationKind) -> None:
        def decide(twin: Twin) -> Twin:
            return _composed(twin, known.targeting(kind, identity, document_of(identity, twin)), self._clock.micros())

        await self._logged(identity, partial(self._twins.set_configurations, hub, identity, decide))

    async def _evaluate_deployments(
        self, hub: Hub, device: Device, document: Mapping[str, Any], known: HubTargets
    ) -> None:
        """Apply the edge deployments that target a device to its modules; record their state last."""
        targeting = known.targeting(ConfigurationKind.DEPLOYMENT, device, document)
        twins = await self.module_twins(hub, device)
        if EDGE_AGENT not in twins or not (targeting or twins[EDGE_AGENT].configurations):
            return
        found = overlays.compose_deployment(twins, targeting)
        if found.modules is not None:
            await self._logged(device, partial(self.set_modules, hub, device, found.modules))
        names = (found.modules or frozenset()) - {EDGE_AGENT}
        for name in [*sorted(names & found.desired.keys()), EDGE_AGENT]:

            def decide(twin: Twin, name: str = name) -> Twin:
                made = overlays.compose_deployment(twins | {name: twin}, targeting)
                states = made.states if name == EDGE_AGENT else twin.configurations
                return overlays.with_composition(twin, made.desired.get(name), states, self._clock.micros())

            before = twins.get(name)
            if before is None or decide(before) is not before:
                await self._logged(device, partial(self._set_module, hub, name_of(device.device_id, name), decide))

    async def module_twins(self, hub: Hub, device: Device) -> dict[str, Twin]:
        """Return the twins of a device's modules, by module ID."""
        modules = await self._registry.modules.of(hub, device.device_id)
        return {one.module_id: await self._twins.get(hub, one.name) for one in modules}

    async def _set_module(self, hub: Hub, name: str, decide: Callable[[Twin], Twin]) -> None:
        await self._twins.set_configurations(hub, await self._registry.identity(hub, name), decide)

    async def set_modules(
        self, hub: Hub, device: Device, wanted: frozenset[str], *, is_complete: bool = True, actor: str = ACTOR
    ) -> None:
        """Create missing modules of an IoT Edge device; if `is_complete`, delete those of earlier deployments.

        Raise `TooManyModulesError`.
        """
        modules = self._registry.modules
        there = {one.module_id: one for one in await modules.of(hub, device.device_id)}
        for name in superseded(there.values(), wanted) if is_complete else ():
            await modules.remove(hub, device.device_id, name, None, actor=actor)
        for name in sorted(wanted - there.keys()):
            proof = DeviceAuthentication(AuthenticationType.SAS)
            await modules.put(device, name, proof, managed_by=_MANAGER, actor=actor)

    async def _logged(self, identity: Identity, work: Callable[[], Any]) -> None:
        """Do work on one device; its error must not stop the evaluation of others."""
        try:
            await work()
        except BirthmarkError as error:
            facts = {"hub": identity.hub, "device_id": identity.name, "code": error.code, "reason": str(error)}
            log.warning("configuration.not_applied", extra=facts)

    # ---- metrics and rollouts

    async def _measure(self, hub: Hub, configuration: Configuration) -> None:
        """Store the results of a configuration's metrics that clients read without running the query."""
        queries = dict(configuration.metrics)
        if configuration.kind is ConfigurationKind.DEPLOYMENT:
            system = rules.system_queries(configuration)
            queries |= {name: system[name] for name in rules.REPORTED_METRICS}
        results: dict[str, int] = {}
        for name, text in queries.items():
            with contextlib.suppress(BirthmarkError):  # such as a query that is too broad
                results[name] = await self._count(hub, text)
        if results == dict(configuration.results):
            return
        key: dict[str, Any] = {"key_hub": hub.name, "key_id": configuration.id, "key_etag": configuration.etag}
        await self._database.commit(
            Changes().run(store.SET_RESULTS, results=json.dumps(results, sort_keys=True), **key)
        )

    async def _count(self, hub: Hub, text: str) -> int:
        """Return the number of rows of a query."""
        marker: str | None = None
        count = 0
        for _ in range(_MAX_METRIC_PAGES):
            page = await self._queries.answer(hub, text, marker, MAX_PAGE, self._presence())
            count, marker = count + len(page.rows), page.marker
            if marker is None:
                break
            await asyncio.sleep(0)
        return count

    async def advance_rollouts(self) -> None:
        """Begin the next phase of each rollout whose interval is over, or stop it."""
        for row in await self._database.all(store.HUBS_WITH_CONFIGURATIONS):
            hub = self._hub(row["hub"])
            known = None if hub is None else await self.targets(hub)
            if hub is None or known is None:
                continue
            for targets in known.by_kind.values():
                for one in targets:
                    if is_phase_over(one.configuration, self._clock.now()):
                        await self._advance(hub, one.configuration, known.versions[one.configuration.id][1])

    async def _advance(self, hub: Hub, configuration: Configuration, as_read: str) -> None:
        state, rollout_plan = configuration.rollout, configuration.plan
        assert state is not None  # noqa: S101 - its phase is over
        assert rollout_plan is not None  # noqa: S101 - as above
        made = RolloutState(state.phase + 1, self._clock.now())
        if rollout_plan.stop_condition:
            applied, failed = await self._failed(hub, configuration, rollout_plan.stop_condition)
            if not applied:
                return  # an empty phase shows nothing; an operator may enter the next one
            if failed * 100 > applied * rollout_plan.stop_percent:
                stopped = f"{failed} of {applied} devices match the stop condition"
                made = RolloutState(state.phase, self._clock.now(), stopped)
        rollout = store.rollout_document(replace(configuration, rollout=made))
        key: dict[str, Any] = {"key_hub": hub.name, "key_id": configuration.id, "key_etag": configuration.etag}
        changes = Changes().run(
            store.SET_ROLLOUT,
            rollout=json.dumps(rollout, sort_keys=True),
            is_pending=1,
            key_rollout=as_read,
            **key,
        )
        await self._database.commit(changes.event(ConfigurationsChanged(hub.name)))

    async def _failed(self, hub: Hub, configuration: Configuration, text: str) -> tuple[int, int]:
        """Return the numbers of devices with the configuration, and of those that match its stop condition."""
        stop = rules.parse_target(configuration.id, ConfigurationKind.DEVICE, text)
        path = path_key(("configurations", configuration.id, "status"))
        assert path is not None  # noqa: S101 - an ID has no dots
        applied = failed = 0
        is_edge = configuration.kind is ConfigurationKind.DEPLOYMENT
        candidates = Edge() if is_edge else TwinsByTerm(path, (encode(STATUSES[0]),))
        async for batch in self._rested(self._scan(hub, candidates)):
            for match in batch:
                twin = match.twin()
                if is_edge:
                    twin = await self._twins.get(hub, name_of(match.key, EDGE_AGENT))
                if (known := twin.configurations.get(configuration.id)) is not None and known.is_applied:
                    applied += 1
                    failed += stop.matches(match.document(is_whole=True))
        return applied, failed

    # ---- inside

    async def targets(self, hub: Hub) -> HubTargets | None:
        """Return the hub's configurations as they are now; None if it has none, not even a deleted one."""
        rows = await self._database.all(store.VERSIONS_OF, hub=hub.name)
        if not rows:
            self._known.pop(hub.name, None)
            return None
        versions = {row["id"]: (row["etag"], row["rollout"]) for row in rows}
        known = self._known.get(hub.name)
        if known is None or known.versions != versions:
            rows = await self._database.all(store.CONFIGURATIONS_OF, hub=hub.name)
            versions = {row["id"]: (row["etag"], row["rollout"]) for row in rows}
            configurations = [store.configuration_of(row) for row in rows if not row["is_deleted"]]
            known = self._known[hub.name] = targets_of(configurations, versions)
        return known

    def _hub(self, name: str) -> Hub | None:
        return next((hub for hub in self._hubs.all() if hub.name == name), None)

    def _presence(self) -> DevicePresence:
        return self.presence.get() or _NoPresence()

    def _hear(self, events: Sequence[Any], _is_sure: bool) -> None:  # noqa: FBT001 - port signature
        if any(isinstance(event, ConfigurationsChanged) for _, event in events):
            self._work.set()


def superseded(modules: Iterable[Module], wanted: frozenset[str]) -> Sequence[str]:
    """Return the modules that earlier deployments created and a complete manifest no longer contains, by ID."""
    created = {one.module_id for one in modules if one.managed_by == _MANAGER}
    return sorted(created - wanted - {EDGE_AGENT, EDGE_HUB})


def is_phase_over(configuration: Configuration, now: datetime) -> bool:
    """Return whether the next phase of a rollout is due."""
    rollout_plan, state = configuration.plan, configuration.rollout
    if rollout_plan is None or state is None or state.stopped or state.phase + 1 >= len(rollout_plan.percents):
        return False
    return (now - state.entered_at).total_seconds() >= rollout_plan.interval_s


def document_of(identity: Identity, twin: Twin) -> dict[str, Any]:
    """Return a twin as conditions read it."""
    document = wire.twin_json(twin, identity, is_connected=False)
    reason = identity.status_reason if isinstance(identity, Device) else None
    return document if reason is None else {**document, "statusReason": reason}


def _composed(twin: Twin, targeting: Sequence[Configuration], at: int) -> Twin:
    found: Composition = overlays.compose(twin, targeting)
    return overlays.with_composition(twin, found.desired.get(""), found.states, at)
