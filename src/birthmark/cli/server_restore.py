"""`birthmark server restore`: restore a server from its backup into an empty directory."""

import re
import shlex
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import read_file
from birthmark.cli.output.command_output import emit, without, working
from birthmark.cli.server_backup import Database, PassphraseOptions, run_with_cleanup
from birthmark.clock_and_entropy import SystemClock
from birthmark.keys.pin import check_blanks
from birthmark.ownership_and_sudo_commands import starting
from birthmark.untrusted_json_and_text import printable


def restore(
    passphrase: PassphraseOptions,
    file: Annotated[Path, typer.Argument(help="Backup file, as written by `birthmark server backup`.")],
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ],
    database: Database = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=(
                "Audit rows exported after the backup (`server audit export --rows`); their revocations are reapplied."
            ),
        ),
    ] = None,
    keep_tokens: Annotated[
        bool, typer.Option("--keep-tokens", help="Keep single-use tokens that may have been used since the backup.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup to an empty or new directory.

    Prints what was lost.

    The lost server must never run again. CRL and audit numbers continue beyond those that it may have issued. Unused
    single-use tokens are revoked. Use `--replay` to reapply revocations, deletions and disables made after the backup;
    it lists everything it could not reapply.
    """
    from birthmark.server.backup.archive import BackupUnreadableError
    from birthmark.server.backup.audit_export_verification import ReplayRefusedError
    from birthmark.server.backup.database_copy_and_import import DatabaseNotEmptyError
    from birthmark.server.backup.restore import RestoreTargetError, restore_backup

    read_file(file, 0)  # like any missing file
    if replay is not None:
        read_file(replay, 0)
    secret = passphrase.read(is_new=False)
    working(f"Restoring into {data}")
    restoring = restore_backup(
        file, data.expanduser(), secret, SystemClock(), url=database, keep_tokens=keep_tokens, replay=replay
    )
    try:
        done = run_with_cleanup(restoring)
    except BackupUnreadableError as error:
        if error.is_locked and passphrase.passphrase_file is not None:
            check_blanks(secret, passphrase.passphrase_file)
        raise
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
            typer.echo(printable(f"restored to its state in the backup: {what} {name}"))
        start = format_start_command(data.expanduser(), database)
        typer.echo(f"{start} The lost server must never run again.", err=True)


def format_start_command(data: Path, database: str | None) -> str:
    """Return the command that starts the restored server, without the password of its database."""
    from birthmark.server.cluster.node_identity_and_invitation import machine_of

    first = []
    if database is not None and (hidden := _without_password(database)) != database:
        first.append(f"Name its database, with the password: `export BIRTHMARK_DATABASE={shlex.quote(hidden)}`.")
        database = None
    if machine_of(data) is not None:
        first.append("Name the NATS of its machines: `export BIRTHMARK_BUS=nats://nats.example:4222`.")
    start = f"{'Then start' if first else 'Start'} it: `{starting(data, database)}`."
    return " ".join([*first, start])


def _without_password(url: str) -> str:
    """Return the URL with a placeholder for the password, which no terminal or process list may show."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    place = parts.netloc if parts.password is None else f"{user.partition(':')[0]}:PASSWORD@{host}"
    query = re.sub(r"\bpassword=[^&]*", "password=PASSWORD", parts.query)
    return url if (place, query) == (parts.netloc, parts.query) else parts._replace(netloc=place, query=query).geturl()
