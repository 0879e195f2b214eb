"""Checks of configurations, and the twins that they target.

Source: "Automatic device and module management", "Understand IoT Edge automatic deployments".
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from birthmark.documents import DocumentProblem, check
from birthmark.documents.queries import Condition, DocumentQuery, paths_in
from birthmark.documents.query_evaluator import fits
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError
from birthmark.iothub.model import MAX_MODULES, Configuration, ConfigurationKind, RolloutPlan, Twin, is_device_id
from birthmark.iothub.rules.twin_query_plans import (
    DEVICES,
    MODULES,
    CollectionNotServedError,
    HubQueryInvalidError,
    read_query,
)
from birthmark.iothub.rules.twins import PROPERTIES
from birthmark.iothub.wire.configurations import DESIRED_PATH, ConfigurationRequest

EDGE_AGENT, EDGE_HUB = "$edgeAgent", "$edgeHub"
MAX_CONFIGURATIONS, MAX_FREE_CONFIGURATIONS = 100, 20
"""Maximum configurations per hub, and per hub of the free tier ("IoT Hub quotas and throttling")."""
MAX_DEPLOYMENTS, MAX_FREE_DEPLOYMENTS = 100, 10
"""Maximum edge deployments per hub, and per hub of the free tier."""
MAX_PATHS = 200
"""Maximum paths in the content of a configuration."""
MAX_PATH_CHARS = 8192
"""Maximum length of all paths of a configuration together: twins record the paths that a configuration sets."""
MAX_METRICS = 5
"""Maximum custom metrics per configuration."""
MAX_CONDITION = 4096
"""Maximum length of a target condition or metric query in characters."""
MAX_LABELS, MAX_LABEL = 100, 512
"""Maximum labels of a configuration, and length of a label in characters."""
MAX_PRIORITY = 2**31 - 1
_ID = re.compile(r"[a-z0-9\-+%_*!']{1,128}")
_SCHEMAS = frozenset({None, "1.0", "2.0"})
_MODULES_PREFIX = re.compile(r"\s*from\s+devices\.modules\s+where\s+", re.IGNORECASE)
_CHANGING = frozenset({"connectionState", "lastActivityTime", "cloudToDeviceMessageCount"})
"""Fields that change without a change of the twin, so that no condition on them can be kept up to date."""
REPORTED_METRICS = ("reportedSuccessfulCount", "reportedFailedCount")
"""System metrics of edge deployments whose results are measured periodically."""
MAX_PHASES, MIN_INTERVAL_S, MAX_INTERVAL_S = 10, 10, 30 * 86400
"""Limits of a phased rollout."""
_PERCENT = 100
_SHARES = 10_000
_OF_TARGET = "the target condition: "
_EVERY, _NO_DEVICE = "*", "is_null(deviceId)"


class ConfigurationInvalidError(InvalidRequestError):
    """The configuration is not valid."""

    code = "iothub.configuration_invalid"
    message = "The configuration is not valid: {detail}"
    cause = "Configuration {configuration_id} is not valid: {detail}."
    fix = "Correct the configuration and send it again. To compare existing ones: `birthmark hub configuration ls`"
    configuration_id: str
    detail: str


class UnknownConfigurationError(NotFoundError):
    """The hub has no such configuration."""

    code = "iothub.unknown_configuration"
    message = "Configuration {configuration_id} does not exist in hub {hub}"
    cause = "Hub {hub} has no configuration or edge deployment {configuration_id}."
    fix = "List configurations: `birthmark hub configuration ls --hub {hub}`"
    configuration_id: str
    hub: str


class ConfigurationExistsError(ConflictError):
    """The configuration exists already."""

    code = "iothub.configuration_exists"
    message = "Configuration {configuration_id} already exists"
    cause = "Hub {hub} already has a configuration or edge deployment {configuration_id}."
    fix = (
        "Choose another ID, or change the existing one with the command configuration set, or with If-Match. Show it: "
        "`birthmark hub configuration show {configuration_id} --hub {hub}`"
    )
    configuration_id: str
    hub: str


class ConfigurationEtagError(ConflictError):
    """The configuration has changed since it was read."""

    code = "iothub.configuration_etag"
    cause = "Configuration {configuration_id} has changed since the etag {etag} was read."
    fix = (
        "Read the configuration again and repeat the change, or send If-Match: *. Show it: `birthmark hub "
        "configuration show {configuration_id} --hub {hub}`"
    )
    configuration_id: str
    etag: str
    hub: str


class TooManyConfigurationsError(PolicyError):
    """The hub has the maximum number of configurations."""

    code = "iothub.too_many_configurations"
    message = "Hub {hub} has the maximum of {limit} {kind}"
    cause = "Hub {hub} has {limit} {kind}, the maximum of its tier."
    fix = "Delete an unused one. List configurations: `birthmark hub configuration ls --hub {hub}`"
    hub: str
    kind: str
    limit: int


def check_id(text: str) -> str:
    """Return the ID of a new configuration. Raise `ConfigurationInvalidError`."""
    if _ID.fullmatch(text) is None:
        detail = "an ID consists of 1 to 128 lowercase letters, digits and - + % _ * ! '"
        raise ConfigurationInvalidError(configuration_id=text[:128], detail=detail)
    return text


def check_request(configuration_id: str, request: ConfigurationRequest) -> None:
    """Check everything but the ID and the existence of content. Raise `ConfigurationInvalidError`."""

    def refuse(detail: str) -> ConfigurationInvalidError:
        return ConfigurationInvalidError(configuration_id=configuration_id, detail=detail)

    if request.id not in {None, configuration_id}:
        raise refuse("the ID differs from the one in the path")
    if not 0 <= request.priority <= MAX_PRIORITY:
        raise refuse(f"the priority {request.priority} is not in 0..{MAX_PRIORITY}")
    if request.schema_version not in _SCHEMAS:
        raise refuse(f"the schema version {str(request.schema_version)[:20]!r} is not 1.0 or 2.0")
    labels = request.labels or {}
    if len(labels) > MAX_LABELS or any(len(one) > MAX_LABEL for pair in labels.items() for one in pair):
        raise refuse(f"it has more than {MAX_LABELS} labels, or one of more than {MAX_LABEL} characters")
    if len(request.metrics) > MAX_METRICS:
        raise refuse(f"it has more than {MAX_METRICS} custom metrics")
    if request.kind is not None:
        _check_content(request.kind, request.content, refuse)
        parse_target(configuration_id, request.kind, request.target_condition)
    for name, query in request.metrics.items():
        if (problem := metric_problem(query)) is not None:
            raise refuse(f"custom metric {name[:100]!r}: {problem}")


def _check_content(kind: ConfigurationKind, content: Mapping[str, Mapping[str, Any]], refuse: Any) -> None:
    if not any(content.values()):
        raise refuse("the content is empty")
    if sum(map(len, content.values())) > MAX_PATHS:
        raise refuse(f"its content has more than {MAX_PATHS} paths")
    if sum(len(path) for paths in content.values() for path in paths) > MAX_PATH_CHARS:
        raise refuse(f"the paths of its content have more than {MAX_PATH_CHARS} characters in total")
    if len(content) > MAX_MODULES:
        raise refuse(f"it has content for more than {MAX_MODULES} modules")
    for module, values in content.items():
        if kind is not ConfigurationKind.DEPLOYMENT and (pair := _overlap(values)) is not None:
            raise refuse("the paths {!r} and {!r} of its content overlap".format(*pair))
        at = f"{module[:128]}: " if kind is ConfigurationKind.DEPLOYMENT else ""
        if kind is ConfigurationKind.DEPLOYMENT and not is_device_id(module):
            raise refuse(f"{module[:128]!r} is not a module ID")
        for path, value in values.items():
            try:
                check(_nested(path, value), PROPERTIES, path=f"{at}{DESIRED_PATH}")
            except DocumentProblem as problem:
                raise refuse(str(problem)) from problem


def _nested(path: str, value: Any) -> Any:
    """Return the desired properties in which a path has a value."""
    for step in reversed(path.split(".") if path else []):
        value = {step: value}
    return {} if value is None else value


def _overlap(paths: Iterable[str]) -> tuple[str, str] | None:
    """Return a path and another one below it; None if there are none."""
    known = set(paths)
    for path in sorted(known):
        steps = path.split(".")
        above = [".".join(steps[:count]) for count in range(len(steps))] if path else []
        if (found := next((one for one in above if one in known), None)) is not None:
            return found, path
    return None


@dataclass(frozen=True, slots=True)
class TargetCondition:
    """Parsed target condition: None for all twins of the kind; `is_empty` targets none."""

    condition: Condition | None
    is_empty: bool = False

    def matches(self, document: Mapping[str, Any]) -> bool:
        """Return whether a twin, as the service sees it, is targeted."""
        return not self.is_empty and fits(self.condition, document)


def parse_target(configuration_id: str, kind: ConfigurationKind, text: str) -> TargetCondition:
    """Return the target condition of a configuration. Raise `ConfigurationInvalidError`."""
    bare = text.strip()
    if not bare:
        return TargetCondition(None, is_empty=True)
    if bare == _EVERY and kind is not ConfigurationKind.MODULE:
        return TargetCondition(None)
    try:
        return TargetCondition(_condition_of(kind, text))
    except _TargetProblem as problem:
        raise ConfigurationInvalidError(configuration_id=configuration_id, detail=f"{_OF_TARGET}{problem}") from problem


class _TargetProblem(Exception):  # noqa: N818 - base of the error
    """The target condition is not valid."""


def _condition_of(kind: ConfigurationKind, text: str) -> Condition | None:
    if len(text) > MAX_CONDITION:
        raise _TargetProblem(f"it is longer than {MAX_CONDITION} characters")
    collection, rest = DEVICES, text
    if kind is ConfigurationKind.MODULE:
        found = _MODULES_PREFIX.match(text)
        if found is None:
            raise _TargetProblem("that of module content begins with 'from devices.modules where'")
        collection, rest = MODULES, text[found.end() :]
    try:
        before = f"SELECT * FROM {collection} WHERE "  # noqa: S608 - the hub's query language
        query = read_query(f"{before}{rest}", len(before) - (len(text) - len(rest)))
    except (HubQueryInvalidError, CollectionNotServedError) as error:
        raise _TargetProblem(str(error.facts.get("detail", error))) from error
    if query.group_by or query.where is None or query.collection != collection:
        raise _TargetProblem("it is not a condition")
    return _lasting(query)


def _lasting(query: DocumentQuery) -> Condition | None:
    if query.where is not None:
        for path in paths_in(query.where):
            if path.steps[0] in _CHANGING:
                raise _TargetProblem(f"{path.steps[0]} is not in the stored twin; use tags or reported properties")
    return query.where


def target_problem(kind: ConfigurationKind, text: str) -> str | None:
    """Return what is wrong with a target condition; None if it is valid."""
    try:
        parse_target("", kind, text)
    except ConfigurationInvalidError as error:
        return str(error.facts["detail"]).removeprefix(_OF_TARGET)
    return None


def metric_problem(text: str) -> str | None:
    """Return what is wrong with a metric query; None if it is valid."""
    if len(text) > MAX_CONDITION:
        return f"the query is longer than {MAX_CONDITION} characters"
    try:
        read_query(text)
    except (HubQueryInvalidError, CollectionNotServedError) as error:
        return str(error.facts.get("detail", error))
    return None


def check_plan(configuration_id: str, plan: RolloutPlan) -> None:
    """Check the plan of a phased rollout. Raise `ConfigurationInvalidError`."""

    def refuse(detail: str) -> ConfigurationInvalidError:
        return ConfigurationInvalidError(configuration_id=configuration_id, detail=detail)

    percents = plan.percents
    is_rising = all(before < after for before, after in zip((0, *percents), percents, strict=False))
    if not percents or len(percents) > MAX_PHASES or not is_rising or percents[-1] != _PERCENT:
        raise refuse(f"the phases of a rollout are 1 to {MAX_PHASES} rising percentages that end with 100")
    if not MIN_INTERVAL_S <= plan.interval_s <= MAX_INTERVAL_S:
        raise refuse(f"the interval of a rollout is {MIN_INTERVAL_S} to {MAX_INTERVAL_S} seconds")
    if not 0 <= plan.stop_percent <= _PERCENT:
        raise refuse("the stop percentage is not in 0..100")
    if plan.stop_condition and (problem := target_problem(ConfigurationKind.DEVICE, plan.stop_condition)) is not None:
        raise refuse(f"the stop condition: {problem}")


def modules_of_content(content: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Return the modules of an edge deployment as a client sends it: those with content, and those to be run."""
    declared: set[str] = set()
    for path, value in content.get(EDGE_AGENT, {}).items():
        found = value.get("modules") if path == DESIRED_PATH and isinstance(value, Mapping) else None
        declared |= set(found) if isinstance(found, Mapping) else set()
        if path.startswith(f"{DESIRED_PATH}.modules."):
            declared.add(path.removeprefix(f"{DESIRED_PATH}.modules.").partition(".")[0])
    return frozenset({EDGE_AGENT, EDGE_HUB, *content, *declared})


