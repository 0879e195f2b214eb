"""JSON of configurations and edge deployments (IoT Hub REST reference, "Configuration")."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from birthmark.iothub.model import Configuration, ConfigurationKind
from birthmark.iothub.wire.times_and_body_validation import BodyInvalidError, check_members, registry_time
from birthmark.untrusted_json_and_text import read_json

DESIRED_PATH = "properties.desired"
_READ_ONLY = frozenset({"etag", "createdTimeUtc", "lastUpdatedTimeUtc", "systemMetrics", "metrics.results"})
Contents = Mapping[str, Mapping[str, Any]]


class _Content(msgspec.Struct, rename="camel"):
    """Content of a configuration: one of the three."""

    device_content: dict[str, Any] | None = None
    module_content: dict[str, Any] | None = None
    modules_content: dict[str, dict[str, Any]] | None = None


class _Metrics(msgspec.Struct):
    """Custom metrics in a request."""

    queries: dict[str, str] | None = None


class _ConfigurationBody(msgspec.Struct, rename="camel"):
    """A configuration in a request."""

    id: str | None = None
    schema_version: str | None = None
    labels: dict[str, str | None] | None = None
    content: _Content | None = None
    target_condition: str | None = None
    priority: int | None = None
    metrics: _Metrics | None = None


@dataclass(frozen=True, slots=True)
class ConfigurationRequest:
    """A configuration as a client sends it; see `Configuration`."""

    id: str | None
    kind: ConfigurationKind | None
    content: Contents
    target_condition: str
    priority: int
    labels: Mapping[str, str] | None
    metrics: Mapping[str, str]
    schema_version: str | None


def parse_configuration(body: bytes) -> ConfigurationRequest:
    """Return the configuration of a request; `kind` is None without content. Raise `BodyInvalidError`."""
    said = read_json(body, _ConfigurationBody, BodyInvalidError)
    check_members(body, _ConfigurationBody, _READ_ONLY)
    kind, content = _content_of(said.content or _Content())
    labels = None if said.labels is None else {name: value or "" for name, value in said.labels.items()}
    return ConfigurationRequest(
        said.id,
        kind,
        content,
        said.target_condition or "",
        said.priority or 0,
        labels,
        {} if said.metrics is None else said.metrics.queries or {},
        said.schema_version,
    )


def _content_of(content: _Content) -> tuple[ConfigurationKind | None, Contents]:
    found: list[tuple[ConfigurationKind, Contents]] = []
    if content.device_content is not None:
        found.append((ConfigurationKind.DEVICE, {"": _relative(content.device_content)}))
    if content.module_content is not None:
        found.append((ConfigurationKind.MODULE, {"": _relative(content.module_content)}))
    if content.modules_content is not None:
        by_module = {name: _relative(one) for name, one in content.modules_content.items()}
        found.append((ConfigurationKind.DEPLOYMENT, by_module))
    if len(found) > 1:
        raise BodyInvalidError(detail="content has more than one of deviceContent, moduleContent and modulesContent")
    return found[0] if found else (None, {})


def _relative(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return content with paths relative to the desired properties. Raise `BodyInvalidError`."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        head, rest = path[: len(DESIRED_PATH)], path[len(DESIRED_PATH) :]
        if head != DESIRED_PATH or (rest and not rest.startswith(".")) or rest == ".":
            raise BodyInvalidError(detail=f"content has the path {path[:100]!r}, which is not below {DESIRED_PATH}")
        found[rest[1:]] = value
    return found


def content_json(kind: ConfigurationKind, content: Contents) -> dict[str, Any]:
    """Return the content of a configuration as the service sees it."""
    shown = {
        name: {f"{DESIRED_PATH}.{path}" if path else DESIRED_PATH: value for path, value in values.items()}
        for name, values in content.items()
    }
    match kind:
        case ConfigurationKind.DEVICE:
            return {"deviceContent": shown[""]}
        case ConfigurationKind.MODULE:
            return {"moduleContent": shown[""]}
        case ConfigurationKind.DEPLOYMENT:
            return {"modulesContent": shown}


def configuration_json(
    configuration: Configuration, system_queries: Mapping[str, str], system_results: Mapping[str, int]
) -> dict[str, Any]:
    """Return a configuration as the service sees it, with its system metrics."""
    custom = {name: configuration.results[name] for name in configuration.metrics if name in configuration.results}
    return {
        "id": configuration.id,
        "schemaVersion": configuration.schema_version,
        "labels": None if configuration.labels is None else dict(configuration.labels),
        "content": content_json(configuration.kind, configuration.content),
        "targetCondition": configuration.target_condition,
        "createdTimeUtc": registry_time(configuration.created_at),
        "lastUpdatedTimeUtc": registry_time(configuration.updated_at),
        "priority": configuration.priority,
        "systemMetrics": {"results": dict(system_results), "queries": dict(system_queries)},
        "metrics": {"results": custom, "queries": dict(configuration.metrics)},
        "etag": configuration.etag,
    }


class _TestQueries(msgspec.Struct, rename="camel"):
    target_condition: str | None = None
    custom_metric_queries: dict[str, str] | None = None


def parse_test_queries(body: bytes) -> tuple[str, Mapping[str, str]]:
    """Return the target condition and the custom metric queries to be tested. Raise `BodyInvalidError`."""
    said = read_json(body, _TestQueries, BodyInvalidError)
    check_members(body, _TestQueries)
    return said.target_condition or "", said.custom_metric_queries or {}
