"""`birthmark user`, `role`, `token`, `login`: who operates a server, and from where."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.common import FileExistsAlreadyError, emit, say, written_as
from birthmark.cli.row_selection import PickOptions
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOptions, ServerOutputOptions, at, show
from birthmark.durations import lifetime_of
from birthmark.errors import BirthmarkError, PolicyError
from birthmark.iam.model import RIGHTS_OF, UserRole
from birthmark.operator_api.api_client import RemoteClient
from birthmark.operator_api.saved_login import (
    NotSignedInError,
    place,
    signed_in,
)

_MAX_OF_DEVICES = 250
_USERS, _TOKENS = at("people", "users"), at("people", "tokens")
_USER_COLUMNS = ("name", "roles", "tokens", "created", "made_by")
_TOKEN_COLUMNS = ("id", "user", "label", "role", "place", "may", "created", "ends")
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="As `birthmark user ls` shows it.")]
PlaceOption = Annotated[
    str, typer.Option("--at", help="Where: '*' (everywhere), server, aws, hub/NAME or dps/NAME.", metavar="PLACE")
]
ApprovalArgument = Annotated[str, typer.Argument(metavar="ID", help="As `birthmark approval ls` shows it.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="The invitation's file, a secret; default: USER.invitation.")
]


class NotReachableError(PolicyError):
    """The server has no port for other machines."""

    code = "people.no_console_port"
    cause = "The server has no port for people of other machines: `console` under [ports] is 0, or its port was taken."
    fix = "Give it a port that is free, under [ports] in its configuration: console = 9443. Then start it again."
    for_a_person = "the configuration is another file at each installation"


def create(
    server: ServerOptions,
    name: Annotated[str, typer.Argument(metavar="USER", help="A name: letters, digits, - . _")],
    role: Annotated[UserRole, typer.Option(help="What that person is here for.")],
    place: PlaceOption = "*",
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a person on record with a role, and write the file by which that person signs in on another machine."""
    file = _free(out, name)
    if server.client.get("/server/endpoints")["console"] is None:
        raise NotReachableError
    server.client.post(_USERS, {"name": name, "role": role.value, "place": place})
    _invite(server, name, file, as_json=as_json)


