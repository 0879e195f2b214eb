"""`birthmark hub consumer-group`: consumer groups of a hub's Event Hubs-compatible endpoint."""

from typing import Annotated

import typer

from birthmark.cli.hub import HubOption
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Consumer group, in any letter case.")]


def list_groups(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List the consumer groups of a hub.

    Event Hubs clients read with these groups.
    """
    server.show("hubs", hub, "consumer-groups", columns=("name", "created"), nothing="No consumer groups.")


def create_group(server: ServerOutputOptions, name: GroupArgument, hub: HubOption = "birthmark") -> None:
    """Create a consumer group.

    An existing group remains unchanged.
    """
    emit(server.as_json, server.client.post(at("hubs", hub, "consumer-groups"), {"name": name}))


def remove_group(server: RemoveOptions, name: GroupArgument, hub: HubOption = "birthmark") -> None:
    """Delete a consumer group.

    Its readers are disconnected.
    """
    server.remove("hubs", hub, "consumer-groups", name, subject=f"the consumer group {name} of hub {hub}")
