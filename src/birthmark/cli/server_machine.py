"""`birthmark server machine`: several machines that serve as one."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.common import FileExistsAlreadyError, UsageError, emit, without, working, written_as
from birthmark.cli.confirmation import agree
from birthmark.cli.server_backup import Database, whole_or_undone
from birthmark.cli.server_client import ListOptions, ServerOptions, ServerOutputOptions, at, show
from birthmark.clock import SystemClock, SystemEntropy

_AT, _COLUMNS = at("server", "machines"), ("name", "host", "workers", "leads", "here")
_ALONE = "This server is on one machine."


class DatabaseWantedError(UsageError):
    """Which database the other machines have was not said."""

    code = "cli.database_wanted"
    cause = "Machines that serve as one have one database, on PostgreSQL, and nothing here says which."
    fix = (
        "Name it in BIRTHMARK_DATABASE, which other users of this machine do not see: "
        "`export BIRTHMARK_DATABASE=postgresql://birthmark@db.example/birthmark`."
    )


def list_(server: ListOptions) -> None:
    """List the machines that serve as one: how many workers of each are alive, and which makes CAs and roots."""
    server.show("server", "machines", columns=_COLUMNS, nothing=_ALONE)


def invite(
    server: ServerOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, for other machines alone: a secret.")],
    as_json: JsonOption = False,
) -> None:
    """Write the file by which other machines join this server; the first time, this one becomes the first of several.

    The server has to run by workers, on PostgreSQL and a NATS that all machines reach. Who has the file and may read
    the database has the keys of the CA: bring it over a channel that you trust, and remove it when they have joined.
    """
    if out.exists():
        raise FileExistsAlreadyError(path=out)
    invitation = server.client.post(f"{_AT}/invite", {})
    try:
        with written_as(out):
            atomic_files.create(out, json.dumps(invitation, indent=2).encode() + b"\n")
    except FileExistsError as error:  # made by another meanwhile
        raise FileExistsAlreadyError(path=out) from error
    emit(as_json, {"file": str(out), "installation": invitation["installation"]})


def join(
    invitation: Annotated[Path, typer.Argument(help="As `birthmark server machine invite` wrote it.")],
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ] = Path("~/.local/share/birthmark"),
    database: Database = None,
    as_json: JsonOption = False,
) -> None:
    """Make this machine one of those that serve as one: a directory with their CA, a name, and a token of its own.

    The database is the one that the others have. What was interrupted is begun again by the same command; where this
    machine joined before, none of its files changes.
    """
    from birthmark.server.machines.join import MachineOccupiedError
    from birthmark.server.machines.join import join as joined

    url = database or os.environ.get("BIRTHMARK_DATABASE", "")
    if not url.startswith(("postgresql://", "postgres://")):
        raise DatabaseWantedError
    directory = data.expanduser()
    working(f"Joining by {invitation}")
    try:
        done = whole_or_undone(joined(invitation, directory, url, SystemClock(), SystemEntropy()))
    except MachineOccupiedError as error:
        error.add_facts(command=f"{without('--data', takes_value=True)} --data {shlex.quote(f'{directory}.joined')}")
        raise
    emit(as_json, {"name": done.name, "data": str(directory), "files": done.files})
    if not as_json:
        if not done.files:
            typer.echo(f"It joined before, as {done.name}: its files are as they were.", err=True)
        start = shlex.join(["birthmark", "serve", "--data", str(directory), "--workers", "2"])
        typer.echo(
            "Start it with what the others have: the database, and the configuration (--config) that names the "
            f"bus and the hosts, or BIRTHMARK_BUS and --host; --listen says where it is reached: `{start}`.",
            err=True,
        )


def lead(
    server: ServerOutputOptions,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make this machine the one that makes CAs and roots, where the one that did is lost."""
    agree("What this machine has as CA counts for all others from now on. Go on?", yes=yes)
    rows = server.client.post(f"{_AT}/lead", {})["items"]
    show(rows, _COLUMNS, as_json=server.as_json, nothing=_ALONE)
