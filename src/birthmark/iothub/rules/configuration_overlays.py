"""Composition of the configurations that target a twin: whose value wins, and what is removed.

Device and module configurations merge by path; the highest priority wins. Of edge deployments, the base with the
highest priority applies, and every layered one above it. Source: "Understand IoT Edge automatic deployments".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from birthmark.documents import merged
from birthmark.iothub.model import Configuration, Twin, TwinConfiguration
from birthmark.iothub.rules.configurations import EDGE_AGENT, EDGE_HUB, is_layered
from birthmark.iothub.rules.digital_twins import merge_patch
from birthmark.iothub.rules.twins import TwinInvalidError, check_desired

OVERRIDDEN = "configurations with a higher priority set all of its paths"
NO_BASE = "no base deployment of a valid size targets the device"
BELOW_BASE = "the base deployment {base} has a higher priority"
INVALID = "the twin would not be valid: {detail}"
_MODULES = "modules"
Values = Mapping[str, Any]
Paths = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Composition:
    """Result for one twin, or for the modules of an IoT Edge device."""

    desired: Mapping[str, Values]
    """Desired properties by module; those of other modules stay as they are."""
    states: Mapping[str, TwinConfiguration]
    """State of each configuration that targets the twin, by ID."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a configuration targets the twin without being applied, by ID."""
    modules: frozenset[str] | None = None
    """Modules of an edge deployment; None if no deployment manages the modules."""


def by_priority(configurations: Iterable[Configuration]) -> Sequence[Configuration]:
    """Return configurations, the one that wins last: by priority, then by creation time."""
    return sorted(configurations, key=lambda one: (one.priority, one.created_at, one.id))


def compose(twin: Twin, targeting: Iterable[Configuration]) -> Composition:
    """Return the composition of the device or module configurations that target a twin."""
    ordered = by_priority(targeting)
    desired, chosen, reasons = _fit({"": twin}, ordered, tuple(reversed(ordered)), _paths_of(twin))
    states, winners = {}, _winners(chosen)
    for one in ordered:
        won = winners.get(one.id, {})
        states[one.id] = TwinConfiguration(bool(won), won)
        if not won:
            reasons.setdefault(one.id, OVERRIDDEN)
    return Composition(desired, states, reasons)


def compose_deployment(twins: Mapping[str, Twin], targeting: Iterable[Configuration]) -> Composition:
    """Return the composition of the edge deployments that target a device; `twins` are those of its modules, by ID.

    Without an applicable base deployment, the modules stay as they are.
    """
    ordered = by_priority(targeting)
    old = _paths_of(twins[EDGE_AGENT])
    reasons: dict[str, str] = {}
    for base in reversed([one for one in ordered if not is_layered(one)]):
        layers = [one for one in ordered[ordered.index(base) + 1 :] if is_layered(one)]
        desired, chosen, refused = _fit(twins, (base, *layers), (base, *reversed(layers)), old)
        reasons |= refused
        if base in chosen:
            winners = _winners(chosen)
            states = {one.id: TwinConfiguration(one.id in winners, winners.get(one.id, {})) for one in ordered}
            for one in ordered:
                if one.id not in winners:
                    reasons.setdefault(one.id, OVERRIDDEN if one in chosen else BELOW_BASE.format(base=base.id))
            return Composition(desired, states, reasons, _modules_of(chosen, desired))
    states = {one.id: TwinConfiguration(is_applied=False) for one in ordered}
    return Composition({}, states, dict.fromkeys(states, NO_BASE) | reasons)


def with_composition(twin: Twin, desired: Values | None, states: Mapping[str, TwinConfiguration], at: int) -> Twin:
    """Return the twin with composed desired properties, None for its own, and states; the same one if nothing changes.

    `at` is in microseconds since 1970.
    """
    patch = {} if desired is None else merge_patch(twin.desired.values, desired)
    if not patch and twin.configurations == dict(states):
        return twin
    section = merged(twin.desired, patch, at) if patch else twin.desired
    return msgspec.structs.replace(twin, desired=section, configurations=dict(states), version=twin.version + 1)


def _modules_of(chosen: Iterable[Configuration], desired: Mapping[str, Values]) -> frozenset[str]:
    """Return the modules of applied deployments: those with content, and those that the agent is to run."""
    declared = desired.get(EDGE_AGENT, {}).get(_MODULES)
    named = {name for one in chosen for name in one.content}
    return frozenset({EDGE_AGENT, EDGE_HUB, *named, *(declared if isinstance(declared, Mapping) else ())})


