"""Operator API of hub configurations and edge deployments: with previews, explanations and phased rollouts."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.iothub.model import Configuration, Hub, RolloutPlan
from birthmark.iothub.rules import configurations as rules
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.configuration_preview import ConfigurationStatus, DevicePreview
from birthmark.iothub.wire.configurations import configuration_json, parse_configuration
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows

ALL_PATHS = "all desired properties"
MAX_PREVIEW = 1000
"""Maximum devices in a preview."""


class NewRollout(msgspec.Struct):
    """A phased rollout: shares of the devices in percent, the interval, and the condition that stops it."""

    percents: list[int]
    interval_s: int = 3600
    stop_condition: str = ""
    stop_percent: int = 0

    def plan(self) -> RolloutPlan:
        """Return the plan of the rollout."""
        return RolloutPlan(tuple(self.percents), self.interval_s, self.stop_condition, self.stop_percent)


class NewConfiguration(msgspec.Struct):
    """A configuration, as IoT Hub's REST interface defines it, with an optional phased rollout."""

    configuration: msgspec.Raw
    rollout: NewRollout | None = None


class ProposedConfiguration(NewConfiguration):
    """A configuration to preview: as for its creation; `is_new` rejects the ID of an existing one."""

    is_new: bool = False


class ConfigurationChange(msgspec.Struct):
    """A changed configuration; its content cannot change. `etag` is the expected one, or `*`."""

    configuration: msgspec.Raw
    etag: str = "*"


class RolloutChange(msgspec.Struct):
    """A phase of a rollout, from 1, and whether the rollout is stopped."""

    phase: int | None = None
    stopped: bool = False


def endpoints(iothub: IotHub) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub configuration`."""
    api = _ConfigurationHandlers(iothub)
    every, one, operate = "/hubs/{name}/configurations", "/hubs/{name}/configurations/{configuration}", Right.OPERATE
    previews, of_device = "/hubs/{name}/configuration-previews", "/hubs/{name}/devices/{device}/configurations"
    created, shown = "Create a configuration or edge deployment.", "Show what a configuration would change."
    return [
        Endpoint("GET", every, Right.READ, "List configurations and edge deployments.", api.list),
        Endpoint("POST", every, operate, created, api.create, NewConfiguration, status=201),
        Endpoint("POST", previews, operate, shown, api.preview, ProposedConfiguration, waits=True),
        Endpoint("GET", one, Right.READ, "Show a configuration.", api.show),
        Endpoint("PUT", one, operate, "Change a configuration.", api.update, ConfigurationChange),
        Endpoint("DELETE", one, operate, "Delete a configuration.", api.remove, status=204),
        Endpoint("POST", f"{one}/rollout", operate, "Set the phase of a rollout, or stop it.", api.roll, RolloutChange),
        Endpoint("GET", of_device, Right.READ, "List the configurations that target a device.", api.explain),
    ]


class _ConfigurationHandlers:
    def __init__(self, iothub: IotHub) -> None:
        self._iothub = iothub
        self._configurations = iothub.configurations

    def _hub(self, request: ApiRequest) -> Hub:
        return self._iothub.hubs.by_name(request["name"])

    async def _document(self, configuration: Configuration) -> dict[str, Any]:
        counts = await self._configurations.counts(configuration)
        return configuration_json(configuration, rules.system_queries(configuration), counts) | _rollout(configuration)

    async def list(self, request: ApiRequest) -> Rows:
        found = await self._configurations.all(self._hub(request))
        return Rows([_row(one, await self._configurations.counts(one)) for one in found])

    async def show(self, request: ApiRequest) -> Any:
        return await self._document(await self._configurations.get(self._hub(request), request["configuration"]))

    async def create(self, request: ApiRequest) -> Any:
        wanted = parse_configuration(bytes(request.body.configuration))
        plan = None if request.body.rollout is None else request.body.rollout.plan()
        made = await self._configurations.create(
            self._hub(request), wanted.id or "", wanted, plan=plan, actor=request.actor
        )
        return await self._document(made)

    async def update(self, request: ApiRequest) -> Any:
        wanted = parse_configuration(bytes(request.body.configuration))
        made = await self._configurations.update(
            self._hub(request), request["configuration"], wanted, request.body.etag, actor=request.actor
        )
        return await self._document(made)

    async def remove(self, request: ApiRequest) -> None:
        await self._configurations.delete(self._hub(request), request["configuration"], None, actor=request.actor)

    async def roll(self, request: ApiRequest) -> Any:
        body = request.body
        phase = None if body.phase is None else body.phase - 1
        made = await self._configurations.set_rollout(
            self._hub(request), request["configuration"], phase, is_stopped=body.stopped, actor=request.actor
        )
        return await self._document(made)

    async def preview(self, request: ApiRequest) -> Any:
        hub = self._hub(request)
        wanted = parse_configuration(bytes(request.body.configuration))
        plan = None if request.body.rollout is None else request.body.rollout.plan()
        proposed = await self._configurations.proposed(hub, wanted.id or "", wanted, plan, is_new=request.body.is_new)
        rows: list[dict[str, Any]] = []
        count = 0
        async for one in self._iothub.previews.preview(hub, proposed):
            count += 1
            if len(rows) < MAX_PREVIEW:
                rows.append(_preview_row(one))
        return {"devices": rows, "count": count}

    async def explain(self, request: ApiRequest) -> Rows:
        hub = self._hub(request)
        device = await self._iothub.registry.device(hub, request["device"])
        return Rows([_status_row(one) for one in await self._iothub.previews.explain(hub, device)])


def _row(configuration: Configuration, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": configuration.id,
        "kind": configuration.kind.value,
        "priority": configuration.priority,
        "condition": configuration.target_condition,
        "targeted": counts["targetedCount"],
        "applied": counts["appliedCount"],
        "rollout": _progress(configuration),
        "created": configuration.created_at.isoformat(),
    }


def _progress(configuration: Configuration) -> str:
    plan, state = configuration.plan, configuration.rollout
    if plan is None or state is None:
        return ""
    shown = f"{plan.percents[state.phase]} %, phase {state.phase + 1} of {len(plan.percents)}"
    return f"{shown}, stopped: {state.stopped}" if state.stopped else shown


def _rollout(configuration: Configuration) -> dict[str, Any]:
    plan, state = configuration.plan, configuration.rollout
    if plan is None or state is None:
        return {}
    return {
        "rollout": {
            "percents": list(plan.percents),
            "interval_s": plan.interval_s,
            "stop_condition": plan.stop_condition,
            "stop_percent": plan.stop_percent,
            "phase": state.phase + 1,
            "entered": state.entered_at.isoformat(),
            "stopped": state.stopped,
        }
    }


def _preview_row(preview: DevicePreview) -> dict[str, Any]:
    changes = [{"path": one.path, "before": one.before, "after": one.after, "by": one.by} for one in preview.changes]
    status = "Not targeted" if preview.state is None else preview.state.status
    return {
        "device": preview.name,
        "status": status,
        "reason": preview.reason,
        "phase": preview.phase,
        "changes": changes,
    }


def _status_row(status: ConfigurationStatus) -> dict[str, Any]:
    one = status.configuration
    set_paths = {} if status.state is None else status.state.paths
    paths = [
        ": ".join(part for part in (module, path or ALL_PATHS) if part)
        for module, some in set_paths.items()
        for path in some
    ]
    return {
        "id": one.id,
        "kind": one.kind.value,
        "priority": one.priority,
        "status": "Waiting" if status.state is None else status.state.status,
        "reason": status.reason,
        "paths": paths,
    }
