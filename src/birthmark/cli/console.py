"""`birthmark console`: open the web console as a local administrator."""

import json
import webbrowser
from typing import Annotated

import typer

from birthmark.cli.options.server import ServerOutputOptions
from birthmark.cli.output.command_output import say


def open_console(
    server: ServerOutputOptions,
    browser: Annotated[bool, typer.Option("--browser", help="Open the link in this machine's browser.")] = False,
) -> None:
    """Print a one-time link to the web console.

    It is valid for two minutes, in a browser on the server's machine.

    For another machine, use `birthmark user create`; a browser accepts its invitation.
    """
    made = server.client.post("/console/open", {})
    base = json.loads((server.directory / "endpoints.json").read_bytes())["health_url"].removesuffix("/healthz")
    url = f"{base}{made['path']}"
    say(server.as_json, {"url": url, "ends": made["ends"]}, url)
    if browser:
        webbrowser.open(url)