def invite(server: ServerOptions, name: UserArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Write another invitation for somebody; those before count no more. It holds for two days, for one time."""
    _invite(server, name, _free(out, name), as_json=as_json)


def allow(
    server: ServerOutputOptions,
    name: UserArgument,
    more: Annotated[int, typer.Argument(metavar="COUNT", min=1, help="How many more devices.")],
) -> None:
    """Let somebody else take more devices away today than one person may: as the second person whom that takes."""
    told = server.client.post(at("people", "users", name, "allowance"), {"more": more})
    say(server.as_json, told, f"{name} may take {told['remaining']} more devices away until the day is over.")


def list_users(server: ListOptions) -> None:
    """List the people on record, and what each may do."""
    rows = ({**row, "roles": _words(row["roles"])} if not server.as_json else row for row in server.client.rows(_USERS))
    server.show_rows(rows, _USER_COLUMNS, "There is nobody on record: whoever holds the data directory may do all.")


def show_user(server: ServerOutputOptions, name: UserArgument) -> None:
    """Show somebody."""
    found = server.client.get(at("people", "users", name))
    emit(server.as_json, found if server.as_json else {**found, "roles": _words(found["roles"])})


def remove_user(server: RemoveOptions, name: UserArgument) -> None:
    """Remove a user and that user's tokens; list what the user made and was shown.

    Commands that are signed in as that user do nothing from then on.
    """
    server.remove("people", "users", name, what=f"the user {name}, with all tokens of that one")
    if not server.as_json:
        _list_left(server, name)


def _list_left(server: ServerOptions, name: str) -> None:
    """List what a user made and was shown; of what is one device's alone, the latest."""
    left: dict[tuple[str, ...], dict[str, Any]] = {}
    typer.echo(f"Searching the audit trail for what {name} made.", err=True)
    for row in server.client.rows(at("people", "users", name, "left")):
        left.setdefault((row["action"], row["subject"], row["command"]), row)
    wider = [row for row in left.values() if not row["is_of_a_device"]]
    of_devices = [row for row in left.values() if row["is_of_a_device"]]
    if not left:
        return
    typer.echo(f"{name} made, or was shown, what stays:")
    shown = [*wider, *of_devices[:_MAX_OF_DEVICES]]
    show(shown, ("at", "action", "subject", "command"), as_json=False, nothing="")
    if len(of_devices) > _MAX_OF_DEVICES:
        typer.echo(f"{len(of_devices) - _MAX_OF_DEVICES} older ones, each of one device, are not listed.")
    typer.echo(f"The audit trail keeps it: birthmark server audit ls --by user:{name}")


def grant(
    server: ServerOutputOptions,
    name: UserArgument,
    role: Annotated[UserRole, typer.Argument(help="What for.")],
    place: PlaceOption = "*",
) -> None:
    """Give somebody a role at a place."""
    _emit_user(server, server.client.post(at("people", "users", name, "roles"), _grant(role, place)))


def revoke(
    server: ServerOutputOptions,
    name: UserArgument,
    role: Annotated[UserRole, typer.Argument(help="As `birthmark user show` says it.")],
    place: PlaceOption = "*",
) -> None:
    """Take a role at a place from somebody. It counts at once."""
    _emit_user(server, server.client.post(at("people", "users", name, "roles", "remove"), _grant(role, place)))


def list_roles(pick: PickOptions, as_json: JsonOption = False) -> None:
    """List the roles, and what each may do."""
    rows = ({"role": role.value, "rights": ", ".join(rights)} for role, rights in RIGHTS_OF.items())
    show(pick.picked(rows), ("role", "rights"), as_json=as_json, nothing="There is no such role.")


def create_token(
    server: ServerOutputOptions,
    label: Annotated[str, typer.Argument(help="What it is for; shown in lists.")] = "",
    user: Annotated[str | None, typer.Option(help="Whose; without it, one's own.")] = None,
    role: Annotated[UserRole | None, typer.Option(help="No further than this role goes.")] = None,
    place: Annotated[str | None, typer.Option("--at", help="And nowhere else, as `birthmark role grant`.")] = None,
    lifetime: Annotated[str, typer.Option(help="How long it lives: 12h, 30d; at most 366d.")] = "30d",
) -> None:
    """Make a token for a program: it goes into an Authorization header, as Bearer. It is shown this once."""
    try:
        lives = lifetime_of(lifetime)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lifetime") from error
    if place is not None and role is None:
        raise typer.BadParameter("a place goes with a role: give --role, too", param_hint="--at")
    body = {"label": label, "user": user, "role": role and role.value, "place": place}
    emit(server.as_json, server.client.post(_TOKENS, {**body, "lifetime_s": int(lives.total_seconds())}))


def list_tokens(server: ListOptions) -> None:
    """List one's own tokens; all there are for who administers."""
    server.show("people", "tokens", columns=_TOKEN_COLUMNS, nothing="There is no token.")


def remove_token(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, of `birthmark token ls`.")],
) -> None:
    """Take a token back. It counts for nothing from then on."""
    server.remove("people", "tokens", name, what=f"the token {name}")


def list_approvals(server: ListOptions) -> None:
    """List what waits for a second person: what one asked for oneself, or might approve."""
    columns = ("id", "asked_by", "what", "request", "body", "needs", "ends")
    server.show("people", "approvals", columns=columns, nothing="Nothing waits to be approved.")


def approve(server: ServerOutputOptions, name: ApprovalArgument) -> None:
    """Let somebody do what was asked for, once: look at it first, with `birthmark approval ls`."""
    server.do("people", "approvals", name, "approve")


def reject(server: ServerOutputOptions, name: ApprovalArgument) -> None:
    """Do not let it be done; who asked is told when that one tries again."""
    server.do("people", "approvals", name, "reject")


def logout(as_json: JsonOption = False) -> None:
    """Sign out: the token is taken back, and commands go to this machine's own server again."""
    if (login := signed_in()) is None:
        raise NotSignedInError(path=place())
    left = ""
    try:
        RemoteClient.signed_in(login).delete(at("people", "tokens", login.token_id))
    except BirthmarkError as error:  # it is taken back already, or the server is away
        left = f" The token was not taken back there: {error}."
    atomic_files.remove(place())
    say(as_json, {"url": login.url, "user": login.user, "taken_back": not left}, f"Signed out at {login.url}.{left}")


def whoami(server: ServerOutputOptions) -> None:
    """Say which server commands go to, as whom, and what that one may do there."""
    client = server.client
    told: dict[str, Any] = client.get("/people/me")
    row = {"server": client.url if server.is_elsewhere else str(server.directory), **told}
    row["user"] = told["user"] or "whoever holds the data directory"
    if server.as_json:
        emit(True, {**row, "user": told["user"]})
        return
    words = {"token": _words([told["token"]])} if "token" in told else {}
    emit(False, {**row, "roles": _words(told["roles"]), **words})


def _invite(server: ServerOptions, name: str, file: Path, *, as_json: bool) -> None:
    made = server.client.post(at("people", "users", name, "invitation"))
    if made["url"] is None:
        raise NotReachableError
    made["link"] = f"{made['url']}/invitation#{made['code']}"
    try:
        with written_as(file):
            atomic_files.create(file, json.dumps(made, indent=2).encode() + b"\n")
    except FileExistsError as error:  # made by another meanwhile
        raise FileExistsAlreadyError(path=file) from error
    shown = {"user": name, "file": str(file), "url": made["url"], "ends": made["ends"]}
    until = made["ends"][:16].replace("T", " ")
    say(as_json, shown, f"Wrote {file}, a secret that holds until {until} UTC, for one time.")
    if not as_json:
        typer.echo(f"On that person's machine: birthmark login {shlex.quote(file.name)}", err=True)
        typer.echo("Or in a browser: the link in that file, which has that person set a password.", err=True)


def _free(out: Path | None, name: str) -> Path:
    file = out or Path(f"{name.replace(os.sep, '_')}.invitation")
    if file.exists():
        raise FileExistsAlreadyError(path=file)
    return file


def _grant(role: UserRole, where: str) -> dict[str, str]:
    return {"role": role.value, "place": where}


def _words(roles: list[dict[str, str]]) -> str:
    return ", ".join(f"{one['role'] or 'every right'} at {one['place']}" for one in roles) or "none"


def _emit_user(server: ServerOutputOptions, row: dict[str, Any]) -> None:
    emit(server.as_json, row if server.as_json else {**row, "roles": _words(row["roles"])})
