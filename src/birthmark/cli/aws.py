"""`birthmark aws`: access keys of the server's AWS account, and what is in it."""

from typing import Annotated

import typer

from birthmark.cli.operator import ServerOptions, ServerOutputOptions
from birthmark.cli.options import command, commands

app = commands("AWS IoT: access keys, things, certificates.", "birthmark aws things")
keys = commands("Access keys, for the AWS CLI and SDKs.", "birthmark aws key add ci")
app.add_typer(keys, name="key")

_KEY_COLUMNS = ("access_key_id", "name", "created")
_THING_COLUMNS = ("thing", "type", "certificates")
_CERTIFICATE_COLUMNS = ("certificate", "common_name", "status", "things", "policies")


@command(keys, "birthmark aws key add ci", "add")
def add_key(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="What it is for; shown in lists.")] = ""
) -> None:
    """Make an access key. Its secret is shown this once."""
    server.do("aws", "keys", name=name)


@command(keys, "birthmark aws key list", "list")
def list_keys(server: ServerOutputOptions) -> None:
    """List the access keys, without their secrets."""
    server.show("aws", "keys", columns=_KEY_COLUMNS, nothing="There is no access key.")


@command(keys, "birthmark aws key remove AKIAXXXXXXXXXXXXXXXX", "remove")
def remove_key(
    server: ServerOptions, access_key_id: Annotated[str, typer.Argument(help="As `birthmark aws key list` shows it.")]
) -> None:
    """Remove an access key; what is signed with it is refused from now on."""
    server.delete("aws", "keys", access_key_id, said=f"Removed {access_key_id}.")


@command(app, "birthmark aws things")
def things(server: ServerOutputOptions) -> None:
    """List the things and their certificates."""
    server.show("aws", "things", columns=_THING_COLUMNS, nothing="There is no thing.")


@command(app, "birthmark aws certificates")
def certificates(server: ServerOutputOptions) -> None:
    """List the certificates, their things and policies."""
    server.show("aws", "certificates", columns=_CERTIFICATE_COLUMNS, nothing="There is no certificate.")
