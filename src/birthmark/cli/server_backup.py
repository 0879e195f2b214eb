"""Command `birthmark server backup`: write a complete, encrypted backup of a server to one file."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import FileExistsAlreadyError, UsageError, again, emit, without, working
from birthmark.clock_and_entropy import SystemClock
from birthmark.keys.pin import Pin
from birthmark.operator_api.database_location_record import find_recorded_location, plain
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.server.settings import Settings

T = TypeVar("T")
Database = Annotated[
    str | None, typer.Option(envvar="BIRTHMARK_DATABASE", help="Database outside the data directory: postgresql://….")
]


class PassphraseWantedError(UsageError):
    """A backup needs a passphrase."""

    code = "cli.passphrase_wanted"
    cause = (
        "A backup contains every secret of the server and is encrypted. No passphrase is specified, and no terminal "
        "is available for a prompt."
    )
    fix = (
        "Specify a passphrase file with mode 0600, for example: `(umask 077; set -C; openssl rand -base64 32 > "
        "backup.passphrase); export BIRTHMARK_BACKUP_PASSPHRASE_FILE=backup.passphrase`"
    )


@dataclass(frozen=True, slots=True)
class PassphraseOptions:
    """Options for the passphrase of a backup; without an option the command prompts for it."""

    passphrase_file: Annotated[
        Path | None,
        typer.Option(envvar="BIRTHMARK_BACKUP_PASSPHRASE_FILE", help="File of mode 0600 with the backup's passphrase."),
    ] = None
    passphrase_fd: Annotated[int | None, typer.Option(help="Open file descriptor to read the passphrase from.")] = None

    def read(self, *, is_new: bool) -> str:
        """Return the passphrase. Raise `PassphraseWantedError`."""
        if self.passphrase_fd is not None:
            return Pin.from_descriptor(self.passphrase_fd).reveal()
        if self.passphrase_file is not None:
            found = Pin.from_file(self.passphrase_file)
            if is_new:  # an older backup may use it
                found.check_blanks()
            return found.reveal()
        if not sys.stdin.isatty():
            wanted = PassphraseWantedError()
            if not is_new:
                wanted.quote(
                    fix=(
                        f"Use the passphrase file that the backup was created with: `{again()} --passphrase-file FILE`"
                    )
                )
            raise wanted
        return str(typer.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=is_new, err=True))


def backup(
    passphrase: PassphraseOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file.")],
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ] = Path("~/.local/share/birthmark"),
    config: Annotated[Path | None, typer.Option(help="Configuration file to include in the backup.")] = None,
    database: Database = None,
    as_json: JsonOption = False,
) -> None:
    """Back up a server to one encrypted file.

    Contains database, CA, seeds and credentials. The server may run.

    Restore it with `birthmark server restore`, or with tar and age (key.age, then backup.tar.gz.age). CA keys with an
    external passphrase still need that passphrase.
    """
    from birthmark.server.backup.backup_creation import (
        BackupInsideError,
        DatabaseElsewhereError,
        check_is_server,
        make_backup,
    )

    settings = settings_of(config, data, database)
    if out.exists():
        raise FileExistsAlreadyError(path=out)
    check_is_server(settings.directory)  # before the passphrase prompt: it may be another machine
    secret = passphrase.read(is_new=True)
    making = make_backup(
        settings.directory, out, secret, url=settings.database_url, now=SystemClock().now(), config=config
    )
    working(f"Backing up {settings.directory}")
    try:
        made = run_with_cleanup(making)
    except FileExistsError as error:  # created in between
        raise FileExistsAlreadyError(path=out) from error
    except DatabaseElsewhereError as error:
        error.add_facts(again=again())
        raise
    except BackupInsideError as error:
        outside = shlex.quote(str(settings.directory.resolve().parent / out.name))
        error.add_facts(command=f"{without('--out', takes_value=True)} --out {outside}")
        raise
    emit(as_json, {"file": str(out), "files": made.files, "bytes": made.size_bytes})
    for one in named_elsewhere(settings):
        typer.echo(f"Not in it, as the configuration names it elsewhere: {printable(str(one))}", err=True)


def run_with_cleanup(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion; SIGTERM raises an error in it, so that it cleans up."""
    told: list[int] = []

    def end(number: int, _: object) -> None:
        told.append(number)
        raise SystemExit

    before = signal.signal(signal.SIGTERM, end)
    try:
        return asyncio.run(work)
    except BaseException as error:
        if told:  # regardless of how library code handled it
            raise SystemExit(128 + told[0]) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def settings_of(config: Path | None, data: Path, database: str | None) -> "Settings":
    """Return the settings with the server's database. Raise `DatabaseElsewhereError`.

    Without an option, the note in the data directory names the configuration.
    """
    from birthmark.server.backup.backup_creation import DatabaseElsewhereError
    from birthmark.server.settings import read_settings

    settings = read_settings(config, os.environ, data=str(data), database=database)
    directory, known = settings.directory, find_recorded_location(settings.directory)
    if known is None or plain(settings.database_url, directory) == known.database:
        return settings
    if config is None and known.config is not None and Path(known.config).exists():
        settings = read_settings(Path(known.config), os.environ, data=str(data), database=database)
        if plain(settings.database_url, directory) == known.database:
            return settings
    detail = f"The records are in {known.database}, and this names {plain(settings.database_url, directory)}"
    raise DatabaseElsewhereError(data=directory, detail=detail, noted=known.database, again=again())


def named_elsewhere(settings: "Settings") -> list[Path]:
    """Return the files outside of the data directory that the configuration names: keys, certificates, secrets."""
    found: list[Path] = []
    waiting: list[Any] = [msgspec.to_builtins(settings)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str) and "/" in one and "://" not in one:
            path = Path(one.removeprefix("file:")).expanduser()
            if path.is_file() and not path.resolve().is_relative_to(settings.directory.resolve()):
                found.append(path)
    return sorted(found)
