"""`birthmark env`: everything a client needs to reach the server."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.common import refusals_shown
from birthmark.cli.operator import DEFAULT_DATA, DataOption

app = typer.Typer()


class Format(StrEnum):
    """Forms of the answer."""

    SH = "sh"
    JSON = "json"
    AZIOT = "aziot"


@app.command()
def env(
    data: DataOption = Path(DEFAULT_DATA),
    form: Annotated[
        Format, typer.Option("--format", help="sh: export lines; aziot: a filled-in config.toml.")
    ] = Format.SH,
    registration_id: Annotated[str, typer.Option(help="Device name in the aziot form.")] = "my-device",
) -> None:
    """Print how to reach the server, for shells, programs and IoT Edge.

    Example: eval "$(birthmark env)"
    """
    from birthmark.console.client import ServerNotRunningError
    from birthmark.server.endpoints import as_aziot, as_shell

    with refusals_shown():
        path = data.expanduser() / "endpoints.json"
        try:
            endpoints = json.loads(path.read_bytes())
        except OSError as error:
            raise ServerNotRunningError("The server was not started yet", data=data, reason=error.strerror) from error
    match form:
        case Format.SH:
            typer.echo(as_shell(endpoints), nl=False)
        case Format.JSON:
            typer.echo(json.dumps(endpoints, indent=2))
        case Format.AZIOT:
            typer.echo(as_aziot(endpoints, registration_id), nl=False)
