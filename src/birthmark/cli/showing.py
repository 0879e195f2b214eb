"""`birthmark device show`: one device, whole."""

from typing import Annotated

import typer

from birthmark.cli.operator import ServerOutputOptions, at, show

_COLUMNS = ("place", "what", "id", "state", "detail")


def show_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device id, registration id or thing.")],
) -> None:
    """Show one device whole: on record where, registered, connected, its certificates, and what was refused it last."""
    show(server.client.get(at("devices", name)), _COLUMNS, as_json=server.as_json, nothing="")
