"""`birthmark pki`: who may get certificates from the EST server, and which it gave out."""

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birthmark.cli.certificate_inventory import INVENTORY_COLUMNS, InventoryOptions, export
from birthmark.cli.common import emit, read_ca_certificate, read_single_certificate, write_result
from birthmark.cli.confirmation import agree, only
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at, show
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.keys.pin import Pin
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.crl import RevocationReason
from birthmark.untrusted_text import printable

if TYPE_CHECKING:
    from birthmark.pki.certificates import Certificate  # which loads what no --help needs

_PASSWORD_BYTES = 18
_ISSUED_COLUMNS = ("device", "not_after", "revoked", "reason", "requested_by", "thumbprint")
_USER_COLUMNS = ("name", "device", "created", "expires")
_CA_COLUMNS = ("subject", "any_name", "not_after", "thumbprint")


def parse_thumbprint(text: str) -> str:
    """Return the 64 hex digits of a thumbprint as OpenSSL, Windows or `pki ls` shows it."""
    from birthmark.pki.certificates import CertificateInvalidError
    from birthmark.pki.certificates import parse_thumbprint as parsed

    try:
        return parsed(text).hex()
    except CertificateInvalidError as error:
        raise typer.BadParameter("a thumbprint has 64 hex digits; see `birthmark pki maker ls`") from error


def parse_issued(text: str) -> str:
    """Return the thumbprint of a certificate; for what is none, say where a device's are shown."""
    try:
        return parse_thumbprint(text)
    except typer.BadParameter as error:
        name = shlex.quote(text)
        raise typer.BadParameter(
            f"a thumbprint has 64 hex digits; `birthmark pki ls {name}` shows those of a device, "
            f"and `--device {name}` takes back all that it has"
        ) from error


def add_user(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Printable characters, no colon.")],
    device: Annotated[str | None, typer.Option(metavar="NAME", help="The one device this user may ask for.")] = None,
    any_name: Annotated[
        bool,
        typer.Option(
            "--any-name",
            help="Whoever knows the password gets a certificate for ANY name that no live certificate holds. "
            "Not for a device's own configuration.",
        ),
    ] = False,
    password_file: Annotated[Path | None, typer.Option(help="File of mode 0600 with the password in one line.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the password instead of making one.")] = False,
) -> None:
    """Put a user on record. Without a password file one is made, and printed this once."""
    if (device is not None) == any_name:
        raise typer.BadParameter("say for whom: --device NAME, or --any-name for every name that nobody holds")
    only(password_file is None, "without --password-file", ask=ask)
    is_made = password_file is None and not ask
    if password_file is not None:
        given = Pin.from_file(password_file)
        given.check_blanks()
        password = given.reveal()
    elif ask:
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=sys.stdin.isatty(), err=True))
    else:
        password = SystemEntropy().token(_PASSWORD_BYTES).hex()
    row = server.client.post("/est/users", {"name": name, "password": password, "device_id": device})
    emit(server.as_json, {**row, "password": password} if is_made else row)


def list_users(server: ListOptions) -> None:
    """List the users; passwords are kept as digests only."""
    server.show("est", "users", columns=_USER_COLUMNS, nothing="There is no EST user.")


def remove_user(
    server: RemoveOptions, name: Annotated[str, typer.Argument(help="As `birthmark pki user ls` shows it.")]
) -> None:
    """Take a user off the record; certificates that were issued stay good."""
    server.remove("est", "users", name, what=f"the user {name}, who gets no certificate then")


def add_ca(
    server: ServerOutputOptions,
    file: Annotated[Path, typer.Argument(help="The CA's certificate, PEM or DER.")],
    any_name: Annotated[
        bool, typer.Option("--any-name", help="Devices may ask for another name than their own certificate's.")
    ] = False,
) -> None:
    """Let certificates of a maker's CA introduce devices."""
    server.do("est", "bootstrap", certificate=read_ca_certificate(file).pem(), any_name=any_name)


def list_cas(server: ListOptions) -> None:
    """List the CAs whose certificates introduce devices."""
    server.show("est", "bootstrap", columns=_CA_COLUMNS, nothing="No bootstrap CA is on record.")


def remove_ca(
    server: RemoveOptions,
    thumbprint: Annotated[
        str,
        typer.Argument(parser=parse_thumbprint, metavar="THUMBPRINT", help="As `birthmark pki maker ls` shows it."),
    ],
) -> None:
    """Stop believing a CA."""
    server.remove("est", "bootstrap", thumbprint, what=f"the maker's CA {thumbprint}, which introduces nobody then")


