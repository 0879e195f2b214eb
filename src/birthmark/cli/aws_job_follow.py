"""`birthmark aws job follow`: job progress, redrawn in place on a terminal, otherwise a line per change."""

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from birthmark.cli.aws_job import Job
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.server import ServerOutputOptions, at
from birthmark.cli.output.command_output import SOME_ROWS_REFUSED
from birthmark.untrusted_json_and_text import printable

_GOES_ON = ("SCHEDULED", "IN_PROGRESS")
_PENDING = ("QUEUED", "IN_PROGRESS")
_WELL = "SUCCEEDED"
_COLORS: Mapping[str, str] = {
    "QUEUED": "dim",
    "IN_PROGRESS": "cyan",
    _WELL: "green",
    "CANCELED": "yellow",
    "REMOVED": "yellow",
}
_BAD = "red"


def follow(
    server: ServerOutputOptions,
    job: Job,
    every: Annotated[
        float,
        typer.Option(
            parser=DurationParser(minimum=0.1, maximum=3600),
            metavar="DURATION",
            help="Polling interval, for example 1s.",
        ),
    ] = 1.0,
) -> None:
    """Follow a job's progress until it ends.

    A continuous job ends when it is canceled or times out.

    Exit code 7 if the job ended and did not succeed on every thing.
    """
    place = at("aws", "jobs", job)
    console = Console()
    is_drawn = console.is_terminal and not server.as_json
    told: dict[str, Any] = {}
    with Live(console=console, auto_refresh=False) if is_drawn else nullcontext() as live:
        while True:
            if (known := progress_fields(server.client.get(place))) != told:
                told = known
                if live is not None:
                    live.update(format_progress(known), refresh=True)
                else:
                    typer.echo(json.dumps(known) if server.as_json else line_of(known))
            if is_over(known):
                break
            time.sleep(every)
    if any(count for status, count in known["things"].items() if status != _WELL):
        raise typer.Exit(SOME_ROWS_REFUSED)


def progress_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a job that change during its rollout."""
    names = ("job", "status", "paused", "goes_out", "things", "comment")
    return {name: values[name] for name in names}


def is_over(values: Mapping[str, Any]) -> bool:
    """Return whether a job has no execution in progress or queued."""
    queued = values["things"].get("QUEUED", 0)  # cancelling the job removes these; started ones may run long
    return values["status"] not in _GOES_ON and not queued


def line_of(values: Mapping[str, Any]) -> str:
    """Format the state of a job as one line."""
    things = "  ".join(f"{status} {count}" for status, count in values["things"].items())
    return printable(f"{_title(values)}  {things or 'no executions yet'}")


def _title(values: Mapping[str, Any]) -> str:
    said = values["status"] if values["paused"] is None else f"{values['status']}, paused"
    more = (
        ", rollout continues"
        if values["goes_out"] and values["status"] in _GOES_ON and values["paused"] is None
        else ""
    )
    why = f" ({values['comment']})" if values["comment"] else ""
    return f"{values['job']}: {said}{more}{why}"


def format_progress(values: Mapping[str, Any]) -> Group:
    """Format the state of a job with a bar per status."""
    total = sum(values["things"].values())
    table = Table(box=None, show_header=False, padding=(0, 2))
    for status, count in values["things"].items():
        color = _COLORS.get(status, _BAD)
        bar = ProgressBar(max(total, 1), count, width=40, complete_style=color, finished_style=color)
        table.add_row(Text(status, style=color), bar, Text(str(count), justify="right"))
    ended = sum(count for status, count in values["things"].items() if status not in _PENDING)
    more = " so far; the rollout continues" if values["goes_out"] and values["status"] in _GOES_ON else ""
    return Group(
        Text(printable(_title(values)), style="bold"), table, Text(f"{ended} of {total} executions finished{more}")
    )
