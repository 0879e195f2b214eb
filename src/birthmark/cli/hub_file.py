"""`birthmark hub file`: files that devices upload, and signatures for storage clients."""

from typing import Annotated

import typer

from birthmark.cli.hub import HubOption
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.server import ListOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit

_LASTS = DurationParser(minimum=60, is_whole=True)
ContainerOption = Annotated[str, typer.Option(help="Storage container.")]


def list_files(
    server: ListOptions,
    hub: HubOption = "birthmark",
    container: ContainerOption = "uploads",
    prefix: Annotated[str, typer.Option(help="Begin of the file names, such as a device ID.")] = "",
) -> None:
    """List the files of a storage container.

    Devices upload to the container `uploads`.
    """
    server.show(
        *("hubs", hub, "files"),
        columns=("name", "size", "modified"),
        nothing="No files.",
        container=container,
        prefix=prefix,
    )


def sign_container(
    server: ServerOutputOptions,
    container: Annotated[str, typer.Argument(metavar="CONTAINER", help="Storage container.")],
    hub: HubOption = "birthmark",
    permissions: Annotated[str, typer.Option(help="Letters: r read, c create, w write, d delete, l list.")] = "rl",
    create: Annotated[bool, typer.Option("--create", help="Create the container if it does not exist.")] = False,
    lasts: Annotated[
        int, typer.Option(parser=_LASTS, metavar="DURATION", help="Validity of the signature. Default: 1h.")
    ] = 3600,
) -> None:
    """Issue a URL for storage clients.

    The URL contains a shared access signature for the container.
    """
    wanted = {"container": container, "permissions": permissions, "create": create, "lasts_s": lasts}
    emit(server.as_json, server.client.post(at("hubs", hub, "files", "signatures"), wanted))