def certificates(
    server: ListOptions,
    which: InventoryOptions,
    subject: Annotated[str | None, typer.Argument(metavar="ID", help="Device id, thumbprint or serial number.")] = None,
) -> None:
    """List the certificates that the server's CAs issued: of ID, the 100 that live longest, or all that fit.

    With one of the options those that end first come first, our own CAs' and servers' among them.
    """
    if which.is_asked:
        only(subject is None, "without ID", **which.said)
        rows = server.client.rows("/inventory", **which.query)
        if server.as_json or which.as_csv:
            export(server.pick.picked(rows), as_csv=which.as_csv)
        else:
            server.show_rows(rows, INVENTORY_COLUMNS, which.nothing)
        return
    server.show("certificates", columns=_ISSUED_COLUMNS, nothing="No such certificate was issued.", subject=subject)


def release(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="The device's name, as `birthmark pki ls` shows it.")],
) -> None:
    """Let a name go, so that a new key may claim it by a password for any name. What was issued stays good.

    If the old key is not trusted any more, take it back first: `birthmark pki revoke --device NAME`.
    """
    server.do("names", name, "release")


def revoke(
    server: ServerOutputOptions,
    thumbprint: Annotated[
        str | None,
        typer.Argument(parser=parse_issued, metavar="THUMBPRINT", help="As `birthmark pki ls` shows it."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Everything by which this device is known, whoever issued it.")
    ] = None,
    key_of: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key in this certificate, whoever issued it.")
    ] = None,
    reason: Annotated[
        RevocationReason, typer.Option(help="Why (RFC 5280 section 5.3.1).")
    ] = RevocationReason.UNSPECIFIED,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a CA is taken back.")] = False,
) -> None:
    """Take certificates and their keys back: they open neither EST, DPS, hub nor AWS IoT, and connections end at once.

    A key that was taken back is never certified again; only the reason `superseded` leaves it good. With the key of a
    CA, this server's or a maker's, everything below that CA goes.
    """
    if sum(one is not None for one in (thumbprint, device, key_of)) != 1:
        raise typer.BadParameter("name one: a THUMBPRINT, --device NAME, or --key-of FILE")
    if key_of is not None and reason is RevocationReason.SUPERSEDED:
        raise typer.BadParameter("superseded leaves the key good: name the certificate's THUMBPRINT")
    body, nothing = {"reason": reason.value}, "The key is revoked; this CA issued no certificate for it that is alive."
    path = at("certificates", str(thumbprint), "revoke") if device is None else at("names", device, "revoke")
    if key_of is not None:
        certificate, path = _certified(key_of), "/keys/revoke"
        body["certificate"] = certificate.pem()
        if certificate.is_ca:
            below = f"Take back the CA '{printable(certificate.subject_text)}', with everything below it, for good?"
            agree(below, yes=yes)
            nothing = "The CA is taken back: everything below it is refused from now on."
    rows = server.client.post(path, body)
    show(rows, _ISSUED_COLUMNS, as_json=server.as_json, nothing=nothing)
    if reason is not RevocationReason.SUPERSEDED:
        for name in dict.fromkeys(row["device"] for row in rows):
            _say_what_stays(server, name)


def _certified(path: Path) -> "Certificate":
    from birthmark.pki.certificates import CertificateIsRequestError

    try:
        return read_single_certificate(path)
    except CertificateIsRequestError as error:
        fix = "Give a certificate with this key; or revoke the device by name: `birthmark device revoke --help`."
        error.quote(fix=fix)
        raise


def _say_what_stays(server: ServerOutputOptions, name: str) -> None:
    """Say what else is good of a device whose certificate was taken back, and how all of it is."""
    now = SystemClock().now()
    for row in server.client.rows(at("certificates"), subject=name):
        is_over = row["revoked"] or row["not_after"] is None or datetime.fromisoformat(row["not_after"]) <= now
        if row["device"] == name and not is_over:
            typer.echo(f"Still good, by another key: {row['thumbprint']}, until {row['not_after']}", err=True)
    everything = f"`birthmark device revoke {shlex.quote(name)}`"
    typer.echo(f"If '{printable(name)}' is lost: passwords, enrollments and shared keys go by {everything}", err=True)


def crl(
    server: ServerOutputOptions,
    purpose: Annotated[Purpose, typer.Option("--of", help="Whose list.")] = Purpose.DEVICES,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default is standard output.")] = None,
) -> None:
    """Write the revocation list of one of the server's CAs (PEM), as it is now, for programs that take a file."""
    made = server.client.get(at("lists", purpose))
    if out is not None or not server.as_json:
        write_result(out, made["crl"], keeps=False)
    if out is not None or server.as_json:
        emit(
            server.as_json, {**made, "crl": made["crl"] if server.as_json else None, "file": str(out) if out else None}
        )
