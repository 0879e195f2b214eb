"""`birthmark device find` and `show`: devices by their words, and one whole."""

from datetime import timedelta
from typing import Annotated

import typer

from birthmark.cli.asking import only
from birthmark.cli.inventory import parse_within
from birthmark.cli.operator import ListOptions, ServerOutputOptions, at, show
from birthmark.console.states import State
from birthmark.durations import FORMS

_COLUMNS = ("place", "what", "id", "state", "detail")


def find_devices(
    server: ListOptions,
    begin: Annotated[
        str, typer.Argument(metavar="TEXT", help="With what a word of the name begins, in any case; else any name.")
    ] = "",
    place: Annotated[str, typer.Option("--at", metavar="PLACE", help="Only hub/NAME, dps/NAME, aws or server.")] = "",
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    within: Annotated[
        timedelta | None,
        typer.Option(parser=parse_within, metavar="TIME", help=f"How soon `ending` is, 30 days at first: {FORMS}."),
    ] = None,
) -> None:
    """Find devices by the beginning of any word of their names, wherever they are on record, and by their state.

    `at` is the place: a hub, a provisioning service where it is enrolled by itself, `aws` for a thing, `server` for a
    name that certificates were issued to. At a hub or `aws` it is `connected` or `away`, at a hub also `disabled`; at a
    provisioning service `unassigned` until it has registered; at `server` its last certificate may be `ending`; and
    `refused` is what something was refused in the last week.
    """
    only(state is State.ENDING, "with --state ending", within=within)
    asked = {} if within is None else {"ending_s": int(within.total_seconds())}
    nothing = "No device is so." if state or place or not begin else "No device has a word that begins so."
    columns = ("name", "at", "state")
    server.show("devices", columns=columns, nothing=nothing, begin=begin, at=place or None, state=state, **asked)


def show_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device id, registration id or thing.")],
) -> None:
    """Show one device whole: on record where, registered, connected, its certificates, and what was refused it last."""
    show(server.client.get(at("devices", name)), _COLUMNS, as_json=server.as_json, nothing="")
