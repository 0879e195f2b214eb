"""`birthmark hub configuration`: automatic configurations and edge deployments of a hub."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.hub import DeviceArgument, HubOption
from birthmark.cli.input_files import read_text
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.json_arguments import object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at, show
from birthmark.cli.output.command_output import say

ConfigurationId = Annotated[
    str, typer.Argument(metavar="ID", help="Configuration ID: lowercase letters, digits and - + % _ * ! '.")
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="CONDITION",
        help="Condition on twins, such as tags.site = 'north'; * for all. Default: no device.",
    ),
]
Priority = Annotated[int | None, typer.Option(help="Priority; the highest number wins. Default: 0.")]
_COLUMNS = ("id", "kind", "priority", "condition", "targeted", "applied", "rollout")
_CONTENTS = ("deviceContent", "moduleContent", "modulesContent")
_INTERVAL = DurationParser(minimum=10, maximum=30 * 86400, is_whole=True)


@dataclass(frozen=True, slots=True)
class ContentOptions:
    """Content of a configuration."""

    desired: Annotated[
        str | None, typer.Option(metavar="JSON", help="Desired properties of devices, by path: '{\"fan.speed\": 3}'.")
    ] = None
    content: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with deviceContent, moduleContent or modulesContent, as for Azure."),
    ] = None

    def read(self) -> Mapping[str, Any] | None:
        """Return the content; None if none was given. Raise `typer.BadParameter`."""
        only(self.content is None, "without --content", desired=self.desired)
        if (desired := object_of(self.desired, "--desired")) is not None:
            if wrong := next((path for path in desired if path.startswith("properties.")), None):
                raise typer.BadParameter(f"--desired: leave out 'properties.desired.' of {wrong!r}")
            return {"deviceContent": {f"properties.desired.{path}": value for path, value in desired.items()}}
        if self.content is None:
            return None
        found = object_of(read_text(self.content), str(self.content)) or {}
        if isinstance(inner := found.get("content"), Mapping):
            found = dict(inner)
        if not any(name in found for name in _CONTENTS):
            raise typer.BadParameter(f"{self.content} has none of {', '.join(_CONTENTS)}")
        return found


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Labels and metrics of a configuration."""

    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Label; may be repeated.")] = None
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME=QUERY", help="Custom metric: a twin query; may be repeated.")
    ] = None

    def members(self) -> dict[str, Any]:
        """Return the members of the configuration that were given."""
        found: dict[str, Any] = {}
        if self.label is not None:
            found["labels"] = _pairs(self.label, "--label")
        if self.metric is not None:
            found["metrics"] = {"queries": _pairs(self.metric, "--metric")}
        return found


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """Phased rollout of a new configuration."""

    rollout: Annotated[
        str | None, typer.Option(metavar="PERCENT,…", help="Phases of the rollout, such as 5,25,100.")
    ] = None
    interval: Annotated[
        int | None, typer.Option(parser=_INTERVAL, metavar="DURATION", help="Time between phases. Default: 1h.")
    ] = None
    stop_if: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Condition on twins of failed devices; stops the rollout.")
    ] = None
    stop_percent: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Percentage of failed devices that the rollout tolerates. Default: 0."),
    ] = None

    def body(self) -> Mapping[str, Any] | None:
        """Return the rollout in the API's form. Raise `typer.BadParameter`."""
        only(self.rollout is not None, "with --rollout", interval=self.interval, stop_if=self.stop_if)
        only(self.stop_if is not None, "with --stop-if", stop_percent=self.stop_percent)
        if self.rollout is None:
            return None
        try:
            percents = [int(one) for one in self.rollout.split(",")]
        except ValueError as error:
            raise typer.BadParameter(f"--rollout {self.rollout!r} is not a list such as 5,25,100") from error
        return {
            "percents": percents,
            "interval_s": 3600 if self.interval is None else self.interval,
            "stop_condition": self.stop_if or "",
            "stop_percent": self.stop_percent or 0,
        }


