"""`birthmark console`: the server's pages, for whoever holds its data directory."""

import json
import webbrowser
from typing import Annotated

import typer

from birthmark.cli.common import say
from birthmark.cli.server_client import ServerOutputOptions


def open_console(
    server: ServerOutputOptions,
    browser: Annotated[bool, typer.Option("--browser", help="Open it in this machine's browser, too.")] = False,
) -> None:
    """Print a link that opens the console once, within two minutes, in a browser of the server's machine.

    From another machine: `birthmark user create`, whose invitation a browser takes as well.
    """
    made = server.client.post("/console/open", {})
    base = json.loads((server.directory / "endpoints.json").read_bytes())["health_url"].removesuffix("/healthz")
    url = f"{base}{made['path']}"
    say(server.as_json, {"url": url, "ends": made["ends"]}, url)
    if browser:
        webbrowser.open(url)
