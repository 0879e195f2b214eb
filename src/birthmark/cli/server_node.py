"""`birthmark server node`: cluster nodes."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.option_checks_and_confirmation import confirm
from birthmark.cli.options.server import ListOptions, ServerOptions, ServerOutputOptions, at, show
from birthmark.cli.output.command_output import FileExistsAlreadyError, UsageError, emit, without, working, written_as
from birthmark.cli.server_backup import Database, run_with_cleanup
from birthmark.clock_and_entropy import SystemClock, SystemEntropy

_AT, _COLUMNS = at("server", "machines"), ("name", "host", "workers", "leads", "here")
_ALONE = "This server runs on a single node."


class DatabaseWantedError(UsageError):
    """The cluster's database is not specified."""

    code = "cli.database_wanted"
    cause = "The nodes of a cluster share one PostgreSQL database, which is not specified."
    fix = (
        "Set the environment variable BIRTHMARK_DATABASE, which other users of this machine cannot see: `export "
        "BIRTHMARK_DATABASE=postgresql://birthmark@db.example/birthmark`."
    )


def list_(server: ListOptions) -> None:
    """List the cluster nodes and their live workers.

    Also shows the leader, which administers CAs and root CAs.
    """
    server.show("server", "machines", columns=_COLUMNS, nothing=_ALONE)


def invite(
    server: ServerOptions,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Output file. Share it only with the other machines: it is a secret.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Write an invitation for machines that join this cluster.

    When you run this command for the first time, this server becomes the first node of the cluster.

    The server needs workers, PostgreSQL and a NATS that all machines reach. Anyone with this file and access to the
    database can obtain the CA's keys. Transfer the file over a secure channel, and delete it after the machines have
    joined.
    """
    if out.exists():
        raise FileExistsAlreadyError(path=out)
    invitation = server.client.post(f"{_AT}/invite", {})
    try:
        with written_as(out):
            atomic_files.create(out, json.dumps(invitation, indent=2).encode() + b"\n")
    except FileExistsError as error:  # created in between
        raise FileExistsAlreadyError(path=out) from error
    emit(as_json, {"file": str(out), "installation": invitation["installation"]})


def join(
    invitation: Annotated[Path, typer.Argument(help="Invitation file, as written by `birthmark server node invite`.")],
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ] = Path("~/.local/share/birthmark"),
    database: Database = None,
    as_json: JsonOption = False,
) -> None:
    """Join this machine to a cluster.

    Creates a data directory with the cluster's CA, and the node's own name and token.

    The database is the cluster's. Run the same command again after an interruption. If this machine has joined before,
    its files are not changed.
    """
    from birthmark.server.cluster.cluster_join import MachineOccupiedError
    from birthmark.server.cluster.cluster_join import join as joined

    url = database or os.environ.get("BIRTHMARK_DATABASE", "")
    if not url.startswith(("postgresql://", "postgres://")):
        raise DatabaseWantedError
    directory = data.expanduser()
    working(f"Joining by {invitation}")
    try:
        done = run_with_cleanup(joined(invitation, directory, url, SystemClock(), SystemEntropy()))
    except MachineOccupiedError as error:
        error.add_facts(command=f"{without('--data', takes_value=True)} --data {shlex.quote(f'{directory}.joined')}")
        raise
    emit(as_json, {"name": done.name, "data": str(directory), "files": done.files})
    if not as_json:
        if not done.files:
            typer.echo(f"It joined before, as {done.name}: its files are as they were.", err=True)
        start = shlex.join(["birthmark", "serve", "--data", str(directory), "--workers", "2"])
        typer.echo(
            "Start it with the settings of the other nodes: the database, and the configuration file (--config) "
            "with the bus and the hosts, or BIRTHMARK_BUS and --host. Set this node's address with --listen: "
            f"`{start}`.",
            err=True,
        )


def lead(
    server: ServerOutputOptions,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False,
) -> None:
    """Make this machine the cluster's leader if it was lost.

    The leader administers CAs and root CAs.
    """
    confirm("The CAs of this node become authoritative for all other nodes. Continue?", yes=yes)
    rows = server.client.post(f"{_AT}/lead", {})["items"]
    show(rows, _COLUMNS, as_json=server.as_json, nothing=_ALONE)
