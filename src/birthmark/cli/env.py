"""`birthmark env`: connection settings of a client."""

import json
import os
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.option_checks_and_confirmation import only_typed
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.server import ServerOptions

_GRACE_S = 3
"""Seconds to wait for a server that the shell has just started with `serve &`."""
AZURE_DPS = "https://global.azure-devices-provisioning.net"


class Format(StrEnum):
    """Output formats."""

    SH = "sh"
    DOTENV = "dotenv"
    JSON = "json"
    AZIOT = "aziot"
    C = "c"


def env(
    server: ServerOptions,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help=(
                "Output format. sh: export lines; dotenv: NAME=value, for files; aziot: a complete config.toml; "
                "c: a header."
            ),
        ),
    ] = Format.SH,
    wait: Annotated[
        float,
        typer.Option(
            parser=DurationParser(),
            metavar="DURATION",
            help=(
                "Maximum time to wait until the server is ready, for example 30s. Ends early if no server is starting."
            ),
        ),
    ] = 0,
    files: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help=(
                "Directory for the root certificates, written by the shell that evaluates the export lines. For a"
                " server in a container or of another user."
            ),
        ),
    ] = None,
    registration_id: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Device of the aziot and c formats; aziot creates its EST credential."),
    ] = None,
    id_scope: Annotated[
        str | None,
        typer.Option(metavar="SCOPE", help="ID scope of another DPS for the aziot format, such as Azure's."),
    ] = None,
    global_endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help=f"URL of another DPS for the aziot format (default: {AZURE_DPS})."),
    ] = None,
) -> None:
    """Print the server's settings for shells and programs.

    Also for IoT Edge and C.

    The aziot format contains an EST password for that device only. It is created at the first call and printed again
    later. Revoke it with `birthmark pki user rm NAME`.

    If you are signed in to a remote server, it prints that server's settings, as far as your roles allow.
    """
    from birthmark.operator_api.client.server_discovery_and_api_client import endpoints_for, get_service, not_running
    from birthmark.operator_api.client.vendor_tool_environment import (
        as_bypass,
        as_dotenv,
        as_shell,
        as_shell_with_files,
    )
    from birthmark.operator_api.data_directory_lock import is_served
    from birthmark.server.device_endpoint_files import DpsPlace, as_aziot, as_c_header

    if form is Format.AZIOT and registration_id is None:
        raise typer.BadParameter("--format aziot needs --registration-id NAME")
    only_typed(form is Format.SH, "with --format sh", "--files")
    only_typed(form in (Format.AZIOT, Format.C), "with --format aziot or c", "--registration-id")
    only_typed(form is Format.AZIOT, "with --format aziot", "--id-scope", "--global-endpoint")
    if global_endpoint is not None and id_scope is None:
        raise typer.BadParameter("--global-endpoint needs --id-scope SCOPE")
    if wait and not server.is_elsewhere:
        _wait_until_ready(server.directory / "endpoints.json", wait)
    endpoints = endpoints_for(server.data)
    if not server.is_elsewhere and not is_served(server.directory):  # it crashed: its endpoints are no longer valid
        raise not_running(server.directory, "the server has ended")
    if form is Format.AZIOT:
        get_service(endpoints, "est", server.directory)
        place = DpsPlace.of(endpoints) if id_scope is None else DpsPlace(global_endpoint or AZURE_DPS, id_scope)
        if place is None:
            raise typer.BadParameter("this server has no DPS; specify the ID scope of another DPS: --id-scope SCOPE")
        made = server.client.post("/est/credentials", {"device_id": registration_id})
        name = str(registration_id)
        text = as_aziot(endpoints, place, name, username=made["name"], password=made["password"])
    elif form is Format.C:
        text = as_c_header(endpoints, Path(endpoints["trust_bundle"]).read_text(), registration_id)
    elif files is not None:
        text = as_shell_with_files(endpoints, files)
    else:
        text = {Format.SH: as_shell, Format.DOTENV: as_dotenv, Format.JSON: _as_json}[form](endpoints)
    if form is Format.SH:
        text += as_bypass(endpoints, os.environ)
    typer.echo(text, nl=False)


def _as_json(endpoints: Mapping[str, Any]) -> str:
    return json.dumps(endpoints, indent=2) + "\n"


def _wait_until_ready(path: Path, seconds: float) -> None:
    """Return when the server of these endpoints is ready, after `seconds`, or if no server is starting."""
    import contextlib
    import time
    import urllib.request

    from birthmark.clock_and_entropy import SystemClock
    from birthmark.operator_api.client.server_discovery_and_api_client import is_server_starting

    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    hopeless_at = clock.monotonic() + _GRACE_S
    while clock.monotonic() < min(deadline, hopeless_at):
        with contextlib.suppress(OSError, ValueError, KeyError):
            url = json.loads(path.read_bytes())["health_url"].rsplit("/", 1)[0] + "/readyz"
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http on loopback, our own file
                if answer.status == HTTPStatus.OK:
                    return
        if is_server_starting(path.parent):
            hopeless_at = clock.monotonic() + _GRACE_S
        time.sleep(0.1)
