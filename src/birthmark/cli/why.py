"""`birthmark why`: why something was refused."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.common import NOT_FOUND, refusals_shown
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption

app = typer.Typer()


@app.command()
def why(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Tracking id, registration, device or thing id, common name, thumbprint."),
    ] = None,
    data: DataOption = Path(DEFAULT_DATA),
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the latest first.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Explain refusals: what was wrong and what to do. Without an ID, the latest ones.

    Example: birthmark why se050-0001
    """
    from birthmark.cli.journal import noted
    from birthmark.console.client import ServerNotRunningError

    here = noted(subject, limit)
    try:
        told = _ask(data.expanduser(), subject, limit)
    except ServerNotRunningError:
        if not here:
            with refusals_shown(as_json=as_json):
                raise
        told = []
    found = sorted([*told, *here], key=lambda refusal: str(refusal["at"]), reverse=True)[:limit]
    if not found:
        typer.echo(f"Nothing was refused{f' for {subject}' if subject else ''}.", err=True)
        raise typer.Exit(NOT_FOUND if subject else 0)
    for refusal in found:
        if as_json:
            typer.echo(json.dumps(refusal))
            continue
        typer.echo(f"{refusal['at'][:19]}  {refusal['code']}  {refusal['message']}")
        typer.echo(f"  Why: {refusal['cause']}")
        typer.echo(f"  Fix: {refusal['fix']}")
        named = [f"{name} {value}" for name, value in refusal["facts"].items() if name in _SHOWN]
        typer.echo(f"  From {refusal['address'] or 'this machine'}" + (f"; {', '.join(named)}" if named else ""))
        typer.echo(f"  Tracking id {refusal['id']}")


_SHOWN = ("registration_id", "device_id", "thing", "common_name", "thumbprint")


def _ask(data: Path, subject: str | None, limit: int) -> list[dict[str, Any]]:
    """Ask the running server, else read its database."""
    from birthmark.console.client import OperatorClient, ServerNotRunningError

    try:
        answer: list[dict[str, Any]] = OperatorClient.of(data).get("/refusals", subject=subject, limit=limit)
    except ServerNotRunningError:
        if not (data / "birthmark.db").exists():
            raise
        return asyncio.run(_read(data, subject, limit))
    return answer


async def _read(data: Path, subject: str | None, limit: int) -> list[dict[str, Any]]:
    from birthmark.refusals import refusals_about
    from birthmark.store.readonly import ReadOnlySqlite

    database = ReadOnlySqlite.open(data / "birthmark.db")
    try:
        return [refusal.as_json() for refusal in await refusals_about(database, subject, limit)]
    finally:
        database.close()
