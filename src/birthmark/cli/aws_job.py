"""`birthmark aws job`: jobs of things and their progress."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.input_files import read_text
from birthmark.cli.option_checks_and_confirmation import confirm
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.json_arguments import object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import say

_COLUMNS = ("job", "status", "paused", "selection", "description", "created")
_REASON_COLUMNS = ("things", "status", "details", "one")
_EXECUTION_COLUMNS = ("thing", "status", "number", "details", "updated")
Job = Annotated[str, typer.Argument(metavar="JOB", help="Job ID, as listed by `birthmark aws job ls`.")]
IsForced = Annotated[bool, typer.Option("--force", help="Cancel executions in progress as well.")]


class JobIs(StrEnum):
    """Status filter of jobs."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    CANCELED = "CANCELED"
    COMPLETED = "COMPLETED"


class ThingIs(StrEnum):
    """Status filter of job executions."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    REMOVED = "REMOVED"
    CANCELED = "CANCELED"


def list_jobs(
    server: ListOptions, status: Annotated[JobIs | None, typer.Option(help="Status of the jobs to list.")] = None
) -> None:
    """List the jobs."""
    asked = {} if status is None else {"status": status.value}
    server.show("aws", "jobs", columns=_COLUMNS, nothing="No jobs.", **asked)


def show_job(server: ServerOutputOptions, job: Job) -> None:
    """Show a job as JSON, with its document and progress."""
    typer.echo(json.dumps(server.client.get(at("aws", "jobs", job)), indent=None if server.as_json else 2))


def create_job(
    server: ServerOutputOptions,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Job ID: up to 64 letters, digits, _ and -.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File with the job document: JSON.")],
    thing: Annotated[list[str] | None, typer.Option(help="Target thing; may be repeated.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--thing-group", help="Target thing group; may be repeated.")
    ] = None,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Include things that join a target group later.")
    ] = False,
    description: Annotated[str | None, typer.Option(help="Description of the job.")] = None,
    rate: Annotated[int | None, typer.Option(min=1, max=1000, help="Maximum number of things per minute.")] = None,
    timeout: Annotated[
        int | None,
        typer.Option(
            parser=DurationParser("m", 1, 10080, is_whole=True),
            metavar="DURATION",
            help="Timeout for each thing, for example 30m. Default: none.",
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of ${aws:iot:parameter:NAME} in FILE; may be repeated."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="File with rollout, abort, timeout and retry settings: JSON, as at AWS."
        ),
    ] = None,
) -> None:
    """Create a job with the document in FILE."""
    if not (targets := [*(f"thing/{name}" for name in thing or ()), *(f"thinggroup/{name}" for name in group or ())]):
        raise typer.BadParameter("specify a target: --thing NAME or --thing-group NAME")
    known = {} if settings is None else _read(settings)[0]
    for option, given, name, value in (
        ("--rate", rate, "jobExecutionsRolloutConfig", {"maximumPerMinute": rate}),
        ("--timeout", timeout, "timeoutConfig", {"inProgressTimeoutInMinutes": timeout}),
    ):
        if given is None:
            continue
        if known.get(name):
            raise typer.BadParameter(f"{option} and {name} in {settings} set the same value: omit one")
        known[name] = value
    server.do(
        *("aws", "jobs"),
        job=job,
        document=_read(file)[1],
        targets=targets,
        continuous=continuous,
        description=description,
        settings=known,
        parameters=dict(map(_parameter, parameter or ())),
    )


def _parameter(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise typer.BadParameter("a parameter is NAME=VALUE")
    return name, value


def _read(file: Path) -> tuple[dict[str, object], str]:
    """Return the content of a JSON file, and its text."""
    text = read_text(file)
    return dict(object_of(text, f"the content of {file}") or {}), text


def cancel_job(server: RemoveOptions, job: Job, force: IsForced = False) -> None:
    """Cancel a job.

    Things that have not started the job do not run it.
    """
    what = "and stop it on things that have started it" if force else ""
    confirm(f"Cancel the job {job} for things that have not started it{what}?", yes=server.yes)
    server.do("aws", "jobs", job, "cancel", force=force)


def pause_job(server: ServerOutputOptions, job: Job) -> None:
    """Pause a job's rollout until it is resumed.

    Executions in progress continue. AWS itself has no such operation.
    """
    server.do("aws", "jobs", job, "pause")


def resume_job(server: ServerOutputOptions, job: Job) -> None:
    """Resume a paused job at its rollout rate."""
    server.do("aws", "jobs", job, "resume")


def why_failed(server: ListOptions, job: Job) -> None:
    """Show why a job failed, most frequent reason first.

    Each reported reason includes one affected thing.
    """
    server.show(*("aws", "jobs", job, "reasons"), columns=_REASON_COLUMNS, nothing="No failed executions.")


def remove_job(server: RemoveOptions, job: Job, force: IsForced = False) -> None:
    """Delete a finished job and its executions.

    A job in progress requires --force.
    """
    confirm(f"Remove the job {job} and its executions?", yes=server.yes)
    server.client.delete(at("aws", "jobs", job), force="true" if force else "false")
    say(server.as_json, {"removed": job}, f"Removed the job {job}.")


def executions(
    server: ListOptions,
    job: Job,
    status: Annotated[ThingIs | None, typer.Option(help="Status of the executions to list.")] = None,
) -> None:
    """List a job's executions and their status."""
    asked = {} if status is None else {"status": status.value}
    server.show(*("aws", "jobs", job, "executions"), columns=_EXECUTION_COLUMNS, nothing="No executions.", **asked)
