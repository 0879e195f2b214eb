"""`birthmark aws job follow`: a job as it goes out, drawn in place on a terminal, and else a line for each change."""

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

from birthmark.cli.aws_jobs import Job
from birthmark.cli.common import SOME_ROWS_REFUSED
from birthmark.cli.duration_options import DurationParser
from birthmark.cli.server_client import ServerOutputOptions, at
from birthmark.untrusted_text import printable

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
            if (known := standing(server.client.get(place))) != told:
                told = known
                if live is not None:
                    live.update(drawn(known), refresh=True)
                else:
                    typer.echo(json.dumps(known) if server.as_json else line_of(known))
            if is_over(known):
                break
            time.sleep(every)
    if any(count for status, count in known["things"].items() if status != _WELL):
        raise typer.Exit(SOME_ROWS_REFUSED)


def standing(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a job what changes while it goes out."""
    names = ("job", "status", "paused", "goes_out", "things", "comment")
    return {name: whole[name] for name in names}


def is_over(known: Mapping[str, Any]) -> bool:
    """Say whether nothing of a job is on its way any more."""
    queued = known["things"].get("QUEUED", 0)  # a canceled job takes these back; what is begun may go on for long
    return known["status"] not in _GOES_ON and not queued


def line_of(known: Mapping[str, Any]) -> str:
    """Return how a job stands in one line."""
    things = "  ".join(f"{status} {count}" for status, count in known["things"].items())
    return printable(f"{_title(known)}  {things or 'on no thing yet'}")


def _title(known: Mapping[str, Any]) -> str:
    said = known["status"] if known["paused"] is None else f"{known['status']}, paused"
    more = ", goes to more" if known["goes_out"] and known["status"] in _GOES_ON and known["paused"] is None else ""
    why = f" ({known['comment']})" if known["comment"] else ""
    return f"{known['job']}: {said}{more}{why}"


def drawn(known: Mapping[str, Any]) -> Group:
    """Return how a job stands, with a bar for each state."""
    total = sum(known["things"].values())
    table = Table(box=None, show_header=False, padding=(0, 2))
    for status, count in known["things"].items():
        color = _COLORS.get(status, _BAD)
        bar = ProgressBar(max(total, 1), count, width=40, complete_style=color, finished_style=color)
        table.add_row(Text(status, style=color), bar, Text(str(count), justify="right"))
    ended = sum(count for status, count in known["things"].items() if status not in _PENDING)
    more = " of those that were told so far" if known["goes_out"] and known["status"] in _GOES_ON else ""
    return Group(Text(printable(_title(known)), style="bold"), table, Text(f"{ended} of {total} are over{more}"))
