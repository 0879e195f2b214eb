"""Configurations and edge deployments of hubs.

A deleted one remains as a row, which nothing shows, until it is removed from the twins that it targeted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, literal_column, select

from birthmark.iothub.model import Configuration, ConfigurationKind, RolloutPlan, RolloutState
from birthmark.iothub.store import hubs
from birthmark.iothub.twin_index_store import terms
from birthmark.store import from_micros, insert, partial_index, statement, to_micros
from birthmark.store.database import Row
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_unchanged, remove


@dataclass(frozen=True, slots=True)
class StoredConfiguration:
    """Row of a configuration: `document` has what no statement reads."""

    hub: str
    id: str
    etag: str
    kind: ConfigurationKind
    document: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    results: Mapping[str, Any]
    rollout: Mapping[str, Any]
    is_pending: bool
    """Whether twins are still to be evaluated after the latest change."""
    is_deleted: bool


CONFIGURATIONS = RowMapper(StoredConfiguration)
configurations = CONFIGURATIONS.table("hub_configurations", "hub", "id")
_PENDING = configurations.c.is_pending == literal_column("1")
_SHOWN = configurations.c.is_deleted == literal_column("0")
partial_index("hub_configurations_pending", configurations.c.hub, configurations.c.id, condition=_PENDING)
ADD_CONFIGURATION = insert(configurations, ignore_existing=True)
REPLACE_CONFIGURATION = change(
    configurations, [one.name for one in configurations.columns if not one.primary_key], "hub", "id", "etag"
)
GET_CONFIGURATION = find(configurations)
CONFIGURATIONS_OF = find(configurations, "hub", order=configurations.c.id, limit=1000)
VERSIONS_OF = find(configurations, "hub", of=("id", "etag", "rollout"), limit=1000)
"""Etags and rollout progress of a hub's configurations: whatever changes one changes either."""
PENDING = find(configurations, _PENDING, of=("hub", "id"), limit=100)
HUBS_WITH_CONFIGURATIONS = statement(select(configurations.c.hub).distinct())
WITHDRAW_CONFIGURATION = change(configurations, ("is_deleted", "is_pending"), "hub", "id")
"""Delete a configuration, whatever its etag is."""
SET_EVALUATED = change(configurations, ("is_pending",), "hub", "id", "etag")
SET_RESULTS = change(configurations, ("results",), "hub", "id", "etag")
SET_ROLLOUT = change(configurations, ("rollout", "is_pending"), "hub", "id", "etag", "rollout")
REMOVE_CONFIGURATION = remove(configurations, "hub", "id", "etag", configurations.c.is_deleted == literal_column("1"))
REMOVE_CONFIGURATIONS_OF_HUB = remove(configurations, "hub")
_IS_DEPLOYMENT = configurations.c.kind == ConfigurationKind.DEPLOYMENT.value


def _room(of_kind: Any) -> Any:
    """Return a guard that limits the number of configurations of a kind."""
    count = select(func.count()).select_from(configurations).where(configurations.c.hub == hubs.c.name, _SHOWN, of_kind)
    return guard_unchanged(hubs, "name", count.correlate(hubs).scalar_subquery() < bindparam("most"))


HAS_CONFIGURATION_ROOM, HAS_DEPLOYMENT_ROOM = _room(~_IS_DEPLOYMENT), _room(_IS_DEPLOYMENT)
COUNT_STATUS = statement(
    select(func.count().label("count")).where(
        terms.c.place == bindparam("hub"), terms.c.path == bindparam("path"), terms.c.value == bindparam("value")
    )
)
"""Number of twins of a hub with a term."""


def stored_configuration(
    configuration: Configuration, *, is_pending: bool, is_deleted: bool = False
) -> StoredConfiguration:
    """Return the row value of a configuration."""
    one = configuration
    document = {
        "priority": one.priority,
        "condition": one.target_condition,
        "content": {name: dict(values) for name, values in one.content.items()},
        "labels": None if one.labels is None else dict(one.labels),
        "metrics": dict(one.metrics),
        "schema": one.schema_version,
    }
    return StoredConfiguration(
        one.hub,
        one.id,
        one.etag,
        one.kind,
        document,
        *(one.created_at, one.updated_at, dict(one.results), rollout_document(one), is_pending, is_deleted),
    )


def rollout_document(configuration: Configuration) -> Mapping[str, Any]:
    """Return the plan and the progress of a phased rollout; empty without one."""
    plan, state = configuration.plan, configuration.rollout
    if plan is None or state is None:
        return {}
    return {
        "percents": list(plan.percents),
        "interval_s": plan.interval_s,
        "stop_condition": plan.stop_condition,
        "stop_percent": plan.stop_percent,
        "phase": state.phase,
        "entered_at": to_micros(state.entered_at),
        "stopped": state.stopped,
    }


def configuration_of(row: Row) -> Configuration:
    """Return the configuration of a row."""
    known = CONFIGURATIONS.of(row)
    document, rollout = known.document, known.rollout
    plan = state = None
    if rollout:
        plan = RolloutPlan(
            tuple(rollout["percents"]), rollout["interval_s"], rollout["stop_condition"], rollout["stop_percent"]
        )
        state = RolloutState(rollout["phase"], from_micros(rollout["entered_at"]), rollout["stopped"])
    return Configuration(
        known.hub,
        known.id,
        known.etag,
        known.kind,
        document["priority"],
        document["condition"],
        document["content"],
        known.created_at,
        known.updated_at,
        labels=document["labels"],
        metrics=document["metrics"],
        schema_version=document["schema"],
        results=known.results,
        plan=plan,
        rollout=state,
    )
