"""`birthmark db`: the database of a server."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import emit, without, working
from birthmark.cli.server_backup import Database, run_with_cleanup, settings_of
from birthmark.cli.server_restore import format_start_command
from birthmark.clock_and_entropy import SystemClock, SystemEntropy


def move(
    into: Annotated[
        str,
        typer.Option(
            envvar="BIRTHMARK_MOVE_TO", help="Target database: postgresql://HOST/NAME (empty), or sqlite:///PATH."
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ] = Path("~/.local/share/birthmark"),
    config: Annotated[Path | None, typer.Option(help="The server's configuration file.")] = None,
    database: Database = None,
    as_json: JsonOption = False,
) -> None:
    """Move a stopped server's data to another database.

    Every row is compared.

    The old database cannot be used by a server afterwards. Run the same command again after an interruption. For a
    password, use BIRTHMARK_MOVE_TO or a PGPASSFILE file; other users of this machine cannot see it. As root, make sure
    the owner of the data directory can read that file.
    """
    from birthmark.server.backup.backup_creation import DatabaseElsewhereError
    from birthmark.server.backup.database_move import (
        MovedOtherwiseError,
        MoveTargetInUseError,
        move_database,
        redact_url,
    )
    from birthmark.server.backup.restore import check_url
    from birthmark.server.database_installation_facts import DatabaseMovedError

    try:
        settings = settings_of(config, data, database)
    except DatabaseElsewhereError as error:
        error.quote(cause=f"{error.detail}.")
        raise
    check_url(into, "--into")
    working(f"Reading {settings.directory}")
    moving = move_database(settings.directory, settings.database_url, into, SystemClock(), SystemEntropy(), working)
    try:
        done = run_with_cleanup(moving)
    except (MoveTargetInUseError, MovedOtherwiseError) as error:
        empty = f"{into.rstrip('/')}-2" if into.startswith("sqlite:") else "postgresql://HOST/NAME"
        error.add_facts(command=f"{without('--into', takes_value=True)} --into {shlex.quote(empty)}")
        raise
    except DatabaseMovedError as error:
        error.add_facts(command=shlex.join(["birthmark", "serve", "--data", str(data.expanduser())]))
        raise
    emit(as_json, {"tables": done.tables, "rows": done.rows})
    if not as_json:
        named_there = f'`database = "{redact_url(into)}"`, with its password if it has one'
        start = format_start_command(data.expanduser(), into)
        typer.echo(f"{start} In a configuration that sets the database, use {named_there}.", err=True)
