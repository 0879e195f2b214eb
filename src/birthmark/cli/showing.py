"""`birthmark device find` and `show`: devices by their words, and one whole."""

from typing import Annotated

import typer

from birthmark.cli.operator import ListOptions, ServerOutputOptions, at, show

_COLUMNS = ("place", "what", "id", "state", "detail")


def find_devices(
    server: ListOptions,
    begin: Annotated[str, typer.Argument(metavar="TEXT", help="With what a word of the name begins, in any case.")],
) -> None:
    """Find devices by the beginning of any word of their names, wherever they are on record.

    `at` is the place: a hub, a provisioning service where it is enrolled by itself, `aws` for a thing, `server` for a
    name that certificates were issued to.
    """
    server.show("devices", columns=("name", "at"), nothing="No device has a word that begins so.", begin=begin)


def show_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device id, registration id or thing.")],
) -> None:
    """Show one device whole: on record where, registered, connected, its certificates, and what was refused it last."""
    show(server.client.get(at("devices", name)), _COLUMNS, as_json=server.as_json, nothing="")