def list_configurations(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List the configurations and edge deployments of a hub."""
    server.show("hubs", hub, "configurations", columns=_COLUMNS, nothing="No configurations.")


def show_configuration(server: ServerOutputOptions, name: ConfigurationId, hub: HubOption = "birthmark") -> None:
    """Show a configuration as JSON.

    With its content, metrics and rollout.
    """
    found = server.client.get(at("hubs", hub, "configurations", name))
    typer.echo(json.dumps(found, indent=None if server.as_json else 2))


def create_configuration(
    server: ServerOutputOptions,
    name: ConfigurationId,
    content: ContentOptions,
    labels: LabelOptions,
    rollout: RolloutOptions,
    target: Target = None,
    priority: Priority = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the planned changes without making them.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Create a configuration or edge deployment.

    The hub applies it to all devices that match the target condition, also to later ones.
    """
    found = content.read()
    if found is None:
        raise typer.BadParameter("a configuration needs --desired or --content")
    document = {"id": name, "content": found, **_targeting(target, priority), **labels.members()}
    body = {"configuration": document, "rollout": rollout.body()}
    if dry_run:
        _show_preview(server, hub, body | {"is_new": True})
        return
    made = server.client.post(at("hubs", hub, "configurations"), body)
    told = "" if target else " It has no target condition, so it targets no device."
    say(server.as_json, made, f"Created configuration {name}.{told}")


def change_configuration(
    server: ServerOutputOptions,
    name: ConfigurationId,
    labels: LabelOptions,
    target: Target = None,
    priority: Priority = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the planned changes without making them.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Change the target condition, priority, labels or metrics.

    The content of a configuration cannot change.
    """
    changes = _targeting(target, priority) | labels.members()
    if not changes:
        raise typer.BadParameter("nothing to change: specify --target, --priority, --label or --metric")
    present = server.client.get(at("hubs", hub, "configurations", name))
    kept = {member: present[member] for member in ("id", "targetCondition", "priority", "labels", "schemaVersion")}
    kept |= {"content": present["content"], "metrics": {"queries": present["metrics"]["queries"]}}
    document = kept | changes
    if dry_run:
        _show_preview(server, hub, {"configuration": document})
        return
    body = {"configuration": document, "etag": present["etag"]}
    made = server.client.put(at("hubs", hub, "configurations", name), body)
    say(server.as_json, made, f"Changed configuration {name}.")


def remove_configuration(server: RemoveOptions, name: ConfigurationId, hub: HubOption = "birthmark") -> None:
    """Delete a configuration.

    The hub removes the properties that it set. Modules of a deployment stay until another one applies.
    """
    server.remove("hubs", hub, "configurations", name, subject=f"the configuration {name}")


def roll_configuration(
    server: ServerOutputOptions,
    name: ConfigurationId,
    phase: Annotated[int | None, typer.Option(min=1, help="Phase to enter now. Default: the current one.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the rollout in its phase.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Resume a rollout, enter a phase, or stop it.

    Without options, a stopped rollout resumes.
    """
    made = server.client.post(at("hubs", hub, "configurations", name, "rollout"), {"phase": phase, "stopped": stop})
    state = made["rollout"]
    told = f"Configuration {name}: phase {state['phase']} of {len(state['percents'])}"
    say(server.as_json, made, f"{told}, stopped." if state["stopped"] else f"{told}.")


def explain_configurations(server: ListOptions, device: DeviceArgument, hub: HubOption = "birthmark") -> None:
    """List the configurations that target a device.

    With the reason for those that are not applied.
    """
    if "/" in device:
        raise typer.BadParameter(f"{device} is a module; name its device")
    columns = ("id", "kind", "priority", "status", "reason", "paths")
    rows = list(server.client.rows(at("hubs", hub, "devices", device, "configurations")))
    if not server.as_json:
        rows = [{**row, "paths": ", ".join(row["paths"])} for row in rows]
    server.show_rows(rows, columns, f"No configuration targets {device}.")


def _targeting(target: str | None, priority: int | None) -> dict[str, Any]:
    given = {"targetCondition": target, "priority": priority}
    return {name: value for name, value in given.items() if value is not None}


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise typer.BadParameter(f"{option} {text!r} is not NAME=VALUE")
        found[name] = value
    return found


def _show_preview(server: ServerOutputOptions, hub: str, body: Mapping[str, Any]) -> None:
    """Print one row per device and changed path."""
    answer = server.client.post(at("hubs", hub, "configuration-previews"), body)
    if server.as_json:
        show(answer["devices"], (), as_json=True, nothing="")
        return
    rows: list[dict[str, Any]] = []
    for device in answer["devices"]:
        shown = {"device": device["device"], "phase": device["phase"], "status": device["status"]}
        for change in device["changes"] or [{"path": "", "before": None, "after": None, "by": ""}]:
            values = {name: "" if change[name] is None else json.dumps(change[name]) for name in ("before", "after")}
            reason = device["reason"]
            rows.append({**shown, "path": change["path"], **values, "set by": change["by"], "reason": reason})
    columns = ("device", "phase", "status", "path", "before", "after", "set by", "reason")
    matching = "IoT Edge device" if "modulesContent" in body["configuration"]["content"] else "device"
    show(rows, columns, as_json=False, nothing=f"No {matching} matches the target condition.")
    if answer["count"] > len(answer["devices"]):
        typer.echo(f"{answer['count']} devices; the first {len(answer['devices'])} are shown.", err=True)
