"""Commands `birthmark user`, `role`, `token`, `login`: manage operators and their access."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.options.row_filter import PickOptions
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOptions, ServerOutputOptions, at, show
from birthmark.cli.output.command_output import FileExistsAlreadyError, emit, say, written_as
from birthmark.durations import lifetime_of
from birthmark.errors import PolicyError
from birthmark.iam.model import RIGHTS_OF, UserRole

_MAX_OF_DEVICES = 250
_USERS, _TOKENS = at("people", "users"), at("people", "tokens")
_USER_COLUMNS = ("name", "roles", "tokens", "created", "made_by")
_TOKEN_COLUMNS = ("id", "user", "label", "role", "place", "may", "created", "ends")
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="User, as listed by `birthmark user ls`.")]
PlaceOption = Annotated[
    str, typer.Option("--at", help="Scope: '*' (everywhere), server, aws, hub/NAME or dps/NAME.", metavar="SCOPE")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Output file of the invitation, a secret. Default: USER.invitation."),
]


class NotReachableError(PolicyError):
    """The server has no port for other machines."""

    code = "people.no_console_port"
    cause = "The server has no port for remote users: `console` under [ports] is 0, or the port was in use."
    fix = (
        "In the server's configuration, set a free port under [ports], for example: console = 9443. Then restart the "
        "server."
    )
    for_a_person = "edit the configuration file of your installation"


def create(
    server: ServerOptions,
    name: Annotated[str, typer.Argument(metavar="USER", help="User name: letters, digits, - . _")],
    role: Annotated[UserRole, typer.Option(help="Role of the user.")],
    place: PlaceOption = "*",
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a user with a role, and write an invitation.

    The user signs in with the invitation file on another machine.
    """
    file = _free(out, name)
    if server.client.get("/server/endpoints")["console"] is None:
        raise NotReachableError
    server.client.post(_USERS, {"name": name, "role": role.value, "place": place})
    _invite(server, name, file, as_json=as_json)


