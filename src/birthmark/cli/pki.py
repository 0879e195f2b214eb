"""`birthmark pki`: users of the EST server, and the certificates that it issued."""

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birthmark.cli.input_files import read_ca_certificate, read_single_certificate
from birthmark.cli.option_checks_and_confirmation import confirm, only
from birthmark.cli.options.certificate_inventory import INVENTORY_COLUMNS, InventoryOptions, export
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at, show
from birthmark.cli.output.command_output import emit, write_result
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.keys.pin import Pin
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.pki.certificates import Certificate  # imports more than --help needs

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
        raise typer.BadParameter(
            "a thumbprint has 64 hex digits; list manufacturer CAs: `birthmark pki manufacturer ls`"
        ) from error


def parse_issued(text: str) -> str:
    """Parse a certificate thumbprint; otherwise, raise an error with the command that lists a device's."""
    try:
        return parse_thumbprint(text)
    except typer.BadParameter as error:
        name = shlex.quote(text)
        raise typer.BadParameter(
            f"a thumbprint has 64 hex digits. List a device's certificates: `birthmark pki ls {name}`. To revoke "
            f"all of them, use `--device {name}`"
        ) from error


def add_user(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="User name: printable characters, no colon.")],
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Device that the user can enroll.")] = None,
    any_name: Annotated[
        bool,
        typer.Option(
            "--any-name",
            help="Allow ANY device name without a valid certificate. Do not use it in a device's own configuration.",
        ),
    ] = False,
    password_file: Annotated[Path | None, typer.Option(help="File of mode 0600 with the password in one line.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Prompt for the password instead of generating one.")] = False,
) -> None:
    """Create an EST user.

    Without a password file, a password is generated and printed once.
    """
    if (device is not None) == any_name:
        raise typer.BadParameter("specify the device: --device NAME, or --any-name for every unused name")
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
    """List the EST users.

    Passwords are stored only as digests.
    """
    server.show("est", "users", columns=_USER_COLUMNS, nothing="No EST users.")


def remove_user(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(help="EST user, as listed by `birthmark pki user ls`.")],
) -> None:
    """Delete an EST user.

    Certificates that were issued stay valid.
    """
    server.remove("est", "users", name, subject=f"the EST user {name}, who can no longer request certificates")


def add_ca(
    server: ServerOutputOptions,
    file: Annotated[Path, typer.Argument(help="The CA's certificate, PEM or DER.")],
    any_name: Annotated[
        bool, typer.Option("--any-name", help="Allow device names that differ from the device's own certificate.")
    ] = False,
) -> None:
    """Register a manufacturer CA for bootstrap.

    Devices with its certificates can then enroll over EST.
    """
    server.do("est", "bootstrap", certificate=read_ca_certificate(file).pem(), any_name=any_name)


def list_cas(server: ListOptions) -> None:
    """List the manufacturer CAs."""
    server.show("est", "bootstrap", columns=_CA_COLUMNS, nothing="No manufacturer CA is registered.")


def remove_ca(
    server: RemoveOptions,
    thumbprint: Annotated[
        str,
        typer.Argument(
            parser=parse_thumbprint,
            metavar="THUMBPRINT",
            help="Manufacturer CA, as listed by `birthmark pki manufacturer ls`.",
        ),
    ],
) -> None:
    """Delete a manufacturer CA.

    Its certificates can no longer bootstrap devices.
    """
    server.remove(
        "est",
        "bootstrap",
        thumbprint,
        subject=f"the manufacturer CA {thumbprint}; its certificates can then no longer bootstrap devices",
    )


