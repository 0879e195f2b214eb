"""`birthmark server figures`: what a server counts, and the proof that it counts right."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from birthmark.cli.certificate_inventory import parse_within
from birthmark.cli.common import FAILED, say
from birthmark.cli.server_client import ServerOutputOptions, show
from birthmark.durations import FORMS

_COLUMNS = ("what", "at", "state", "since", "count")
_PATIENCE_S = 120.0
"""For millions of rows."""


def figures(
    server: ServerOutputOptions,
    last: Annotated[
        timedelta,
        typer.Option(parser=parse_within, metavar="TIME", help=f"How far back hours and weeks go: {FORMS}."),
    ] = "1d",  # type: ignore[assignment] # the parser makes it a duration
    prove: Annotated[bool, typer.Option("--prove", help="Scan all that is on record, and say what differs.")] = False,
) -> None:
    """Show how many there are: devices and things now, certificates by the week they end, and what was in each hour.

    Hours and weeks are those of UTC, named by their beginning. All workers are in each figure, and it is of the same
    commit as what it counts.
    """
    if prove:
        told: dict[str, Any] = server.client.post("/figures/prove", {}, patience_s=_PATIENCE_S)
        if told["is_proven"]:
            say(server.as_json, told, "Every figure is what a scan of all that is on record finds.")
            return
        show(told["differs"], (*_COLUMNS, "found"), as_json=server.as_json, nothing="")
        raise typer.Exit(FAILED)
    back_s = int(last.total_seconds())
    rows = server.client.rows("/figures", back_s=back_s)
    show(rows, _COLUMNS, as_json=server.as_json, nothing="Nothing is on record yet.")
