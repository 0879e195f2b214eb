"""Commands `birthmark session` and `birthmark user password`: manage browser sessions and passwords."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.option_checks_and_confirmation import confirm, only
from birthmark.cli.options.server import ListOptions, RemoveOptions, at
from birthmark.cli.output.command_output import ActionNeededError, again, say
from birthmark.keys.pin import Pin
from birthmark.untrusted_json_and_text import printable

_COLUMNS = ("id", "user", "how", "from", "browser", "created", "used", "ends")


def list_sessions(server: ListOptions) -> None:
    """List your browser sessions.

    Administrators see the sessions of all users.
    """
    server.show("people", "sessions", columns=_COLUMNS, nothing="No browser sessions.")


def end_session(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(metavar="SESSION", help="Session ID, as listed by `birthmark session ls`.")],
) -> None:
    """Sign a user out of one browser immediately."""
    server.remove("people", "sessions", name, subject=f"the session {name}")


def set_password(
    server: RemoveOptions,
    name: Annotated[str | None, typer.Argument(metavar="USER", help="User. Default: you.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--password-file", help="File of mode 0600 with the new password. Default: a prompt."),
    ] = None,
    current_file: Annotated[
        Path | None, typer.Option("--current-file", help="File of mode 0600 with your current password.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the password of USER.")] = False,
) -> None:
    """Set a user's password for the browser sign-in.

    Existing sessions end.

    To change your own password, enter the current one.
    """
    if remove:
        only(False, "when setting a password", password_file=file, current_file=current_file)
        if name is None:
            raise typer.BadParameter("specify a user", param_hint="USER")
        confirm(f"Remove the password of {printable(name)}?", yes=server.yes)
        server.client.delete(at("people", "users", name, "password"))
        say(server.as_json, {"removed": name}, f"{name} has no password any more; all sessions of that one have ended.")
        return
    if file is None and not sys.stdin.isatty():
        question = "The password is typed at a terminal, or read from --password-file."
        raise ActionNeededError(question=question, again=f"{again()} --password-file FILE")
    current = Pin.from_file(current_file).reveal() if current_file else ""
    given = Pin.from_file(file) if file else None
    if given is not None:
        given.check_blanks()
    is_own = name is None or name == server.client.get("/people/me")["user"]
    if given is None and is_own and current_file is None:
        current = getpass.getpass("Current password (empty if none): ")
    password = _typed_twice() if given is None else given.reveal()
    body = {"user": name, "password": password, "current": current}
    set_for = server.client.post("/people/password", body)["user"]
    say(server.as_json, {"user": set_for}, f"Set the password of {set_for}; all sessions of that one have ended.")


def _typed_twice() -> str:
    while True:
        first = getpass.getpass("New password: ")
        if first == getpass.getpass("The same again: "):
            return first
        typer.echo("They are not the same.", err=True)
