"""What a configuration would change, and why one that targets a device is not applied; neither changes anything."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from birthmark.iothub.model import (
    Configuration,
    ConfigurationKind,
    Device,
    Hub,
    Identity,
    Twin,
    TwinConfiguration,
    name_of,
)
from birthmark.iothub.rules import configuration_overlays as overlays
from birthmark.iothub.rules import configurations as rules
from birthmark.iothub.rules.configuration_overlays import Composition
from birthmark.iothub.rules.configurations import EDGE_AGENT, EDGE_HUB, RuntimeResponse, runtime_response_of
from birthmark.iothub.service.configuration_evaluation import (
    ConfigurationEvaluation,
    HubTargets,
    document_of,
    superseded,
    targets_of,
)
from birthmark.iothub.service.registry import Registry
from birthmark.iothub.service.twins import Twins

NO_TARGETS = targets_of((), {})


@dataclass(frozen=True, slots=True)
class PathChange:
    """A change of one desired property; None is an absent value. `by` is the configuration that sets it, or empty."""

    path: str
    before: Any
    after: Any
    by: str


@dataclass(frozen=True, slots=True)
class DevicePreview:
    """What a configuration would do to a device or module."""

    name: str
    state: TwinConfiguration | None
    """State of the configuration; None if it would not target the twin any more."""
    reason: str
    """Why it would target the twin without being applied."""
    phase: int
    """Phase of the rollout that reaches the device, from 1."""
    changes: Sequence[PathChange]


@dataclass(frozen=True, slots=True)
class ConfigurationStatus:
    """A configuration that targets a device, and why it is not applied."""

    configuration: Configuration
    state: TwinConfiguration | None
    """State in the twin; None while a phased rollout has not reached the device."""
    reason: str


class ConfigurationPreview:
    """Previews and explanations for operators."""

    def __init__(self, evaluation: ConfigurationEvaluation, registry: Registry, twins: Twins) -> None:
        self._evaluation = evaluation
        self._registry = registry
        self._twins = twins

    async def preview(self, hub: Hub, configuration: Configuration) -> AsyncIterator[DevicePreview]:
        """Yield what a new or changed configuration would change, in all phases of its rollout."""
        known = await self._evaluation.targets(hub) or NO_TARGETS
        others = [
            one.configuration
            for targets in known.by_kind.values()
            for one in targets
            if one.configuration.id != configuration.id
        ]
        after = targets_of([*others, replace(configuration, rollout=None)], {})
        async for identity, twin in self._evaluation.candidates(hub, configuration):
            if (found := await self._preview(hub, identity, twin, configuration, after)) is not None:
                yield found

    async def explain(self, hub: Hub, device: Device) -> Sequence[ConfigurationStatus]:
        """Return the configurations that target a device and its modules; the highest priority first."""
        known = await self._evaluation.targets(hub) or NO_TARGETS
        twin = await self._twins.get(hub, device.device_id)
        document = document_of(device, twin)
        found = _statuses(
            known.targeting(ConfigurationKind.DEVICE, device, document), lambda some: overlays.compose(twin, some)
        )
        waiting = [*_waiting(known, ConfigurationKind.DEVICE, device, document)]
        if device.is_iot_edge:
            waiting += _waiting(known, ConfigurationKind.DEPLOYMENT, device, document)
            modules = await self._evaluation.module_twins(hub, device)
            targeting = known.targeting(ConfigurationKind.DEPLOYMENT, device, document)
            if EDGE_AGENT in modules:
                found += _statuses(targeting, lambda some: overlays.compose_deployment(modules, some))
        return [*found, *waiting]

    async def runtime_response(self, hub: Hub, device: Device) -> RuntimeResponse | None:
        """Return the state of an IoT Edge device's runtime, None if it has not reported one."""
        if not device.is_iot_edge:
            return None
        return runtime_response_of(await self._twins.get(hub, name_of(device.device_id, EDGE_AGENT)))

    async def _preview(
        self, hub: Hub, identity: Identity, twin: Twin, configuration: Configuration, after: HubTargets
    ) -> DevicePreview | None:
        kind, document = configuration.kind, document_of(identity, twin)
        targeting = after.targeting(kind, identity, document)
        if kind is ConfigurationKind.DEPLOYMENT:
            assert isinstance(identity, Device)  # noqa: S101 - only devices are candidates
            twins = await self._evaluation.module_twins(hub, identity)
            if EDGE_AGENT not in twins:
                return None
            found, recorded = overlays.compose_deployment(twins, targeting), twins[EDGE_AGENT]
        else:
            twins, recorded = {"": twin}, twin
            found = overlays.compose(twin, targeting)
        changes = list(_changes_of(twins, found))
        if found.modules is not None:
            modules = await self._registry.modules.of(hub, identity.device_id)
            changes += [
                PathChange(f"{name}: module", "present", "deleted", "") for name in superseded(modules, found.modules)
            ]
        if configuration.id not in found.states and configuration.id not in recorded.configurations and not changes:
            return None
        return DevicePreview(
            identity.name,
            found.states.get(configuration.id),
            found.reasons.get(configuration.id, ""),
            _phase_of(configuration, identity.device_id),
            changes,
        )


def _waiting(
    known: HubTargets, kind: ConfigurationKind, device: Device, document: Mapping[str, Any]
) -> Iterable[ConfigurationStatus]:
    """Yield the configurations whose condition matches a device that their rollout has not reached."""
    for one in known.by_kind[kind]:
        configuration = one.configuration
        if one.condition.matches(document) and not rules.is_in_phase(configuration, device.device_id):
            reason = f"phase {_phase_of(configuration, device.device_id)} of its rollout has not begun"
            if configuration.rollout is not None and configuration.rollout.stopped:
                reason = f"its rollout stopped: {configuration.rollout.stopped}"
            yield ConfigurationStatus(configuration, None, reason)


def _phase_of(configuration: Configuration, device_id: str) -> int:
    if configuration.plan is None:
        return 1
    share = rules.share_of(configuration.id, device_id)
    return next(number for number, most in enumerate(configuration.plan.percents, 1) if share < most)


def _statuses(targeting: Sequence[Configuration], compose: Any) -> list[ConfigurationStatus]:
    found: Composition = compose(targeting)
    ordered = reversed(overlays.by_priority(targeting))
    return [ConfigurationStatus(one, found.states[one.id], found.reasons.get(one.id, "")) for one in ordered]


def _changes_of(twins: Mapping[str, Twin], found: Composition) -> Iterable[PathChange]:
    owners = {
        (module, path): name
        for name, state in found.states.items()
        for module, paths in state.paths.items()
        for path in paths
    }
    for module, values in sorted(found.desired.items()):
        before = twins[module].desired.values if module in twins else {}
        for steps, was, now in _differences(before, values, ()):
            path = ".".join(steps)
            by = next((owners[module, one] for one in _prefixes(steps) if (module, one) in owners), "")
            yield PathChange(f"{module}: {path}" if module else path, was, now, by)
    for module in sorted((found.modules or frozenset()) - twins.keys() - {EDGE_AGENT, EDGE_HUB}):
        yield PathChange(f"{module}: module", None, "created", "")


def _prefixes(steps: tuple[str, ...]) -> Iterable[str]:
    """Return the path and those above it, the longest first; the last is all of the properties."""
    return (".".join(steps[:count]) for count in range(len(steps), -1, -1))


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], steps: tuple[str, ...]
) -> Iterable[tuple[tuple[str, ...], Any, Any]]:
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, (*steps, name))
        elif was != now or type(was) is not type(now):
            yield (*steps, name), was, now
