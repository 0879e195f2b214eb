"""`birthmark est`: who may get certificates from the EST server, and which it gave out."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.common import emit, read_certificate, refusals_shown
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption, at, operator, show
from birthmark.clock import SystemEntropy
from birthmark.keys.pin import Pin

app = typer.Typer(
    help="Who may get certificates by EST, and which were issued: users, makers' CAs, revocation.",
    epilog="Example: birthmark est user add factory-line-1",
    no_args_is_help=True,
)
user = typer.Typer(
    help="Users with a password, for all devices or one.",
    epilog="Example: birthmark est user list",
    no_args_is_help=True,
)
bootstrap = typer.Typer(
    help="CAs whose certificates introduce devices.",
    epilog="Example: birthmark est bootstrap list",
    no_args_is_help=True,
)
app.add_typer(user, name="user")
app.add_typer(bootstrap, name="bootstrap")

_PASSWORD_BYTES = 18
_THUMBPRINT = re.compile("[0-9a-f]{64}")
_ISSUED_COLUMNS = ("device", "not_after", "revoked", "requested_by", "thumbprint")
_USER_COLUMNS = ("name", "device", "created")
_CA_COLUMNS = ("subject", "any_name", "not_after", "thumbprint")


def parse_thumbprint(text: str) -> str:
    """Return the 64 hex digits; colons, as openssl prints them, are left out."""
    found = text.replace(":", "").lower()
    if _THUMBPRINT.fullmatch(found) is None:
        raise typer.BadParameter("a thumbprint has 64 hex digits; see `birthmark est bootstrap list`")
    return found


@user.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="Printable characters, no colon.")],
    device: Annotated[
        str | None, typer.Option("--device", help="The one device this user may ask for; default: any.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File of mode 0600 with the password in one line.")
    ] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the password instead of making one.")] = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put a user on record. Without a password file one is made, and printed this once.

    Example: birthmark est user add factory-line-1
    """
    with refusals_shown(as_json=as_json):
        is_made = password_file is None and not ask
        if password_file is not None:
            password = Pin.from_file(password_file).reveal()
        elif ask:
            password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=sys.stdin.isatty(), err=True))
        else:
            password = SystemEntropy().token(_PASSWORD_BYTES).hex()
        row = operator(data).post("/est/users", {"name": name, "password": password, "device_id": device})
        emit(as_json, {**row, "password": password} if is_made else row)


@user.command("list")
def list_users(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the users; passwords are kept as digests only.

    Example: birthmark est user list
    """
    with refusals_shown(as_json=as_json):
        rows = operator(data).get("/est/users")
        show(rows, _USER_COLUMNS, as_json=as_json, nothing="There is no EST user.")


@user.command("remove")
def remove_user(
    name: Annotated[str, typer.Argument(help="As `birthmark est user list` shows it.")],
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Take a user off the record; certificates that were issued stay good.

    Example: birthmark est user remove factory-line-1
    """
    with refusals_shown():
        operator(data).delete(at("est", "users", name))
        typer.echo(f"Removed {name}.", err=True)


@bootstrap.command("add")
def add_ca(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The CA's certificate, PEM or DER.")],
    any_name: Annotated[
        bool, typer.Option("--any-name", help="Devices may ask for another name than their own certificate's.")
    ] = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Let certificates of a maker's CA introduce devices.

    Example: birthmark est bootstrap add maker-ca.pem --any-name
    """
    with refusals_shown(as_json=as_json):
        body = {"certificate": read_certificate(file).pem(), "any_name": any_name}
        emit(as_json, operator(data).post("/est/bootstrap", body))


@bootstrap.command("list")
def list_cas(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the CAs whose certificates introduce devices.

    Example: birthmark est bootstrap list
    """
    with refusals_shown(as_json=as_json):
        rows = operator(data).get("/est/bootstrap")
        show(rows, _CA_COLUMNS, as_json=as_json, nothing="No bootstrap CA is on record.")


@bootstrap.command("remove")
def remove_ca(
    thumbprint: Annotated[
        str,
        typer.Argument(
            parser=parse_thumbprint, metavar="THUMBPRINT", help="As `birthmark est bootstrap list` shows it."
        ),
    ],
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Stop believing a CA.

    Example: birthmark est bootstrap remove 3F9A…
    """
    with refusals_shown():
        operator(data).delete(at("est", "bootstrap", thumbprint))
        typer.echo("Removed.", err=True)


@app.command()
def certificates(
    subject: Annotated[
        str | None, typer.Argument(metavar="ID", help="Device id, thumbprint or serial number; default: the latest.")
    ] = None,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """List the certificates that the server's CA issued.

    Example: birthmark est certificates edge-0001
    """
    with refusals_shown(as_json=as_json):
        rows = operator(data).get("/certificates", subject=subject)
        show(rows, _ISSUED_COLUMNS, as_json=as_json, nothing="No such certificate was issued.")


@app.command()
def revoke(
    thumbprint: Annotated[
        str,
        typer.Argument(parser=parse_thumbprint, metavar="THUMBPRINT", help="As `birthmark est certificates` shows it."),
    ],
    reason: Annotated[str, typer.Option(help="As in RFC 5280: keyCompromise, superseded …")] = "unspecified",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Take a certificate back: it opens neither EST, DPS nor a hub any more, and its connection ends at once.

    Example: birthmark est revoke 3F9A… --reason keyCompromise
    """
    with refusals_shown(as_json=as_json):
        emit(as_json, operator(data).post(at("certificates", thumbprint, "revoke"), {"reason": reason}))
