"""`birthmark device find` and `show`: devices by their words, and one whole."""

from datetime import timedelta
from typing import Annotated

import typer

from birthmark.cli.certificate_inventory import parse_within
from birthmark.cli.confirmation import only
from birthmark.cli.server_client import ListOptions, ServerOutputOptions, at, show
from birthmark.devices.model import DeviceOrder, DeviceState
from birthmark.durations import FORMS

_COLUMNS = ("place", "what", "id", "state", "detail")


def find_devices(
    server: ListOptions,
    begin: Annotated[
        str, typer.Argument(metavar="TEXT", help="With what a word of the name begins, in any case; else any name.")
    ] = "",
    place: Annotated[str, typer.Option("--at", metavar="PLACE", help="Only hub/NAME, dps/NAME, aws or server.")] = "",
    state: Annotated[DeviceState | None, typer.Option(help="Only in this state.")] = None,
    sort: Annotated[
        DeviceOrder, typer.Option(help="By name, or by the end of the last certificate of this server's CAs.")
    ] = DeviceOrder.NAME,
    within: Annotated[
        timedelta | None,
        typer.Option(parser=parse_within, metavar="TIME", help=f"How soon `ending` is, 30 days at first: {FORMS}."),
    ] = None,
) -> None:
    """List devices of all places, each once: by the beginning of any word of their names, place and state.

    `state` is the worst one: `revoked`, `disabled`, `refused` (something in the last week), `ending` (its last
    certificate), `away`, `unassigned` (enrolled, never registered) or `connected`. `places` are hubs, provisioning
    services that enroll it individually, `aws` for a thing, and `server` for a name that has certificates.
    """
    only(state is DeviceState.ENDING, "with --state ending", within=within)
    asked = {} if within is None else {"ending_s": int(within.total_seconds())}
    nothing = "No device matches." if state or place or not begin else "No device has a word that begins so."
    columns = ("name", "state", "last_seen", "ends", "places")
    order = None if sort is DeviceOrder.NAME else sort
    server.show(
        "devices", columns=columns, nothing=nothing, begin=begin, at=place or None, state=state, order=order, **asked
    )


def show_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device id, registration id or thing.")],
) -> None:
    """Show one device whole: on record where, registered, connected, its certificates, and what was refused it last."""
    show(server.client.get(at("devices", name)), _COLUMNS, as_json=server.as_json, nothing="")
