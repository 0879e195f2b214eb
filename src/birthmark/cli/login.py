"""`birthmark login`: with an invitation, in a browser, or with an access token."""

import re
import socket
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import FileMissingError, read_file
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.server import ServerOutputOptions, at
from birthmark.cli.output.command_output import emit, say, written_as
from birthmark.cli.user_access import format_roles
from birthmark.errors import BirthmarkError, about
from birthmark.operator_api.client.initial_server_trust import roots_of
from birthmark.operator_api.client.saved_login import (
    InvitationInvalidError,
    Login,
    LoginDamagedError,
    NotSignedInError,
    TokenFileError,
    check,
    check_place,
    is_url,
    place,
    read_invitation,
    save_login,
    signed_in,
)
from birthmark.operator_api.client.server_discovery_and_api_client import RemoteClient
from birthmark.pki.certificates import pem_bundle
from birthmark.text_file_encodings import unseen
from birthmark.untrusted_json_and_text import printable, reason_of

_BEGIN, _HOST_PORT = "https://", re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}/?")
_MAX_BYTES = 256 * 1024
_TOKEN = re.compile(r"bmt_[A-Za-z0-9_-]{1,512}")


def login(
    where: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL", help="Invitation file from `birthmark user create` or `invite`; or https://HOST:9443"
        ),
    ],
    url: Annotated[str | None, typer.Option(help="Address of the server. Default: from FILE.")] = None,
    roots: Annotated[
        Path | None, typer.Option(help="For URL: PEM file of the server's root CAs. Default: the system's.")
    ] = None,
    thumbprint: Annotated[
        str | None, typer.Option(help="For URL: SHA-256 thumbprint of the server's root CA, instead of its file.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="For URL: token file, as written by `birthmark token create`.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign in to a remote server.

    Commands without a data directory then use that server.

    Use an invitation file once, or the URL of a server. With a URL, confirm the displayed code in a browser that is
    signed in there. The session is stored in ~/.config/birthmark/login.json or in the BIRTHMARK_LOGIN file.
    """
    if where.startswith("http://") or (_HOST_PORT.fullmatch(where) and not Path(where).exists()):
        raise typer.BadParameter(f"use https://{where.removeprefix('http://')}", param_hint="URL")
    if (seen := unseen(where, 1)) and not Path(where).exists():
        raise typer.BadParameter(f"use https://HOST:PORT, or a file name{seen}", param_hint="URL")
    with written_as(place()):
        if where.startswith(_BEGIN):
            only(False, "to an invitation file", url=url)
            _by_url(where.rstrip("/"), roots, thumbprint, token_file, as_json=as_json)
        else:
            only(False, "to a URL", roots=roots, thumbprint=thumbprint, token_file=token_file)
            _by_invitation(Path(where), url, as_json=as_json)


def _by_invitation(invitation: Path, url: str | None, *, as_json: bool) -> None:
    try:
        invited = read_invitation(invitation)
    except OSError as error:
        raise FileMissingError(path=invitation, reason=reason_of(error)) from error
    at_url = (url or invited.url).rstrip("/")
    try:
        check(Login(at_url, invited.roots, invited.user, "", "", invited.ends))
    except LoginDamagedError as error:
        if url is not None:
            raise typer.BadParameter("specify an https:// URL of the server", param_hint="--url") from error
        raise InvitationInvalidError(path=invitation, detail=unseen(at_url, 1)) from error
    check_place()
    client = RemoteClient(place(), at_url, "", invited.roots)
    made = client.post("/people/login", {"code": invited.code, "label": _label()})
    _keep(at_url, invited.roots, made, made["token"], as_json=as_json)


def _by_url(url: str, roots: Path | None, thumbprint: str | None, token_file: Path | None, *, as_json: bool) -> None:
    given = None if roots is None else _pem(roots)
    if not is_url(url):
        raise typer.BadParameter("use https://HOST:PORT", param_hint="URL")
    if given is not None:
        try:
            check(Login(url, given, "", "", "", ""))
        except LoginDamagedError as error:
            raise typer.BadParameter("use PEM certificates", param_hint="--roots") from error
    check_place()
    known_by = roots_of(url, given, thumbprint)
    if token_file is not None:
        _by_token(url, known_by, token_file, as_json=as_json)
        return
    client = RemoteClient(place(), url, "", known_by)
    begun = client.post("/people/asking", {"label": _label()})
    at = begun["verification_uri"] or f"{url}/device"
    if as_json:
        emit(True, {"verification_uri": at, "user_code": begun["user_code"], "ends": begun["ends"]})
    else:
        typer.echo(f"Open {at} in a browser, sign in, and enter this code: {begun['user_code']}", err=True)
    interval = begun["interval"]
    while interval is not None:
        time.sleep(interval)
        made = client.post("/people/asking/token", {"device_code": begun["device_code"]})
        interval = made["interval"]
    _keep(url, known_by, made, made["token"], as_json=as_json)


def _by_token(url: str, roots: str, file: Path, *, as_json: bool) -> None:
    text = read_file(file, _MAX_BYTES).decode("ascii", "replace")
    found = set(_TOKEN.findall(text))  # only the token, or output of `token create`
    if len(found) != 1:
        raise TokenFileError(path=file)
    token = found.pop()
    token_id = token.split("_")[1]
    client = RemoteClient(place(), url, token, roots)
    try:
        own = next((one for one in client.rows("/people/tokens") if one["id"] == token_id), None)
    except BirthmarkError as error:
        if error.code == "people.token_refused":
            error.quote(fix=TokenFileError.fix)
        raise
    if own is None:
        raise TokenFileError(path=file)
    _keep(url, roots, own, token, as_json=as_json)


def _keep(url: str, roots: str, values: dict[str, Any], token: str, *, as_json: bool) -> None:
    kept, aside = save_login(Login(url, roots, values["user"], values["id"], token, values["ends"]))
    if aside is not None:
        typer.echo(printable(f"The previous {kept.name} was kept as {aside}."), err=True)
    said = (
        f"Signed in at {url} as {values['user']}, until {values['ends'][:10]}. Commands without --data use this server."
    )
    say(as_json, {"url": url, "user": values["user"], "ends": values["ends"], "file": str(kept)}, said)


def _pem(path: Path) -> str:
    """Return the certificates in a PEM, DER or PKCS #7 file. Raise `CertificateInvalidError` if it contains none."""
    with about(path):
        return pem_bundle(read_file(path))


def _label() -> str:
    return socket.gethostname()[:64]


def logout(as_json: JsonOption = False) -> None:
    """Sign out and use this machine's server again.

    The session's token is revoked.
    """
    if (login := signed_in()) is None:
        raise NotSignedInError(path=place())
    left = ""
    try:
        RemoteClient.signed_in(login).delete(at("people", "tokens", login.token_id))
    except BirthmarkError as error:  # already revoked, or the server is unavailable
        left = f" The token was not revoked there: {error}."
    atomic_files.remove(place())
    say(as_json, {"url": login.url, "user": login.user, "taken_back": not left}, f"Signed out at {login.url}.{left}")


def whoami(server: ServerOutputOptions) -> None:
    """Show the current server, user and permissions."""
    client = server.client
    told: dict[str, Any] = client.get("/people/me")
    row = {"server": client.url if server.is_elsewhere else str(server.directory), **told}
    row["user"] = told["user"] or "local administrator"
    if server.as_json:
        emit(True, {**row, "user": told["user"]})
        return
    words = {"token": format_roles([told["token"]])} if "token" in told else {}
    emit(False, {**row, "roles": format_roles(told["roles"]), **words})
