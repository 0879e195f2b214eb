"""Command `birthmark server settings`: list configured settings and effective defaults."""

from typing import Annotated

import typer

from birthmark.cli.options.server import ListOptions

_COLUMNS = ("key", "value", "default", "text")


def settings(
    server: ListOptions,
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from the default.")] = False,
) -> None:
    """List the server's effective settings.

    Shows default and meaning; secrets are omitted.

    To change a setting, use the server's configuration file, options or environment variables.
    """
    rows = (row for row in server.client.rows("/server/settings") if row["is_changed"] or not changed)
    server.show_rows(rows, _COLUMNS, "Every setting is the default.")
