"""Options and helpers of the commands that talk to a running server."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from birthmark.cli.table import table
from birthmark.console.client import DEFAULT_DATA, OperatorClient

__all__ = ["DEFAULT_DATA", "DataOption", "JsonOption", "at", "operator", "show"]

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


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, nothing: str) -> None:
    """Print rows as a table of `columns`, or whole as JSON lines."""
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if not (found := list(rows)):
        typer.echo(nothing, err=True)
        return
    typer.echo(table(found, columns, is_terminal=sys.stdout.isatty()))
