"""Options and helpers of the commands that talk to a running server."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from birthmark.console.client import OperatorClient

DEFAULT_DATA = "~/.local/share/birthmark"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def operator(data: Path) -> OperatorClient:
    """Return a client for the server of this data directory."""
    return OperatorClient.of(data.expanduser())


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, nothing: str) -> None:
    """Print rows as a table of `columns`, or whole as JSON lines."""
    import json

    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if not rows:
        typer.echo(nothing, err=True)
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    Console().print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
