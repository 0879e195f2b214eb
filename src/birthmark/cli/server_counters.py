"""`birthmark server counters`: the server's counters and their check."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from birthmark.cli.options.duration import parse_within
from birthmark.cli.options.server import ServerOutputOptions, show
from birthmark.cli.output.command_output import FAILED, say
from birthmark.durations import FORMS

_COLUMNS = ("what", "at", "state", "since", "count")
_PATIENCE_S = 120.0
"""Timeout for millions of rows."""


def figures(
    server: ServerOutputOptions,
    last: Annotated[
        timedelta,
        typer.Option(parser=parse_within, metavar="DURATION", help=f"Period of the hourly and weekly counts: {FORMS}."),
    ] = "1d",  # type: ignore[assignment] # converted by the parser
    prove: Annotated[bool, typer.Option("--prove", help="Recount all records and print the differences.")] = False,
) -> None:
    """Show counts of devices, things and certificates.

    Certificates are counted by the week of expiry; events by the hour.

    Hours and weeks are in UTC, labeled by their start. Counts include all workers and are committed together with the
    counted records.
    """
    if prove:
        told: dict[str, Any] = server.client.post("/figures/prove", {}, patience_s=_PATIENCE_S)
        if told["is_proven"]:
            say(server.as_json, told, "Every count matches the records.")
            return
        show(told["differs"], (*_COLUMNS, "found"), as_json=server.as_json, nothing="")
        raise typer.Exit(FAILED)
    back_s = int(last.total_seconds())
    rows = server.client.rows("/figures", back_s=back_s)
    show(rows, _COLUMNS, as_json=server.as_json, nothing="No records yet.")
