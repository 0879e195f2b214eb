"""`birthmark pki token`, `authority` and `request`: single permissions, who asks for others, what waits for a yes."""

import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.ca.issue import parse_lifetime
from birthmark.cli.common import emit, read_device_certificate
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.untrusted_text import printable

_A_DAY = timedelta(days=1)
_AUTHORITY_COLUMNS = ("subject", "names", "not_after", "thumbprint")
_REQUEST_COLUMNS = ("id", "device", "stands", "profile", "asked_by", "address", "asked_at")
_RequestId = Annotated[str, typer.Argument(metavar="ID", help="As `birthmark pki request ls` shows it.")]


def add_token(
    server: ServerOutputOptions,
    device: Annotated[str, typer.Argument(metavar="NAME", help="The one device it is for.")],
    lifetime: Annotated[
        timedelta | None,
        typer.Option(parser=parse_lifetime, metavar="TIME", help="20s, 30min, 12h or 365d (default: 1d)."),
    ] = None,
) -> None:
    """Make user and password for one certificate of one device, printed this once.

    The first key that asks uses it up; that key may ask again until the token ends, so a lost answer costs nothing. It
    stands among the users (`birthmark pki user ls`) and is taken back there.
    """
    server.do("est", "tokens", device_id=device, lifetime_s=int((lifetime or _A_DAY).total_seconds()))


def add_authority(
    server: ServerOutputOptions,
    file: Annotated[Path, typer.Argument(help="Its certificate, PEM or DER, with extendedKeyUsage cmcRA.")],
    names: Annotated[str, typer.Option(metavar="PATTERN", help="Device ids it may ask for, with * and ?.")] = "*",
) -> None:
    """Let whoever has this certificate's key ask for devices it has checked itself.

    When it renews its own certificate by EST, the next one takes the place on the list.
    """
    server.do("est", "authorities", certificate=read_device_certificate(file).pem(), names=names)


def list_authorities(server: ListOptions) -> None:
    """List the registration authorities."""
    server.show("est", "authorities", columns=_AUTHORITY_COLUMNS, nothing="No registration authority is on record.")


def remove_authority(
    server: RemoveOptions,
    thumbprint: Annotated[str, typer.Argument(metavar="THUMBPRINT", help="As `birthmark pki authority ls` shows it.")],
) -> None:
    """Take one off the list; what was issued by its word stays good."""
    server.remove("est", "authorities", thumbprint, what=f"the registration authority {thumbprint}")


def list_requests(server: ListOptions) -> None:
    """List the requests that wait, and those that were decided and not fetched yet."""
    server.show("est", "requests", columns=_REQUEST_COLUMNS, nothing="No request waits.")


def approve(server: ServerOutputOptions, wanted: _RequestId) -> None:
    """Let the device have its certificate, which it gets when it asks again."""
    server.do("est", "requests", wanted, "approve")


def reject(server: ServerOutputOptions, wanted: _RequestId) -> None:
    """Refuse the request; `approve` changes that. A certificate that was fetched before lives on, and is told."""
    rejected = server.client.post(at("est", "requests", wanted, "reject"), {})
    emit(server.as_json, rejected)
    if rejected["fetched_at"] is not None:
        back = f"`birthmark pki revoke --device {shlex.quote(printable(rejected['device']))}`"
        typer.echo(f"Its certificate was fetched at {rejected['fetched_at']} and lives on: {back} ends it.", err=True)
