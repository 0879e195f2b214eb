"""Options and helpers of the commands that talk to a running server."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from birthmark.cli.common import text_of
from birthmark.console.client import OperatorClient

DEFAULT_DATA = "~/.local/share/birthmark"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def operator(data: Path) -> OperatorClient:
    """Return a client for the server of this data directory."""
    return OperatorClient.of(data.expanduser())


def at(*parts: str) -> str:
    """Return a path of the operator interface; a part may hold any character."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


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
        table.add_row(*(escape(text_of(row.get(column))) for column in columns))
    Console(highlight=False).print(table)