def _fit(
    twins: Mapping[str, Twin], ordered: Sequence[Configuration], importance: Sequence[Configuration], old: Paths
) -> tuple[Mapping[str, Values], Sequence[Configuration], dict[str, str]]:
    """Return desired properties by module, the configurations in them, and why others are not, by ID.

    If not all fit into valid twins together, the most important ones are taken first.
    """
    fits = 0  # number of the most important ones that fit
    too_many = len(importance) + 1
    chosen: Sequence[Configuration] = ()
    desired, reasons = _overlay(twins, chosen, old), dict[str, str]()
    attempt = len(importance)
    while attempt > fits:
        taken = {one.id for one in importance[:attempt]}
        more = tuple(one for one in ordered if one.id in taken)
        try:
            desired, chosen, fits = _overlay(twins, more, old), more, attempt
        except TwinInvalidError as error:
            too_many, detail = attempt, error.facts["detail"]
            reasons = {one.id: INVALID.format(detail=detail) for one in importance[attempt - 1 :]}
        attempt = (fits + too_many) // 2
    return desired, chosen, reasons


def _overlay(twins: Mapping[str, Twin], chosen: Sequence[Configuration], old: Paths) -> Mapping[str, Values]:
    """Return desired properties by module, without the old paths. Raise `TwinInvalidError`."""
    found: dict[str, Values] = {}
    for module in {*old, *(name for one in chosen for name in one.content)}:
        twin = twins.get(module)
        values: dict[str, Any] = {} if twin is None else _copied(twin.desired.values)
        for path in old.get(module, ()):
            _set(values, path, None)
        for one in chosen:
            content = one.content.get(module, {})
            for path in sorted(content):  # parents before children
                _set(values, path, content[path])
        if twin is not None and module not in {"", EDGE_AGENT, EDGE_HUB}:
            _keep_own(twin, values)
        if chosen:  # what an operator set is not checked
            check_desired(twin or Twin("", module), values)
        found[module] = values
    return found


def _keep_own(twin: Twin, values: dict[str, Any]) -> None:
    """Set the values of configurations of the module in those of a deployment.

    Otherwise, each evaluation would replace the values of the other one.
    """
    for path in _paths_of(twin).get("", ()):
        own: Any = twin.desired.values
        for step in path.split(".") if path else ():
            own = own.get(step) if isinstance(own, Mapping) else None
        _set(values, path, own)


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    """Set a value at a path, "" for all values; None removes it."""
    if not path:
        values.clear()
        if isinstance(value, Mapping):
            values.update(_copied(value))
        return
    *steps, last = path.split(".")
    inner = values
    for step in steps:
        found = inner.get(step)
        if not isinstance(found, dict):
            if value is None:
                return
            found = inner[step] = {}
        inner = found
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = _copied(value)


def _copied(value: Any) -> Any:
    """Return a copy of a value that shares no objects with it, without nulls."""
    if isinstance(value, Mapping):
        return {name: _copied(inner) for name, inner in value.items() if inner is not None}
    return value


def _winners(chosen: Sequence[Configuration]) -> dict[str, dict[str, list[str]]]:
    """Return the paths that each configuration sets and no later one sets again, by module."""
    found: dict[str, dict[str, list[str]]] = {}
    taken: dict[str, set[str]] = {}
    for one in reversed(chosen):
        for module, content in one.content.items():
            beaten = taken.setdefault(module, set())
            won = [path for path in content if beaten.isdisjoint(_prefixes(path))]
            if won:
                found.setdefault(one.id, {})[module] = sorted(won)
            beaten.update(content)
    return found


def _prefixes(path: str) -> Iterable[str]:
    """Return a path and all paths above it."""
    steps = path.split(".") if path else []
    return [".".join(steps[:count]) for count in range(len(steps) + 1)]


def _paths_of(twin: Twin) -> dict[str, list[str]]:
    """Return the paths that configurations set, by module, parents first."""
    found: dict[str, set[str]] = {}
    for state in twin.configurations.values():
        for module, paths in state.paths.items():
            found.setdefault(module, set()).update(paths)
    return {module: sorted(paths) for module, paths in found.items()}