def certificates(
    server: ListOptions,
    which: InventoryOptions,
    subject: Annotated[str | None, typer.Argument(metavar="ID", help="Device ID, thumbprint or serial number.")] = None,
) -> None:
    """List the certificates that the server's CAs issued.

    Lists those of ID, the 100 with the latest expiry, or all that match the options.

    With an option, the list is sorted by expiry and includes CA and server certificates.
    """
    if which.is_asked:
        only(subject is None, "without ID", **which.said)
        rows = server.client.rows("/inventory", **which.query)
        if server.as_json or which.as_csv:
            export(server.pick.filter_rows(rows), as_csv=which.as_csv)
        else:
            server.show_rows(rows, INVENTORY_COLUMNS, which.nothing)
        return
    server.show("certificates", columns=_ISSUED_COLUMNS, nothing="No such certificate was issued.", subject=subject)


def release(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device name, as listed by `birthmark pki ls`.")],
) -> None:
    """Release a device name for a new key.

    A client with a password for any name can then claim it. Certificates that were issued stay valid.

    If the old key is compromised, revoke it first: `birthmark pki revoke --device NAME`.
    """
    server.do("names", name, "release")


def revoke(
    server: ServerOutputOptions,
    thumbprint: Annotated[
        str | None,
        typer.Argument(parser=parse_issued, metavar="THUMBPRINT", help="Certificate, as listed by `birthmark pki ls`."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device whose credentials to revoke, from any issuer.")
    ] = None,
    key_of: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate file whose key to revoke, from any issuer.")
    ] = None,
    reason: Annotated[
        RevocationReason, typer.Option(help="Revocation reason (RFC 5280 section 5.3.1).")
    ] = RevocationReason.UNSPECIFIED,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation before revoking a CA.")] = False,
) -> None:
    """Revoke certificates and their keys.

    EST, DPS, hubs and AWS IoT reject them, and connections end immediately.

    A revoked key is never certified again, except with the reason `superseded`. Revoking the key of this server's CA
    or a manufacturer CA revokes everything below that CA.
    """
    if sum(one is not None for one in (thumbprint, device, key_of)) != 1:
        raise typer.BadParameter("specify one: a THUMBPRINT, --device NAME, or --key-of FILE")
    if key_of is not None and reason is RevocationReason.SUPERSEDED:
        raise typer.BadParameter("superseded does not revoke the key: specify the certificate's THUMBPRINT")
    body, nothing = {"reason": reason.value}, "The key is revoked; this CA issued no certificate for it that is alive."
    path = at("certificates", str(thumbprint), "revoke") if device is None else at("names", device, "revoke")
    if key_of is not None:
        certificate, path = _certified(key_of), "/keys/revoke"
        body["certificate"] = certificate.pem()
        if certificate.is_ca:
            below = f"Revoke the CA '{printable(certificate.subject_text)}' and everything below it permanently?"
            confirm(below, yes=yes)
            nothing = "The CA is revoked: everything below it is rejected from now on."
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
    """Print the remaining valid credentials of a device after a revocation, and how to revoke them all."""
    now = SystemClock().now()
    for row in server.client.rows(at("certificates"), subject=name):
        is_over = row["revoked"] or row["not_after"] is None or datetime.fromisoformat(row["not_after"]) <= now
        if row["device"] == name and not is_over:
            typer.echo(f"Still good, by another key: {row['thumbprint']}, until {row['not_after']}", err=True)
    everything = f"`birthmark device revoke {shlex.quote(name)}`"
    typer.echo(f"If '{printable(name)}' is lost: passwords, enrollments and symmetric keys use {everything}", err=True)


def crl(
    server: ServerOutputOptions,
    purpose: Annotated[Purpose, typer.Option("--of", help="CA that signed the CRL.")] = Purpose.DEVICES,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file. Default: standard output.")] = None,
) -> None:
    """Write the current CRL of a server's CA (PEM).

    For programs that read a file.
    """
    made = server.client.get(at("lists", purpose))
    if out is not None or not server.as_json:
        write_result(out, made["crl"], keeps=False)
    if out is not None or server.as_json:
        emit(
            server.as_json, {**made, "crl": made["crl"] if server.as_json else None, "file": str(out) if out else None}
        )
