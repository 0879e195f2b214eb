"""`birthmark device find` and `show`: search devices, and show all details of one."""

from datetime import timedelta
from typing import Annotated

import typer

from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.duration import parse_within
from birthmark.cli.options.server import ListOptions, ServerOutputOptions, at, show
from birthmark.devices.model import DeviceOrder, DeviceState
from birthmark.durations import FORMS

_COLUMNS = ("place", "what", "id", "state", "detail")


def find_devices(
    server: ListOptions,
    begin: Annotated[
        str,
        typer.Argument(
            metavar="TEXT", help="Start of any word in the device's name, in any case. Default: all devices."
        ),
    ] = "",
    place: Annotated[
        str, typer.Option("--at", metavar="SCOPE", help="Scope: only hub/NAME, dps/NAME, aws or server.")
    ] = "",
    state: Annotated[DeviceState | None, typer.Option(help="State of the devices.")] = None,
    sort: Annotated[
        DeviceOrder, typer.Option(help="Sort order: name, or expiry of the last certificate of this server's CAs.")
    ] = DeviceOrder.NAME,
    within: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_within,
            metavar="DURATION",
            help=f"Time before expiry for `ending`: {FORMS}. Default: 30 days.",
        ),
    ] = None,
) -> None:
    """Find devices in all hubs, provisioning services and AWS.

    Each device is listed once. Select by words of the name, scope and state.

    `state` is the worst one: `revoked`, `disabled`, `refused` (a refusal in the last week), `ending` (its last
    certificate), `away`, `unassigned` (enrolled, never registered) or `connected`. `places` lists hubs, provisioning
    services with an individual enrollment, `aws` for a thing, and `server` for a name with certificates.
    """
    only(state is DeviceState.ENDING, "with --state ending", within=within)
    asked = {} if within is None else {"ending_s": int(within.total_seconds())}
    nothing = "No device matches." if state or place or not begin else "No device matches this prefix."
    columns = ("name", "state", "last_seen", "ends", "places")
    order = None if sort is DeviceOrder.NAME else sort
    server.show(
        "devices", columns=columns, nothing=nothing, begin=begin, at=place or None, state=state, order=order, **asked
    )


def show_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device ID, registration ID or thing.")],
) -> None:
    """Show a device: enrollments, certificates, refusals.

    Also shows its registrations and, with several workers, the worker of each connection.
    """
    show(server.client.get(at("devices", name)), _COLUMNS, as_json=server.as_json, nothing="")
