"""`birthmark server restore`: a server from its backup, in an empty directory."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.backup import Database, PassphraseOptions, whole_or_undone
from birthmark.cli.common import emit, read_file, without, working
from birthmark.cli.options import JsonOption
from birthmark.clock import SystemClock
from birthmark.owners import starting
from birthmark.text import printable


def restore(
    passphrase: PassphraseOptions,
    file: Annotated[Path, typer.Argument(help="As `birthmark server backup` wrote it.")],
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ],
    database: Database = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Audit rows exported later (`server audit export --rows`): take away again by them."
        ),
    ] = None,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Keep tokens for one use that may have been used since.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into a directory that is empty or not there, and say what it left behind.

    The lost server must never run again. Revocation lists and audit rows go on beyond those it may have given out;
    tokens for one use that were unused are taken away; what was revoked, removed or switched off later is so again by
    --replay only, which names what came back all the same.
    """
    from birthmark.server.backup.copying import DatabaseNotEmptyError
    from birthmark.server.backup.exported import ReplayRefusedError
    from birthmark.server.backup.restoring import RestoreTargetError, restore_backup

    read_file(file, 0)  # told as any missing file is
    if replay is not None:
        read_file(replay, 0)
    secret = passphrase.read(is_new=False)
    working(f"Restoring into {data}")
    restoring = restore_backup(
        file, data.expanduser(), secret, SystemClock(), url=database, keep_tokens=keep_tokens, replay=replay
    )
    try:
        done = whole_or_undone(restoring)
    except RestoreTargetError as error:
        error.add_facts(command=f"{without('--data', takes_value=True)} --data {shlex.quote(f'{data}.restored')}")
        raise
    except DatabaseNotEmptyError as error:
        error.add_facts(command=without("--database", takes_value=True))
        raise
    except ReplayRefusedError as error:
        error.add_facts(without=without("--replay", takes_value=True))
        raise
    row: dict[str, object] = {
        "data": str(data),
        "backup_of": done.made_at,
        "tokens_dropped": len(done.tokens_dropped),
        "revoked_again": done.revoked_again,
        "devices_taken_back_again": len(done.devices_again),
        "replayed_until": done.replayed_until,
    }
    if as_json:
        row["came_back"] = [{"what": what, "name": name} for what, name in done.came_back]
    emit(as_json, row)
    if not as_json:
        for what, name in done.came_back:
            typer.echo(printable(f"came back: {what} {name}"))
        typer.echo(f"Start it: `{starting(data.expanduser())}`. The lost server must never run again.", err=True)
