"""`birthmark hub job`: scheduled jobs of a hub and their progress."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from birthmark.cli.hub import HubOption
from birthmark.cli.option_checks_and_confirmation import confirm, only
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.json_arguments import json_of, object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at, show
from birthmark.cli.output.command_output import emit

_COLUMNS = ("job", "type", "status", "devices", "succeeded", "failed", "start", "end")
HubJobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Job ID, as listed by `birthmark hub job ls`.")]


class HubJobIs(StrEnum):
    """Status filter of scheduled jobs."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


def list_jobs(
    server: ListOptions,
    status: Annotated[HubJobIs | None, typer.Option(help="Status of the jobs to list.")] = None,
    hub: HubOption = "birthmark",
) -> None:
    """List the scheduled jobs of a hub.

    The server deletes them 30 days after their end.
    """
    asked = {} if status is None else {"status": status.value}
    server.show("hubs", hub, "jobs", columns=_COLUMNS, nothing="No jobs.", **asked)


def show_job(server: ServerOutputOptions, job: HubJobArgument, hub: HubOption = "birthmark") -> None:
    """Show a scheduled job with its device counts, and each failed device with its reason."""
    known = server.client.get(at("hubs", hub, "jobs", job))
    failed = server.client.rows(at("hubs", hub, "jobs", job, "failed"))
    if server.as_json:
        emit(server.as_json, {**known, "failed": [*failed]})
        return
    typer.echo(json.dumps(known, indent=2))
    show(failed, ("device", "error", "reason"), as_json=False, nothing="No failed devices.")


def create_job(
    server: ServerOutputOptions,
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="Job ID: up to 128 printable ASCII characters, no spaces or slashes.")
    ],
    condition: Annotated[
        str, typer.Option("--where", help="Condition on device twins, as in a query after WHERE. Default: all devices.")
    ] = "*",
    method: Annotated[str | None, typer.Option(help="Direct method to call on each device.")] = None,
    payload: Annotated[str | None, typer.Option(help="Payload of the method: JSON. Default: null.")] = None,
    tags: Annotated[str | None, typer.Option(help="Tags to set in each twin: a JSON object.")] = None,
    desired: Annotated[str | None, typer.Option(help="Desired properties to set in each twin: a JSON object.")] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Start time, UTC without a zone: 2026-01-31T08:00:00Z. Default, and for past times: now."),
    ] = None,
    within: Annotated[
        int,
        typer.Option(
            parser=DurationParser(is_whole=True), metavar="DURATION", help="Time window from the start, such as 1h."
        ),
    ] = 3600,
    connect_timeout: Annotated[
        int | None,
        typer.Option(
            parser=DurationParser(is_whole=True),
            metavar="DURATION",
            help="Time for a device to connect, for the method: up to 300s. Default: 0s.",
        ),
    ] = None,
    hub: HubOption = "birthmark",
) -> None:
    """Call a method on many devices or update their twins, at once or at a time.

    The condition selects the devices when the job starts.
    """
    if method is None and tags is None and desired is None:
        raise typer.BadParameter("specify --method, or --tags or --desired")
    only(method is not None, "with --method", payload=payload, connect_timeout=connect_timeout)
    body: dict[str, Any] = {"job": job, "condition": condition, "max_s": within}
    if method is not None:
        body |= {
            "method": method,
            "payload": json_of(payload or "null", "--payload"),
            "connect_timeout_s": connect_timeout or 0,
        }
    body |= {
        name: object_of(text, f"--{name}") for name, text in (("tags", tags), ("desired", desired)) if text is not None
    }
    if start is not None:
        body["start"] = _time_of(start)
    emit(server.as_json, server.client.post(at("hubs", hub, "jobs"), body))


def _time_of(text: str) -> str:
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError as error:
        raise typer.BadParameter("--start is not a time such as 2026-01-31T08:00:00Z") from error


def cancel_job(server: RemoveOptions, job: HubJobArgument, hub: HubOption = "birthmark") -> None:
    """Cancel a scheduled job.

    Devices that have begun are not stopped.
    """
    confirm(f"Cancel the job {job} of hub {hub} for devices that have not begun?", yes=server.yes)
    server.do("hubs", hub, "jobs", job, "cancel")
