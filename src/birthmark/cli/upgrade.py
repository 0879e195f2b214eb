"""Command `birthmark upgrade --check`: preview how the first start of this version changes a data directory."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import ACTION_NEEDED, again, emit, format_error
from birthmark.cli.output.command_refusal_journal import log_refusal
from birthmark.cli.server_backup import Database, settings_of
from birthmark.errors import BirthmarkError


def upgrade(
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Print the changes that the first start of this version will make, without making them."
        ),
    ] = False,
    backed_up: Annotated[
        bool, typer.Option("--backed-up", help="Confirm a backup that `birthmark server backup` did not make.")
    ] = False,
    data: Annotated[
        Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
    ] = Path("~/.local/share/birthmark"),
    config: Annotated[Path | None, typer.Option(help="The server's configuration file.")] = None,
    database: Database = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether the server's data is ready for an upgrade.

    Checks data version, migrations, disk space, backup and unfinished operations.

    The first start of a new version upgrades the data. This command changes nothing, and the server may run. Exit code
    0: ready to start; 6: action needed first.
    """
    if not check:
        raise typer.BadParameter("the next start of `birthmark serve` upgrades the data; use --check to preview it")
    from birthmark.server.upgrade_check import look

    settings = settings_of(config, data, database)
    outlook, problems = asyncio.run(look(settings.directory, settings.database_url, is_backed_up=backed_up))
    for problem in problems:
        problem.add_facts(again=again())
        log_refusal(problem)
    if as_json:
        emit(as_json, {**msgspec.to_builtins(outlook), "problems": [_view(one) for one in problems]})
    else:
        emit(as_json, _format_preview(outlook))
        for problem in problems:
            typer.echo(format_error(problem), err=True)
    if problems:
        raise typer.Exit(ACTION_NEEDED)


def _view(problem: BirthmarkError) -> dict[str, str]:
    return {"error": problem.code, "cause": problem.explain_cause(), "fix": problem.explain_fix()}


def _format_preview(outlook: Any) -> dict[str, Any]:
    """Return the preview as labeled values for display."""
    wrote = outlook.found_release or "no release that this one knows by its schema"
    backup = outlook.backup
    return {
        "data": outlook.data,
        "program": f"{outlook.program} (schema {outlook.schema})",
        "database": f"of {wrote} (schema {outlook.found_schema or 'unknown'})",
        "size": _size(outlook.database_bytes),
        "migrations": "\n".join(f"{one.revision} {one.what}" for one in outlook.steps) or "none",
        "room": f"{_size(outlook.needed_bytes)} at most, {_size(outlook.free_bytes)} free",
        "backup": "none known; a migration requires one"
        if backup is None
        else f"{backup.at.isoformat()} {backup.file}",
        "server": "running: stop it before the upgrade; a package does so itself" if outlook.is_running else "stopped",
    }


def _size(count: int) -> str:
    return f"{count / 1_000_000:.1f} MB"
