"""`birthmark aws`: access keys of the server's AWS account, and what is in it."""

from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.common import emit, telling_refusals
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption, at, operator, show

app = typer.Typer(
    help="AWS IoT: access keys, things, certificates.", epilog="Example: birthmark aws things", no_args_is_help=True
)
keys = typer.Typer(
    help="Access keys, for the AWS CLI and SDKs.", epilog="Example: birthmark aws key add ci", no_args_is_help=True
)
app.add_typer(keys, name="key")


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="What it is for; shown in lists.")] = "",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Make an access key. Its secret is shown this once.

    Example: birthmark aws key add ci
    """
    with telling_refusals(as_json=as_json):
        emit(as_json, operator(data).post("/aws/keys", {"name": name}))


@keys.command("list")
def list_keys(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the access keys, without their secrets.

    Example: birthmark aws key list
    """
    with telling_refusals(as_json=as_json):
        columns = ("access_key_id", "name", "created")
        show(operator(data).rows("/aws/keys"), columns, as_json=as_json, nothing="There is no access key.")


@keys.command("remove")
def remove_key(
    access_key_id: Annotated[str, typer.Argument(help="As `birthmark aws key list` shows it.")],
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Remove an access key; what is signed with it is refused from now on.

    Example: birthmark aws key remove AKIAXXXXXXXXXXXXXXXX
    """
    with telling_refusals():
        operator(data).delete(at("aws", "keys", access_key_id))
        typer.echo(f"Removed {access_key_id}.", err=True)


@app.command()
def things(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the things and their certificates.

    Example: birthmark aws things
    """
    with telling_refusals(as_json=as_json):
        columns = ("thing", "type", "certificates")
        show(operator(data).rows("/aws/things"), columns, as_json=as_json, nothing="There is no thing.")


@app.command()
def certificates(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the certificates, their things and policies.

    Example: birthmark aws certificates
    """
    with telling_refusals(as_json=as_json):
        columns = ("certificate", "common_name", "status", "things", "policies")
        show(operator(data).rows("/aws/certificates"), columns, as_json=as_json, nothing="There is no certificate.")