def is_layered(configuration: Configuration) -> bool:
    """Return whether an edge deployment is layered: without all desired properties of the IoT Edge agent."""
    return "" not in configuration.content.get(EDGE_AGENT, {})


def share_of(configuration_id: str, device_id: str) -> float:
    """Return the position of a device in the phases of a rollout, from 0 to below 100."""
    digest = hashlib.sha256(f"{configuration_id}/{device_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % _SHARES / (_SHARES / 100)


def is_in_phase(configuration: Configuration, device_id: str) -> bool:
    """Return whether the rollout of a configuration has reached a device."""
    if configuration.plan is None or configuration.rollout is None:
        return True
    return share_of(configuration.id, device_id) < configuration.plan.percents[configuration.rollout.phase]


class RuntimeResponse(NamedTuple):
    """State of an IoT Edge runtime, as the Azure portal shows it."""

    code: int
    description: str


_NOT_SET = RuntimeResponse(417, "The device's deployment configuration is not set")


def runtime_response_of(agent: Twin) -> RuntimeResponse | None:
    """Return what the IoT Edge agent reported last; 417 without a deployment, None if it has not reported."""
    if not agent.desired.values:
        return _NOT_SET
    found = agent.reported.values.get("lastDesiredStatus")
    code = found.get("code") if isinstance(found, Mapping) else None
    if not isinstance(code, int | float) or not isinstance(found, Mapping):
        return None
    return RuntimeResponse(int(code), str(found.get("description") or ""))


def system_queries(configuration: Configuration) -> Mapping[str, str]:
    """Return the queries of a configuration's system metrics, by name; clients run them."""
    bare = configuration.target_condition.strip()
    applied = f"configurations.[[{configuration.id}]].status = 'Applied'"
    devices, modules = "select deviceId from devices", "select deviceId, moduleId from devices.modules"
    match configuration.kind:
        case ConfigurationKind.DEVICE:
            condition = "" if bare == _EVERY else f" where {bare or _NO_DEVICE}"
            return {"targetedCount": f"{devices}{condition}", "appliedCount": f"{devices} where {applied}"}
        case ConfigurationKind.MODULE:
            targeted = f"select deviceId, moduleId {bare}" if bare else f"{modules} where {_NO_DEVICE}"
            return {"targetedCount": targeted, "appliedCount": f"{modules} where {applied}"}
        case ConfigurationKind.DEPLOYMENT:
            condition = "" if bare == _EVERY else f" and ({bare or _NO_DEVICE})"
            of_agent = f"{devices}.modules where moduleId = '{EDGE_AGENT}' and {applied}"
            reported = "properties.reported.lastDesired"
            current = f"{of_agent} and properties.desired.$version = {reported}Version and {reported}Status.code"
            results = (f"{devices} where capabilities.iotEdge = true{condition}", of_agent)
            named = zip(("targetedCount", "appliedCount"), results, strict=True)
            return {
                **dict(named),
                **dict(zip(REPORTED_METRICS, (f"{current} = 200", f"{current} != 200"), strict=True)),
            }