def invite(server: ServerOptions, name: UserArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Write a new invitation for a user.

    Earlier invitations become invalid. It is valid for two days and can be used once.
    """
    _invite(server, name, _free(out, name), as_json=as_json)


def allow(
    server: ServerOutputOptions,
    name: UserArgument,
    more: Annotated[int, typer.Argument(metavar="COUNT", min=1, help="Number of additional devices.")],
) -> None:
    """Approve more device removals today for another user.

    A second user must approve removals beyond the daily limit.
    """
    told = server.client.post(at("people", "users", name, "allowance"), {"more": more})
    say(server.as_json, told, f"{name} can remove {told['remaining']} more devices until the end of the day.")


def list_users(server: ListOptions) -> None:
    """List the users and their role assignments."""
    rows = (
        {**row, "roles": format_roles(row["roles"])} if not server.as_json else row
        for row in server.client.rows(_USERS)
    )
    server.show_rows(rows, _USER_COLUMNS, "There are no users; only the local administrator has access.")


def show_user(server: ServerOutputOptions, name: UserArgument) -> None:
    """Show a user."""
    found = server.client.get(at("people", "users", name))
    emit(server.as_json, found if server.as_json else {**found, "roles": format_roles(found["roles"])})


def remove_user(server: RemoveOptions, name: UserArgument) -> None:
    """Remove a user and the user's tokens.

    Lists what the user created and viewed.

    The user's signed-in commands stop working.
    """
    server.remove("people", "users", name, subject=f"the user {name}, with all tokens of that one")
    if not server.as_json:
        _list_remaining_objects(server, name)


def _list_remaining_objects(server: ServerOptions, name: str) -> None:
    """List the remaining objects that a user created or was shown; for a single device, only the latest."""
    left: dict[tuple[str, ...], dict[str, Any]] = {}
    typer.echo(f"Searching the audit log for objects that {name} created.", err=True)
    for row in server.client.rows(at("people", "users", name, "left")):
        left.setdefault((row["action"], row["subject"], row["command"]), row)
    wider = [row for row in left.values() if not row["is_of_a_device"]]
    of_devices = [row for row in left.values() if row["is_of_a_device"]]
    if not left:
        return
    typer.echo(f"Remaining objects that {name} created or viewed:")
    shown = [*wider, *of_devices[:_MAX_OF_DEVICES]]
    show(shown, ("at", "action", "subject", "command"), as_json=False, nothing="")
    if len(of_devices) > _MAX_OF_DEVICES:
        typer.echo(f"{len(of_devices) - _MAX_OF_DEVICES} older ones, each of one device, are not listed.")
    typer.echo(f"List them from the audit log: birthmark server audit ls --by user:{name}")


def grant(
    server: ServerOutputOptions,
    name: UserArgument,
    role: Annotated[UserRole, typer.Argument(help="Role.")],
    place: PlaceOption = "*",
) -> None:
    """Assign a role to a user at a scope."""
    _emit_user(server, server.client.post(at("people", "users", name, "roles"), _grant(role, place)))


def revoke(
    server: ServerOutputOptions,
    name: UserArgument,
    role: Annotated[UserRole, typer.Argument(help="Role, as shown by `birthmark user show`.")],
    place: PlaceOption = "*",
) -> None:
    """Revoke a user's role at a scope immediately."""
    _emit_user(server, server.client.post(at("people", "users", name, "roles", "remove"), _grant(role, place)))


def list_roles(pick: PickOptions, as_json: JsonOption = False) -> None:
    """List the roles and their rights."""
    rows = ({"role": role.value, "rights": ", ".join(rights)} for role, rights in RIGHTS_OF.items())
    show(pick.filter_rows(rows), ("role", "rights"), as_json=as_json, nothing="No role matches.")


def create_token(
    server: ServerOutputOptions,
    label: Annotated[str, typer.Argument(help="Purpose of the token, shown in lists.")] = "",
    user: Annotated[str | None, typer.Option(help="User. Default: you.")] = None,
    role: Annotated[UserRole | None, typer.Option(help="Maximum role of the token.")] = None,
    place: Annotated[
        str | None, typer.Option("--at", help="Scope of the token, as for `birthmark role grant`.")
    ] = None,
    lifetime: Annotated[str, typer.Option(help="Lifetime of the token: 12h, 30d; at most 366d.")] = "30d",
) -> None:
    """Create an access token for a program.

    Send it in the Authorization header as Bearer. It is printed only once.
    """
    try:
        is_alive = lifetime_of(lifetime)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lifetime") from error
    if place is not None and role is None:
        raise typer.BadParameter("a scope requires a role; add --role", param_hint="--at")
    body = {"label": label, "user": user, "role": role and role.value, "place": place}
    emit(server.as_json, server.client.post(_TOKENS, {**body, "lifetime_s": int(is_alive.total_seconds())}))


def list_tokens(server: ListOptions) -> None:
    """List your access tokens.

    Administrators see the tokens of all users.
    """
    server.show("people", "tokens", columns=_TOKEN_COLUMNS, nothing="No tokens.")


def remove_token(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(metavar="TOKEN", help="Token ID, as listed by `birthmark token ls`.")],
) -> None:
    """Revoke an access token immediately."""
    server.remove("people", "tokens", name, subject=f"the token {name}")


def _invite(server: ServerOptions, name: str, file: Path, *, as_json: bool) -> None:
    made = server.client.post(at("people", "users", name, "invitation"))
    if made["url"] is None:
        raise NotReachableError
    made["link"] = f"{made['url']}/invitation#{made['code']}"
    try:
        with written_as(file):
            atomic_files.create(file, json.dumps(made, indent=2).encode() + b"\n")
    except FileExistsError as error:  # created in between
        raise FileExistsAlreadyError(path=file) from error
    shown = {"user": name, "file": str(file), "url": made["url"], "ends": made["ends"]}
    until = made["ends"][:16].replace("T", " ")
    say(as_json, shown, f"Wrote {file}, a secret that holds until {until} UTC, for one time.")
    if not as_json:
        typer.echo(f"On the user's machine: birthmark login {shlex.quote(file.name)}", err=True)
        typer.echo("Or in a browser: open the link in that file, and set a password.", err=True)


def _free(out: Path | None, name: str) -> Path:
    file = out or Path(f"{name.replace(os.sep, '_')}.invitation")
    if file.exists():
        raise FileExistsAlreadyError(path=file)
    return file


def _grant(role: UserRole, where: str) -> dict[str, str]:
    return {"role": role.value, "place": where}


def format_roles(roles: list[dict[str, str]]) -> str:
    return ", ".join(f"{one['role'] or 'every right'} at {one['place']}" for one in roles) or "none"


def _emit_user(server: ServerOutputOptions, row: dict[str, Any]) -> None:
    emit(server.as_json, row if server.as_json else {**row, "roles": format_roles(row["roles"])})
