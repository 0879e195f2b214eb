"""`birthmark server settings`: what a server was told, and what it goes by where nothing was said."""

from typing import Annotated

import typer

from birthmark.cli.server_client import ListOptions

_COLUMNS = ("key", "value", "default", "text")


def settings(
    server: ListOptions,
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not the default.")] = False,
) -> None:
    """List every setting that is in force, with its default and what it is. No secret is among them.

    They are changed where the server was started: in its configuration file, by its options or variables.
    """
    rows = (row for row in server.client.rows("/server/settings") if row["is_changed"] or not changed)
    server.show_rows(rows, _COLUMNS, "Every setting is the default.")
